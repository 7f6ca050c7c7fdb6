"""The one flow of a run: plan what is missing, commit it, have it worked on, reduce, refit.

All state lies in the store, so that every step may be repeated and any process may go on where another died.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobspec.errors import FoldfleetError, InterruptedRun, LimitError, TryLaterError
from jobspec.hostlock import HostLock
from jobspec.protocol import reduce_arguments, refit_arguments
from jobspec.runs.answers import read_answer
from jobspec.runs.progress import ProgressReader
from jobspec.runs.rounds import RoundPlan, commit_round
from jobspec.stores.base import Store
from submitter import claims
from submitter.backends.base import Backend, Ending
from submitter.liveness import Liveness
from submitter.search import Search, draft_next, keep
from submitter.showing import DisplayFactory, NoDisplay, Say, say_nothing
from submitter.standing import (
    cells_of_progress,
    is_cancelled,
    is_concluded,
    is_current,
    lacks_model,
    poll_to_end,
    read_view,
    tells_of,
    was_sent,
)
from submitter.watching import CLOUD_POLL_SECONDS, POLL_SECONDS, Leg, Watcher, goes_on

RULE_SECONDS = 120.0
"""How long the rule that reduces what failed is waited for, before the desk has it reduced by itself."""


@dataclass(frozen=True)
class Outcome:
    """A run that has ended, and what this call did for it.

    ``summary`` is what the reduce step told; ``fits`` and ``fit_s`` are this call's, ``reused`` the cells it found
    finished. ``no_model_because`` is set where a refit was tried and gave no model, ``missing_because`` where tasks
    ended early and some cells have no row: the tables are partial.
    """

    plan: RoundPlan
    summary: dict[str, Any]
    fits: int
    reused: int
    fit_s: float
    no_model_because: str | None = None
    missing_because: str | None = None


@dataclass(frozen=True)
class Work:
    """What one call computed, and how many cells it found finished, None where it did not plan."""

    fits: int = 0
    fit_s: float = 0.0
    known: int | None = None


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
        return Watcher(self.store, self.liveness, self.display, self.sleep, say=self.say)

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
            newest = self.liveness.newest()
            if self.liveness.is_worked_on() or (newest is not None and self._is_answered(search, newest)):
                return None
            return self._plan(search, newest)
        finally:
            lock.release()

    def send_off(self, search: Search) -> RoundPlan | None:
        """Have a run worked on without this process; None if nothing is to be sent or another process drives it.

        For a backend that survives: arrays and the reduce step behind them are all that a run needs.
        """
        lock = self.liveness.driver()
        if not lock.acquire():
            self._refuse_fresh(search)
            return None
        try:
            newest = self.liveness.newest()
            if newest is not None and self.liveness.survives and self._is_under_way(search, newest):
                self._refuse_fresh(search)
                if is_cancelled(self.store, newest):
                    raise TryLaterError(
                        f"{search.run_id} was cancelled and is ending, which takes a minute. Then type it again."
                    )
                self._complete(newest)
                return newest
            if newest is not None and (self.liveness.is_worked_on() or self._is_answered(search, newest)):
                return None
            self.backend.warm()
            plan = self._plan(search, newest)
            if plan.num_tasks == 0:
                return None
            self._send_all(plan)
            return plan
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
            newest = self.liveness.newest()
            if newest is not None and self.liveness.survives:
                outcome = self._adopt(search, newest, watched=watched)
                if outcome is not None:
                    return outcome
            else:
                self._wait_for_orphan(search)
            return self._advance(search, watched=watched)
        except KeyboardInterrupt:
            raise self._interrupted(search) from None
        finally:
            lock.release()

    def _interrupted(self, search: Search) -> InterruptedRun:
        """Stop what ends with this process; what was sent to a backend that survives is left alone."""
        if not self.backend.survives:
            self.say("Stopping: what is finished is being written down. Ctrl-C again does not wait for that.")
        self.backend.stop()
        self.liveness.look_anew()
        if self.liveness.survives and self.liveness.is_worked_on():
            return InterruptedRun(f"Stopped following. {goes_on(search.run_id)}")
        return InterruptedRun(_resumable(search.run_id, "interrupted"))

    def _adopt(self, search: Search, newest: RoundPlan, *, watched: bool) -> Outcome | None:
        """Follow a round that goes on by itself to its end and return its answer; None if there is more to do."""
        if self._is_under_way(search, newest):
            self._refuse_fresh(search)
            if is_cancelled(self.store, newest):  # before this call, which therefore means to go on afterwards
                self.say(f"{search.run_id} was cancelled and is ending; going on once it has.")
                self.watcher.follow_sent(search, newest)
                return None
            self.say(f"{search.run_id} goes on by itself; following it. Ctrl-C ends the following alone.")
            self._complete(newest)
            legs = self.watcher.follow_sent(search, newest)
            # Whoever planned it a moment ago, with another backend, may have died before anything was sent.
            return self._conclude_sent(search, legs, adopted=True) if was_sent(self.store, legs[-1].plan) else None
        if watched and not is_cancelled(self.store, newest) and was_sent(self.store, newest):
            progress = poll_to_end(ProgressReader(self.store, newest, search.spec.refit_scorer()))
            return self._conclude_sent(search, [Leg(newest, progress)], adopted=True)
        return None

    def _complete(self, newest: RoundPlan) -> None:
        """Send what a desk of the same backend has not sent any more of a round that is under way."""
        if newest.backend == self.backend.name:
            self._send_all(newest)

    def _is_under_way(self, search: Search, newest: RoundPlan) -> bool:
        """Say whether a round that was sent goes on; nobody is asked where the views say that it is over."""
        if is_concluded(self.store, newest, search.spec.refit_scorer()):
            return False
        return self.liveness.is_worked_on()

    def _wait_for_orphan(self, search: Search) -> None:
        """End what a driver that was killed has left working, and wait for it."""
        if self.liveness.is_worked_on():
            self.say(f"The work of a killed process on {search.run_id} is ending; waiting for it.")
            self.liveness.end_orphans()
        while self.liveness.is_worked_on():
            self.sleep(POLL_SECONDS)

    def _advance(self, search: Search, *, watched: bool) -> Outcome:
        newest = self.liveness.newest()
        if newest is not None and self._is_answered(search, newest, accept_lost=watched):
            return self._conclude(search, newest, Work(), reused=True)
        if newest is not None and watched and is_cancelled(self.store, newest):
            raise InterruptedRun(_resumable(search.run_id, "cancelled"))
        self.backend.warm()
        plan = self._plan(search, newest)
        if not self.backend.survives or plan.num_tasks == 0:
            return self._conclude(search, plan, self._compute(search, plan))
        self._send_all(plan)
        self.say(f"Sent {plan.num_tasks:,} of its tasks; {plan.run_id} goes on without this terminal from here on.")
        return self._conclude_sent(search, self.watcher.follow_sent(search, plan))

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
            claims.send(self.store, plan, array, self.backend)
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

    def _send_all(self, plan: RoundPlan) -> None:
        """Send the arrays of a round and the reduce step behind them, each unless it was sent already.

        Raises:
            FoldfleetError: something could not be sent; it says what goes on all the same.
        """
        request, handles = self.backend.build_request(plan), []
        try:
            for array in request.arrays:
                handle = claims.send_once(self.store, plan, array, self.backend, sleep=self.sleep)
                handles.append(handle)
            if request.after is not None:
                after = self.backend.bind(request.after, handles)
                claims.send_once(self.store, plan, after, self.backend, sleep=self.sleep)
        except FoldfleetError as error:
            if not handles:
                raise
            raise type(error)(
                f"{error.message} What was sent before goes on: the same command sends the rest and follows it, "
                f"`submit cancel {plan.run_id}` ends it."
            ) from None
        self.liveness.look_anew()

    def _conclude_sent(self, search: Search, legs: Sequence[Leg], *, adopted: bool = False) -> Outcome:
        """Return the answer of rounds that have ended by themselves, the newest's, and do what they left undone.

        Raises:
            FoldfleetError: what a task, or who worked on it, refused with.
        """
        plan, cells, why = legs[-1].plan, cells_of_progress(legs[-1].progress), None
        work = Work() if adopted else _work_of(legs)
        trouble = None if cells.over else self.liveness.trouble()
        if is_cancelled(self.store, plan):
            # A limit of the stack ends a run as a person does, and says so.
            if trouble is not None and isinstance(trouble.error, LimitError):
                raise trouble.error
            raise InterruptedRun(_resumable(plan.run_id, "cancelled"))
        if not cells.over:
            if trouble is not None and trouble.error is not None:
                raise trouble.error
            why = "AWS knows nothing of it any more" if trouble is None else trouble.text
            self.await_view(plan, cells.done)
        return self._conclude(search, plan, work, reused=adopted, missing=why)

    def await_view(self, plan: RoundPlan, num_done: int) -> bool:
        """Wait a while for whoever reduces what failed; return whether the views now tell of it."""
        waited = 0.0
        while not tells_of(read_view(self.store, plan.run_id), plan, num_done):
            if waited >= RULE_SECONDS:
                return False
            self.sleep(CLOUD_POLL_SECONDS)
            waited += CLOUD_POLL_SECONDS
        return True

    def _conclude(
        self, search: Search, plan: RoundPlan, work: Work, *, reused: bool = False, missing: str | None = None
    ) -> Outcome:
        """Make the views unless they are there, refit unless the model is there.

        Args:
            search: the run.
            plan: its newest round.
            work: what this call computed.
            reused: the cells were found finished.
            missing: why some have no row, so that partial views will do.
        """
        view = read_view(self.store, plan.run_id)
        ready = view is not None and (is_current(view, plan) or (missing is not None and tells_of(view, plan, 0)))
        summary = view if view is not None and ready else self._reduce(plan)
        why = None
        if self._lacks_model(search, plan, summary):
            why = self._why_no_model(plan, summary)
        planned = plan.num_known if work.known is None else work.known
        found = int(summary["cells"]["done"]) if reused else planned
        return Outcome(plan, summary, work.fits, found, work.fit_s, why, missing)

    def _reduce(self, plan: RoundPlan) -> dict[str, Any]:
        summary = self._step(reduce_arguments, plan)
        is_short = summary["best"] is not None and summary["best"]["params"] is None
        view = read_view(self.store, plan.run_id) if is_short else None
        return summary if view is None else summary | {"best": view["best"]}

    def _why_no_model(self, plan: RoundPlan, summary: dict[str, Any]) -> str | None:
        """Return why a refit gave no model; one that nobody tried yet is tried now."""
        told = summary.get("refit") or self._told_by_reduce(plan)
        reason: str | None = (told or self._step(refit_arguments, plan))["reason"]
        return reason

    def _told_by_reduce(self, plan: RoundPlan) -> dict[str, Any] | None:
        """Return what the refit told that was sent behind a round, if one was."""
        sent = [handle for index in (0, len(plan.arrays)) for handle in claims.all_handles(self.store, plan, index)]
        for handle in reversed(sent):
            answer = read_answer(self.store, str(handle["answer"])) if "answer" in handle else None
            if answer is not None and answer.answer is not None:
                refit: dict[str, Any] | None = answer.answer.get("refit")
                return refit if refit and refit.get("reason") else None
        return None

    def _step(self, arguments: Callable[[str, str], list[str]], plan: RoundPlan) -> dict[str, Any]:
        return self.backend.step(arguments(self.store.url, plan.run_id))

    def _lacks_model(self, search: Search, plan: RoundPlan, summary: dict[str, Any]) -> bool:
        told = {name: summary[name] for name in ("complete", "best")}
        view = read_view(self.store, plan.run_id) or {}
        return lacks_model(told | {name: view[name] for name in ("model",) if name in view}, search.spec.refit_scorer())


def _work_of(legs: Sequence[Leg]) -> Work:
    """Return what was computed in rounds that a call planned, or that were added while it followed them."""
    missing = [leg.progress.total - leg.progress.done + leg.progress.lost for leg in legs]
    fits = sum(max(leg.plan.num_fits - number, 0) for leg, number in zip(legs, missing, strict=True))
    return Work(fits, sum(leg.progress.fit_s for leg in legs), legs[0].plan.num_known)


def _resumable(run_id: str, what: str) -> str:
    return f"{run_id} was {what}; what is finished is kept. `submit resume {run_id}` computes only what is missing."
