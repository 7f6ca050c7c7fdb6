"""Seeded races of two reducers of one run whose rows still come in; see `tests.faults.stage`."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from containers.views.reduce import reduce_run
from jobspec.runs.results import read_log_table
from jobspec.runs.rows import table_to_parquet
from jobspec.runs.tasklog import TaskLog
from jobspec.runs.views import BEST, CSV, PARQUET, read_best
from jobspec.search.planning import Task
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.search import Search, keep
from tests.faults.stage import NUM_CANDIDATES, Stage, Stepped, commit, interleaved, make_row, pretended, told

TASKS = (Task(0, ((0, 4),)), Task(0, ((4, 7),)), Task(1, ((0, 3),)), Task(1, ((3, 7),)))


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """Hold the stage that plays."""
    return interleaved(monkeypatch)


def count_cells(table: pa.Table) -> int:
    """Count the cells that have a score."""
    return sum(value is not None for split in range(2) for value in scores_of(table, split))


def scores_of(table: pa.Table, split: int) -> list[float | None]:
    """Return the scores of a split; NaN, which a CSV reader takes for null, says that there is no row."""
    column = table[f"split{split}_test_score"].to_pylist()
    return [None if value is None or math.isnan(value) else value for value in column]


COUNTS: dict[str, Callable[[bytes], int]] = {
    PARQUET: lambda body: count_cells(pq.read_table(pa.BufferReader(body))),
    CSV: lambda body: count_cells(pyarrow.csv.read_csv(pa.BufferReader(body))),
    BEST: lambda body: int(json.loads(body)["cells"]["done"]),
}


@dataclass
class Reduction:
    """Reducers of a run whose rows still come in, and an eye on its views: what each holds may only grow."""

    store: Store
    search: Search
    chance: random.Random
    rounds: int
    stage: Stage = field(init=False)
    tags: dict[str, str | None] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.stage = Stage(self.chance, self.watch)
        keep(self.store, self.search)

    def watch(self) -> None:
        """Read the views that were replaced."""
        for name, count in COUNTS.items():
            key = Layout.view(self.search.run_id, name)
            if (tag := self.store.tag(key)) != self.tags.get(name):
                self.tags[name] = tag
                now = count(self.store.get(key))
                assert now >= self.counts[name], f"{name} lost cells"
                self.counts[name] = now

    def write(self) -> None:
        """Bring rows in, task by task in any order, round after round; each round has scores of its own."""
        store = cast(Store, Stepped(self.store, self.stage))
        for number in range(self.rounds):
            plan = commit(store, self.search.run_id, TASKS, 2, number)
            logs = {task: TaskLog(store, plan.run_id, number, task, "a") for task in range(len(TASKS))}
            left = {task: list(TASKS[task].families()) for task in logs}
            while left:
                task = self.chance.choice(sorted(left))
                size = self.chance.randrange(1, 4)
                families, left[task] = left[task][:size], left[task][size:]
                logs[task].append([make_row(c, TASKS[task].split, score(c, number), "a") for (c,) in families])
                if not left[task]:
                    del left[task]
                    if self.chance.random() < 0.7:
                        body = table_to_parquet(read_log_table(store, plan, task))
                        store.create(Layout.done(plan.run_id, number, task), body)

    def reduce(self) -> None:
        """Reduce a few times; what a reducer was told of, or more, is in best.json when it returns."""
        for _ in range(self.chance.randrange(1, 4)):
            summary = reduce_run(cast(Store, Stepped(self.store, self.stage)), self.search.run_id)
            self.watch()
            assert self.counts[BEST] >= summary["cells"]["done"]

    def check(self) -> dict[str, Any]:
        """Compare best.json with the tables."""
        best = read_best(self.store, self.search.run_id)
        assert best is not None, "best.json does not describe the tables"
        self.watch()
        assert self.counts[PARQUET] == self.counts[CSV] == best["cells"]["done"]
        assert best["complete"] is (best["cells"]["done"] == 2 * NUM_CANDIDATES)
        for table in self.tables():
            if best["best"] is not None:
                winner = best["best"]["candidate"]
                assert table["rank_test_score"][winner].as_py() == 1
                assert table["mean_test_score"][winner].as_py() == best["best"]["mean_test_score"]
            scores = scores_of(table, 0)
            assert all(s in {None, score(c, best["round"])} for c, s in enumerate(scores)), "another round's"
        return best

    def tables(self) -> Iterator[pa.Table]:
        """Read both tables."""
        parquet, csv = (self.store.get(Layout.view(self.search.run_id, name)) for name in (PARQUET, CSV))
        yield pq.read_table(pa.BufferReader(parquet))
        yield pyarrow.csv.read_csv(pa.BufferReader(csv))


def score(candidate: int, round_index: int) -> float:
    """Return another order of the candidates in every round."""
    return (candidate * 3 + round_index * 2) % NUM_CANDIDATES / 8 + round_index


def reduce_at_once(store: Store, seed: int, stages: list[Stage]) -> Reduction:
    chance = random.Random(seed)
    search = pretended()
    run_id = f"reduced-{seed}"
    fields = search.fields | {"run_id": run_id, "book_id": f"b-{seed}"}
    reduction = Reduction(store, replace(search, run_id=run_id, fields=fields), chance, chance.choice([1, 1, 2]))
    commit(store, run_id, TASKS, 2, 0)
    deaths = {number: chance.randrange(1, 60) for number in range(2) if chance.random() < 0.3}
    stages[:] = [reduction.stage]
    reduction.stage.play([reduction.reduce, reduction.reduce, reduction.write], deaths)
    stages.clear()
    if not reduction.stage.killed:
        reduction.check()
    reduce_run(store, run_id)
    best = reduction.check()
    assert best["complete"] and best["round"] == reduction.rounds - 1
    return reduction


def _rarely(thorough: Iterable[int], soak: Iterable[int]) -> Iterator[Any]:
    """Give seeds to `make test-thorough` and to `make soak`."""
    for marks, seeds in ((pytest.mark.thorough, thorough), (pytest.mark.soak, soak)):
        yield from (pytest.param(seed, marks=marks) for seed in seeds)


@pytest.mark.parametrize("part", [0, 1, *_rarely(range(2, 5), range(5, 10))])
def test_racing_reducers_in_a_folder_never_take_cells_away(tmp_path: Path, stages: list[Stage], part: int) -> None:
    store = open_store(str(tmp_path / "store"))
    killed = 0
    for seed in range(20 * part, 20 * part + 20):
        with told(seed):
            killed += len(reduce_at_once(store, seed, stages).stage.killed)
    assert killed >= 2, "nobody died"


@pytest.mark.parametrize("five", [0, *_rarely(range(1, 4), range(4, 10))])
def test_racing_reducers_in_s3_never_take_cells_away(s3_url: str, stages: list[Stage], five: int) -> None:
    store = open_store(s3_url)
    for seed in range(5 * five, 5 * five + 5):
        with told(seed):
            reduce_at_once(store, seed, stages)
