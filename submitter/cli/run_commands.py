"""What the commands do that name a run: status, watch, logs, cancel, resume, results, list."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from jobspec.errors import DataError, ExitCode, InterruptedRun, NotFoundError
from jobspec.protocol import reduce_arguments
from jobspec.runs.progress import ProgressReader
from jobspec.runs.rounds import RoundPlan, require_round
from submitter.backends.base import Backend, Presence, UnstartedError, backend_module
from submitter.cli.answers import best_answer, files_answer, finish, status_answer
from submitter.cli.display import make_display
from submitter.cli.guard import explain
from submitter.cli.leaderboard import read_leaderboard
from submitter.cli.printing import print_results, print_runs, print_status
from submitter.cli.talk import answer, say, write
from submitter.interrupts import interrupt_on_signals
from submitter.liveness import Liveness
from submitter.preparation import Desk, open_backend
from submitter.runner import Runner
from submitter.runs import find_run, survey
from submitter.search import Search, check_data, check_engine, stored_search
from submitter.standing import (
    RunState,
    Standing,
    is_concluded,
    is_current,
    lacks_model,
    poll_to_end,
    read_standing,
    read_view,
    was_sent,
)
from submitter.stopping import TABLE_SECONDS, stop_run, stop_unreadable
from submitter.watching import Watcher

UNREADABLE = "unreadable"
"""The state, in a list, of a run that cannot be looked at; its row tells why."""

MAX_STREAMS = 20
"""Logs that are fetched over the network; thousands of tasks have thousands."""


def show_status(desk: Desk, reference: str, *, as_json: bool) -> int:
    """Print where a run stands."""
    search, plan = _stored(desk, reference)
    live = _liveness(desk, search.run_id)
    _show(desk, search, plan, live, as_json=as_json)
    return ExitCode.OK


def _show(desk: Desk, search: Search, plan: RoundPlan, live: Liveness, *, as_json: bool) -> Standing:
    standing = _standing(desk, search, live)
    over = is_concluded(desk.store, plan, search.spec.refit_scorer())
    document = status_answer(desk.store, standing, search, None if over else live.sighting())
    if as_json:
        answer(document)
    else:
        print_status(document)
    return standing


def watch_run(desk: Desk, reference: str, *, as_json: bool) -> int:
    """Follow a run until it ends; the exit code is then that of the run."""
    interrupt_on_signals()
    search, plan = _stored(desk, reference)
    live = _liveness(desk, search.run_id)
    if not is_concluded(desk.store, plan, search.spec.refit_scorer()) or live.is_driven():
        Watcher(desk.store, live, make_display, say=say).watch(search)
    standing = _show(desk, search, live.newest() or plan, live, as_json=as_json)
    if standing.state is RunState.INTERRUPTED and live.survives:
        return ExitCode.CELLS_FAILED  # it ended by itself, and tells in its partial table what is missing
    if standing.state is not RunState.FINISHED:
        return ExitCode.INTERRUPTED
    return ExitCode.CELLS_FAILED if standing.cells.failed or standing.cells.lost else ExitCode.OK


def show_logs(desk: Desk, reference: str, *, num_lines: int, as_json: bool) -> int:
    """Print the last lines of the logs of a run's newest round."""
    plan = require_round(desk.store, find_run(desk.store, reference))
    reader = ProgressReader(desk.store, plan, None)
    poll_to_end(reader)
    module, presence = backend_module(plan.backend), Presence(desk.settings, desk.store, plan.run_id, plan)
    starts = reader.all_starts(backwards=module.survives)
    found: Iterator[str] = (str(start["log"]) for start in starts if start.get("log"))
    if module.survives:  # each is a request, and a round may have thousands: the last ones
        found = reversed([*islice(found, MAX_STREAMS)])
    paths = list(dict.fromkeys(found))
    if len(paths) == MAX_STREAMS < reader.num_started:
        say(f"These are the logs of the last {MAX_STREAMS} tries; {reader.num_started:,} tasks have begun.")
    streams = [{"log": path, "lines": module.read_log(presence, path, num_lines)} for path in paths]
    if not streams:
        raise NotFoundError(f"No task of {plan.run_id} has started yet, so there is no log.")
    if as_json:
        answer({"run_id": plan.run_id, "streams": streams})
    for stream in streams if not as_json else ():
        say(f"==> {stream['log']}")
        write("\n".join(stream["lines"]))
    return ExitCode.OK


