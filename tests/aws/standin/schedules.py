"""EventBridge Scheduler: expressions as AWS takes them, groups in a stack, and moments that tests let come.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import datetime as dt
import json
import re
import uuid
import zoneinfo
from collections.abc import Mapping
from typing import Any

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.core.exceptions import AWSError
from moto.scheduler.models import EventBridgeSchedulerBackend, scheduler_backends

from tests.aws.standin import iam
from tests.aws.standin.events import Bus, Undelivered
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, REGION, Key, RefusedIdentity
from tests.aws.standin.machines import start_execution
from tests.aws.standin.patching import replace

SERVICE = "scheduler.amazonaws.com"
UNIVERSAL = "arn:aws:scheduler:::aws-sdk:sfn:startExecution"
_NAME = re.compile(r"[0-9a-zA-Z-_.]{1,64}")
_RATE = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_AT = re.compile(r"at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\)")
_CRON = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)")
_FIELD = re.compile(r"(?i)[0-9*/,\-?LW#A-Z]+")


class InvalidSchedule(AWSError):
    """A request that AWS refuses."""

    TYPE = "ValidationException"


class NoSuchGroup(AWSError):
    """A schedule in a group that is not there."""

    TYPE = "ResourceNotFoundException"
    STATUS = 404


def check_expression(expression: str, zone: str | None) -> None:
    """Refuse what is no schedule.

    Raises:
        InvalidSchedule: in AWS's words.
    """
    fields = _CRON.fullmatch(expression)
    rate = _RATE.fullmatch(expression)
    if fields:
        # One of day-of-month and day-of-week must be a question mark.
        good = all(map(_FIELD.fullmatch, fields.groups())) and [fields[3], fields[5]].count("?") == 1
    elif rate:
        good = int(rate[1]) > 0 and (int(rate[1]) == 1) != rate[2].endswith("s")
    else:
        good = _AT.fullmatch(expression) is not None
    if not good:
        raise InvalidSchedule(f"Invalid Schedule Expression {expression}.")
    if zone and zone not in zoneinfo.available_timezones():
        raise InvalidSchedule(f"Invalid Schedule Expression Timezone {zone}.")


class ScheduleGroup(CloudFormationModel):
    """AWS::Scheduler::ScheduleGroup; its schedules go with it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return "Name"

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::Scheduler::ScheduleGroup"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return attr in {"Arn", "State"}

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return group_arn(self.name) if attribute_name == "Arn" else "ACTIVE"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> ScheduleGroup:
        name = cloudformation_json.get("Properties", {}).get("Name", resource_name)
        _backend().create_schedule_group(name, [])
        return cls(name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Any, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> ScheduleGroup:
        return cls(original_resource.name)

    def delete(self, _account_id: str, _region_name: str) -> None:
        if self.name in _backend().schedule_groups:
            _backend().delete_schedule_group(self.name)


def group_arn(name: str) -> str:
    """Return the ARN of a group: what the trust policies of schedules' roles may ask for."""
    return f"arn:aws:scheduler:{REGION}:{ACCOUNT}:schedule-group/{name}"


def _backend() -> EventBridgeSchedulerBackend:
    return scheduler_backends[ACCOUNT][REGION]


class Scheduler:
    """Check schedules when they are made, and deliver when a test says that their moment has come."""

    def __init__(self, guard: Guard, bus: Bus) -> None:
        self.guard = guard
        self.bus = bus

    def install(self) -> None:
        """Put the checks before moto's scheduler."""
        for cache in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
            cache.cache_clear()
        create, update = EventBridgeSchedulerBackend.create_schedule, EventBridgeSchedulerBackend.update_schedule

        def create_checked(backend: Any, **given: Any) -> Any:
            self.check(given)
            return create(backend, **given)

        def update_checked(backend: Any, **given: Any) -> Any:
            self.check(given)
            return update(backend, **given)

        replace(EventBridgeSchedulerBackend, create_schedule=create_checked, update_schedule=update_checked)

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse a schedule that AWS refuses.

        Raises:
            InvalidSchedule: name, expression, window, role or input are wrong.
            NoSuchGroup: there is no such group.
        """
        group = given.get("group_name") or "default"
        if group not in _backend().schedule_groups:
            raise NoSuchGroup(f"Schedule group {group} does not exist.")
        if not _NAME.fullmatch(given["name"]):
            raise InvalidSchedule(
                f"1 validation error detected: Value '{given['name']}' at 'name' failed to satisfy constraint: Member "
                "must satisfy regular expression pattern: ^[0-9a-zA-Z-_.]+$"
            )
        check_expression(given["schedule_expression"], given.get("schedule_expression_timezone"))
        if (given.get("flexible_time_window") or {}).get("Mode") not in {"OFF", "FLEXIBLE"}:
            raise InvalidSchedule("FlexibleTimeWindow must have the Mode OFF or FLEXIBLE.")
        target = given["target"]
        try:
            json.loads(target.get("Input") or "{}")
        except ValueError:
            raise InvalidSchedule("Invalid Input: it must be JSON.") from None
        self._take_on(target["RoleArn"], group)

    def _take_on(self, role: str, group: str) -> Key:
        context = {"aws:sourcearn": [group_arn(group)]}
        try:
            return self.guard.identities.make_session(role, SERVICE, "schedule", dt.datetime.now(dt.UTC), context)
        except RefusedIdentity:
            raise InvalidSchedule(
                "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            ) from None

    def fire(self, name: str, time: str, group: str = "default", copies: int = 1) -> None:
        """Deliver what a schedule sends at a moment, under its role."""
        schedule = _backend().get_schedule(group, name)
        if schedule.state != "ENABLED":
            return
        for _ in range(copies):
            try:
                self._send(schedule, time, group)
            except (Undelivered, InvalidSchedule) as error:
                code = getattr(error, "code", "")
                self.bus.undelivered.append({"rule": schedule.arn, "code": str(code), "message": str(error)})

    def _send(self, schedule: Any, time: str, group: str) -> None:
        target = schedule.target
        told = {
            "schedule-arn": schedule.arn,
            "scheduled-time": time,
            "execution-id": uuid.uuid4().hex[:16],
            "attempt-number": "1",
        }
        text = target.get("Input") or "{}"
        for name, value in told.items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        machine, run_name = target["Arn"], str(uuid.uuid4())
        if machine == UNIVERSAL:
            given = json.loads(text)
            machine, text = given["StateMachineArn"], given.get("Input", "{}")
            run_name = given.get("Name", run_name)
        elif machine.split(":")[2] != "states":
            raise Undelivered("NO_RESOURCE", f"the stand-in delivers nothing to {machine}")
        principal = self._take_on(target["RoleArn"], group).principal
        asked = iam.Asked("states:StartExecution", machine)
        decision = self.guard.decide(principal, asked)
        self.guard.record(principal, asked, decision, self.guard.recorder.next_number())
        if decision != iam.ALLOWED:
            raise Undelivered("NO_PERMISSIONS", f"{target['RoleArn']} may not start {machine}")
        start_execution(machine, run_name, text)
