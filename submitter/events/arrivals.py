"""What arrived, and what it became: read from the executions of the two machines, which AWS keeps for 90 days."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any

from jobspec.errors import DataError
from jobspec.stores.base import Store
from jobspec.stores.s3errors import code_of
from submitter.backends.stepfunctions.request import orders_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.stack import Stack

MOST_LISTED = 2_000
"""How many executions are passed over at most: runs from desks lie between those that the intake machine started."""

_BY_INTAKE = re.compile(r"[0-9a-f]{64}")
"""The names that it gives: hashes. A desk's begin with the name of a run."""

PLANS_READ = 3
"""How many answers of its planners are read for the name of a run: without one, then after preparing, then with it."""

_STATES = {
    "RUNNING": "running",
    "SUCCEEDED": "finished",
    "FAILED": "failed",
    "TIMED_OUT": "timed out",
    "ABORTED": "cancelled",
    "PENDING_REDRIVE": "failed",
}
ERRORS = {
    "foldfleet.Refused": "refused",
    "foldfleet.OverLimit": "over limit",
    "foldfleet.Incomplete": "incomplete",
    "foldfleet.Stuck": "stuck",
    "foldfleet.NoImage": "no image",
}
"""What the machines' own errors are called here; any other is `failed`."""

_STOPPED = {"ignored", "failed", "timed out", "cancelled", *ERRORS.values()}
"""States of an intake that started no search."""


@dataclass(frozen=True)
class Arrival:
    """An upload or a scheduled start."""

    time: float
    """When it came, in seconds since 1970."""
    kind: str
    """spec, data or schedule."""
    name: str
    """The object's URL, or the schedule's name."""
    state: str
    run_id: str | None
    message: str
    execution: str
    """The ARN of the execution that tells more."""

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


def list_recent(clients: Clients, stack: Stack, store: Store, limit: int) -> list[Arrival]:
    """Return what arrived last, the newest first.

    Costs a request for each hundred executions, one for each that is looked at, and a read or two for each of them
    that has no output.

    Args:
        clients: clients of AWS.
        stack: the stack.
        store: its store, where planners answer.
        limit: how many at most.

    Raises:
        AccessError: a right is missing, which is named.
    """
    listed = islice(_listed(clients, stack.search_machine_arn), MOST_LISTED)
    hashed = (arn for arn in listed if _BY_INTAKE.fullmatch(arn.rpartition(":")[2]))
    started = [arrival for arn in islice(hashed, limit) if (arrival := read_search(_told(clients, arn))) is not None]
    arrived = islice(_listed(clients, stack.intake_machine_arn), limit) if stack.intake_machine_arn else ()
    stopped = [arrival for arn in arrived if (arrival := read_intake(_told(clients, arn))) is not None]
    newest = sorted([*started, *stopped], key=lambda arrival: arrival.time, reverse=True)[:limit]
    return [one if one.run_id or one not in started else replace(one, run_id=_planned(store, one)) for one in newest]


def _planned(store: Store, arrival: Arrival) -> str | None:
    """Return the run that an execution without an output has planned, None where it has none yet."""
    found = None
    with contextlib.suppress(DataError):  # an older version's
        for order in islice(orders_of(store, arrival.execution), PLANS_READ):
            found = order.get("run_id") or found
    return found


def _told(clients: Clients, execution: str) -> Mapping[str, Any]:
    """Return an execution with what it was told and what it answered."""
    with explained("Reading what became of an upload"):
        return clients.stepfunctions.describe_execution(executionArn=execution)


def _listed(clients: Clients, machine: str) -> Iterator[str]:
    """Yield the ARNs of a machine's executions as far as they are wanted, the newest first; none if it is gone."""
    from botocore.exceptions import ClientError

    token: dict[str, Any] = {}
    while True:
        with explained(f"Listing the executions of {machine.rpartition(':')[2]}"):
            try:
                page = clients.stepfunctions.list_executions(stateMachineArn=machine, maxResults=100, **token)
            except ClientError as error:
                if code_of(error) == "StateMachineDoesNotExist":
                    return
                raise
        yield from (item["executionArn"] for item in page["executions"])
        if not page.get("nextToken"):
            return
        token = {"nextToken": page["nextToken"]}


def read_search(told: Mapping[str, Any]) -> Arrival | None:
    """Return the upload or schedule that started a search; None for a search that a person or a program started."""
    given, answered = _document(told.get("input")), _document(told.get("output"))
    source = given.get("upload") or given.get("schedule")
    state = _state(told)
    if state == "finished" and not answered.get("run_id"):
        state = "superseded"
    return _arrival(told, source, state, answered) if isinstance(source, Mapping) else None


def read_intake(told: Mapping[str, Any]) -> Arrival | None:
    """Return an upload or schedule that came to no search: ignored, refused, or failed; None for others and folders."""
    given, answered = _document(told.get("input")), _document(told.get("output"))
    state = _state(told)
    if state == "finished":
        state = str(answered.get("state"))
    if state not in _STOPPED:
        return None
    source = {**given, **_document(given.get("object"))}
    if state == "ignored":
        if str(source.get("key")).endswith("/"):  # a folder, which consoles make
            return None
        answered = {"message": "no spec: its name ends in neither .yaml nor .yml", **answered}
    return _arrival(told, source, state, answered)


def _state(told: Mapping[str, Any]) -> str:
    state = _STATES.get(told["status"], "failed")
    return ERRORS.get(told.get("error") or "", state) if state == "failed" else state


def _arrival(told: Mapping[str, Any], source: Mapping[str, Any], state: str, answered: Mapping[str, Any]) -> Arrival:
    """Return an arrival from what EventBridge or Scheduler told of it."""
    kind = str(source.get("kind") or "schedule")
    name = source.get("name") if kind == "schedule" else f"s3://{source.get('bucket')}/{source.get('key')}"
    message = str(answered.get("message") or told.get("cause") or told.get("error") or "")
    return Arrival(
        time=_seconds(source.get("time")) or told["startDate"].timestamp(),
        kind=kind,
        name=str(name),
        state=state,
        run_id=str(answered.get("run_id") or "") or None,
        message=" ".join(message.split()),
        execution=told["executionArn"],
    )


def _document(given: Any) -> dict[str, Any]:
    """Return a JSON object, given as text or as it is; an empty one for what is none."""
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
