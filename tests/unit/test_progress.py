"""How far a run is: the same numbers from logs, folds and one table, at few requests where each object is one."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from jobspec.runs.progress import LOOK_AHEAD, MAX_LOOK_AHEAD, Progress, ProgressReader
from jobspec.runs.results import read_rows
from jobspec.runs.rounds import RoundPlan, commit_round, draft_round
from jobspec.runs.rows import rows_to_table, table_schema, table_to_parquet
from jobspec.runs.tasklog import TaskLog
from jobspec.search.candidates import CandidateSpace
from jobspec.search.planning import Task
from jobspec.stores.folder import FolderStore
from jobspec.stores.layout import Layout
from tests.unit.remote import RemoteStore
from tests.unit.test_rounds import make_row, make_space, plan_fields

SPACE = CandidateSpace(make_space(1.0, 2.0))


class Run:
    """A round of many tasks of two cells each, in a folder that is read as such, and as a store over a network."""

    def __init__(self, folder: Path, num_tasks: int) -> None:
        self.here = FolderStore(folder / "store")
        self.remote = RemoteStore(self.here, folder / "reads")
        self.num_tasks = num_tasks
        self.plan = self._commit({"num_known": 0}, None)

    def _commit(self, fields: dict[str, int], known: bytes | None) -> RoundPlan:
        tasks = [Task(split, ((0, 2),)) for split in range(self.num_tasks)]
        return commit_round(self.here, draft_round(plan_fields("r", 2, self.num_tasks, **fields), tasks, known))

    def log(self, task: int, *states: str, attempt: str = "a", in_flight: tuple[int, ...] = ()) -> None:
        """Add a part with a row for each state to a task's log."""
        log = TaskLog(self.here, "r", 0, task, attempt)
        done = len(log.read().rows)
        left = enumerate(states[: 2 - done], done)
        rows = [make_row(SPACE, candidate, task, candidate + task / 1e3, state) for candidate, state in left]
        log.append(rows, in_flight, start={"host": "h", "log": f"{task}-{attempt}"})

    def finish(self, task: int, *states: str) -> None:
        """Work on a task in two parts, and fold its log."""
        self.log(task, states[0])
        self.log(task, states[1])
        log = TaskLog(self.here, "r", 0, task, "reader").read()
        table = rows_to_table(list(log.rows.values()), table_schema(self.plan.scorers, self.plan.train_score))
        self.here.create(Layout.done("r", 0, task), table_to_parquet(table))

    def fold_round(self) -> None:
        self.here.create(Layout.all("r", 0), table_to_parquet(read_rows(self.here, self.plan).table))

    def reader(self) -> ProgressReader:
        self.remote.requests.clear()
        return ProgressReader(self.remote, self.plan, "score")

    def looks(self) -> Counter[str]:
        """Count the requests of each kind since the reader was made."""
        return Counter(line.split()[0] for line in self.remote.requests)

    def both(self) -> Progress:
        """Return what is read from here and over the network, which must be the same."""
        here = ProgressReader(self.here, self.plan, "score").poll_to_end()
        assert self.reader().poll_to_end() == here
        return here


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let thousands of small objects wait for no disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, 8)


def test_folds_tell_what_logs_tell(run: Run) -> None:
    assert run.both().done == 0
    run.finish(0, "ok", "fit_error")
    run.finish(1, "lost", "ok")
    run.log(2, "ok", in_flight=(1,))
    run.log(6, in_flight=(0, 1))
    progress = run.both()
    assert (progress.ok, progress.failed, progress.lost, progress.in_flight) == (3, 1, 1, 3)
    assert progress.fit_s == 3 * 1.5 + 1.5 and progress.best is not None
    for task in range(8):
        run.finish(task, "ok", "ok")
    whole = run.both()
    assert (whole.done, whole.ok, whole.failed, whole.lost, whole.in_flight) == (16, 14, 1, 1, 0)
    run.fold_round()
    assert run.both() == whole


