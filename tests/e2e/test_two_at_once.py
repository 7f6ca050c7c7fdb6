"""Two calls of one spec: one works, the other watches, both give the same answer."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gate import Gate, read_until


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


def test_one_works_and_the_other_watches(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec, "--json") as first:
        read_until(first, "2/9 cells")
        with gate.started("run", gate.spec, "--json") as second:
            read_until(second, "watching")
            gate.open()
            answers = [json.loads(process.communicate()[0]) for process in (first, second)]
            assert [process.returncode for process in (first, second)] == [0, 0]
    assert [answer["fits"] for answer in answers] == [9, 0]
    assert answers[0]["best"] == answers[1]["best"]
    assert answers[0]["run_id"] == answers[1]["run_id"]


def test_the_watcher_goes_on_when_the_other_is_killed(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as first:
        read_until(first, "2/9 cells")
        with gate.started("run", gate.spec, "--json") as second:
            read_until(second, "watching")
            first.kill()
            gate.open()
            answer = json.loads(second.communicate()[0])
    assert answer["cells"]["done"] == 9
    assert answer["fits"] == 9 - answer["cells"]["reused"]


def test_ctrl_c_at_the_watcher_leaves_the_worker_alone(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec, "--json") as first:
        read_until(first, "2/9 cells")
        with gate.started("watch", "latest") as second:
            read_until(second, "2/9 cells")
            second.send_signal(signal.SIGINT)
            _, err = second.communicate()
            assert second.returncode == 130
            assert "goes on" in err
        assert gate.json("status", "latest")["state"] == "running"
        gate.open()
        assert json.loads(first.communicate()[0])["fits"] == 9


def test_fresh_waits_for_nobody(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as first:
        read_until(first, "2/9 cells")
        done = gate.call("run", gate.spec, "--fresh")
        assert done.returncode == 75
        assert "submit cancel" in done.stderr
        gate.open()
        first.communicate()
        assert first.returncode == 0


def test_a_detached_run_goes_on_and_can_be_watched(gate: Gate) -> None:
    gate.close()
    done = gate.call("run", gate.spec, "--detach")
    run_id = done.stdout.strip()
    assert done.returncode == 0
    assert gate.json("status", run_id)["state"] == "running"
    assert gate.json("run", gate.spec, "--detach") == {"run_id": run_id, "state": "running", "log": None}
    gate.open()
    watched = gate.call("watch", run_id)
    assert watched.returncode == 0
    assert "9 of 9 done" in watched.stdout
    assert gate.json("run", gate.spec)["fits"] == 0
