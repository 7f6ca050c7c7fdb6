"""One task while it is being worked on: what is pending, in flight, finished, and when to write it down."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobspec.runs.rows import Row
from jobspec.runs.tasklog import ALONE_AFTER, LOST_AFTER, TaskLog
from jobspec.search.planning import Task

Family = tuple[int, ...]

WORKER_DEATHS_ALLOWED = 2
"""A cell whose worker was killed is tried once more, alone; killed again, it is lost."""


@dataclass
class Flight:
    """A family that a worker has in hand; ``started`` is None while the fold is being loaded."""

    family: Family
    started: float | None = None


class Board:
    """The state of one task in this attempt; it touches nothing but its log.

    Families are handed out in order; those that killed a worker, or were in flight when earlier attempts died,
    wait in ``suspects`` and run when nothing else does, so that they have the machine's memory for themselves.
    ``postponed`` says that the store refused a part, whose rows are kept for the next.
    """

    def __init__(self, number: int, task: Task, log: TaskLog, start: Mapping[str, Any]) -> None:
        self.number = number
        self.task = task
        self.log = log
        self.suspects: deque[Family] = deque()
        self.doomed: list[Family] = []
        self.opened: float | None = None
        self._pending: deque[Family] = deque()
        self._flying: dict[Family, Flight] = {}
        self._deaths: dict[Family, int] = {}
        self._rows: list[Row] = []
        self._start: Mapping[str, Any] | None = start
        self._named: frozenset[int] = frozenset()
        self._flushed = float("-inf")
        self.postponed = False

    def open(self, now: float) -> None:
        """Read the log and queue what it leaves to do."""
        state = self.log.read()
        self.opened = self._flushed = now
        for family in self.task.families():
            left = tuple(candidate for candidate in family if candidate not in state.rows)
            if left:
                self._queue(left, max(state.deaths(candidate) for candidate in left))

    def _queue(self, family: Family, deaths: int) -> None:
        if deaths >= LOST_AFTER:
            self.doomed.append(family)
        elif deaths >= ALONE_AFTER:
            self.suspects.append(family)
        else:
            self._pending.append(family)

    def take(self) -> Family | None:
        """Hand out the next family, or None if only suspects are left."""
        return self._fly(self._pending)

    def take_suspect(self) -> Family | None:
        """Hand out a family that must run alone."""
        return self._fly(self.suspects)

    def _fly(self, queue: deque[Family]) -> Family | None:
        if not queue:
            return None
        family = queue.popleft()
        self._flying[family] = Flight(family)
        return family

    def take_back(self, family: Family) -> None:
        """Queue a family again that was handed out but not begun."""
        self._flying.pop(family, None)
        self._pending.appendleft(family)

    def start(self, family: Family, now: float) -> None:
        """Note that a family's fold is there and its fit has begun."""
        self._flying[family].started = now

    def land(self, family: Family, rows: Iterable[Row]) -> None:
        """Take the rows of a finished (or given up) family."""
        self._flying.pop(family, None)
        self._rows.extend(rows)

    def crash(self, family: Family) -> bool:
        """Note a worker's death; return whether the family is to be tried once more, alone."""
        self._flying.pop(family, None)
        self._deaths[family] = self._deaths.get(family, 0) + 1
        again = self._deaths[family] < WORKER_DEATHS_ALLOWED
        if again:
            self.suspects.append(family)
        return again

    def overdue(self, now: float, cell_seconds: float | None) -> list[Family]:
        """Return the families that have been fitted for longer than a cell may take."""
        if cell_seconds is None:
            return []
        flights = self._flying.values()
        return [f.family for f in flights if f.started is not None and now - f.started > cell_seconds]

    def give_up(self) -> list[Family]:
        """Empty the queues and return what was in them: the task is over its time."""
        left = [*self._pending, *self.suspects]
        self._pending.clear()
        self.suspects.clear()
        return left

    @property
    def flying(self) -> Sequence[Family]:
        """Return the families in hand."""
        return list(self._flying)

    @property
    def finished(self) -> bool:
        """Say whether nothing is left to do but writing."""
        return self.opened is not None and not (self._pending or self.suspects or self._flying or self.doomed)

    def due(self, now: float, flush_seconds: float) -> bool:
        """Say whether a part should be written now: there is news, and it is old enough or the task is over."""
        news = bool(self._rows) or self._start is not None or self._in_flight() != self._named
        waited = now - self._flushed >= flush_seconds
        return news and (waited or (self.finished and not self.postponed))

    def flush(self, now: float, end: str | None = None) -> None:
        """Write a part: durable when this returns."""
        named = self._in_flight()
        self.log.append(self._rows, named, self._start, end)
        self._rows, self._start, self._named, self._flushed = [], None, named, now
        self.postponed = False

    def postpone(self, now: float) -> None:
        """Note that a part could not be written: it is due again after the flush interval."""
        self._flushed, self.postponed = now, True

    def _in_flight(self) -> frozenset[int]:
        return frozenset(candidate for family in self._flying for candidate in family)
