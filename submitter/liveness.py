"""Who works on a run at this moment: its driver, told by a lock, and its tasks, told by their backend.

The driver's lock is held by the one `submit` process that plans, starts and reduces; the kernel releases it when that
process dies. It closes the gaps in which no task is alive: while a round is committed but not sent, and between work,
reduce and refit. On a folder it is in the store; for another store it tells of this host alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobspec.hostlock import HostLock
from jobspec.protocol import run_lock
from jobspec.runs.rounds import latest_round
from jobspec.settings import Settings
from jobspec.stores.base import Store
from submitter.backends.base import Module, Presence, backend_module


@dataclass(frozen=True)
class Liveness:
    """What is alive of one run."""

    settings: Settings
    store: Store
    run_id: str

    def driver(self) -> HostLock:
        """Return the lock of the process that drives the run."""
        return HostLock(run_lock(self.store, self.settings.cache, self.run_id, "driver"), probed=True)

    def is_driven(self) -> bool:
        """Say whether another process drives the run."""
        return self.driver().held_elsewhere()

    def is_worked_on(self) -> bool:
        """Say whether a task of the newest round is alive; its driver may have died a moment ago."""
        module = self._module()
        return module is not None and module.is_working(self._presence)

    def end_orphans(self) -> None:
        """Have the tasks of the newest round end, whose driver is gone."""
        if (module := self._module()) is not None:
            module.end_orphans(self._presence)

    def is_alive(self) -> bool:
        """Say whether anything of the run is alive; looking takes no lock from anybody, see `HostLock`."""
        return self.is_driven() or self.is_worked_on()

    @property
    def _presence(self) -> Presence:
        return Presence(self.settings, self.store, self.run_id)

    def _module(self) -> Module | None:
        """Return the backend that the newest round was planned for."""
        newest = latest_round(self.store, self.run_id)
        return None if newest is None else backend_module(newest.backend)
