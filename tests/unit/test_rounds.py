from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobspec.engine import current_engine
from jobspec.errors import DataError, NotFoundError
from jobspec.grammar.values import EstimatorNode
from jobspec.runs.progress import ProgressReader
from jobspec.runs.results import final_rows, known_candidates, read_rows, reusable_rows
from jobspec.runs.rounds import (
    SHARD_TASKS,
    RoundPlan,
    commit_round,
    draft_round,
    keep_space,
    keep_spec,
    latest_round,
    load_tasks,
    register,
    require_round,
    runs_of_book,
)
from jobspec.runs.rows import Row, make_lost_row, rows_to_table, table_schema, table_to_parquet
from jobspec.runs.tasklog import TaskLog
from jobspec.search.candidates import CandidateSpace, FrozenEntry, FrozenSpace
from jobspec.search.identity import make_cell_key
from jobspec.search.planning import Task, plan_tasks
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from tests.unit import plans

BOOK = "b-1"


def make_space(*alphas: float) -> FrozenSpace:
    ridge = EstimatorNode("sklearn.linear_model.Ridge", {})
    return FrozenSpace((FrozenEntry(name=None, definition=ridge, spaces=((("alpha", alphas),),)),))


def plan_fields(run_id: str, num_candidates: int, num_splits: int = 2, **changed: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"run_id": run_id, "round": 0, "engine": current_engine("native"), "workers": 1}
    return plans.plan_fields(**own | {"num_candidates": num_candidates, "num_splits": num_splits} | changed)


def start_run(store: Store, run_id: str, *alphas: float, **changed: Any) -> RoundPlan:
    register(store, BOOK, run_id)
    keep_spec(store, run_id, b"name: x")
    keep_space(store, run_id, make_space(*alphas))
    tasks = plan_tasks(len(alphas), 2, 1)
    return commit_round(store, draft_round(plan_fields(run_id, len(alphas), **changed), tasks, None))


def make_row(space: CandidateSpace, candidate: int, split: int, score: float, state: str = "ok") -> Row:
    row = make_lost_row(candidate, split, make_cell_key(space, candidate, None), "why", "a", "h", "k")
    measured = {"fit_s": 1.0, "score_s": 0.5, "cpu_s": 1.5, "score_digest": repr(score), "error": None}
    return row if state == "lost" else row | measured | {"state": state, "scores": {"test_score": score}}  # type: ignore[return-value]


def work_all(store: Store, plan: RoundPlan, space: CandidateSpace, lost: tuple[int, int] | None = None) -> None:
    for number, task in enumerate(load_tasks(store, plan)):
        log = TaskLog(store, plan.run_id, plan.round, number, "a")
        cells = [(c, task.split) for family in task.families() for c in family]
        rows = [make_row(space, c, s, c + s / 10, "lost" if (c, s) == lost else "ok") for c, s in cells]
        log.append(rows, start={"host": "h", "log": None})
        table = rows_to_table(list(log.state.rows.values()), table_schema(plan.scorers, plan.train_score))
        store.create(Layout.done(plan.run_id, plan.round, number), table_to_parquet(table))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_the_first_plan_of_a_round_wins_and_the_second_adopts_it(store: Store) -> None:
    one = draft_round(plan_fields("r-1", 3), plan_tasks(3, 2, 1), None)
    two = draft_round(plan_fields("r-1", 3), plan_tasks(3, 2, 2), None)
    assert commit_round(store, one) == one.plan
    assert commit_round(store, two) == one.plan
    assert latest_round(store, "r-1") == one.plan


def test_a_plan_is_small_and_its_tasks_lie_in_shards(store: Store) -> None:
    tasks = [Task(0, ((n, n + 1),)) for n in range(2 * SHARD_TASKS + 5)]
    plan = commit_round(store, draft_round(plan_fields("r-1", len(tasks), 1), tasks, None))
    assert len(store.get(Layout.plan("r-1", 0))) < 5_000
    assert [shard.num_tasks for shard in plan.shards] == [SHARD_TASKS, SHARD_TASKS, 5]
    assert load_tasks(store, plan) == tasks
    assert load_tasks(store, plan, SHARD_TASKS - 1, 2) == tasks[SHARD_TASKS - 1 : SHARD_TASKS + 1]
    assert sum(size for _, size in plan.arrays) == len(tasks)


def test_a_damaged_plan_is_never_used(store: Store, tmp_path: Path) -> None:
    plan = commit_round(store, draft_round(plan_fields("r-1", 3), plan_tasks(3, 2, 1), None))
    path = tmp_path / Layout.draft("r-1", 0, plan.token, plan.shards[0].name)
    path.write_bytes(path.read_bytes().replace(b"[0, [[0,", b"[0, [[1,", 1))
    with pytest.raises(DataError, match="was damaged"):
        load_tasks(store, plan)


def test_a_run_without_a_plan_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="submit list"):
        require_round(store, "none-123")


