"""Ctrl-C, SIGTERM and a closed terminal mean the same: stop, and lose nothing."""

from __future__ import annotations

import signal
from types import FrameType


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; what the parent ignores (``nohup``) stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
