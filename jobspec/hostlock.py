"""Locks between the processes of one host, which the kernel releases when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

PROBE_SECONDS = 0.2
"""How long a taker of a probed lock goes on while nobody but probes can be in its way; a probe takes microseconds."""

_RETRY_SECONDS = 0.001


class HostLock:
    """An advisory lock on a file; a killed holder releases it at once.

    Who merely asks whether the lock is held must not look like a holder. flock cannot be asked without taking it
    (F_OFD_GETLK sees only locks of fcntl), so a probe takes the lock SHARED for an instant: probes never find each
    other, only an exclusive holder. To an exclusive taker a probe is still in the way; one that is ``probed`` tries
    again for a moment as long as it could share the lock itself, which says that nobody holds it exclusively.
    """

    def __init__(self, path: Path, *, probed: bool = False) -> None:
        """Name the file of the lock.

        Args:
            path: the file; it is made when the lock is taken, never when it is probed.
            probed: nobody shares this lock for longer than a probe does.
        """
        self.path = path
        self._probed = probed
        self._descriptor: int | None = None

    def acquire(self, *, shared: bool = False, blocking: bool = False) -> bool:
        """Take the lock; return False if another process holds it and ``blocking`` is off."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if blocking:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        elif not (_try(descriptor, fcntl.LOCK_SH) if shared else self._try_exclusive(descriptor)):
            os.close(descriptor)
            return False
        self.release()
        self._descriptor = descriptor
        return True

    def _try_exclusive(self, descriptor: int) -> bool:
        deadline = time.monotonic() + (PROBE_SECONDS if self._probed else 0.0)
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline or not _try(descriptor, fcntl.LOCK_SH):
                return False
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(_RETRY_SECONDS)
        return True

    def release(self) -> None:
        """Let the lock go; a lock that is not held is no error."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def held_elsewhere(self) -> bool:
        """Say whether another process holds the lock exclusively at this moment; creates nothing."""
        if self._descriptor is not None:
            return False
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return not _try(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    def __enter__(self) -> HostLock:
        self.acquire(blocking=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
