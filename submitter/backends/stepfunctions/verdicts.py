"""Why an execution ended otherwise than well, with the exit code that a desk gives to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobspec.errors import FoldfleetError, LimitError, NotFoundError, TryLaterError
from submitter.backends.base import Trouble
from submitter.backends.stepfunctions.request import name_of

INCOMPLETE = "foldfleet.Incomplete"
"""Cells are missing after the last retry: no error of a desk, whose answer names them."""

REFUSED = "foldfleet.Refused"

KINDS: Mapping[str, type[FoldfleetError]] = {
    REFUSED: FoldfleetError,
    "foldfleet.Stuck": TryLaterError,
    "foldfleet.OverLimit": LimitError,
    "foldfleet.NoImage": NotFoundError,
    "foldfleet.Broken": TryLaterError,
}
"""The errors of the search machine beside that one. What Step Functions itself raises is taken for ``Broken``."""

AGAIN = "What is finished is kept: `submit resume {run}` goes on."


def verdict_of(detail: Mapping[str, Any], run_id: str) -> Trouble | None:
    """Return why an execution ended as it did, None if it ended well or goes on."""
    status, name = str(detail.get("status")), name_of(str(detail.get("executionArn", "")))
    again = AGAIN.replace("{run}", run_id)
    if status == "TIMED_OUT":
        return Trouble(None, f"the execution {name} took longer than its state machine allows. {again}")
    if status == "ABORTED":
        why = f" ({cause})" if (cause := _flat(detail.get("cause"))) else ""
        return Trouble(None, f"somebody stopped the execution {name}{why}. {again}")
    if status != "FAILED":
        return None
    error, cause = str(detail.get("error") or ""), _flat(detail.get("cause"))
    text = cause or f"Step Functions gives no reason ({error or 'nor an error'})"
    if error == INCOMPLETE:
        return Trouble(None, text)
    what = f"{text.rstrip('.')}. (So ended the execution {name}: {error}.)"
    told = what if "submit " in text else f"{what} {again}"
    return Trouble(KINDS.get(error, TryLaterError)(told), text)


def _flat(words: object) -> str:
    return " ".join(str(words or "").split())
