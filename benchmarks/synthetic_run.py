"""Write a finished run of made-up scores into a store, through the same code that real runs go through."""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from jobspec.grammar.load import LoadedSpec, load
from jobspec.runs.results import schema_of
from jobspec.runs.rounds import RoundPlan, commit_round, draft_round, keep_space, keep_spec, load_tasks, register
from jobspec.runs.rows import Row, rows_to_table, table_to_parquet
from jobspec.search.candidates import CandidateSpace, FrozenSpace
from jobspec.search.identity import make_book_id, make_cell_key, make_run_id
from jobspec.search.inspection import Inspection
from jobspec.search.planning import Task, plan_tasks
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout


def write_run(store: Store, loaded: LoadedSpec, inspection: Inspection, num_tasks: int) -> str:
    """Plan a run of about ``num_tasks`` tasks, fold made-up rows of every task, and return the run's id."""
    run_id = make_run_id(loaded.spec, inspection)
    keep_spec(store, run_id, loaded.text)
    space = CandidateSpace(keep_space(store, run_id, FrozenSpace.from_json(inspection.space)))
    plan = plan_run(store, loaded, inspection, run_id, num_tasks)
    keys = [make_cell_key(space, candidate, None) for candidate in range(len(space))]
    for number, task in enumerate(load_tasks(store, plan)):
        table = rows_to_table(list(make_rows(task, keys)), schema_of(plan))
        store.create(Layout.done(run_id, plan.round, number), table_to_parquet(table))
    return run_id


def plan_run(store: Store, loaded: LoadedSpec, inspection: Inspection, run_id: str, num_tasks: int) -> RoundPlan:
    """Commit the first round of a run."""
    num_candidates = len(CandidateSpace(FrozenSpace.from_json(inspection.space)))
    tasks_per_fold = max(1, num_tasks // inspection.num_splits)
    book_id = make_book_id(loaded.spec, inspection)
    register(store, book_id, run_id)
    fields = {
        "run_id": run_id,
        "round": 0,
        "engine": inspection.engine,
        "dataset_id": inspection.dataset_id,
        "split_id": inspection.split_id,
        "book_id": book_id,
        "num_candidates": num_candidates,
        "num_splits": inspection.num_splits,
        "num_known": 0,
        "space_digest": FrozenSpace.from_json(inspection.space).digest(),
        "limits": loaded.spec.limits,
        "unseeded_entries": inspection.unseeded_entries,
        "scorers": inspection.scorers,
        "score_kind": inspection.score_kind,
        "train_score": loaded.spec.train_score,
        "workers": 1,
    }
    tasks = plan_tasks(num_candidates, inspection.num_splits, tasks_per_fold)
    return commit_round(store, draft_round(fields, tasks, None))


def make_rows(task: Task, keys: list[str]) -> Iterator[Row]:
    """Yield a row for each cell of a task; a score depends on candidate and split alone."""
    for (candidate,) in task.families():
        score = random.Random(candidate * 1000 + task.split).random()
        yield Row(
            candidate=candidate,
            split=task.split,
            key=keys[candidate],
            state="ok",
            scores={"test_score": score},
            fit_s=0.01 + score / 10,
            score_s=0.001,
            cpu_s=0.01 + score / 10,
            peak_memory_bytes=200_000_000,
            attempt="0" * 32,
            host="synthetic",
            kernel="synthetic",
            shared_fit=False,
            score_digest=hashlib.sha256(repr(score).encode()).hexdigest()[:16],
            error=None,
            num_warnings=0,
            warning=None,
        )


def main() -> None:
    """Write a run and print its id."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--inspection", type=Path, required=True, help="what `containers prepare` printed")
    parser.add_argument("--tasks", type=int, required=True)
    options = parser.parse_args()
    inspection = Inspection.model_validate_json(options.inspection.read_bytes())
    print(write_run(open_store(options.store), load(options.spec), inspection, options.tasks))


if __name__ == "__main__":
    main()
