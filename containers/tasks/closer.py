"""Fold the logs of finished tasks in a process of its own: Parquet libraries start threads, the parent must not."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from containers.tasks.pool import Answer, Pool
from jobspec.runs.results import read_log_table
from jobspec.runs.rounds import RoundPlan
from jobspec.runs.rows import table_to_parquet
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)


class Closer:
    """Write ``done/{task}`` for finished tasks, in the background, one after the other.

    The fold of a log is the same whoever makes it, so that a crash here costs nothing: the reducer reads a log
    wherever its fold is absent. A task is sent only after the answer to the one before, since both ends of a pipe
    that is full in both directions would wait for each other for ever.
    """

    def __init__(self, store: Store, plan: RoundPlan) -> None:
        self._store = store
        self._plan = plan
        self._pool = Pool(self._serve)
        self._waiting: deque[int] = deque()
        self._worker: int | None = None
        self._folding: int | None = None

    @property
    def busy(self) -> bool:
        """Say whether a log is still to be folded."""
        return self._folding is not None or bool(self._waiting)

    def close(self, task: int) -> None:
        """Have a task's log folded."""
        self._waiting.append(task)
        self._feed()

    def handles(self) -> list[Connection | int]:
        """Return what becomes readable when `poll` has something to hear."""
        return self._pool.handles()

    def poll(self) -> None:
        """Hear what has been folded, without waiting, and hand over the next task."""
        for answer in self._pool.drain():
            self._hear(answer)
        self._feed()

    def end(self) -> None:
        """End the folding process at once."""
        self._pool.close()

    def _feed(self) -> None:
        if self._folding is None and self._waiting:
            if self._worker is None:
                self._worker = self._pool.start()
            self._folding = self._waiting.popleft()
            self._pool.send(self._worker, self._folding)

    def _hear(self, answer: Answer) -> None:
        if answer.event == "died":
            self._worker = None
        if answer.event != "closed" and self._folding is not None:
            log.warning("log_not_folded task=%d event=%s detail=%s", self._folding, answer.event, answer.payload)
        self._folding = None

    def _serve(self, task: int) -> Iterator[tuple[str, Any]]:
        body = table_to_parquet(read_log_table(self._store, self._plan, task))
        self._store.create(Layout.done(self._plan.run_id, self._plan.round, task), body)
        yield "closed", task
