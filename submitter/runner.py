"""The one flow of a run: plan what is missing, commit it, have it worked on, reduce, refit.

All state lies in the store, so that every step may be repeated and any process may go on where another died.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobspec.errors import InterruptedRun, TryLaterError
from jobspec.hostlock import HostLock
from jobspec.protocol import reduce_arguments, refit_arguments
from jobspec.runs.progress import ProgressReader
from jobspec.runs.rounds import RoundPlan, commit_round, latest_round
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.base import ArrayRequest, Backend, Ending
from submitter.liveness import Liveness
from submitter.search import Search, draft_next, keep
from submitter.showing import DisplayFactory, NoDisplay, Say, say_nothing
from submitter.standing import (
    cells_of_progress,
    is_cancelled,
    is_current,
    poll_to_end,
    read_view,
    was_sent,
)
from submitter.watching import POLL_SECONDS, Watcher

FORMAT_VERSION = 1
"""Of claims and handles; raise when a field changes its meaning."""


@dataclass(frozen=True)
class Outcome:
    """A run that has ended, and what this call did for it.

    ``summary`` is what the reduce step told; ``fits`` and ``fit_s`` are this call's, ``reused`` the cells it found
    finished. ``no_model_because`` is set where a refit was tried and gave no model.
    """

    plan: RoundPlan
    summary: dict[str, Any]
    fits: int
    reused: int
    fit_s: float
    no_model_because: str | None = None


@dataclass(frozen=True)
class Work:
    """What one call computed."""

    fits: int = 0
    fit_s: float = 0.0


@dataclass(frozen=True)
class Runner:
    """Drives one run; two runners of the same run take turns."""

    store: Store
    backend: Backend
    liveness: Liveness
    fresh: bool = False
    sleep: Callable[[float], None] = time.sleep
    display: DisplayFactory = NoDisplay
    say: Say = say_nothing

    @property
    def watcher(self) -> Watcher:
        """Return what follows the run while another process drives it."""
        return Watcher(self.store, self.liveness, self.display, self.sleep)

    def run(self, search: Search) -> Outcome:
        """Bring a run to its end: compute what is missing, or watch who does, and return the answer.

        Raises:
            InterruptedRun: Ctrl-C here, or a cancellation; what is finished is kept.
            TryLaterError: the helper process was killed.
        """
        watched = False
        while True:
            lock = self.liveness.driver()
            if lock.acquire():
                return self._drive(search, lock, watched=watched)
            self._refuse_fresh(search)
            self.say(f"{search.run_id} is being worked on by another process; watching it.")
            self.watcher.watch(search)
            watched = True

    def commit(self, search: Search) -> RoundPlan | None:
        """Plan and commit what is missing without starting it; None if nothing is or another process works."""
        lock = self.liveness.driver()
        if not lock.acquire():
            self._refuse_fresh(search)
            return None
        try:
            newest = latest_round(self.store, search.run_id)
            if self.liveness.is_worked_on() or (newest is not None and self._is_answered(search, newest)):
                return None
            return self._plan(search, newest)
        finally:
            lock.release()

    def _refuse_fresh(self, search: Search) -> None:
        if self.fresh:
            raise TryLaterError(
                f"{search.run_id} is being worked on by another process, so it cannot be computed anew now. "
                f"`submit watch {search.run_id}` follows it, `submit cancel {search.run_id}` ends it."
            )

    def _drive(self, search: Search, lock: HostLock, *, watched: bool) -> Outcome:
        try:
            self._wait_for_orphan(search)
            return self._advance(search, watched=watched)
        except KeyboardInterrupt:
            self.say("Stopping: what is finished is being written down. Ctrl-C again does not wait for that.")
            self.backend.stop()
            raise InterruptedRun(_resumable(search.run_id, "interrupted")) from None
        finally:
            lock.release()

    def _wait_for_orphan(self, search: Search) -> None:
        """End what a driver that was killed has left working, and wait for it."""
        if self.liveness.is_worked_on():
            self.say(f"The work of a killed process on {search.run_id} is ending; waiting for it.")
            self.liveness.end_orphans()
        while self.liveness.is_worked_on():
            self.sleep(POLL_SECONDS)

    def _advance(self, search: Search, *, watched: bool) -> Outcome:
        newest = latest_round(self.store, search.run_id)
        if newest is not None and self._is_answered(search, newest, accept_lost=watched):
            return self._conclude(search, newest, Work(), reused=True)
        if newest is not None and watched and is_cancelled(self.store, newest):
            raise InterruptedRun(_resumable(search.run_id, "cancelled"))
        self.backend.warm()
        plan = self._plan(search, newest)
        return self._conclude(search, plan, self._compute(search, plan))

    def _is_answered(self, search: Search, newest: RoundPlan, *, accept_lost: bool = False) -> bool:
        """Say whether the newest round has a final row for every cell, so that nothing is left to compute.

        Args:
            search: the run.
            newest: its newest round.
            accept_lost: take lost cells as they are; a watcher gives the answer of the run that it watched.
        """
        if self.fresh:
            return False
        view = read_view(self.store, search.run_id)
        if view is not None and is_current(view, newest) and (view["complete"] or accept_lost):
            return True
        reader = ProgressReader(self.store, newest, search.spec.refit_scorer())
        cells = cells_of_progress(poll_to_end(reader))
        return cells.over and (accept_lost or not cells.lost)

    def _plan(self, search: Search, newest: RoundPlan | None) -> RoundPlan:
        """Return the round to work on: a committed one that nobody has sent yet, or the next one."""
        if newest is not None and not self.fresh and self._is_adoptable(newest):
            return newest
        kept = keep(self.store, search)
        draft = draft_next(self.store, kept, newest, self.backend, reuse=not self.fresh)
        return commit_round(self.store, draft)

    def _is_adoptable(self, newest: RoundPlan) -> bool:
        ours = newest.backend == self.backend.name  # else its liveness would be asked of another
        return ours and not was_sent(self.store, newest) and not is_cancelled(self.store, newest)

    def _compute(self, search: Search, plan: RoundPlan) -> Work:
        if plan.num_tasks == 0:
            return Work()
        for array in self.backend.build_request(plan).arrays:
            self._send(plan, array)
        endings: list[Ending] = []

        def ended(seconds: float) -> bool:
            found = self.backend.wait(seconds)
            endings.extend(found or ())
            return found is not None

        progress = self.watcher.follow(search, plan, ended)
        for ending in endings:
            if isinstance(ending.error, InterruptedRun):
                stopped = "cancelled" if is_cancelled(self.store, plan) else "interrupted"
                raise InterruptedRun(_resumable(search.run_id, stopped))
            if ending.error is not None:
                raise ending.error
        return Work(plan.num_fits - progress.lost, progress.fit_s)

    def _send(self, plan: RoundPlan, array: ArrayRequest) -> None:
        """Claim, send, record: a claim without a handle says that it is not known whether anything was sent."""
        number = 0
        while not self.store.create(Layout.claim(plan.run_id, plan.round, array.array_index, number), _claim()):
            number += 1
        handle = {"format_version": FORMAT_VERSION, "name": array.name, **self.backend.submit(array)}
        key = Layout.handle(plan.run_id, plan.round, array.array_index, number)
        self.store.create(key, json.dumps(handle).encode())

    def _conclude(self, search: Search, plan: RoundPlan, work: Work, *, reused: bool = False) -> Outcome:
        """Make the views unless they are there, refit unless the model is there."""
        view = read_view(self.store, plan.run_id)
        summary = view if view is not None and is_current(view, plan) else self._step(reduce_arguments, plan)
        why = None
        if self._lacks_model(search, plan, summary):
            why = self._step(refit_arguments, plan)["reason"]
        found = int(summary["cells"]["done"]) if reused else plan.num_known
        return Outcome(plan, summary, work.fits, found, work.fit_s, why)

    def _step(self, arguments: Callable[[str, str], list[str]], plan: RoundPlan) -> dict[str, Any]:
        return self.backend.step(arguments(self.store.url, plan.run_id))

    def _lacks_model(self, search: Search, plan: RoundPlan, summary: dict[str, Any]) -> bool:
        wanted = search.spec.refit_scorer() is not None and summary["complete"] and summary["best"] is not None
        return bool(wanted) and "model" not in (read_view(self.store, plan.run_id) or {})


def _claim() -> bytes:
    claim = {"format_version": FORMAT_VERSION, "host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    return json.dumps(claim).encode()


def _resumable(run_id: str, what: str) -> str:
    return f"{run_id} was {what}; what is finished is kept. `submit resume {run_id}` computes only what is missing."
