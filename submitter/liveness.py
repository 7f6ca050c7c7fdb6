"""Who works on a run at this moment, told by locks that the kernel releases when their holder dies.

Two locks: `array_lock` is held by the work step for its life; the driver's lock by the one `submit` process that
plans, starts and reduces. The second closes the gaps in which the first is free: while a round is committed but
its work has not begun, and between work, reduce and refit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobspec.hostlock import HostLock
from jobspec.protocol import array_lock, run_lock
from jobspec.stores.base import Store


@dataclass(frozen=True)
class Liveness:
    """The locks of one run: in its store if that is a folder, else of this host alone."""

    cache: Path
    store: Store
    run_id: str

    def driver(self) -> HostLock:
        """Return the lock of the process that drives the run."""
        return HostLock(run_lock(self.store, self.cache, self.run_id, "driver"), probed=True)

    def is_driven(self) -> bool:
        """Say whether another process drives the run."""
        return self.driver().held_elsewhere()

    def is_worked_on(self) -> bool:
        """Say whether a work step is alive; its driver may have died a moment ago."""
        return HostLock(array_lock(self.store, self.cache, self.run_id), probed=True).held_elsewhere()

    def is_alive(self) -> bool:
        """Say whether anything of the run is alive; looking takes no lock from anybody, see `HostLock`."""
        return self.is_driven() or self.is_worked_on()
