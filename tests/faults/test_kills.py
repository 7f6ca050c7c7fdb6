"""kill -9 of any process of a run, at moments drawn from a seed; the final table equals that of an undisturbed run."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SPEC = """
name: kills
data: {builtin: iris}
cv: {kind: StratifiedKFold, n_splits: 5, shuffle: true, random_state: 0}
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {random_state: 0}
  grid:
    n_estimators: [5, 10, 15, 20]
    max_depth: [1, 2, 3, 4]
    max_features: [1, 2]
- estimator: sklearn.svm.SVC
  grid: {C: [0.1, 1, 10, 100]}
scoring: [accuracy, neg_log_loss]
refit: accuracy
"""
NUM_CELLS = 36 * 5
FAILED = 4 * 5
"""An SVC without probabilities cannot be scored by log loss: its cells are failures, which must survive as well."""

Victim = Callable[[psutil.Process], psutil.Process]


class Desk:
    """A spec and a store, and runs of the real command line on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.spec = folder / "kills.yaml"
        self.spec.write_text(SPEC)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "submitter", *arguments, "--store", str(self.store), "--workers", "2"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def finish(self, *arguments: str) -> dict[str, Any]:
        process = self.start(*arguments, "--json")
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 1, output + errors  # some cells fail
        answer: dict[str, Any] = json.loads(output)
        return answer

    def num_rows(self) -> int:
        """Count the rows that are durable in the newest round."""
        rounds = sorted(self.store.glob("runs/*/rounds/*"))
        parts = rounds[-1].glob("log/*/*.json") if rounds else ()
        return sum(len(json.loads(part.read_text())["part"]["rows"]) for part in parts)

    def newest_task(self) -> int:
        """Return the last task of the newest round with a durable row, -1 before there is one."""
        rounds = sorted(self.store.glob("runs/*/rounds/*"))
        parts = rounds[-1].glob("log/*/*.json") if rounds else ()
        return max(
            (int(part.parent.name) for part in parts if json.loads(part.read_text())["part"]["rows"]), default=-1
        )

    def scores(self) -> list[dict[str, str]]:
        (table,) = self.store.glob("runs/*/views/cv_results.csv")
        with table.open(newline="") as file:
            return [{name: value for name, value in row.items() if "_time" not in name} for row in csv.DictReader(file)]


def until(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def runner(cli: psutil.Process) -> psutil.Process:
    return cli


def host(cli: psutil.Process) -> psutil.Process:
    return cli.children()[0]


def work(cli: psutil.Process) -> psutil.Process:
    return host(cli).children()[0]


SEEDS = [0, pytest.param(1, marks=pytest.mark.soak)]


def worker(cli: psutil.Process) -> psutil.Process:
    """Return the newest process that fits: the one that folds the logs of finished tasks has no fold mapped."""
    return [child for child in work(cli).children() if any("/folds-" in m.path for m in child.memory_maps())][-1]


def kill_when(desk: Desk, cli: subprocess.Popen[str], rows: int, victim: Victim) -> None:
    """Kill a process of a run as soon as so many rows of its round are durable."""

    def ready() -> bool:
        try:
            return desk.num_rows() >= rows and victim(psutil.Process(cli.pid)).is_running()
        except (psutil.NoSuchProcess, IndexError, json.JSONDecodeError):
            return cli.poll() is not None

    until(ready)
    if cli.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # it may have ended by itself this very moment
            victim(psutil.Process(cli.pid)).send_signal(signal.SIGKILL)


MOST_OPEN = 7
"""More tasks than two workers can have open: a cell in hand each, one queued behind it, and what has just ended."""


def kill_worker(desk: Desk, cli: subprocess.Popen[str], rows: int, task: int) -> int:
    """Kill a worker as soon as so many rows, and one of this task, are durable.

    Returns:
        a task that is not opened before the cell in the worker's hand was tried again, which goes first. The next kill
        must wait for it: a cell that is in hand at two deaths is lost.
    """
    killed: list[psutil.Process] = []

    def hit() -> bool:
        try:
            if desk.num_rows() >= rows and desk.newest_task() >= task:
                victim = worker(psutil.Process(cli.pid))
                victim.kill()
                killed.append(victim)
        except (psutil.NoSuchProcess, IndexError, json.JSONDecodeError):
            pass
        return bool(killed) or cli.poll() is not None

    until(hit)
    assert killed, "the run ended before"
    until(lambda: not any(victim.is_running() for victim in killed))  # now its parent knows
    return desk.newest_task() + MOST_OPEN


def wait_for_quiet(cli: subprocess.Popen[str]) -> None:
    """Wait until a killed run's processes have ended."""
    cli.communicate(timeout=600)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    desk = Desk(tmp_path_factory.mktemp("undisturbed"))
    os.environ["FOLDFLEET_CACHE"] = str(desk.folder / "cache")
    try:
        answer = desk.finish("run", str(desk.spec))
    finally:
        del os.environ["FOLDFLEET_CACHE"]
    assert answer["cells"] == {"total": NUM_CELLS, "done": NUM_CELLS, "failed": FAILED, "lost": 0, "reused": 0}
    return desk.scores()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path)
    for process in psutil.process_iter(["cmdline"]):
        if str(tmp_path) in " ".join(process.info["cmdline"] or ()):
            process.kill()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("victim", [runner, host, work])
