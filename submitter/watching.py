"""Follow a round until it ends, showing how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from jobspec.errors import AccessError, InterruptedRun, TryLaterError
from jobspec.runs.progress import Progress, ProgressReader
from jobspec.runs.rounds import RoundPlan
from jobspec.search.candidates import describe
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.liveness import Liveness
from submitter.search import Search
from submitter.showing import DisplayFactory, NoDisplay, Say, say_nothing
from submitter.standing import poll_to_end

T = TypeVar("T")

POLL_SECONDS = 0.3

CLOUD_POLL_SECONDS = 2.0
"""Where every look is a request over the network, and nothing takes less than seconds."""

IDLE_SHARE = 4
"""Reading progress takes at most a fifth of the time: a store over the network answers slowly, and by the request."""


def goes_on(run_id: str) -> str:
    """Return what whoever cannot follow a run any longer must know of one that needs no terminal."""
    return (
        f"{run_id} goes on without this terminal, reduce and refit among it. `submit watch {run_id}` follows it from "
        f"anywhere, `submit cancel {run_id}` ends it."
    )


class Pace:
    """Says when something whose duration varies is due again."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due = -math.inf

    def is_due(self) -> bool:
        """Say whether enough time has passed since the last call."""
        return self._now() >= self._due

    def timed(self, call: Callable[[], T]) -> T:
        """Call, and be due again after `IDLE_SHARE` times as long as that took."""
        started = self._now()
        answer = call()
        ended = self._now()
        self._due = ended + IDLE_SHARE * (ended - started)
        return answer


@dataclass(frozen=True)
class Leg:
    """A round that was followed, and what it had come to when nothing of it was alive any more."""

    plan: RoundPlan
    progress: Progress


@dataclass(frozen=True)
class Watcher:
    """Follows a run; it never changes anything."""

    store: Store
    liveness: Liveness
    display: DisplayFactory = NoDisplay
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic
    say: Say = say_nothing

    def watch(self, search: Search) -> None:
        """Follow a run that another process drives until nothing of it is alive.

        Raises:
            InterruptedRun: Ctrl-C; it ends the watching alone.
        """
        run_id = search.run_id
        try:
            while self.liveness.is_alive():
                plan = self.liveness.newest()
                if plan is None:
                    self.sleep(POLL_SECONDS)
                else:
                    self.follow(search, plan, partial(self._is_over, plan))
        except KeyboardInterrupt:
            where = "where it is" if self.liveness.survives else "in its own process"
            text = f"Stopped watching; {run_id} goes on {where}. `submit cancel {run_id}` ends it."
            raise InterruptedRun(text) from None

    def follow(self, search: Search, plan: RoundPlan, ended: Callable[[float], bool]) -> Progress:
        """Show progress until ``ended(seconds)``, which waits that long at most, says yes; return the last state."""
        reader = ProgressReader(self.store, plan, search.spec.refit_scorer())
        pace = Pace(self.now)
        seconds = CLOUD_POLL_SECONDS if self.liveness.survives else POLL_SECONDS
        with self.display(lambda index: describe(search.space.candidate(index)), search.spec.name) as display:
            display.update(progress := pace.timed(reader.poll))
            while not ended(seconds):
                for note in self.liveness.new_notes():
                    self.say(note)
                if pace.is_due() and progress.done < progress.total:
                    display.update(progress := pace.timed(reader.poll))
                    if progress.done >= progress.total:
                        self.liveness.hurry()
            progress = poll_to_end(reader)
            display.update(progress)
        return progress

    def follow_sent(self, search: Search, plan: RoundPlan) -> list[Leg]:
        """Show progress of a round that goes on by itself until nothing of it is alive; return the last state.

        Whoever works on it may add rounds, which are followed, too.

        Raises:
            FoldfleetError: it can no longer be followed, which ends nothing.
        """
        legs: list[Leg] = []
        try:
            while True:
                legs.append(Leg(plan, self.follow(search, plan, partial(self._has_ended, plan))))
                newest = self.liveness.newest()
                if newest is None or newest.round <= plan.round or not self.liveness.survives:
                    return legs
                plan = newest
                self.say(f"Round {plan.round} computes what is missing: {plan.num_fits:,} fits.")
        except (AccessError, TryLaterError) as error:
            raise type(error)(f"{error.message} {goes_on(plan.run_id)}") from None

    def _has_ended(self, plan: RoundPlan, seconds: float) -> bool:
        """Say whether nothing of a round is alive, or a later one is there."""
        self.sleep(seconds)
        newest = self.liveness.newest()
        return (newest is not None and newest.round > plan.round) or not self.liveness.is_worked_on()

    def _is_over(self, plan: RoundPlan, seconds: float) -> bool:
        """Say whether the run has ended or gone on to its next round."""
        self.sleep(seconds)
        return not self.liveness.is_alive() or self.store.exists(Layout.plan(plan.run_id, plan.round + 1))
