"""How the core speaks to whoever started it: by what it is given, by default to nobody."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol, TypeAlias

from jobspec.runs.progress import Progress

Say: TypeAlias = Callable[[str], None]
"""Takes a line of talk."""

Describe: TypeAlias = Callable[[int], str]
"""Names a candidate by its index."""


class Display(Protocol):
    """Shows progress between entering and leaving."""

    def update(self, progress: Progress) -> None:
        """Show a newer state."""

    def __enter__(self) -> Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


DisplayFactory: TypeAlias = Callable[[Describe, str], Display]
"""Makes a display from a function that describes a candidate, and a label."""


def say_nothing(_text: str) -> None:
    """Let talk fall where nobody listens."""


class NoDisplay:
    """Shows nothing."""

    def __init__(self, *_: object) -> None:
        return

    def update(self, progress: Progress) -> None:
        """Do nothing."""

    def __enter__(self) -> NoDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return
