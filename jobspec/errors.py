"""The one exception family; an entry point turns it into one paragraph and an exit code."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar


class ExitCode(IntEnum):
    """Exit codes of every foldfleet process."""

    OK = 0
    CELLS_FAILED = 1
    SPEC = 2
    DATA = 3
    ACCESS = 4
    NOT_FOUND = 5
    LIMIT = 7
    TRY_LATER = 75
    INTERRUPTED = 130


class FoldfleetError(Exception):
    """Say in one paragraph what was given, what is allowed and what to type next."""

    exit_code: ClassVar[ExitCode] = ExitCode.SPEC

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_json(self) -> dict[str, Any]:
        """Encode for another process."""
        return {"exit": int(self.exit_code), "message": self.message}

    @staticmethod
    def from_json(document: dict[str, Any]) -> FoldfleetError:
        """Rebuild the error of another process with its exit code."""
        kind = _BY_CODE.get(int(document["exit"]), FoldfleetError)
        return kind(str(document["message"]))


class SpecError(FoldfleetError):
    """The spec cannot be run as it is written."""

    exit_code = ExitCode.SPEC


class UsageError(FoldfleetError):
    """The command line cannot be carried out as it was typed."""

    exit_code = ExitCode.SPEC


class DataError(FoldfleetError):
    """The data are missing, unreadable or do not fit the spec."""

    exit_code = ExitCode.DATA


class AccessError(FoldfleetError):
    """Credentials or permissions do not suffice."""

    exit_code = ExitCode.ACCESS


class NotFoundError(FoldfleetError):
    """A run or an object does not exist."""

    exit_code = ExitCode.NOT_FOUND


class LimitError(FoldfleetError):
    """A limit or a budget refused the work before it began."""

    exit_code = ExitCode.LIMIT


class TryLaterError(FoldfleetError):
    """The same call can succeed later: a full disk, another process at work."""

    exit_code = ExitCode.TRY_LATER


class InterruptedRun(FoldfleetError):
    """The run was interrupted or cancelled; what is finished is kept."""

    exit_code = ExitCode.INTERRUPTED


_BY_CODE: dict[int, type[FoldfleetError]] = {
    int(kind.exit_code): kind
    for kind in (SpecError, DataError, AccessError, NotFoundError, LimitError, TryLaterError, InterruptedRun)
}
