"""Fold the logs of finished tasks, in a process of its own: Parquet libraries start threads, the parent must not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from containers.tasks.pool import Answer, Pool
from jobspec.runs.results import read_log_table
from jobspec.runs.rounds import RoundPlan
from jobspec.runs.rows import table_to_parquet
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)


class Closer:
    """Write ``done/{task}`` for finished tasks, in the background.

    The fold of a log is the same whoever makes it, so that a crash here costs nothing: the reducer reads a log
    wherever its fold is absent.
    """

    def __init__(self, store: Store, plan: RoundPlan) -> None:
        self._store = store
        self._plan = plan
        self._pool = Pool(self._serve)
        self._worker: int | None = None
        self._open = 0

    def close(self, task: int) -> None:
        """Have a task's log folded."""
        if self._worker is None:
            self._worker = self._pool.start()
        self._pool.send(self._worker, task)
        self._open += 1

    def finish(self) -> None:
        """Wait until everything handed in is folded, or the folding process has died."""
        while self._open and self._worker is not None:
            for answer in self._pool.wait(None):
                self._hear(answer)
        self._pool.close()

    def _hear(self, answer: Answer) -> None:
        self._open -= 1
        if answer.event == "died":
            self._worker = None
        if answer.event != "closed":
            log.warning("log_not_folded event=%s detail=%s", answer.event, answer.payload)

    def _serve(self, task: int) -> Iterator[tuple[str, Any]]:
        body = table_to_parquet(read_log_table(self._store, self._plan, task))
        self._store.create(Layout.done(self._plan.run_id, self._plan.round, task), body)
        yield "closed", task
