"""The one place where an exception becomes a paragraph and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from typer import Abort, TyperException

from jobspec.errors import AccessError, ExitCode, FoldfleetError, InterruptedRun, TryLaterError
from submitter.cli.talk import answer, say

BUG_EXIT = 70
"""EX_SOFTWARE of sysexits.h, as 75 is its EX_TEMPFAIL. Not 1: that says that a run ended and its tables lie there."""


def guarded(command: Callable[[], int | None], arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; an error is one paragraph on stderr, a traceback with ``--debug``.

    With ``--json`` an error also is the one JSON object on stdout. A reader that closes our stdout early
    (``submit list | head -1``) is no error.
    """
    try:
        code = int(command() or ExitCode.OK)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as end:
        if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
            raise  # typer turns a closed pipe into SystemExit(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the outermost place: nothing may pass it
        if "--debug" in arguments:
            traceback.print_exc()
        return _refuse(error, as_json="--json" in arguments)
    return code


def _refuse(error: BaseException, *, as_json: bool) -> int:
    exit_code, message = explain(error)
    say(message)
    if as_json:
        answer({"error": {"exit": exit_code, "message": message}})
    return exit_code


def explain(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the paragraph for an exception."""
    match error:
        case FoldfleetError():
            return int(error.exit_code), error.message
        case TyperException():
            return int(ExitCode.SPEC), _usage(error)
        case KeyboardInterrupt() | Abort():
            return int(InterruptedRun.exit_code), "Interrupted. Type the same command again to go on."
        case OSError() if (known := _explain_os_error(error)) is not None:
            return int(known.exit_code), known.message
        case _:
            return BUG_EXIT, (
                f"This is a bug in foldfleet: {type(error).__name__}: {error}. What is finished is kept. "
                "Type the same command with --debug to see where it happened, and report that."
            )


def _usage(error: TyperException) -> str:
    """Return a usage error in one line, with the help to type."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "submit"
    text = error.format_message().strip().replace("\n", " ")
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} `{command} --help` shows what is allowed."


def _explain_os_error(error: OSError) -> FoldfleetError | None:
    """Name what is wrong with a file outside the store (logs, locks): a full disk, a folder that cannot be made."""
    from jobspec.stores.folder import explain_os_error

    if not isinstance(error.filename, str | Path):
        return None
    known = explain_os_error(error, Path(error.filename), 0)
    text = (
        f"{error.filename} cannot be used: {error.strerror}. Name a folder that you may write: --store for results, "
        "FOLDFLEET_CACHE for folds, locks and logs."
    )
    return known if isinstance(known, TryLaterError) else AccessError(text)
