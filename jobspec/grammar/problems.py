"""Problems of a spec: where each stands, what was given, what is allowed."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from jobspec.errors import SpecError
from jobspec.grammar.yamlfile import Locations

MAX_REPORTED = 10


class Problem(Exception):
    """One problem at one place; ``at_key`` points at the key instead of its value."""

    def __init__(self, path: tuple[Any, ...], message: str, *, at_key: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.at_key = at_key


class Problems:
    """Collect problems, so that a person sees several at once."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations
        self._lines: list[str] = []

    def add(self, problem: Problem) -> None:
        """Note one problem; the same one at the same place counts once."""
        place = self._locations.of_key if problem.at_key else self._locations.of
        line = f"{place(problem.path)}: {problem.message}"
        if line not in self._lines:
            self._lines.append(line)

    @property
    def any(self) -> bool:
        """Whether anything was noted."""
        return bool(self._lines)

    def collect(self) -> _Collecting:
        """Note the problem that ends a ``with`` block, and go on behind it."""
        return _Collecting(self)

    def raise_any(self) -> None:
        """Raise what was collected.

        Raises:
            SpecError: a line for each problem, ten at most.
        """
        if not self._lines:
            return
        shown = self._lines[:MAX_REPORTED]
        if len(self._lines) > MAX_REPORTED:
            shown.append(f"... and {len(self._lines) - MAX_REPORTED} more.")
        raise SpecError("\n".join(shown))


class _Collecting:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(raised, Problem):
            self._problems.add(raised)
            return True
        return False


def dotted(path: tuple[Any, ...]) -> str:
    """Write a path as people say it, such as ``candidates[0].grid.C``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) and not isinstance(step, bool) else f".{step}"
    return text.lstrip(".") or "the spec"


def kind_of(value: Any) -> str:
    """Name a YAML value with its kind, such as ``the text 'abc'``."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value!r}"
    if isinstance(value, str):
        return f"the text {shorten(value)}"
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else "a mapping"


def shorten(text: str) -> str:
    """Quote a text, cut to 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")
