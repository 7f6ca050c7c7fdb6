"""A session with real worker processes that pretend to fit; deaths come from a table and are counted in files."""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from containers.tasks.board import Board
from containers.tasks.pool import Pool
from containers.tasks.session import Rules, Session, describe_death
from containers.tasks.signals import Wakeup
from jobspec.errors import DataError, FoldfleetError, TryLaterError
from jobspec.grammar.spec import Limits
from jobspec.runs.rows import Row, make_lost_row
from jobspec.runs.tasklog import LogState, TaskLog, decode_part
from jobspec.search.planning import Task
from jobspec.stores.base import Store, open_store
from jobspec.stores.folder import FolderStore
from jobspec.stores.layout import Layout

Act = Callable[[Path, int, tuple[int, ...]], None]


def make_row(candidate: int, split: int) -> Row:
    row = make_lost_row(candidate, split, "k", "", "a", "h", "k")
    return row | {"state": "ok", "error": None, "scores": {"test_score": 1.0}}


def give_up(split: int, family: tuple[int, ...], reason: str) -> list[Row]:
    return [make_lost_row(c, split, "k", reason, "a", "h", "k") for c in family]


@dataclass
class Serve:
    """What a worker does: act out the table's entry for this try, then answer one row for each candidate."""

    folder: Path
    table: dict[int, list[str]] = field(default_factory=dict)

    def __call__(self, message: tuple[int, tuple[int, ...]]) -> Iterator[tuple[str, Any]]:
        split, family = message
        yield "started", None
        act = self._act(family)
        rows = [make_row(candidate, split) for candidate in family]
        yield "rows", give_up(split, family, "MemoryError") if act == "memory" else rows
        if act == "late":
            os.kill(os.getpid(), signal.SIGKILL)

    def _act(self, family: tuple[int, ...]) -> str:
        number = next(n for n in itertools.count() if _claim(self.folder / f"{family[0]}-{n}"))
        acts = self.table.get(family[0], [])
        act = acts[number] if number < len(acts) else "ok"
        if act == "look":
            (self.folder / "seen").write_text(" ".join(sorted(path.name for path in self.folder.iterdir())))
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif act == "segv":
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        elif act == "exit":
            os._exit(3)
        elif act == "hang":
            signal.pause()
        elif act == "slow":
            while not (self.folder / "1-0").exists():
                signal.sigtimedwait([], 0.01)
        elif act == "refuse":
            raise DataError("the fold is damaged")
        elif act == "bug":
            raise RuntimeError("oops")
        return act


def _claim(path: Path) -> bool:
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


class FakeCloser:
    def __init__(self) -> None:
        self.closed: list[int] = []

    busy = False

    def close(self, task: int) -> None:
        self.closed.append(task)

    def handles(self) -> list[int]:
        return []

    def poll(self) -> None:
        pass

    def end(self) -> None:
        pass


@dataclass
class Desk:
    """A session over tasks of a store in a temporary folder."""

    store: Store
    folder: Path
    tasks: list[Task]
    limits: Limits = field(default_factory=Limits)
    workers: int = 2
    patience_seconds: float = 0.0
    stop_asked: Callable[[], bool] = lambda: False
    reclaim: Callable[[], float | None] = lambda: None
    now: Callable[[], float] = time.monotonic
    was_reclaimed: bool = False
    closer: FakeCloser = field(default_factory=FakeCloser)

    def run(self, attempt: str = "a", **table: list[str]) -> bool:
        serve = Serve(self.folder, {int(name[1:]): acts for name, acts in table.items()})
        boards = [
            Board(n, task, TaskLog(self.store, "r", 0, n, attempt), {"host": "h"}) for n, task in enumerate(self.tasks)
        ]
        rules = Rules(self.workers, 0.05, self.limits, patience_seconds=self.patience_seconds)
        with Wakeup(signal.SIGUSR1) as wakeup:
            session = Session(
                iter(boards),
                Pool(serve),
                rules,
                self.closer,  # type: ignore[arg-type]
                give_up,
                self.stop_asked,
                self.now,
                self.reclaim,
            )
            finished = session.run(wakeup.descriptor, lambda: bool(wakeup.caught()))
            self.was_reclaimed = session.was_reclaimed
            return finished

    def state(self, task: int = 0) -> LogState:
        return TaskLog(self.store, "r", 0, task, "reader").read()

    def tries(self, candidate: int) -> int:
        return len(list(self.folder.glob(f"{candidate}-*")))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "tries").mkdir()
    return Desk(
        open_store(str(tmp_path / "store")),
        tmp_path / "tries",
        [Task(0, ((0, 6),)), Task(1, ((0, 3),), ((3, 5),))],
    )


def test_every_cell_gets_its_row_and_every_task_is_closed_once(desk: Desk) -> None:
    assert desk.run()
    assert desk.state(0).rows.keys() == set(range(6)) and desk.state(1).rows.keys() == {0, 1, 2, 3, 5}
    assert sorted(desk.closer.closed) == [0, 1]


