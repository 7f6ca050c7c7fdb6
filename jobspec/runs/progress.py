"""How far a run is, read from its tasks' logs without listing; Parquet only where a round began with known rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from jobspec.runs.rounds import RoundPlan, load_known, load_tasks
from jobspec.runs.rows import Row, table_from_parquet, table_schema
from jobspec.runs.tasklog import LogState, decode_part
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

LOOK_AHEAD = 16
"""Tasks behind the last started one that are looked at, since tasks start nearly in order."""


@dataclass(frozen=True)
class Best:
    """The best candidate so far: among those finished in most folds, the first of the highest mean."""

    candidate: int
    mean: float
    num_folds: int


@dataclass(frozen=True)
class Progress:
    """Cells of a run by state; ``reused`` have scores from before the round, ``failed`` are those of any time.

    ``fit_s`` are the CPU seconds of fits and scores, train scores among them.
    """

    total: int
    reused: int
    ok: int
    failed: int
    lost: int
    in_flight: int
    best: Best | None
    fit_s: float

    @property
    def done(self) -> int:
        """Return the number of cells that have a row."""
        return self.reused + self.ok + self.failed + self.lost


@dataclass
class _Means:
    sums: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    counts: Counter[int] = field(default_factory=Counter)

    def add(self, candidate: int, score: float) -> None:
        if not math.isnan(score):
            self.sums[candidate] += score
            self.counts[candidate] += 1

    def best(self) -> Best | None:
        if not self.counts:
            return None
        most = max(self.counts.values())
        complete = [candidate for candidate, count in self.counts.items() if count == most]
        winner = max(complete, key=lambda candidate: (self.sums[candidate], -candidate))
        return Best(winner, self.sums[winner] / most, most)


class ProgressReader:
    """Follow a round; each `poll` reads only what is new."""

    def __init__(self, store: Store, plan: RoundPlan, refit_scorer: str | None) -> None:
        self._store = store
        self._plan = plan
        self._score = f"test_{refit_scorer or plan.scorers[0]}"
        self._sizes = [task.num_cells for task in load_tasks(store, plan)]
        self._logs: dict[int, LogState] = {}
        self._states: Counter[str] = Counter()
        self._means = _Means()
        self._fit_s = 0.0
        self._known_failed = 0
        self._open = set(range(plan.num_tasks))
        self._count_known()

    def poll(self) -> Progress:
        """Read the parts added since the last call."""
        started = max(self._logs, default=-1)
        looked = [task for task in sorted(self._open) if task <= started + LOOK_AHEAD]
        for task, parts in zip(looked, self._fetch(looked), strict=True):
            self._take(task, parts)
        return Progress(
            total=self._plan.num_cells,
            reused=self._plan.num_known - self._known_failed,
            ok=self._states["ok"],
            failed=self._states["fit_error"] + self._known_failed,
            lost=self._states["lost"],
            in_flight=sum(map(self._num_in_flight, self._open & self._logs.keys())),
            best=self._means.best(),
            fit_s=self._fit_s,
        )

    def starts(self) -> list[Mapping[str, Any]]:
        """Return where each attempt ran and where its log lies, in the order of tasks."""
        return [attempt.start for _, log in sorted(self._logs.items()) for attempt in log.attempts.values()]

    def _count_known(self) -> None:
        """Let the rows that were final before the round began count: as failures, and for the best candidate."""
        if (body := load_known(self._store, self._plan)) is not None:
            table = table_from_parquet(body, table_schema(self._plan.scorers, self._plan.train_score))
            self._known_failed = table["state"].to_pylist().count("fit_error")
            for candidate, score in zip(table["candidate"].to_pylist(), table[self._score].to_pylist(), strict=True):
                self._means.add(candidate, score)

    def _fetch(self, tasks: list[int]) -> Iterable[list[Mapping[str, Any]]]:
        """Return the parts that were added to each task's log; of several at once where each waits for an answer."""
        if self._store.streams == 1 or len(tasks) == 1:
            return map(self._fetch_one, tasks)
        with ThreadPoolExecutor(self._store.streams) as pool:
            return list(pool.map(self._fetch_one, tasks))

    def _fetch_one(self, task: int) -> list[Mapping[str, Any]]:
        parts: list[Mapping[str, Any]] = []
        known = self._logs[task].num_parts if task in self._logs else 0
        while True:
            key = Layout.part(self._plan.run_id, self._plan.round, task, known + len(parts))
            if (body := self._store.get_or_none(key)) is None:
                return parts
            parts.append(decode_part(body, key))

    def _take(self, task: int, parts: list[Mapping[str, Any]]) -> None:
        for part in parts:
            log = self._logs.setdefault(task, LogState())
            before = len(log.rows)
            log.fold(part)
            for row in list(log.rows.values())[before:]:
                self._count(row)
        if task in self._logs and len(self._logs[task].rows) == self._sizes[task]:
            self._open.discard(task)

    def _count(self, row: Row) -> None:
        self._states[row["state"]] += 1
        self._means.add(row["candidate"], row["scores"].get(self._score, math.nan))
        self._fit_s += 0.0 if math.isnan(row["cpu_s"]) or row["shared_fit"] else row["cpu_s"]

    def _num_in_flight(self, task: int) -> int:
        log = self._logs[task]
        flying = {c for attempt in log.attempts.values() if not attempt.ended for c in attempt.in_flight}
        return len(flying - log.rows.keys())
