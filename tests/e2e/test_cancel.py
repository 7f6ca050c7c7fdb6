"""A cancelled run leaves a valid partial table and can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gate import Gate, descendants, read_until, wait_until_gone


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


def test_cancel_stops_the_work_and_keeps_a_partial_table(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec, "--json") as process:
        read_until(process, "2/9 cells")
        children = descendants(process)
        cancelled = gate.json("cancel", "latest")
        out, _ = process.communicate()
        assert process.returncode == 130
        assert "cancelled" in json.loads(out)["error"]["message"]
        wait_until_gone(children)
    assert (cancelled["state"], cancelled["cells"]["done"]) == ("cancelled", 2)
    results = gate.json("results", "latest")
    assert results["complete"] is False
    assert len(results["rows"]) == 3
    assert not results["files"]["model"]
    gate.open()
    answer = gate.json("resume", "latest")
    assert (answer["fits"], answer["cells"]["done"]) == (7, 9)
    assert gate.json("results", "latest")["complete"] is True


def test_cancelling_what_is_finished_changes_nothing(gate: Gate) -> None:
    answer = gate.json("run", gate.spec)
    done = gate.call("cancel", answer["run_id"])
    assert done.returncode == 0
    assert "nothing was cancelled" in done.stderr
    assert gate.json("run", gate.spec)["fits"] == 0


def test_cancelling_what_was_killed_makes_its_table(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as process:
        read_until(process, "2/9 cells")
        children = descendants(process)
        process.kill()
        wait_until_gone(children)
    assert gate.call("results", "latest").returncode == 5
    assert gate.json("cancel", "latest")["state"] == "cancelled"
    assert gate.json("results", "latest")["complete"] is False
