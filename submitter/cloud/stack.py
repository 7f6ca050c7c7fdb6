"""What a deployed stack is made of, read from its outputs; nothing else guesses a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from jobspec.errors import FoldfleetError, NotFoundError, TryLaterError, UsageError
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackTypeDef

_NAME = re.compile(r"(?=.{2,32}$)[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
"""CloudFormation takes more; names of buckets and repositories begin with it, and have neither capitals nor room.

A repository's name has two characters or more, and no two hyphens in a row.
"""

READY = frozenset(
    {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"}
)
"""States in which everything that the outputs name is there."""

GONE = frozenset({"REVIEW_IN_PROGRESS", "DELETE_COMPLETE"})
"""States of a stack that is only a proposal, or was."""


@dataclass(frozen=True)
class Stack:
    """Name the parts of one stack; a field for each of its outputs.

    What uploads and schedules need is None unless ``events`` are on: the intake machine, the group of schedules and the
    role with which they start. ``data_places`` are ARNs as in ``arn:aws:s3:::BUCKET/incoming/*``: what specs may read
    beside the store.
    """

    name: str
    region: str
    account: str
    bucket_name: str
    store_url: str
    store_prefix: str
    repository_name: str
    repository_uri: str
    queue_arn: str
    queue_name: str
    spot_environment_arn: str
    task_role_arn: str
    reducer_role_arn: str
    planner_role_arn: str
    execution_role_arn: str
    instance_role_arn: str
    submitter_policy_arn: str
    events_policy_arn: str
    """What `submit events` needs beside the policy of submitters."""
    log_group_name: str
    conclude_machine_arn: str
    search_machine_arn: str
    dead_letters_arn: str
    max_vcpus: int
    instance_types: tuple[str, ...]
    data_places: tuple[str, ...]
    events: bool
    spec_prefix: str
    data_prefix: str = ""
    """Empty unless data files start searches, too."""
    on_demand_environment_arn: str | None = None
    """None unless it was asked for."""
    intake_machine_arn: str | None = None
    schedule_group_name: str | None = None
    schedule_role_arn: str | None = None
    notify_topic_arn: str | None = None

    @property
    def partition(self) -> str:
        """Return the part of AWS in which the stack lies: aws, aws-cn, aws-us-gov."""
        return self.queue_arn.split(":")[1]

    @property
    def environments(self) -> tuple[str, ...]:
        """Return the ARNs of the compute environments, the first that is tried first."""
        return tuple(arn for arn in (self.spot_environment_arn, self.on_demand_environment_arn) if arn)


def check_stack_name(name: str) -> str:
    """Return a stack's name if it may be one.

    Raises:
        UsageError: it has other characters, or too many.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"The stack name {name!r} cannot be used: it must begin with a letter and hold 2 to 32 lower-case letters, "
            "digits and single hyphens between them, such as 'foldfleet'. Name one with --stack."
        )
    return name


def find_stack(clients: Clients, name: str) -> Stack:
    """Return a deployed stack; costs one request.

    Raises:
        NotFoundError: there is none of this name.
        TryLaterError: it is being made or taken down.
        UsageError: it is another program's, or its last change failed.
    """
    described = describe_stack(clients, check_stack_name(name))
    if described is None:
        raise NotFoundError(
            f"There is no stack {name!r} in {clients.region} of account {clients.account}. Make it with "
            f"`submit infra up{_named(name)}`, or choose another region (AWS_REGION), account (AWS_PROFILE) or stack "
            "(--stack, FOLDFLEET_STACK)."
        )
    status = described["StackStatus"]
    if status.endswith("_IN_PROGRESS") and status not in READY:
        raise TryLaterError(
            f"The stack {name!r} in {clients.region} is being changed ({status}). `submit infra status{_named(name)}` "
            "shows how far it is; run the same command again when it is done."
        )
    if status not in READY:
        raise UsageError(
            f"The stack {name!r} in {clients.region} cannot be used: its last change ended as {status}. "
            f"`submit infra up{_named(name)}` mends it."
        )
    return read_stack(described, clients.region)


def describe_stack(clients: Clients, name: str) -> StackTypeDef | None:
    """Return what CloudFormation says of a stack, None if there is none; costs one request."""
    from botocore.exceptions import ClientError

    with explained(f"Reading the stack {name!r} (is that the one? --stack, FOLDFLEET_STACK)"):
        try:
            found = clients.cloudformation.describe_stacks(StackName=name)["Stacks"]
        except ClientError as error:
            if "does not exist" in message_of(error):
                return None
            raise
    return next((stack for stack in found if stack["StackStatus"] not in GONE), None)


def read_stack(described: Mapping[str, Any], region: str) -> Stack:
    """Return a stack from what `DescribeStacks` answered.

    Raises:
        UsageError: outputs are missing: another program's stack, or one of an older version.
    """
    outputs = {_snake(output["OutputKey"]): output["OutputValue"] for output in described.get("Outputs") or ()}
    name = described["StackName"]
    wanted = {field.name for field in fields(Stack)} - {"name", "region", "account"}
    needed = {field.name for field in fields(Stack) if field.default is MISSING} & wanted
    if missing := sorted(needed - set(outputs)):
        raise UsageError(
            f"The stack {name!r} was not made by this version of foldfleet: its outputs lack {', '.join(missing)}. "
            f"`submit infra up{_named(name)}` brings one of an older version up to date; for another program's stack, "
            "choose another name with --stack."
        )
    values = {key: value for key, value in outputs.items() if key in wanted}
    try:
        return Stack(
            **{
                **values,
                "name": name,
                "region": region,
                "account": described["StackId"].split(":")[4],
                "max_vcpus": int(values["max_vcpus"]),
                "instance_types": _parts(values["instance_types"]),
                "data_places": _parts(values["data_places"]),
                "events": values["events"] == "yes",
            }
        )
    except ValueError as error:
        raise FoldfleetError(f"The outputs of the stack {name!r} cannot be read: {error}.") from None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",")))


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _named(name: str) -> str:
    return "" if name == "foldfleet" else f" --stack {name}"
