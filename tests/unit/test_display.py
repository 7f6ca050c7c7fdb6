from __future__ import annotations

import io

import pytest

from jobspec.runs.progress import Best, Progress
from submitter.cli.display import BarDisplay, LineDisplay, Pace, format_seconds, make_display


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(done: int, total: int = 100, *, failed: int = 0, lost: int = 0, best: Best | None = None) -> Progress:
    return Progress(total, 0, done - failed - lost, failed, lost, 0, best, 0.0)


def describe(index: int) -> str:
    return f"SVC(C={index})"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_come_every_ten_per_cent() -> None:
    stream, clock = io.StringIO(), Clock()
    display = LineDisplay(describe, stream, clock)
    for done in range(101):
        display.update(progress(done))
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == [f"{n}/100" for n in range(0, 101, 10)]


def test_lines_come_every_ten_seconds() -> None:
    stream, clock = io.StringIO(), Clock()
    display = LineDisplay(describe, stream, clock)
    for second in range(31):
        clock.now = 100.0 + second
        display.update(progress(3))
    assert len(stream.getvalue().splitlines()) == 4


def test_a_line_tells_rate_rest_failures_and_the_best() -> None:
    stream, clock = io.StringIO(), Clock()
    display = LineDisplay(describe, stream, clock)
    display.update(progress(0))
    clock.now += 10
    display.update(progress(50, failed=2, lost=1, best=Best(7, 0.98765, 3)))
    assert stream.getvalue().splitlines()[1] == (
        "50/100 cells (50 %), 5.0 cells/s, 10 s left, 2 failed, 1 lost; best so far 0.9877 over 3 folds: SVC(C=7)"
    )


def test_reused_cells_do_not_count_as_pace() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.rate(Progress(100, 40, 0, 0, 0, 0, None, 0.0)) is None
    clock.now += 2
    assert pace.left_s(Progress(100, 40, 10, 0, 0, 0, None, 0.0)) == 10.0


def test_an_animation_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_display(describe, "x", io.StringIO()), LineDisplay)
    assert isinstance(make_display(describe, "x", Terminal()), BarDisplay)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_display(describe, "x", Terminal()), LineDisplay)


def test_the_bar_shows_what_a_line_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    stream, clock = Terminal(), Clock()
    with BarDisplay(describe, "letters", stream, clock) as display:
        display.update(progress(0))
        clock.now += 10
        display.update(progress(50, failed=2, best=Best(7, 0.98765, 3)))
    shown = stream.getvalue()
    for part in ("letters", "50/100 cells", "5.0 cells/s", "10 s left", "2 failed", "0.9877 over 3 folds: SVC(C=7)"):
        assert part in shown
    assert "\x1b[38" not in shown  # no colour


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (41.3, "41 s"), (60, "1 min 00 s"), (3599.6, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
