"""Seeded races of two attempts on one task: one log without holes, one table; see `tests.faults.stage`."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from containers.tasks.board import Board
from jobspec.runs.progress import ProgressReader
from jobspec.runs.results import read_log, read_log_table, read_rows, schema_of
from jobspec.runs.rounds import RoundPlan, load_tasks
from jobspec.runs.rows import make_lost_row, row_to_json, rows_to_table, table_to_parquet
from jobspec.runs.tasklog import LogState, TaskLog, decode_part, encode_part
from jobspec.search.planning import Task
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from tests.faults.stage import NUM_CANDIDATES, Stage, Stepped, commit, interleaved, make_row, told

FLUSH_SECONDS = 5.0


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """Hold the stage that plays."""
    return interleaved(monkeypatch)


@dataclass
class Race:
    """Attempts of the only task of a round."""

    store: Store
    plan: RoundPlan
    stage: Stage
    folds: list[bytes] = field(default_factory=list)

    def attempt(self, token: str, shift: float = 0.0) -> None:
        """Work on the task as a session of two workers does; another machine's scores may be shifted."""
        store, plan, chance = cast(Store, Stepped(self.store, self.stage)), self.plan, self.stage.chance
        if store.exists(Layout.done(plan.run_id, 0, 0)):
            return
        (task,) = load_tasks(store, plan)
        board = Board(0, task, TaskLog(store, plan.run_id, 0, 0, token), {"host": token})
        now = 0.0
        board.open(now)
        for family in board.doomed:
            board.land(family, [make_lost_row(c, 0, f"k{c}", "thrice", token, token, "kernel") for c in family])
        board.doomed.clear()
        while not board.finished:
            now += chance.uniform(0, FLUSH_SECONDS)
            hand_out(board, now)
            if board.due(now, FLUSH_SECONDS):
                board.flush(now)
            if chance.random() < 0.02:
                board.flush(now, end="stopped")
                return
            family = chance.choice(board.flying)
            board.land(family, [make_row(c, 0, c / 10 + shift, token) for c in family])
        if board.due(now, FLUSH_SECONDS):
            board.flush(now)
        self.folds.append(table_to_parquet(read_log_table(store, plan, 0)))
        store.create(Layout.done(plan.run_id, 0, 0), self.folds[-1])

    def shout(self) -> None:
        """Write rows without asking whether they are there, as a foldfleet that breaks rule 1 would."""
        store, chance = Stepped(self.store, self.stage), self.stage.chance
        for number in range(3):
            candidates = chance.sample(range(NUM_CANDIDATES), 2)
            rows = [row_to_json(make_row(c, 0, c / 10 + chance.choice([0, 5, 6]), "loud")) for c in candidates]
            part = {"format_version": 1, "attempt": "loud", "rows": rows, "in_flight": [], "number": number}
            while not store.create(self._next_part(), encode_part(part)):
                pass

    def _next_part(self) -> str:
        log = TaskLog(cast(Store, Stepped(self.store, self.stage)), self.plan.run_id, 0, 0, "loud")
        return Layout.part(self.plan.run_id, 0, 0, log.read().num_parts)

    def parts(self) -> list[Mapping[str, Any]]:
        """Return the log as it lies there, which must be without holes."""
        keys = list(self.store.keys(Layout.logs(self.plan.run_id, 0)))
        assert keys == [Layout.part(self.plan.run_id, 0, 0, number) for number in range(len(keys))], "a hole"
        return [decode_part(self.store.get(key), key) for key in keys]


def hand_out(board: Board, now: float) -> None:
    while len(board.flying) < 2 and (family := board.take()) is not None:
        board.start(family, now)
    if not board.flying and (family := board.take_suspect()) is not None:
        board.start(family, now)


