"""What the commands do that begin with a spec: validate, plan, run."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jobspec.errors import ExitCode, UsageError
from jobspec.runs.rounds import Draft, latest_round
from jobspec.search.counting import CellCount
from jobspec.search.memo import PrepareOptions
from jobspec.search.planning import MAX_CELLS, check_cells
from jobspec.settings import DEFAULT_STORE, load_settings
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout
from submitter.backends.base import LOCAL, backend_module
from submitter.cli.answers import PLANNED, finish, plan_answer
from submitter.cli.display import count, make_display
from submitter.cli.printing import print_plan
from submitter.cli.talk import answer, say, write
from submitter.detach import start_detached
from submitter.interrupts import interrupt_on_signals
from submitter.liveness import Liveness
from submitter.preparation import Desk, NotSeenHereError, Preparation, prepare
from submitter.runner import Runner
from submitter.search import draft_next
from submitter.standing import RunState, read_view


@dataclass(frozen=True)
class SpecFlags:
    """The options that say how a spec is read and where it would run."""

    on: str
    store: str | None
    workers: int | None
    max_folds: int
    allow_small_classes: bool
    as_json: bool


@dataclass(frozen=True)
class RunFlags:
    """The options of `submit run` alone."""

    fresh: bool
    detach: bool
    dry_run: bool
    max_cells: int


def open_desk(store: str | None, on: str = LOCAL) -> Desk:
    """Return the user's settings, and the store: flag, environment, configuration file, the backend's, ``./foldfleet``.

    Args:
        store: the flag.
        on: the backend.
    """
    settings = load_settings()
    named = store or (settings.store if settings.store != DEFAULT_STORE else None)
    if named is None and on != LOCAL and (found := backend_module(on).default_store(settings)) is not None:
        say(f"Results go to {found}. `export FOLDFLEET_STORE={found}` lets `submit status` and all others find them.")
        named = found
    opened = open_store(named or settings.store)
    if named is None:
        _check_default(Path(opened.url))
    return Desk(settings, opened)


def _check_default(folder: Path) -> None:
    """Refuse to write into a folder that only happens to have the default store's name.

    Raises:
        UsageError: the folder holds something, but nothing of a store.
    """
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if inside and not inside & Layout.tops():
        raise UsageError(
            f"The default store is {DEFAULT_STORE}, but {folder} holds other files (such as {min(inside)}) and nothing "
            "of a store, so it is left alone. Name a folder for the results with --store DIR or FOLDFLEET_STORE."
        )


def validate_spec(path: Path, flags: SpecFlags) -> int:
    """Check a spec and its data as far as that goes without fitting anything."""
    prepared = _prepare(open_desk(flags.store), path, flags)
    prepared.backend.close()
    warnings, search = _warnings(prepared), prepared.search
    if flags.as_json:
        counts = {"candidates": search.num_candidates, "folds": search.num_splits, "cells": search.num_cells}
        answer({"valid": True, "run_id": search.run_id, **counts, "warnings": warnings})
    else:
        _tell(warnings)
        folds = f"{count(search.num_candidates, 'candidate')} on {count(search.num_splits, 'fold')}"
        write(f"{path} is valid: {folds}, {count(search.num_cells, 'cell')}. `submit run {path}` runs it.")
    return ExitCode.OK


def plan_spec(path: Path, flags: SpecFlags, *, dry_run: bool) -> int:
    """Tell what a run would compute, and with ``dry_run`` what would be sent; nothing is started."""
    desk = open_desk(flags.store, flags.on)
    try:
        prepared = _prepare(desk, path, flags, elsewhere=False)
    except NotSeenHereError:
        return _answer_unknown(path, as_json=flags.as_json)
    with closing(prepared.backend):
        draft = _draft(desk, prepared, fresh=False)
        _answer_plan(prepared, draft, as_json=flags.as_json, with_request=dry_run)
    return ExitCode.OK


def run_spec(path: Path, flags: SpecFlags, run: RunFlags) -> int:
    """Bring the run of a spec to its end and print the answer."""
    started = time.monotonic()
    interrupt_on_signals()
    desk = open_desk(flags.store, flags.on)
    try:
        prepared = _prepare(desk, path, flags, elsewhere=not run.dry_run, max_cells=run.max_cells)
    except NotSeenHereError:
        return _answer_unknown(path, as_json=flags.as_json)
    with closing(prepared.backend):
        check_cells(CellCount(prepared.search.num_cells), run.max_cells)
        if run.dry_run:
            _answer_plan(prepared, _draft(desk, prepared, fresh=run.fresh), as_json=flags.as_json, with_request=True)
            return ExitCode.OK
        live = Liveness(desk.settings, desk.store, prepared.search.run_id)
        runner = Runner(desk.store, prepared.backend, live, fresh=run.fresh, display=make_display, say=say)
        _tell([*_warnings(prepared), *(_fresh_warnings(desk, prepared) if run.fresh else [])])
        if run.detach and prepared.backend.survives:
            if runner.send_off(prepared.search) is not None or live.is_alive():
                return _answer_sent(live.run_id, as_json=flags.as_json)
        elif run.detach and (runner.commit(prepared.search) is not None or live.is_alive()):
            return _detach(desk, prepared, live, as_json=flags.as_json)
        return finish(runner, prepared.search, started, as_json=flags.as_json)


def _fresh_warnings(desk: Desk, prepared: Preparation) -> list[str]:
    """Say what a person would wonder about who computes a finished run again."""
    if not (read_view(desk.store, prepared.search.run_id) or {}).get("complete"):
        return []
    return ["the run is finished already; its table stays as it is until the fresh round is as complete."]


def _prepare(
    desk: Desk, path: Path, flags: SpecFlags, *, elsewhere: bool = True, max_cells: int | None = None
) -> Preparation:
    options = PrepareOptions(allow_small_classes=flags.allow_small_classes, max_folds=flags.max_folds)
    on, workers = flags.on, flags.workers
    return prepare(desk, path, options, on=on, workers=workers, say=say, elsewhere=elsewhere, max_cells=max_cells)


def _draft(desk: Desk, prepared: Preparation, *, fresh: bool) -> Draft:
    """Return the round that a run would commit; what a huge grid could reuse is not looked up."""
    search = prepared.search
    reuse = not fresh and search.num_cells <= MAX_CELLS
    newest = latest_round(desk.store, search.run_id)
    return draft_next(desk.store, search, newest, prepared.backend, reuse=reuse)


def _answer_plan(prepared: Preparation, draft: Draft, *, as_json: bool, with_request: bool) -> None:
    request = prepared.backend.build_request(draft.plan) if with_request else None
    document = plan_answer(prepared.search, prepared.inspection, draft.plan, _warnings(prepared))
    if as_json:
        answer(document | ({} if request is None else {"request": request.to_json()}))
    else:
        _tell(document["warnings"])
        print_plan(document, prepared.inspection, request)


def _answer_unknown(path: Path, *, as_json: bool) -> int:
    """Say that nobody knows what would be computed before the data were read where they are."""
    text = f"Not known yet: only the cloud reads these data, and nothing is started there. `submit run {path}` does it."
    if as_json:
        answer(dict.fromkeys(PLANNED) | {"note": text})
    else:
        write(text)
    return ExitCode.OK


def _answer_sent(run_id: str, *, as_json: bool) -> int:
    """Print the run's id; what was sent ends reduced and refitted without this machine."""
    if as_json:
        answer({"run_id": run_id, "state": RunState.RUNNING.value, "log": None})
    else:
        say(f"Sent; it goes on without this machine. `submit watch {run_id}` follows it from anywhere.")
        write(run_id)
    return ExitCode.OK