def test_a_second_session_finds_nothing_to_do(desk: Desk) -> None:
    assert desk.run() and desk.run(attempt="b")
    assert desk.tries(0) == 2 and desk.tries(4) == 1, "candidate 0 has a cell on both splits"


@pytest.mark.parametrize("how", ["kill", "segv", "exit", "memory"])
def test_a_dead_worker_costs_its_cell_one_more_try(desk: Desk, how: str) -> None:
    assert desk.run(c4=[how])
    assert desk.state(0).rows[4]["state"] == "ok" and desk.tries(4) == 2


def test_a_cell_that_kills_its_worker_twice_is_lost_with_the_reason(desk: Desk) -> None:
    assert desk.run(c4=["kill", "kill", "kill"])
    row = desk.state(0).rows[4]
    assert row["state"] == "lost" and "SIGKILL" in str(row["error"]) and desk.tries(4) == 2
    assert {r["state"] for c, r in desk.state(0).rows.items() if c != 4} == {"ok"}


def test_a_worker_that_dies_after_its_answer_costs_nothing(desk: Desk) -> None:
    assert desk.run(c1=["late"], c3=["late", "late"], c5=["late"])
    assert {row["state"] for row in desk.state(0).rows.values()} == {"ok"}
    assert desk.state(0).rows.keys() == set(range(6))


def test_a_second_try_comes_before_the_next_fold(desk: Desk) -> None:
    desk.workers = 1
    assert desk.run(c4=["kill", "look"])
    seen = (desk.folder / "seen").read_text().split()
    assert "4-1" in seen
    assert "0-1" not in seen, "candidate 0 of the other fold had to wait"


def test_what_was_queued_behind_a_killed_family_is_not_blamed(desk: Desk) -> None:
    desk.workers = 1
    desk.tasks = [Task(0, ((0, 4),)), Task(0, ((4, 6),)), Task(1, ((0, 6),))]
    assert desk.run(c0=["kill"], c2=["kill", "kill"], c5=["late"])
    assert [desk.state(0).rows[c]["state"] for c in range(4)] == ["ok", "ok", "lost", "ok"]
    assert {row["state"] for task in (1, 2) for row in desk.state(task).rows.values()} == {"ok"}
    assert [desk.tries(c) for c in (1, 3, 4)] == [2, 2, 2], "each once a split"


def test_an_unexpected_error_keeps_what_is_finished(desk: Desk) -> None:
    desk.workers = 1
    with pytest.raises(RuntimeError, match="oops"):
        desk.run(c4=["bug"])
    assert desk.state(0).rows.keys() == {0, 1, 2, 3}


def test_a_cell_over_its_time_is_lost_and_the_rest_goes_on(desk: Desk) -> None:
    looks = itertools.count()
    desk.limits, desk.workers = Limits(cell_seconds=60), 1
    # The clock moves once, while cell 4 is in hand: well after the session has heard that it began.
    desk.now = lambda: 100.0 if desk.tries(4) and next(looks) >= 20 else 1.0
    assert desk.run(c4=["hang"])
    assert "limits.cell_seconds" in str(desk.state(0).rows[4]["error"])
    assert {r["state"] for c, r in desk.state(0).rows.items() if c != 4} == {"ok"}


def test_a_task_over_its_time_loses_what_is_left_of_it(desk: Desk) -> None:
    desk.limits, desk.workers = Limits(task_seconds=60), 1
    desk.now = lambda: 100.0 if desk.tries(4) else 1.0  # the clock moves once, when cell 4 has begun
    assert desk.run(c4=["hang"])
    states = {c: row["state"] for c, row in desk.state(0).rows.items()}
    assert states == {0: "ok", 1: "ok", 2: "ok", 3: "ok", 4: "lost", 5: "lost"}
    assert desk.state(1).rows.keys() == {0, 1, 2, 3, 5}


def test_a_refusal_ends_the_session_with_what_is_finished_kept(desk: Desk) -> None:
    desk.workers = 1
    with pytest.raises(DataError, match="damaged"):
        desk.run(c3=["refuse"])
    assert desk.state(0).rows.keys() == {0, 1, 2}
    assert desk.run(attempt="b") and desk.state(0).rows.keys() == set(range(6))


def test_a_bug_in_a_worker_is_told_with_its_traceback(desk: Desk) -> None:
    with pytest.raises(RuntimeError, match="oops"):
        desk.run(c0=["bug"])


def test_a_stop_keeps_finished_cells_and_says_that_it_was_gentle(desk: Desk) -> None:
    desk.workers = 1
    desk.stop_asked = lambda: desk.tries(2) > 0
    assert not desk.run(c2=["hang"])
    state = desk.state(0)
    assert state.rows.keys() == {0, 1} and state.deaths(2) == 0
    desk.stop_asked = lambda: False
    assert desk.run(attempt="b") and desk.state(0).rows.keys() == set(range(6))


