"""How answers look on stdout: plain tables of rich, which drops colours where NO_COLOR or a pipe asks for it."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec.grammar.values import show
from submitter.cli.display import format_seconds
from submitter.cli.leaderboard import Entry
from submitter.cli.talk import write

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

NARROW_COLUMNS = 100
PIPE_COLUMNS = 160
"""Width where stdout is no terminal: wide enough that no cell is cut."""


def show_all(*renderables: RenderableType) -> None:
    """Print tables and lines as they are; for a pipe without the blanks that fill up lines.

    Names come from specs and data: rich must find neither its markup nor emoji codes in them.
    """
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False, markup=False, emoji=False).print(*renderables, sep="\n")
        return
    text = io.StringIO()
    console = Console(file=text, width=PIPE_COLUMNS, highlight=False, markup=False, emoji=False)
    console.print(*renderables, sep="\n")
    write("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def dim(text: str) -> Text:
    """Return a line that stands back."""
    from rich.text import Text

    return Text(text, style="dim")


def is_narrow() -> bool:
    """Say whether stdout is a terminal with no room for columns that can be missed."""
    return sys.stdout.isatty() and shutil.get_terminal_size().columns < NARROW_COLUMNS


def leaderboard_table(entries: Sequence[Entry], ranked_by: str | None, *, with_times: bool = True) -> Table:
    """Return the candidates with the ranking score first, mean and standard deviation over the folds."""
    from rich.table import Table

    scorers = list(entries[0].means) if entries else []
    first = ranked_by if ranked_by in scorers else next(iter(scorers), None)
    others = [name for name in scorers if name != first]
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column(first or "score", no_wrap=True)
    for name in others:
        table.add_column(name, no_wrap=True)
    if with_times:
        table.add_column("fit", justify="right", no_wrap=True)
    table.add_column("estimator", overflow="fold")
    table.add_column("parameters", overflow="fold")
    for entry in entries:
        table.add_row(*_cells(entry, first, others, with_times=with_times), style="bold" if entry.rank == 1 else None)
    return table


def _cells(entry: Entry, first: str | None, others: Sequence[str], *, with_times: bool) -> list[str]:
    fit = "-" if entry.fit_s is None else format_fit(entry.fit_s)
    return [
        "-" if entry.rank is None else str(entry.rank),
        _mean_and_std(entry, first),
        *(_score(entry.means[name]) for name in others),
        *([fit] if with_times else []),
        entry.title,
        f"failed: {entry.error}" if entry.error else format_params(entry.params),
    ]


def _mean_and_std(entry: Entry, name: str | None) -> str:
    if name is None or entry.means[name] is None:
        return "-"
    return f"{_score(entry.means[name])} ± {_score(entry.stds[name])}"


def _score(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1e5 else f"{value:.4g}"


def format_fit(seconds: float) -> str:
    """Return the time of one fit, which can be far below a second."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else format_seconds(seconds)


def format_params(params: dict[str, Any]) -> str:
    """Return parameters on one line, floats rounded to six digits; cv_results has them exactly."""
    return ", ".join(f"{name}={_value(value)}" for name, value in params.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else show(value)


def facts_table(facts: Sequence[tuple[str, str]]) -> Table:
    """Return names and values below each other."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    return table


def short_path(path: str | None) -> str:
    """Return a path relative to the working folder where it lies below it."""
    if path is None:
        return "-"
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def format_time(seconds: float) -> str:
    """Return a moment in the local time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def format_bytes(number: int) -> str:
    """Return a size for a person."""
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