def race(store: Store, seed: int, stages: list[Stage]) -> Race:
    """Let two attempts race and check what they leave; a third one may have to finish."""
    chance = random.Random(seed)
    stage = Stage(chance)
    task = Task(0, ((0, 4),), ((4, 5), (6,)))
    raced = Race(store, commit(store, f"race-{seed}", [task], 1), stage)
    is_loud, shift = chance.random() < 0.3, chance.choice([0.0, 0.0, 1.0])
    acts = [lambda: raced.attempt("one"), lambda: raced.attempt("two", shift), *([raced.shout] if is_loud else [])]
    deaths = {number: chance.randrange(1, 60) for number in range(2) if chance.random() < 0.4}
    stages[:] = [stage]
    stage.play(acts, deaths)
    stages.clear()
    raced.attempt("rescuer")
    while not store.exists(Layout.done(raced.plan.run_id, 0, 0)):  # it was stopped
        raced.attempt(f"rescuer {uuid.uuid4()}")
    check(raced, is_loud=is_loud, values={0.0, shift} | ({5.0, 6.0} if is_loud else set()))
    return raced


def check(raced: Race, *, is_loud: bool, values: set[float]) -> None:
    store, plan = raced.store, raced.plan
    written = [row for part in raced.parts() for row in part["rows"]]
    first: dict[int, Any] = {}
    for row in written:
        first.setdefault(row["candidate"], row)
    differing = Counter(
        row["candidate"] for row in written if row["score_digest"] != first[row["candidate"]]["score_digest"]
    )
    scores = {candidate: row["scores"].get("test_score") for candidate, row in first.items()}
    assert scores.keys() == set(range(NUM_CANDIDATES))
    assert all(s is None or any(s == c / 10 + shift for shift in values) for c, s in scores.items())
    if not is_loud:
        assert len(written) == len(first), "a cell was written twice"
        assert not differing
        assert len(set(raced.folds)) == 1, "two folds of one log"
    state = read_log(store, plan, 0)
    assert {c: row["scores"].get("test_score") for c, row in state.rows.items()} == scores
    assert {c: row["attempt"] for c, row in state.rows.items()} == {c: row["attempt"] for c, row in first.items()}
    assert state.divergent == differing
    check_readers(raced, state, state_counts=Counter(row["state"] for row in first.values()), scores=scores)


def check_readers(
    raced: Race, state: LogState, state_counts: Counter[str], scores: dict[int, float | None]
) -> None:
    """Compare those who read a whole round with the log, with and without its fold."""
    store, plan = raced.store, raced.plan
    progress = ProgressReader(store, plan, "score").poll()
    assert (progress.ok, progress.lost, progress.done) == (state_counts["ok"], state_counts["lost"], NUM_CANDIDATES)
    finished = {candidate: score for candidate, score in scores.items() if score is not None}
    best = max(finished, key=lambda candidate: (finished[candidate], -candidate))
    assert progress.best is not None and progress.best.candidate == best
    folded = read_rows(store, plan)
    assert folded.open_tasks == ()
    from_log = rows_to_table(list(state.rows.values()), schema_of(plan), state.divergent)
    for table in (folded.table, from_log):
        columns = (table[name].to_pylist() for name in ("candidate", "state", "test_score"))
        found = {c: score if state == "ok" else None for c, state, score in zip(*columns, strict=True)}
        assert found == scores
    assert folded.table.drop_columns("divergent").equals(from_log.drop_columns("divergent"))


@pytest.mark.parametrize("hundred", range(10))
def test_racing_attempts_in_a_folder_leave_one_log_and_one_table(
    tmp_path: Path, stages: list[Stage], hundred: int
) -> None:
    num_killed = num_parts = 0
    store = open_store(str(tmp_path / "store"))
    for seed in range(100 * hundred, 100 * hundred + 100):
        with told(seed):
            raced = race(store, seed, stages)
        num_killed += len(raced.stage.killed)
        num_parts += len(raced.parts())
    assert num_killed >= 20 and num_parts >= 400, "the races were no races"


@pytest.mark.parametrize("ten", range(5))
def test_racing_attempts_in_s3_leave_one_log_and_one_table(s3_url: str, stages: list[Stage], ten: int) -> None:
    store = open_store(s3_url)
    killed = 0
    for seed in range(10 * ten, 10 * ten + 10):
        with told(seed):
            killed += len(race(store, seed, stages).stage.killed)
    assert killed >= 2, "nobody died"
