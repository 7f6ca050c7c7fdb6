"""Where words go: stdout carries the answer, stderr the talk."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from typing import Any

import typer


def say(text: str) -> None:
    """Write a line of talk; on a terminal, broken between words."""
    if sys.stderr.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 40)
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    typer.echo(text, err=True)


def write(text: str) -> None:
    """Write a line of the answer."""
    typer.echo(text)


def answer(document: dict[str, Any]) -> None:
    """Write the one JSON object of ``--json``; NaN and infinities, which JSON lacks, become null."""
    typer.echo(json.dumps(_finite(document), allow_nan=False))


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