def cancel_run(desk: Desk, reference: str, *, as_json: bool, sleep: Callable[[float], None] = time.sleep) -> int:
    """Stop a run and leave a valid table of what is finished.

    Raises:
        TryLaterError: its tasks go on for minutes, or no host comes that could make the table; both need no terminal.
    """
    interrupt_on_signals()
    run_id = find_run(desk.store, reference)
    try:
        search, _ = _stored(desk, run_id)
    except DataError as error:
        raise stop_unreadable(desk.settings, desk.store, run_id, error) from None
    live = _liveness(desk, search.run_id)
    standing = _standing(desk, search, live)
    was_finished = standing.state is RunState.FINISHED
    if not was_finished:
        stop_run(desk.store, standing.plan, live, sleep=sleep)
        standing = _standing(desk, search, live)
    if not is_current(standing.view, standing.plan):  # also where the last cell came before its reduce step was ended
        _reduce(desk, search, standing, live, sleep)
        standing = _standing(desk, search, live)
    document = status_answer(desk.store, standing, search)
    if as_json:
        answer(document)
    else:
        say(_told_of_cancelling(standing, search, was_finished=was_finished))
        print_status(document)
    return ExitCode.OK


def resume_run(desk: Desk, reference: str, *, workers: int | None, as_json: bool) -> int:
    """Compute what is missing or lost; needs neither the spec file nor the data file."""
    started = time.monotonic()
    interrupt_on_signals()
    search, plan = _stored(desk, reference)
    check_data(desk.store, search)
    with closing(_backend_of(desk, search, plan, workers=workers)) as backend:
        check_engine(search, backend)
        runner = Runner(desk.store, backend, _liveness(desk, search.run_id), display=make_display, say=say)
        return finish(runner, search, started, as_json=as_json)


def show_results(desk: Desk, reference: str, *, top: int, as_json: bool) -> int:
    """Print the best candidates of a run's table."""
    plan = require_round(desk.store, find_run(desk.store, reference))
    view = read_view(desk.store, plan.run_id) or {}
    best = view.get("best")
    entries = read_leaderboard(desk.store, plan.run_id, best and best["ranked_by"], top)
    if as_json:
        rows = [entry.to_json() for entry in entries]
        files = files_answer(desk.store, plan.run_id)
        answer({"run_id": plan.run_id, "complete": view.get("complete"), "best": best, "rows": rows, "files": files})
        return ExitCode.OK
    if not view.get("complete"):
        say(f"This table is partial. `submit resume {plan.run_id}` computes what is missing.")
    print_results(entries, best, plan.num_candidates, files_answer(desk.store, plan.run_id))
    return ExitCode.OK


def list_runs(desk: Desk, *, as_json: bool) -> int:
    """Print every run of the store, the newest first."""
    plans, unreadable = survey(desk.store)
    rows = [_row(desk, plan) for _, plan in plans]
    rows += [_unreadable_row(run_id, error, None) for run_id, error in unreadable.items()]
    if as_json:
        answer({"store": desk.store.url, "runs": rows})
    elif rows:
        print_runs(rows)
    else:
        say(f"There are no runs in {desk.store.url} yet. `submit run SPEC` begins one.")
    return ExitCode.OK