def test_rows_that_were_known_count_once_wherever_they_are_read(run: Run, tmp_path: Path) -> None:
    known = [make_row(SPACE, 0, 9, 0.5), make_row(SPACE, 1, 9, 0.5, "fit_error")]
    body = table_to_parquet(rows_to_table(known, table_schema(("score",), False)))
    other = Run(tmp_path / "other", 2)
    other.plan = other._commit({"num_known": 2, "round": 1}, body)
    first = ProgressReader(other.here, other.plan, "score").poll()
    assert (first.reused, first.failed, first.ok) == (1, 1, 0)
    assert ProgressReader(other.remote, other.plan, "score").poll() == first
    other.here.create(Layout.all("r", 1), table_to_parquet(read_rows(other.here, other.plan).table))
    assert ProgressReader(other.remote, other.plan, "score").poll() == first


def test_a_damaged_fold_is_passed_over(run: Run) -> None:
    for task in range(8):
        run.finish(task, "ok", "ok")
    whole = run.both()
    for key in (Layout.done("r", 0, 3), Layout.all("r", 0)):
        run.here.put(key, b"PAR1 and not much more")
    assert run.both() == whole


def test_logs_that_were_removed_are_not_missed(run: Run) -> None:
    for task in range(8):
        run.finish(task, "ok", "ok")
    whole = run.both()
    for key in list(run.here.keys(Layout.logs("r", 0))):
        run.here.delete(key)
    for task in range(8):
        (run.here.root / Layout.logs("r", 0) / f"{task:06d}").rmdir()
    assert run.both() == whole


def test_tasks_that_started_far_apart_are_found_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, 400)
    run.finish(399, "ok", "ok")
    run.log(200, "ok")
    assert run.both().done == 3
    assert ProgressReader(run.here, run.plan, "score").poll().done == 0, "a poll looks ahead a little"


def test_one_look_at_a_finished_round_is_a_request_for_each_task(tmp_path: Path) -> None:
    run = Run(tmp_path, 1010)
    for task in range(run.num_tasks):
        run.finish(task, "ok", "ok")
    assert run.reader().poll_to_end().done == 2020
    assert run.looks() == {"GET": 1010 + 2, "LIST": 4}, "the round's table, the plan's shard, two pages of two listings"
    assert run.reader().poll().done == 2020
    assert run.looks() == {"GET": 1010 + 2}, "in order, nothing need be listed"
    run.fold_round()
    for _ in range(2):
        assert run.reader().poll_to_end().done == 2020
        assert run.looks() == {"GET": 1}


def test_tasks_that_have_not_started_cost_nothing_at_the_end_and_little_while_it_runs(tmp_path: Path) -> None:
    run = Run(tmp_path, 2000)
    for task in range(100):
        run.finish(task, "ok", "ok")
    run.log(100, "ok", in_flight=(1,))
    reader = run.reader()
    assert reader.poll_to_end().done == 201
    assert run.looks() == {"GET": 2 + 100 + 2, "LIST": 2}
    run.remote.requests.clear()
    run.log(100, "ok")
    assert reader.poll().done == 202
    assert sum(run.looks().values()) <= 2 + 2 * LOOK_AHEAD
    reader = run.reader()
    assert reader.poll().done == 202
    assert sum(run.looks().values()) <= 2 + 101 + 2 + 2 * MAX_LOOK_AHEAD
    run.remote.requests.clear()
    assert reader.poll().done == 202
    assert run.looks() == {"GET": LOOK_AHEAD}, "a task that was looked at once is asked for its next part alone"


def test_starts_are_read_as_they_are_wanted(tmp_path: Path) -> None:
    run = Run(tmp_path, 100)
    for task in range(100):
        run.finish(task, "ok", "ok")
    run.log(50, attempt="b")
    reader = run.reader()
    reader.poll_to_end()
    assert reader.starts() == []
    run.remote.requests.clear()
    starts = reader.all_starts()
    assert [next(starts)["log"] for _ in range(3)] == ["0-a", "1-a", "2-a"]
    assert run.looks() == {"GET": LOOK_AHEAD * 3}
    last = reader.all_starts(backwards=True)
    assert [next(last)["log"] for _ in range(2)] == ["99-a", "98-a"] and reader.num_started == 100
    logs = [start["log"] for start in starts]
    assert len(logs) == 98 and {"50-a", "50-b"} < set(logs)
    here = ProgressReader(run.here, run.plan, "score")
    here.poll_to_end()
    assert [start["log"] for start in here.all_starts()] == [start["log"] for start in here.starts()]
    assert here.starts() == list(reader.all_starts()) == list(reader.all_starts(backwards=True))[::-1]
