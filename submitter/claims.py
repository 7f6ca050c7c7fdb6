"""Claim, send, record: how an array is sent once by any number of desks, and found again by all of them.

A claim is created before anything is sent, the handle after it. A claim without a handle says that it is not known
whether anything was sent: its desk is sending at this moment, was killed, or never heard the answer.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from jobspec.runs.rounds import RoundPlan
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.base import ArrayRequest, Backend

FORMAT_VERSION = 1
"""Of claims and handles; raise when a field changes its meaning."""

FRESH_SECONDS = 45.0
"""So long a claim's desk is believed to be sending; one that waits longer for an answer may lead to a second array,
which changes no result."""

LOOK_SECONDS = 1.0

Handle = dict[str, Any]
Claim = dict[str, Any]


def send(store: Store, plan: RoundPlan, array: ArrayRequest, backend: Backend) -> Handle:
    """Send an array under the first free claim: what an earlier process of a dead desk sent has ended with it."""
    number = 0
    while not store.create(Layout.claim(plan.run_id, plan.round, array.array_index, number), _claim(time.time())):
        number += 1
    return _record(store, plan, array, number, backend.submit(array))


def send_once(
    store: Store,
    plan: RoundPlan,
    array: ArrayRequest,
    backend: Backend,
    *,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Handle:
    """Return the handle of an array that goes on without its desk: a recorded one, one found by name, or a new one."""
    number = 0
    while True:
        if handle := _handle(store, plan, array.array_index, number):
            return handle
        if store.create(_claim_key(plan, array.array_index, number), _claim(now())):
            return _record(store, plan, array, number, backend.submit(array))
        if handle := _await_handle(store, plan, array.array_index, number, now, sleep):
            return handle
        if found := backend.find(array):
            return _record(store, plan, array, number, found)
        number += 1


def all_handles(store: Store, plan: RoundPlan, array_index: int) -> list[Handle]:
    """Return the handles of an array, mostly one; an array that was sent twice has two."""
    return [handle for _, handle in all_claims(store, plan.run_id, plan.round, array_index) if handle]


def all_claims(store: Store, run_id: str, round_index: int, array_index: int) -> Iterator[tuple[Claim, Handle | None]]:
    """Yield the claims of an array, each with its handle; nobody knows whether one without led to anything."""
    number = 0
    while (claim := read_document(store, Layout.claim(run_id, round_index, array_index, number))) is not None:
        yield claim, read_document(store, Layout.handle(run_id, round_index, array_index, number))
        number += 1


def handles_of_round(store: Store, run_id: str, round_index: int) -> list[Handle]:
    """Return the handles of all that was sent for a round, whose plan need not be readable."""
    found: list[Handle] = []
    array_index = 0
    while claimed := list(all_claims(store, run_id, round_index, array_index)):
        found += [handle for _, handle in claimed if handle]
        array_index += 1
    return found


def unanswered(store: Store, run_id: str, round_index: int, array_index: int) -> list[Claim]:
    """Return the claims of an array that have no handle: nobody knows whether anything was sent."""
    return [claim for claim, handle in all_claims(store, run_id, round_index, array_index) if handle is None]


def has_claim(store: Store, plan: RoundPlan, array_index: int) -> bool:
    """Say whether anybody was about to send an array."""
    return store.exists(_claim_key(plan, array_index, 0))


def _await_handle(
    store: Store,
    plan: RoundPlan,
    array_index: int,
    number: int,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> Handle | None:
    """Wait while another desk may be sending, and return its handle if it records one."""
    claimed = read_document(store, _claim_key(plan, array_index, number)) or {}
    deadline = 0.0 if _is_dead(claimed) else min(float(claimed.get("time", 0)), now()) + FRESH_SECONDS
    while (handle := _handle(store, plan, array_index, number)) is None and now() < deadline:
        sleep(LOOK_SECONDS)
    return handle


def _is_dead(claimed: Handle) -> bool:
    """Say whether the process that made a claim is known to send no more: it was of this machine, and is gone."""
    if claimed.get("host") != socket.gethostname() or not isinstance(pid := claimed.get("pid"), int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return pid == os.getpid()


def _record(store: Store, plan: RoundPlan, array: ArrayRequest, number: int, answer: dict[str, Any]) -> Handle:
    handle = {"format_version": FORMAT_VERSION, "name": array.name, **answer}
    key = Layout.handle(plan.run_id, plan.round, array.array_index, number)
    if store.create(key, json.dumps(handle).encode()):
        return handle
    return _handle(store, plan, array.array_index, number) or handle


def _handle(store: Store, plan: RoundPlan, array_index: int, number: int) -> Handle | None:
    return read_document(store, Layout.handle(plan.run_id, plan.round, array_index, number))


def _claim_key(plan: RoundPlan, array_index: int, number: int) -> str:
    return Layout.claim(plan.run_id, plan.round, array_index, number)


def read_document(store: Store, key: str) -> dict[str, Any] | None:
    """Return a claim, a handle or the like; one that was damaged counts as one that says nothing."""
    body = store.get_or_none(key)
    if body is None:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _claim(now: float) -> bytes:
    claim = {"format_version": FORMAT_VERSION, "host": socket.gethostname(), "pid": os.getpid(), "time": now}
    return json.dumps(claim).encode()
