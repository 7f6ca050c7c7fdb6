"""What a check finds, and how an error becomes a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from jobspec.errors import AccessError, ExitCode, FoldfleetError


class Level(StrEnum):
    """How bad it is: a run works, works less well, or does not work."""

    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """What one check found; ``remedy`` says what to type, or which right to ask for, and is empty where all is well."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    exit_code: int = 0

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


Look = Callable[[], Iterable[Finding]]


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return that runs work, but slower, dearer or not for long."""
    return Finding(check, Level.WARNING, text, remedy)


def wrong(check: str, text: str, remedy: str, exit_code: ExitCode) -> Finding:
    """Return that runs do not work; ``exit_code`` is the one with which they would end."""
    return Finding(check, Level.WRONG, text, remedy, int(exit_code))


def examine(check: str, look: Look, *, optional: bool = False) -> list[Finding]:
    """Return what a check finds; an error that it meets is a finding too.

    Args:
        check: names the finding that an error becomes.
        look: the check.
        optional: runs do without the rights that the check needs, so that a missing one is only a warning.
    """
    found: list[Finding] = []
    try:
        found.extend(_each(look))
    except FoldfleetError as error:
        found.append(from_error(check, error, optional=optional))
    return found


def from_error(check: str, error: FoldfleetError, *, optional: bool = False) -> Finding:
    """Return an error as a finding: messages tell first what is the matter, and then what to do."""
    text, _, remedy = error.message.partition(". ")
    if optional and isinstance(error, AccessError):
        return Finding(check, Level.WARNING, f"not looked at: {text}", remedy)
    return Finding(check, Level.WRONG, text, remedy or "Type the same command with --debug.", int(error.exit_code))


def exit_code_of(findings: Sequence[Finding]) -> int:
    """Return 0 if nothing is wrong, else the exit code of the first thing that is."""
    return next((finding.exit_code for finding in findings if finding.level is Level.WRONG), int(ExitCode.OK))


def _each(look: Look) -> Iterator[Finding]:
    yield from look()