def test_a_book_holds_each_run_once(store: Store) -> None:
    for run_id in ("a", "b", "a"):
        register(store, BOOK, run_id)
    assert runs_of_book(store, BOOK) == ["a", "b"]


def test_the_first_frozen_space_of_a_run_stays_its_own(store: Store) -> None:
    keep_space(store, "r", make_space(1.0))
    assert keep_space(store, "r", make_space(1.0000000000000002)) == make_space(1.0)


def test_rows_come_from_folds_and_where_there_is_none_from_logs(store: Store, tmp_path: Path) -> None:
    plan, space = start_run(store, "r", 1.0, 2.0, 3.0), CandidateSpace(make_space(1.0, 2.0, 3.0))
    work_all(store, plan, space)
    whole = read_rows(store, plan).table
    (tmp_path / Layout.done("r", 0, 1)).unlink()
    rows = read_rows(store, plan)
    assert rows.table.equals(whole)
    assert rows.open_tasks == (1,)


def test_a_widened_grid_finds_the_cells_of_the_other_run(store: Store) -> None:
    plan, space = start_run(store, "narrow", 1.0, 2.0), CandidateSpace(make_space(1.0, 2.0))
    work_all(store, plan, space, lost=(1, 0))
    register(store, BOOK, "wide")
    wide = CandidateSpace(make_space(0.5, 1.0, 2.0, 2.0))
    table = reusable_rows(store, "wide", BOOK, wide, ())
    assert known_candidates(table) == {0: [1], 1: [1, 2, 3]}, "a lost cell is not known, a repeated one is known twice"
    assert table is not None
    by_cell = {(row["candidate"], row["split"]): row["test_score"] for row in table.to_pylist()}
    assert by_cell == {(1, 0): 0.0, (1, 1): 0.1, (2, 1): 1.1, (3, 1): 1.1}


def test_unseeded_candidates_are_never_taken_from_another_run(store: Store) -> None:
    space = CandidateSpace(make_space(1.0))
    work_all(store, start_run(store, "one", 1.0), space)
    register(store, BOOK, "two")
    assert reusable_rows(store, "two", BOOK, space, (0,)) is None


def test_a_runs_own_rows_are_known_to_its_next_round(store: Store) -> None:
    plan, space = start_run(store, "r", 1.0, 2.0), CandidateSpace(make_space(1.0, 2.0))
    work_all(store, plan, space, lost=(0, 1))
    assert known_candidates(reusable_rows(store, "r", BOOK, space, ())) == {0: [0, 1], 1: [1]}
    assert final_rows(store, plan).num_rows == 3


def test_known_rows_travel_with_the_next_round(store: Store) -> None:
    plan, space = start_run(store, "r", 1.0, 2.0), CandidateSpace(make_space(1.0, 2.0))
    work_all(store, plan, space, lost=(0, 1))
    table = reusable_rows(store, "r", BOOK, space, ())
    assert table is not None
    tasks = plan_tasks(2, 2, 1, known=known_candidates(table))
    fields = plan_fields("r", 2, round=1, num_known=table.num_rows)
    plan = commit_round(store, draft_round(fields, tasks, table_to_parquet(table)))
    assert plan.num_fits == 1
    best = ProgressReader(store, plan, "score").poll().best
    assert best is not None
    assert (best.candidate, best.num_folds) == (1, 2), "known rows count for the best so far"
    work_all(store, plan, space)
    rows = read_rows(store, plan).table.to_pylist()
    assert {(row["candidate"], row["split"]) for row in rows} == {(c, s) for c in range(2) for s in range(2)}


def test_progress_counts_each_cell_once_and_names_the_best_so_far(store: Store) -> None:
    plan, space = start_run(store, "r", 1.0, 2.0, 3.0), CandidateSpace(make_space(1.0, 2.0, 3.0))
    reader = ProgressReader(store, plan, "score")
    assert (reader.poll().done, reader.poll().best) == (0, None)
    log = TaskLog(store, "r", 0, 0, "a")
    log.append([make_row(space, 0, 0, 0.25)], in_flight=[], start={"host": "h", "log": "x.log"})
    progress = reader.poll()
    assert (progress.total, progress.done, progress.ok, progress.fit_s) == (6, 1, 1, 1.5)
    assert reader.starts() == [{"host": "h", "log": "x.log"}]
    work_all(store, plan, space, lost=(2, 1))
    progress = reader.poll()
    assert (progress.done, progress.ok, progress.lost, progress.in_flight) == (6, 5, 1, 0)
    assert progress.best is not None
    assert (progress.best.candidate, progress.best.num_folds) == (1, 2), "candidate 2 has a fold less"
    assert reader.poll() == progress


def test_stored_documents_say_their_format(store: Store) -> None:
    start_run(store, "r", 1.0)
    for key in (Layout.plan("r", 0), Layout.book(BOOK, 0)):
        assert json.loads(store.get(key))["format_version"] == 1
