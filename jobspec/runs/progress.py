"""How far a run is, read from its tasks' logs, and where each object is a request, from what they were folded into."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from jobspec.runs.results import decode_table, read_log, schema_of
from jobspec.runs.rounds import RoundPlan, load_known, load_tasks
from jobspec.runs.rows import table_from_parquet
from jobspec.runs.tasklog import LogState, decode_part
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

LOOK_AHEAD = 16
"""Tasks behind the last started one that a poll looks at, since tasks start nearly in order."""

MAX_LOOK_AHEAD = 256
"""While all that were looked at had started, more are looked at together, up to this."""


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


@dataclass(frozen=True)
class _News:
    """What was found of a task: its folded log, or the parts that were added to its log."""

    table: pa.Table | None = None
    parts: Sequence[Mapping[str, Any]] = ()


class ProgressReader:
    """Follow a round; each `poll` reads only what is new.

    Over a network a task that has ended before it is first looked at costs one request, since its folded log is read
    instead of its parts; a round that was reduced completely costs one for all its tasks.
    """

    def __init__(self, store: Store, plan: RoundPlan, refit_scorer: str | None) -> None:
        self._store = store
        self._plan = plan
        self._score = f"test_{refit_scorer or plan.scorers[0]}"
        self._columns = ("state", "candidate", self._score, "cpu_s", "shared_fit")
        self._is_remote = store.streams > 1
        self._sizes: list[int] | None = None
        self._logs: dict[int, LogState] = {}
        self._folded: set[int] = set()
        self._states: Counter[str] = Counter()
        self._means = _Means()
        self._fit_s = 0.0
        self._known_failed = 0
        self._open = set(range(plan.num_tasks))
        self._last_started = -1
        # A part is a file here and a fold costs the import of a library; over a network both cost a request.
        self._maybe_folded = set(self._open) if self._is_remote else set()

    def poll(self) -> Progress:
        """Read what was added since the last call to the tasks that have started, as far as they start in order.

        Nothing is listed; `poll_to_end` finds the others, too.
        """
        self._begin()
        first, ahead = 0, LOOK_AHEAD
        while True:
            started = self._last_started
            self._look([task for task in sorted(self._open) if first <= task <= started + ahead])
            if self._last_started == started:
                return self._progress()
            first = started + ahead + 1
            ahead = min(2 * ahead, MAX_LOOK_AHEAD) if self._last_started == first - 1 else LOOK_AHEAD

    def poll_to_end(self) -> Progress:
        """Read everything that is there, in whatever order tasks started; two listings tell where to look."""
        self._begin()
        if self._open:
            run_id, index = self._plan.run_id, self._plan.round
            keys = self._store.keys(Layout.all_done(run_id, index))
            folded = {task for key in keys if (task := Layout.done_task(key)) is not None}
            logged = {int(name) for name in self._store.folders(Layout.logs(run_id, index)) if name.isdecimal()}
            if self._is_remote:
                self._maybe_folded &= folded
            else:
                self._maybe_folded |= folded - logged  # what `submit gc` has left of them
            self._look(sorted(self._open & (folded | logged)))
        return self._progress()

    def starts(self) -> list[Mapping[str, Any]]:
        """Return where each attempt ran and where its log lies, in the order of tasks, of the logs that were read.

        It says nothing of tasks that were read from their folds: see `all_starts`.
        """
        return [start for _, log in sorted(self._logs.items()) for start in _starts_of(log)]

    @property
    def num_started(self) -> int:
        """Return the number of tasks that were found to have begun."""
        return len(self._logs.keys() | self._folded)

    def all_starts(self, *, backwards: bool = False) -> Iterator[Mapping[str, Any]]:
        """Yield the same of all tasks that were found; what was not read is read when it is come to.

        Over a network each log costs a request for each of its parts, some ahead of what is yielded.

        Args:
            backwards: the last task first, and its last attempt.
        """
        tasks = sorted(self._logs.keys() | self._folded, reverse=backwards)
        for first in range(0, len(tasks), LOOK_AHEAD):
            for log in self._at_once(self._whole_log, tasks[first : first + LOOK_AHEAD]):
                starts = list(_starts_of(log))
                yield from reversed(starts) if backwards else starts

    def _whole_log(self, task: int) -> LogState:
        return self._logs[task] if task in self._logs else read_log(self._store, self._plan, task)

    def _begin(self) -> None:
        """Find the whole round in one table, else what it began with and the sizes of its tasks; once."""
        if self._sizes is not None:
            return
        plan, self._sizes = self._plan, []
        is_tabled = self._is_remote and plan.num_tasks > 1
        table = self._read_table(Layout.all(plan.run_id, plan.round)) if is_tabled else None
        if table is not None:
            self._count_known(table.slice(0, plan.num_known))  # they come first
            self._count_table(table.slice(plan.num_known))
            self._folded, self._open = self._open, set()
            return
        self._sizes = [task.num_cells for task in load_tasks(self._store, plan)]
        if (body := load_known(self._store, plan)) is not None:
            self._count_known(table_from_parquet(body, self._schema, self._columns))

    def _look(self, tasks: list[int]) -> None:
        for task, news in zip(tasks, self._at_once(self._fetch, tasks), strict=True):
            self._take(task, news)

    def _at_once(self, call: Callable[[int], T], tasks: list[int]) -> Iterable[T]:
        """Call for each task; for several at once where each waits for an answer."""
        if not self._is_remote or len(tasks) <= 1:
            return map(call, tasks)
        with ThreadPoolExecutor(self._store.streams) as pool:
            return list(pool.map(call, tasks))

    def _fetch(self, task: int) -> _News:
        plan, parts = self._plan, list[Mapping[str, Any]]()
        if task in self._maybe_folded:
            table = self._read_table(Layout.done(plan.run_id, plan.round, task))
            if table is not None and table.num_rows == self._size(task):
                return _News(table)
        known = self._logs[task].num_parts if task in self._logs else 0
        while True:
            key = Layout.part(plan.run_id, plan.round, task, known + len(parts))
            if (body := self._store.get_or_none(key)) is None:
                return _News(parts=parts)
            parts.append(decode_part(body, key))

    def _read_table(self, key: str) -> pa.Table | None:
        body = self._store.get_or_none(key)
        return None if body is None else decode_table(body, key, self._schema, self._columns)

    @cached_property
    def _schema(self) -> pa.Schema:
        return schema_of(self._plan)

    def _size(self, task: int) -> int:
        return self._sizes[task] if self._sizes else 0

    def _take(self, task: int, news: _News) -> None:
        self._maybe_folded.discard(task)  # whoever goes on from here reads what is added to its log
        if news.table is not None:
            self._count_table(news.table)
            self._folded.add(task)
        for part in news.parts:
            log = self._logs.setdefault(task, LogState())
            before = len(log.rows)
            log.fold(part)
            for row in list(log.rows.values())[before:]:
                score = row["scores"].get(self._score, math.nan)
                self._count(row["state"], row["candidate"], score, row["cpu_s"], shared=row["shared_fit"])
        if news.table is not None or task in self._logs:
            self._last_started = max(self._last_started, task)
        if news.table is not None or (task in self._logs and len(self._logs[task].rows) == self._size(task)):
            self._open.discard(task)

    def _count_known(self, table: pa.Table) -> None:
        """Let the rows that were final before the round began count: as failures, and for the best candidate."""
        self._known_failed = table["state"].to_pylist().count("fit_error")
        for candidate, score in zip(table["candidate"].to_pylist(), table[self._score].to_pylist(), strict=True):
            self._means.add(candidate, score)

    def _count_table(self, table: pa.Table) -> None:
        columns = (table[name].to_pylist() for name in self._columns)
        for state, candidate, score, cpu_s, shared in zip(*columns, strict=True):
            self._count(state, candidate, score, cpu_s, shared=shared)

    def _count(self, state: str, candidate: int, score: float, cpu_s: float, *, shared: bool) -> None:
        self._states[state] += 1
        self._means.add(candidate, score)
        self._fit_s += 0.0 if math.isnan(cpu_s) or shared else cpu_s

    def _progress(self) -> Progress:
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

    def _num_in_flight(self, task: int) -> int:
        log = self._logs[task]
        flying = {c for attempt in log.attempts.values() if not attempt.ended for c in attempt.in_flight}
        return len(flying - log.rows.keys())


def _starts_of(log: LogState) -> Iterator[Mapping[str, Any]]:
    return (attempt.start for attempt in log.attempts.values())