def test_a_host_that_goes_gets_no_more_families_and_those_in_hand_are_kept(desk: Desk) -> None:
    desk.workers = 2
    desk.tasks = [Task(0, ((0, 6),))]
    desk.reclaim = lambda: time.monotonic() + 60 if desk.tries(1) else None
    assert not desk.run(c0=["slow"]) and desk.was_reclaimed
    state = desk.state(0)
    assert state.rows.keys() >= {0, 1} and len(state.rows) < 6 and desk.tries(5) == 0
    assert ends(desk) == {"a": "reclaimed"}
    desk.reclaim = lambda: None
    assert desk.run(attempt="b") and desk.state(0).rows.keys() == set(range(6))


def test_a_host_that_goes_waits_for_nobody_beyond_its_time(desk: Desk) -> None:
    desk.workers = 2
    desk.reclaim = lambda: time.monotonic() - 1 if desk.tries(2) and desk.tries(1) else None
    assert not desk.run(c2=["hang"]) and desk.was_reclaimed
    state = desk.state(0)
    assert 2 not in state.rows and state.deaths(2) == 0, "it is no death"
    for attempt in "bcd":  # however often hosts go, nobody is blamed
        assert not desk.run(attempt, c2=["hang"] * 9)
    desk.reclaim = lambda: None
    assert desk.run("e") and desk.state(0).rows[2]["state"] == "ok"


def test_a_signal_after_the_notice_still_says_that_the_host_goes(desk: Desk) -> None:
    desk.workers = 1
    sent: list[bool] = []

    def reclaim() -> float | None:
        if desk.tries(2) and not sent:
            sent.append(True)
            os.kill(os.getpid(), signal.SIGUSR1)
        return time.monotonic() + 60 if sent else None

    desk.reclaim = reclaim
    assert not desk.run(c2=["hang"]) and desk.was_reclaimed and ends(desk) == {"a": "reclaimed"}


def test_a_notice_after_the_last_cell_changes_nothing(desk: Desk) -> None:
    desk.workers = 1
    desk.tasks = [Task(0, ((0, 2),))]
    desk.reclaim = lambda: time.monotonic() + 60 if desk.tries(1) else None
    assert desk.run()
    assert desk.closer.closed == [0]


def ends(desk: Desk, task: int = 0) -> dict[str, str]:
    """Return how each attempt ended that ended gently."""
    found = {}
    for key in desk.store.keys(Layout.logs("r", 0)):
        part = decode_part(desk.store.get(key), key)
        if part["end"] is not None and f"/{task:06d}/" in key:
            found[part["attempt"]] = part["end"]
    return found


def test_cells_in_flight_at_deaths_of_the_whole_attempt_run_alone_then_are_lost(desk: Desk) -> None:
    for attempt, flying in (("x", [1, 2]), ("y", [1, 2]), ("z", [2])):
        log = TaskLog(desk.store, "r", 0, 0, attempt)
        log.read()
        log.append(in_flight=flying, start={})
    assert desk.run()
    rows = desk.state(0).rows
    assert rows[1]["state"] == "ok" and rows[2]["state"] == "lost" and desk.tries(2) == 1  # split 1 only


def test_a_signal_ends_a_wait_at_once(desk: Desk) -> None:
    desk.workers = 1
    asked: list[bool] = []

    def ask_by_signal() -> bool:
        if desk.tries(2) and not asked:
            asked.append(True)
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    desk.stop_asked = ask_by_signal
    assert not desk.run(c2=["hang"])
    assert desk.state(0).rows.keys() == {0, 1}


def test_the_ways_to_die_are_told_apart() -> None:
    assert "out of memory" in describe_death(-9)
    assert "signal 11" in describe_death(-11)
    assert "signal 40" in describe_death(-40)
    assert "exit code 3" in describe_death(3)
    assert issubclass(DataError, FoldfleetError)


class RefusingStore(FolderStore):
    """Refuses its first parts, as S3 does in a storm."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.left = times

    def create(self, key: str, body: bytes) -> bool:
        self.left -= 1
        if self.left >= 0:
            raise TryLaterError("SlowDown")
        return super().create(key, body)


def test_rows_wait_while_the_store_refuses_and_workers_go_on(desk: Desk, tmp_path: Path) -> None:
    desk.store, desk.patience_seconds = RefusingStore(tmp_path / "store", 5), 60
    assert desk.run()
    assert desk.state(0).rows.keys() == set(range(6)) and desk.state(1).rows.keys() == {0, 1, 2, 3, 5}
    assert sorted(desk.closer.closed) == [0, 1] and desk.tries(3) == 2


def test_a_store_that_goes_on_refusing_ends_the_session(desk: Desk, tmp_path: Path) -> None:
    desk.store = RefusingStore(tmp_path / "store", 10**6)
    with pytest.raises(TryLaterError, match="SlowDown"):
        desk.run()
    assert desk.closer.closed == []


def test_a_request_to_stop_that_cannot_be_seen_costs_nothing(desk: Desk) -> None:
    def unanswered() -> bool:
        raise TryLaterError("SlowDown")

    desk.stop_asked = unanswered
    assert desk.run()
    assert sorted(desk.closer.closed) == [0, 1]
