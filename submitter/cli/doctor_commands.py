"""What `submit doctor` does: look, and say what is wrong with one remedy each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jobspec.errors import FoldfleetError
from jobspec.settings import load_settings
from submitter.cli.display import count
from submitter.cli.spec_commands import open_desk
from submitter.cli.talk import answer, say, write
from submitter.doctor.desk import Patient, check_place, diagnose
from submitter.doctor.findings import Finding, Level, exit_code_of, from_error

_INDENT = " " * 9


def examine_place(on: str, store: str | None, stack: str | None, *, as_json: bool) -> int:
    """Look at what a backend needs; print each finding as soon as it is made.

    Raises:
        UsageError: there is no such backend.
    """
    check_place(on)
    findings = list(_told(_findings(on, store, stack), as_json=as_json))
    code = exit_code_of(findings)
    if as_json:
        answer({"on": on, "healthy": code == 0, "findings": [finding.to_json() for finding in findings]})
        return code
    wrong = sum(finding.level is Level.WRONG for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    if wrong:
        say(f"{count(wrong, 'thing')} must be put right before `submit run --on {on}` works; begin with the first.")
    else:
        rest = f"; {count(warnings, 'warning')}" if warnings else ""
        say(f"`submit run --on {on}` can work{rest}.")
    return code


def _findings(on: str, store: str | None, stack: str | None) -> Iterator[Finding]:
    try:
        settings = load_settings()
    except FoldfleetError as error:  # nothing else can be looked at without them
        yield from_error("settings", error)
        return
    yield from diagnose(on, Patient(settings, store, stack or settings.stack, lambda: open_desk(store).store))


def _told(findings: Iterable[Finding], *, as_json: bool) -> Iterator[Finding]:
    for finding in findings:
        if not as_json:
            write(f"{finding.level.value:<8} {finding.check:<13} {finding.text}")
            if finding.remedy:
                write(f"{_INDENT}{'':<13} -> {finding.remedy}")
        yield finding
