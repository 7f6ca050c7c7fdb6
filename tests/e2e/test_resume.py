"""Whatever ends a run, the next call computes only what is missing, and the table is that of an undisturbed run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gate import Gate, descendants, read_until, wait_until_gone


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path)
    yield gate
    gate.open()


_UNDISTURBED: list[list[dict[str, str]]] = []


def undisturbed(gate: Gate) -> list[dict[str, str]]:
    """Return the table of the same spec in a store of its own; no folder stands in it, so once is enough."""
    if not _UNDISTURBED:
        store, gate.store = gate.store, gate.folder / "undisturbed"
        _UNDISTURBED.append(gate.table(gate.json("run", gate.spec)["run_id"]))
        gate.store = store
    return _UNDISTURBED[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_process(gate: Gate, number: signal.Signals) -> None:
    gate.close()
    with gate.started("run", gate.spec, "--json") as process:
        read_until(process, "2/9 cells")
        children = descendants(process)
        process.send_signal(number)
        out, err = process.communicate()
        assert process.returncode == 130
        wait_until_gone(children)
    assert '"exit": 130' in out
    assert "submit resume gated-" in err
    assert gate.json("status", "latest")["state"] == "interrupted"
    gate.open()
    answer = gate.json("resume", "latest")
    assert (answer["fits"], answer["cells"]["reused"], answer["state"]) == (7, 2, "finished")
    assert gate.table(answer["run_id"]) == undisturbed(gate)


def test_kill_9_twice_in_a_row_loses_nothing(gate: Gate) -> None:
    gate.close()
    for _ in range(2):
        with gate.started("run", gate.spec) as process:
            read_until(process, "2/9 cells")
            children = descendants(process)
            process.kill()
            wait_until_gone(children)
    assert gate.json("status", "latest")["state"] == "interrupted"
    gate.open()
    answer = gate.json("run", gate.spec)
    assert (answer["fits"], answer["cells"]["reused"]) == (7, 2)
    assert gate.table(answer["run_id"]) == undisturbed(gate)


def test_a_killed_helper_is_told_and_the_same_command_goes_on(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as process:
        read_until(process, "2/9 cells")
        children = descendants(process)
        helper = next(child for child in children if child.ppid() == process.pid)
        helper.kill()
        _, err = process.communicate()
        assert process.returncode == 75
        assert "type the same command again" in err
        wait_until_gone(children)
    gate.open()
    assert gate.json("run", gate.spec)["fits"] == 7


def test_resume_needs_neither_the_spec_nor_the_data(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as process:
        read_until(process, "2/9 cells")
        process.send_signal(signal.SIGINT)
        process.communicate()
    gate.open()
    gate.spec.unlink()
    (gate.folder / "table.csv").unlink()
    assert gate.json("resume", "latest")["cells"]["done"] == 9


def test_a_second_interrupt_does_not_wait(gate: Gate) -> None:
    gate.close()
    with gate.started("run", gate.spec) as process:
        read_until(process, "2/9 cells")
        children = descendants(process)
        process.send_signal(signal.SIGINT)
        read_until(process, "Stopping")
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
        wait_until_gone(children)
    gate.open()
    assert gate.json("resume", "latest")["cells"]["done"] == 9
