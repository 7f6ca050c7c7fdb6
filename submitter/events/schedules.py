"""Searches by the clock: schedules of EventBridge Scheduler, each of which starts the intake machine.

Scheduler delivers at least once. The intake machine names the search after the schedule and the moment for which it was
planned, so that a second delivery finds it started.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobspec.errors import NotFoundError, TryLaterError, UsageError
from jobspec.grammar.load import LoadedSpec
from jobspec.names import closest
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.s3errors import code_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.stack import Stack
from submitter.events.switches import check_on
from submitter.machines.places import places_to_read

SCHEDULED_TIME = "<aws.scheduler.scheduled-time>"
"""What Scheduler replaces by the moment for which a start was planned, the same at every attempt.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/managing-schedule-context-attributes.html
"""

RETRY_SECONDS = 6 * 3600
"""How long Scheduler tries to start a search that AWS refuses: a nightly one is not wanted in the afternoon."""

_NAME = re.compile(r"[0-9A-Za-z_.-]{1,64}")
_COMPARED = ("ScheduleExpression", "ScheduleExpressionTimezone", "State", "FlexibleTimeWindow", "Target")
_ABSENT = "ResourceNotFoundException"


@dataclass(frozen=True)
class Schedule:
    """A search that starts by the clock."""

    name: str
    expression: str
    timezone: str
    spec: str
    """The URL of its spec."""
    is_enabled: bool = True

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


Change = Literal["created", "updated", "unchanged"]


def check_name(name: str) -> str:
    """Return a schedule's name if EventBridge Scheduler takes it.

    Raises:
        UsageError: it does not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"The schedule's name {name!r} cannot be used: it must hold 1 to 64 letters, digits, '-', '_' and '.'. "
            "Name one with --name."
        )
    return name


def check_places(stack: Stack, loaded: LoadedSpec) -> None:
    """Refuse at the desk what the planner would refuse at night: data that the stack does not list.

    Raises:
        AccessError: they lie elsewhere.
    """
    path = loaded.spec.data.path
    if path is not None:
        places = places_to_read(stack.store_url, stack.data_places, (stack.spec_prefix, stack.data_prefix))
        places.check(path, f"{loaded.locations.of(('data', 'path'))}: `path`")


def save_spec(store: Store, loaded: LoadedSpec) -> str:
    """Keep a schedule's spec in the store under the hash of its bytes, and return its URL; any number of times.

    Not among what steps are handed: `submit gc` removes that by its age, and a schedule goes on for years.
    """
    key = Layout.scheduled(hashlib.sha256(loaded.text).hexdigest())
    store.create(key, loaded.text)
    return f"{store.url}/{key}"


def make_request(stack: Stack, wanted: Schedule) -> dict[str, Any]:
    """Return what CreateSchedule and UpdateSchedule are asked; pure."""
    given = {"kind": "schedule", "name": wanted.name, "time": SCHEDULED_TIME, "spec": wanted.spec}
    target: dict[str, Any] = {
        "Arn": stack.intake_machine_arn,
        "RoleArn": stack.schedule_role_arn,
        "Input": json.dumps(given),
        "RetryPolicy": {"MaximumEventAgeInSeconds": RETRY_SECONDS, "MaximumRetryAttempts": 185},
        "DeadLetterConfig": {"Arn": stack.dead_letters_arn},
    }
    return {
        "Name": wanted.name,
        "GroupName": stack.schedule_group_name,
        "Description": f"foldfleet: starts the search of {wanted.spec}"[:512],
        "ScheduleExpression": wanted.expression,
        "ScheduleExpressionTimezone": wanted.timezone,
        "State": "ENABLED",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
    }


def save_schedule(clients: Clients, stack: Stack, wanted: Schedule) -> Change:
    """Make a schedule, or change the one of its name to what is wanted; the same again changes nothing.

    Raises:
        NotFoundError: events are not enabled in the stack.
        AccessError: a right is missing.
    """
    from botocore.exceptions import ClientError

    check_on(stack, "A schedule")
    request = make_request(stack, wanted)
    there = _get(clients, stack, wanted.name)
    if there is not None and all(there.get(name) == request[name] for name in _COMPARED):
        return "unchanged"
    with explained(f"Saving the schedule {wanted.name!r}"):
        if there is not None:
            clients.scheduler.update_schedule(**request)
            return "updated"
        try:
            clients.scheduler.create_schedule(**request)
        except ClientError as error:
            if code_of(error) != "ConflictException":
                raise
            raise TryLaterError(
                f"Another terminal saved a schedule {wanted.name!r} just now. `submit events schedules` shows it; run "
                "the same command again to change it."
            ) from None
    return "created"


def _get(clients: Clients, stack: Stack, name: str) -> Mapping[str, Any] | None:
    from botocore.exceptions import ClientError

    with explained(f"Looking for the schedule {name!r}"):
        try:
            return clients.scheduler.get_schedule(Name=name, GroupName=str(stack.schedule_group_name))
        except ClientError as error:
            if code_of(error) == _ABSENT:
                return None
            raise


def list_schedules(clients: Clients, stack: Stack) -> list[Schedule]:
    """Return the schedules of a stack by name, none where events are off; costs one request, and one for each."""
    if not stack.schedule_group_name:
        return []
    with explained("Listing the schedules"):
        pages = clients.scheduler.get_paginator("list_schedules").paginate(GroupName=stack.schedule_group_name)
        names = sorted(one["Name"] for page in pages for one in page["Schedules"])
    found = ((name, _get(clients, stack, name)) for name in names)
    return [_read(name, there) for name, there in found if there is not None]  # None: removed meanwhile


def _read(name: str, there: Mapping[str, Any]) -> Schedule:
    try:
        spec = str(json.loads(there["Target"]["Input"])["spec"])
    except (KeyError, TypeError, ValueError):
        spec = ""  # somebody else's schedule in our group
    timezone = there.get("ScheduleExpressionTimezone") or "UTC"
    return Schedule(name, there["ScheduleExpression"], timezone, spec, is_enabled=there.get("State") != "DISABLED")


def remove_schedule(clients: Clients, stack: Stack, name: str) -> None:
    """Remove a schedule; what it has started goes on.

    Raises:
        NotFoundError: there is none of this name.
    """
    from botocore.exceptions import ClientError

    check_on(stack, "A schedule")
    check_name(name)
    try:
        with explained(f"Removing the schedule {name!r}"):
            try:
                clients.scheduler.delete_schedule(Name=name, GroupName=str(stack.schedule_group_name))
            except ClientError as error:
                if code_of(error) != _ABSENT:
                    raise
                raise _Absent from None
    except _Absent:
        known = [one.name for one in list_schedules(clients, stack)]
        there = f"there are {', '.join(known)}" if known else "there is none"
        raise NotFoundError(
            f"The stack {stack.name!r} has no schedule {name!r}: {there}.{closest(name, known)} `submit events "
            "schedules` lists them."
        ) from None


class _Absent(Exception):
    """No schedule has this name."""
