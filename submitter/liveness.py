"""Who works on a run at this moment: its driver, told by a lock, and its tasks, told by their backend.

The driver's lock is held by the one `submit` process that plans, starts and reduces; the kernel releases it when that
process dies. It closes the gaps in which no task is alive: while a round is committed but not sent, and between work,
reduce and refit. On a folder it is in the store; for another store it tells of this host alone.

What was sent to a backend that survives its desk is alive by itself, and asked about as seldom as will do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jobspec.errors import TryLaterError
from jobspec.hostlock import HostLock
from jobspec.protocol import run_lock
from jobspec.runs.rounds import RoundPlan, load_round
from jobspec.settings import Settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.base import Module, Presence, Sighting, Trouble, backend_module

FIRST_LOOK_SECONDS = 1.0
LONGEST_LOOK_SECONDS = 30.0
"""Between two questions to a backend that survives; doubled from one to the next, so that a day costs 3,000 calls."""


@dataclass
class _Memory:
    """What was learnt already: rounds are only ever added, and an answer of a second ago will do."""

    newest: RoundPlan | None = None
    sighting: Sighting | None = None
    due: float = -math.inf
    wait: float = FIRST_LOOK_SECONDS
    told: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Liveness:
    """What is alive of one run."""

    settings: Settings
    store: Store
    run_id: str
    now: Callable[[], float] = time.monotonic
    _memory: _Memory = field(default_factory=_Memory, compare=False, repr=False)

    def driver(self) -> HostLock:
        """Return the lock of the process that drives the run."""
        return HostLock(run_lock(self.store, self.settings.cache, self.run_id, "driver"), probed=True)

    def is_driven(self) -> bool:
        """Say whether another process drives the run."""
        return self.driver().held_elsewhere()

    def newest(self) -> RoundPlan | None:
        """Return the newest committed round, or None; costs one look where none was added since the last call."""
        known = self._memory.newest
        index = -1 if known is None else known.round
        while self.store.exists(Layout.plan(self.run_id, index + 1)):
            index += 1
        if index >= 0 and (known is None or known.round != index):
            self._memory.newest = load_round(self.store, self.run_id, index)
            self.look_anew()
        return self._memory.newest

    @property
    def survives(self) -> bool:
        """Say whether the newest round goes on without its driver once it was sent."""
        module = self._module()
        return module is not None and module.survives

    def is_worked_on(self) -> bool:
        """Say whether a task of the newest round is alive; its driver may have died a moment ago."""
        module = self._module()
        if module is None:
            return False
        if not module.survives:
            return module.is_working(self._presence)
        found = self.sighting()
        return found is not None and found.alive

    def sighting(self) -> Sighting | None:
        """Return how what was sent stands, at most `LONGEST_LOOK_SECONDS` ago; None where only the driver knows."""
        memory = self._memory
        if memory.sighting is not None and self.now() < memory.due:
            return memory.sighting
        module = self._module()
        if module is None or not module.survives:
            return None
        memory.sighting = self._ask(module, memory.sighting)
        memory.due = self.now() + memory.wait
        memory.wait = min(2 * memory.wait, LONGEST_LOOK_SECONDS)
        return memory.sighting

    def _ask(self, module: Module, last: Sighting | None) -> Sighting | None:
        """Ask how things stand; what does not answer at this moment is taken to stand as it stood."""
        try:
            return module.sighting(self._presence)
        except TryLaterError as error:
            if last is None:
                raise
            note = f"No answer on how the run stands; asking again. {error.message}"
            return replace(last, notes=tuple(dict.fromkeys((*last.notes, note))))

    def look_anew(self) -> None:
        """Have the next question asked at once: something has just changed."""
        memory = self._memory
        memory.sighting, memory.due, memory.wait = None, -math.inf, FIRST_LOOK_SECONDS

    def hurry(self) -> None:
        """Have the next questions asked soon: the end is near."""
        memory = self._memory
        memory.wait = FIRST_LOOK_SECONDS
        memory.due = min(memory.due, self.now() + memory.wait)

    def new_notes(self) -> list[str]:
        """Return what a person should know and was not told yet; asks nobody."""
        found = self._memory.sighting
        notes = [note for note in (found.notes if found else ()) if note not in self._memory.told]
        self._memory.told.update(notes)
        return notes

    def end_orphans(self) -> None:
        """Have the tasks of the newest round end, whose driver is gone."""
        if (module := self._module()) is not None:
            module.end_orphans(self._presence)

    def terminate(self) -> None:
        """End what was sent for the newest round, where asking its tasks to stop does not."""
        if (module := self._module()) is not None:
            module.terminate(self._presence)
            self.look_anew()

    def trouble(self) -> Trouble | None:
        """Return why tasks of the newest round ended early, as far as the backend knows."""
        module = self._module()
        return None if module is None else module.explain(self._presence)

    def is_alive(self) -> bool:
        """Say whether anything of the run is alive; looking takes no lock from anybody, see `HostLock`."""
        return self.is_driven() or self.is_worked_on()

    @property
    def _presence(self) -> Presence:
        return Presence(self.settings, self.store, self.run_id, self._memory.newest)

    def _module(self) -> Module | None:
        """Return the backend that the newest round was planned for."""
        newest = self.newest()
        return None if newest is None else backend_module(newest.backend)
