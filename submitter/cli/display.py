"""How progress looks: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from jobspec.runs.progress import Progress
from submitter.showing import Describe, Display

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

LINE_SECONDS = 10.0
LINE_PERCENT = 10
_BEST_CHARACTERS = 100

Clock = Callable[[], float]


def make_display(describe: Describe, label: str, stream: TextIO | None = None, now: Clock = time.monotonic) -> Display:
    """Return a bar if ``stream`` (default: stderr) is a terminal that can draw one, else lines."""
    stream = stream or sys.stderr
    animated = stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
    return BarDisplay(describe, label, stream, now) if animated else LineDisplay(describe, stream, now)


class Pace:
    """Cells per second since the first look, and the time that is left at that rate."""

    def __init__(self, now: Clock) -> None:
        self._now = now
        self._first: tuple[float, int] | None = None

    def rate(self, progress: Progress) -> float | None:
        """Return cells per second, or None while nothing has been finished yet."""
        if self._first is None:
            self._first = (self._now(), progress.done)
        started, done = self._first
        elapsed = self._now() - started
        return (progress.done - done) / elapsed if elapsed > 0 and progress.done > done else None

    def left_s(self, progress: Progress) -> float | None:
        """Return the expected seconds to the end."""
        rate = self.rate(progress)
        return None if rate is None else (progress.total - progress.done) / rate


class LineDisplay:
    """A line every ten seconds or ten per cent, whichever comes first, and one at the end."""

    def __init__(self, describe: Describe, stream: TextIO, now: Clock) -> None:
        self._describe = describe
        self._stream = stream
        self._now = now
        self._pace = Pace(now)
        self._last: tuple[float, int] | None = None

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def update(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        rate, left = self._pace.rate(progress), self._pace.left_s(progress)
        step = _percent(progress) // LINE_PERCENT
        if self._last is not None and step == self._last[1] and self._now() - self._last[0] < LINE_SECONDS:
            return
        self._last = (self._now(), step)
        self._stream.write(format_line(progress, rate, left, self._describe) + "\n")
        self._stream.flush()


class BarDisplay:
    """A bar and the best candidate so far, redrawn in place; it draws nothing by itself, so it starts no thread."""

    def __init__(self, describe: Describe, label: str, stream: TextIO, now: Clock) -> None:
        self._describe = describe
        self._label = label
        self._stream = stream
        self._pace = Pace(now)
        self._live: Live | None = None

    def __enter__(self) -> BarDisplay:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(file=self._stream), auto_refresh=False)
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Redraw."""
        if self._live is not None:
            self._live.update(self._render(progress), refresh=True)

    def _render(self, progress: Progress) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        row = Table.grid(padding=(0, 2), expand=False)
        bar = ProgressBar(total=max(progress.total, 1), completed=progress.done, width=30)
        row.add_row(Text(self._label, style="bold"), bar, self._numbers(progress))
        best = describe_best(progress, self._describe)
        return Group(row, Text(f"best so far  {best}" if best else "", style="dim", overflow="ellipsis", no_wrap=True))

    def _numbers(self, progress: Progress) -> Text:
        from rich.text import Text

        rate, left = self._pace.rate(progress), self._pace.left_s(progress)
        rest = _left_text(left) if progress.done < progress.total else ""
        parts = [f"{progress.done}/{progress.total} cells", _rate_text(rate), rest]
        text = Text("  ".join(part for part in parts if part))
        for number, word in ((progress.failed, "failed"), (progress.lost, "lost")):
            if number:
                text.append(f"  {number} {word}", style="red")
        return text


def format_line(progress: Progress, rate: float | None, left_s: float | None, describe: Describe) -> str:
    """Return progress as one plain line."""
    parts = [
        f"{progress.done}/{progress.total} cells ({_percent(progress)} %)",
        _rate_text(rate),
        _left_text(left_s) if progress.done < progress.total else "",
        f"{progress.failed} failed" if progress.failed else "",
        f"{progress.lost} lost" if progress.lost else "",
    ]
    best = describe_best(progress, describe)
    return ", ".join(part for part in parts if part) + (f"; best so far {best}" if best else "")


def describe_best(progress: Progress, describe: Describe) -> str:
    """Return the best mean so far with the candidate, or nothing."""
    best = progress.best
    if best is None:
        return ""
    text = describe(best.candidate)
    short = text if len(text) <= _BEST_CHARACTERS else text[: _BEST_CHARACTERS - 3] + "..."
    return f"{best.mean:.4f} over {count(best.num_folds, 'fold')}: {short}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 fold`` or ``5 folds``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_seconds(seconds: float) -> str:
    """Return a duration for a person."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _percent(progress: Progress) -> int:
    return math.floor(100 * progress.done / progress.total) if progress.total else 100


def _rate_text(rate: float | None) -> str:
    return "" if rate is None else f"{rate:.1f} cells/s"


def _left_text(left_s: float | None) -> str:
    return "" if left_s is None else f"{format_seconds(left_s)} left"
