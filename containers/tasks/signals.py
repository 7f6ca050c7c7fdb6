"""Signals as something to wait for, so that a process without threads answers them at once."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType


class Wakeup:
    """Turn signals into a file descriptor that can be waited on.

    A handler alone would run only between two byte codes; the descriptor ends a wait.
    """

    def __init__(self, *signals: int) -> None:
        self._signals = signals
        self._caught: set[int] = set()
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Wakeup:
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._signals:
            signal.signal(number, self._catch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL)

    def caught(self) -> set[int]:
        """Return every signal that has come so far, and clear the descriptor."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 512):
                pass
        return set(self._caught)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self._caught.add(number)