def test_a_killed_run_is_resumed_to_the_same_table(
    desk: Desk, undisturbed: list[dict[str, str]], victim: Victim, seed: int
) -> None:
    chance = random.Random(f"{victim.__name__}{seed}")
    first = desk.start("run", str(desk.spec))
    kill_when(desk, first, chance.randrange(1, NUM_CELLS - 20), victim)
    wait_for_quiet(first)
    kept = sum(
        len(json.loads(part.read_text())["part"]["rows"]) for part in desk.store.glob("runs/*/rounds/*/log/*/*.json")
    )
    second = desk.start("resume", "latest")  # and once more, during recovery
    kill_when(desk, second, chance.randrange(1, 20), victim)
    wait_for_quiet(second)
    answer = desk.finish("resume", "latest")
    assert answer["cells"]["done"] == NUM_CELLS
    assert answer["cells"]["reused"] >= kept
    assert answer["fits"] + answer["cells"]["reused"] == NUM_CELLS
    assert desk.scores() == undisturbed


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_worker_costs_nothing_but_its_fit(desk: Desk, undisturbed: list[dict[str, str]], seed: int) -> None:
    chance = random.Random(seed)
    cli = desk.start("run", str(desk.spec), "--json")
    task = 0
    for rows in sorted(chance.sample(range(1, 100), 3)):
        task = kill_worker(desk, cli, rows, task)
    output, errors = cli.communicate(timeout=600)
    assert cli.returncode == 1, errors
    assert json.loads(output)["cells"]["lost"] == 0
    assert desk.scores() == undisturbed


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(desk: Desk, undisturbed: list[dict[str, str]]) -> None:
    cli = desk.start("run", str(desk.spec))
    until(lambda: desk.num_rows() >= 20)
    cli.send_signal(signal.SIGINT)
    _, errors = cli.communicate(timeout=600)
    assert cli.returncode == 130
    assert "submit resume" in errors
    assert "Traceback" not in errors
    answer = desk.finish("run", str(desk.spec))
    assert answer["cells"]["reused"] >= 20
    assert desk.scores() == undisturbed


def test_a_truncated_done_file_is_not_possible_and_a_missing_one_is_read_from_its_log(
    desk: Desk, undisturbed: list[dict[str, str]]
) -> None:
    desk.finish("run", str(desk.spec))
    for path in [*desk.store.glob("runs/*/rounds/000/done/*"), *desk.store.glob("runs/*/rounds/000/all.parquet")]:
        path.unlink()
    for path in desk.store.glob("runs/*/views/*"):
        if path.is_file():
            path.unlink()
    answer = desk.finish("run", str(desk.spec))
    assert answer["fits"] == 0
    assert desk.scores() == undisturbed
