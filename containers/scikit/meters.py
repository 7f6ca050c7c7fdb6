"""Measure what one cell costs: seconds, CPU seconds, peak memory, warnings."""

from __future__ import annotations

import contextlib
import re
import resource
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5): reset the "high water mark" of resident memory

MAX_WARNING_CHARACTERS = 500


@dataclass
class WarningLog:
    """Count warnings and keep the first, however many a fit raises."""

    count: int = 0
    first: str | None = None

    def add(self, message: Warning | str, category: type[Warning]) -> None:
        """Take in one warning."""
        self.count += 1
        if self.first is None:
            self.first = f"{category.__name__}: {one_line(str(message), MAX_WARNING_CHARACTERS)}"


@dataclass
class CpuMeter:
    """CPU seconds of all threads of this process, and its peak resident memory in bytes.

    The peak counts the pages of mapped folds that the cell touched; the host holds them once for all workers.
    """

    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    _start: float = field(default_factory=time.process_time)

    def stop(self) -> None:
        """Read the meters."""
        self.cpu_s = time.process_time() - self._start
        self.peak_memory_bytes = read_peak_memory()


@contextlib.contextmanager
def cpu_meter() -> Iterator[CpuMeter]:
    """Measure a block; where the kernel does not let us reset the peak, it is that of the process so far."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    meter = CpuMeter()
    try:
        yield meter
    finally:
        meter.stop()


@contextlib.contextmanager
def warning_log() -> Iterator[WarningLog]:
    """Collect every warning of a block instead of showing it, also those seen before and those made errors."""
    log = WarningLog()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *_, **__: log.add(message, category)
        yield log


def read_peak_memory() -> int:
    """Return the peak resident memory since the last reset, in bytes."""
    with contextlib.suppress(OSError):
        found = re.search(rb"VmHWM:\s+(\d+) kB", _STATUS.read_bytes())
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one_line(text: str, limit: int) -> str:
    """Return text on one line, cut to ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