def _warnings(prepared: Preparation) -> list[str]:
    repeated = sum(map(len, prepared.search.space.duplicates().values()))
    who = "1 candidate repeats an earlier one" if repeated == 1 else f"{repeated:,} candidates repeat earlier ones"
    note = f"{who}: each keeps its row, and one fit serves all of the same."
    return [*prepared.inspection.warnings, *([note] if repeated else [])]


def _tell(warnings: list[str]) -> None:
    for warning in warnings:
        say(f"Warning: {warning}")


def _detach(desk: Desk, prepared: Preparation, live: Liveness, *, as_json: bool) -> int:
    """Start a background process unless one works on the run already, and print the run's id."""
    prepared.backend.close()
    child = None if live.is_alive() else start_detached(desk, live, prepared.backend.workers)
    code = child.exit_code if child is not None else None
    where = f"Log: {child.log}" if child is not None else "Another process works on it already."
    if child is not None and code not in (None, ExitCode.OK, ExitCode.CELLS_FAILED):
        message = f"{child.last_words()} (So ended the background process. {where})"
        say(message)
        if as_json:
            answer({"error": {"exit": code, "message": message}})
        return code
    if as_json:
        state = RunState.RUNNING if code is None else RunState.FINISHED
        answer({"run_id": live.run_id, "state": state.value, "log": None if child is None else str(child.log)})
    else:
        follow = f"Running in the background; `submit watch {live.run_id}` follows it."
        say(f"{follow if code is None else 'Finished already.'} {where}")
        write(live.run_id)
    return ExitCode.OK if code is None else code