def _row(desk: Desk, plan: RoundPlan) -> dict[str, Any]:
    try:
        search = stored_search(desk.store, plan)
        standing = _standing(desk, search, _liveness(desk, plan.run_id))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others are listed
        return _unreadable_row(plan.run_id, error, plan.created)
    cells = standing.cells
    return {
        "run_id": plan.run_id,
        "state": standing.state.value,
        "cells": {"total": cells.total, "done": cells.done, "failed": cells.failed, "lost": cells.lost},
        "best": best_answer(standing, search),
        "committed_at": plan.created,
        "reason": None,
    }


def _unreadable_row(run_id: str, error: BaseException, committed_at: float | None) -> dict[str, Any]:
    row = dict.fromkeys(("cells", "best"))
    return {"run_id": run_id, "state": UNREADABLE, **row, "committed_at": committed_at, "reason": explain(error)[1]}


def _stored(desk: Desk, reference: str) -> tuple[Search, RoundPlan]:
    plan = require_round(desk.store, find_run(desk.store, reference))
    return stored_search(desk.store, plan), plan


def _standing(desk: Desk, search: Search, live: Liveness) -> Standing:
    """Look at a run; a backend that survives is not asked about one whose views say that it is over."""
    plan = live.newest() or require_round(desk.store, search.run_id)
    scorer = search.spec.refit_scorer()
    over = live.survives and is_concluded(desk.store, plan, scorer)
    return read_standing(desk.store, plan, scorer, alive=live.is_driven() if over else live.is_alive())


def _liveness(desk: Desk, run_id: str) -> Liveness:
    return Liveness(desk.settings, desk.store, run_id)


def _backend_of(
    desk: Desk, search: Search, plan: RoundPlan, *, workers: int | None = None, patience_s: float = math.inf
) -> Backend:
    """Return the backend that a run was planned for."""
    return open_backend(
        desk,
        search.spec,
        on=plan.backend,
        workers=workers,
        label=search.run_id,
        image=plan.image,
        patience_s=patience_s,
    )


def _told_of_cancelling(standing: Standing, search: Search, *, was_finished: bool) -> str:
    if was_finished:
        return "It was finished already; nothing was cancelled."
    if standing.state is not RunState.FINISHED:
        return "Cancelled; what is finished is kept."
    if standing.view is None or lacks_model(standing.view, search.spec.refit_scorer()):
        return f"Cancelled after its last cell: the table is there. `submit resume {search.run_id}` refits the best."
    return "It finished before it could be cancelled."


def _reduce(desk: Desk, search: Search, standing: Standing, live: Liveness, sleep: Callable[[float], None]) -> None:
    """Have the table made of what is finished.

    Raises:
        UnstartedError: no host has come for minutes that could make it.
        InterruptedRun: Ctrl-C.
    """
    plan, num_done = standing.plan, standing.cells.done
    if live.survives:
        if _adds_nothing(standing):
            say(
                "Nothing had been finished, so there is no table."
                if standing.view is None
                else "No more had been finished than the table holds, which stays as it is."
            )
            return
        say(f"Nothing works on {plan.run_id} any more. Waiting for the table of what is finished ...")
    with closing(_backend_of(desk, search, plan, patience_s=TABLE_SECONDS)) as backend:
        try:
            runner = Runner(desk.store, backend, live, sleep=sleep, say=say)
            by_rule = live.survives and not standing.cells.over and was_sent(desk.store, plan)
            if not (by_rule and runner.await_view(plan, num_done)):
                backend.step(reduce_arguments(desk.store.url, plan.run_id))
        except KeyboardInterrupt:
            backend.stop()
            raise InterruptedRun(f"{plan.run_id} is cancelled, but its table was not made.") from None
        except UnstartedError as error:
            raise UnstartedError(
                f"{plan.run_id} is {standing.state.value}; what is finished is kept. {error.message} Once one "
                f"starts it, it makes the table: `submit status {plan.run_id}` tells when that is there."
            ) from None


def _adds_nothing(standing: Standing) -> bool:
    """Say whether the views, which never lose a cell, hold as many as a round that was ended early."""
    held = 0 if standing.view is None else int(standing.view["cells"]["done"])
    return not standing.cells.over and standing.cells.done <= held
