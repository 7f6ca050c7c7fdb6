"""End a run from any terminal: its tasks are asked to stop, and what was sent is ended."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

from jobspec.errors import DataError, TryLaterError
from jobspec.runs.rounds import RoundPlan
from jobspec.settings import Settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter import claims
from submitter.backends.base import BACKENDS, Presence, backend_module
from submitter.liveness import Liveness
from submitter.watching import POLL_SECONDS

CANCEL_SECONDS = 60.0
"""A worker that does not answer is killed within 10 s; what takes longer than this is another's trouble."""

TERMINATE_SECONDS = 180.0
"""AWS Batch kills a task 30 s after it asked it to end, and tells so a while later."""

TABLE_SECONDS = 300.0
"""Where there are hosts to be had, one starts in two to four minutes: what waits longer for one may do so for hours."""

AGAIN_SECONDS = 20.0
"""What was just being sent is not to be seen by its name at once: who ends a run looks again."""


def stop_run(
    store: Store,
    plan: RoundPlan,
    live: Liveness,
    *,
    sleep: Callable[[float], None],
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Ask the tasks of a round to stop and wait until they have, and those of a round that is added meanwhile.

    Raises:
        TryLaterError: they go on for minutes.
    """
    began, asked, stopped = now(), -math.inf, -1
    while True:
        newest = live.newest() or plan
        if newest.round > stopped or now() - asked > AGAIN_SECONDS:
            _ask_to_stop(store, newest.run_id, newest.round)
            live.terminate()
            asked, stopped = now(), newest.round
        if not live.is_alive():
            return
        patience = TERMINATE_SECONDS if live.survives else CANCEL_SECONDS
        if now() - began > patience:
            raise TryLaterError(
                f"{plan.run_id} was asked to stop but goes on after {patience:.0f} s; it will stop. "
                f"`submit status {plan.run_id}` tells."
            )
        sleep(POLL_SECONDS)


def stop_unreadable(settings: Settings, store: Store, run_id: str, why: DataError) -> DataError:
    """End what was sent for a run that cannot be looked at, and return the error that says so.

    Args:
        settings: the user's.
        store: where the run lies.
        run_id: the run.
        why: what cannot be read.
    """
    index = 0
    while store.exists(Layout.plan(run_id, index + 1)):
        index += 1
    _ask_to_stop(store, run_id, index)
    handles = claims.handles_of_round(store, run_id, index)
    for name in BACKENDS:
        sent = [handle for handle in handles if handle.get("backend") == name]
        if sent:
            backend_module(name).terminate(Presence(settings, store, run_id, handles=sent))
    return DataError(f"{why.message} Its tasks were asked to stop all the same; no table can be made of what they did.")


def _ask_to_stop(store: Store, run_id: str, index: int) -> None:
    stop = {"format_version": 1, "time": time.time()}
    store.create(Layout.stop(run_id, index), json.dumps(stop).encode())
