"""The stack with uploads and schedules that start searches: switched on, off and on again, on the stand-in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jobspec.errors import UsageError
from submitter.cloud.bucket import turn_on_notices
from submitter.cloud.clients import Clients, make_clients
from submitter.cloud.infra import deploy, propose_stack
from submitter.cloud.overview import look
from submitter.cloud.stack import Stack, find_stack
from submitter.cloud.teardown import remove, survey
from submitter.cloud.wishes import Wishes
from tests.aws.standin.cloud import ACCOUNT, REGION, Cloud

BUCKET = f"foldfleet-{ACCOUNT}-{REGION}"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:searches"


@pytest.fixture(scope="module")
def cloud(bare: Cloud) -> Cloud:
    """Take the place of the stand-in with containers."""
    return bare


@pytest.fixture
def clients(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Give clients of the stand-in; afterwards nothing of the default stack is left in it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in cloud.admin.items():
        monkeypatch.setenv(name, value)
    made = make_clients()
    yield made
    remove(made, survey(made, "foldfleet"), delete_data=True, tell=ignore, sleep=pause)


def ignore(_: object) -> None:
    """Take what is told, and do nothing."""


def pause(_: float) -> None:
    """Wait for less than the seconds given: an hour of looks is bounded by their number, and takes a while here too."""
    time.sleep(0.05)


def up(clients: Clients, **wishes: Any) -> tuple[Stack, set[str]]:
    proposal = propose_stack(clients, Wishes("foldfleet", **wishes), may_clear=True, tell=ignore, sleep=pause)
    return deploy(clients, proposal, tell=ignore, sleep=pause), {change.resource for change in proposal.rows}


WITH_EVENTS = {
    "IntakeMachine", "IntakeRole", "ScheduleRole", "Schedules", "SpecUploadRule", "UploadReading", "EventsPolicy"
}  # fmt: skip


def test_events_are_off_until_they_are_asked_for_and_again_when_they_are_no_longer(
    clients: Clients, cloud: Cloud
) -> None:
    stack, _ = up(clients)
    assert not stack.events
    assert (stack.intake_machine_arn, stack.schedule_group_name, stack.schedule_role_arn) == (None, None, None)
    assert stack.search_machine_arn.endswith(":stateMachine:foldfleet-search")
    assert rules(cloud) == {"ConcludeRule", "EndedRule"}
    assert not is_notified(cloud)

    stack, changed = up(clients, events=True, data_prefix="nightly/")
    assert changed >= WITH_EVENTS | {"DataUploadRule", "Bucket"}
    assert stack.events
    assert (stack.spec_prefix, stack.data_prefix) == ("incoming/", "nightly/")
    assert stack.data_places == (f"arn:aws:s3:::{BUCKET}/incoming/*",)
    assert str(stack.intake_machine_arn).endswith(":stateMachine:foldfleet-intake")
    assert stack.schedule_group_name == "foldfleet"
    assert rules(cloud) == {"ConcludeRule", "EndedRule", "SpecUploadRule", "DataUploadRule"}
    assert is_notified(cloud)
    assert cloud.client("scheduler").get_schedule_group(Name="foldfleet")["State"] == "ACTIVE"
    assert look(clients, "foldfleet").stack == stack

    same, changed = up(clients)
    assert (same, changed) == (stack, set())

    stack, _ = up(clients, events=False)
    assert not stack.events
    assert stack == find_stack(clients, "foldfleet")
    assert rules(cloud) == {"ConcludeRule", "EndedRule"}
    names = {group["Name"] for group in cloud.client("scheduler").list_schedule_groups()["ScheduleGroups"]}
    assert names == {"default"}


def test_the_machines_get_what_the_stack_was_asked_for(clients: Clients, cloud: Cloud) -> None:
    stack, _ = up(clients, events=True, notify_topic=TOPIC, upload_max_cells=77, data=("s3://lake/tables",))
    assert stack.notify_topic_arn == TOPIC
    states = cloud.client("stepfunctions")
    for arn in (stack.search_machine_arn, stack.conclude_machine_arn, stack.intake_machine_arn):
        definition = states.describe_state_machine(stateMachineArn=arn)["definition"]
        assert "${" not in definition
        json.loads(definition)
    definition = states.describe_state_machine(stateMachineArn=stack.search_machine_arn)["definition"]
    assert TOPIC in definition
    assert '"data_places":"arn:aws:s3:::lake/tables/*"' in definition
    assert ",".join(stack.instance_types) in definition
    assert "77" in definition


def test_a_bucket_that_was_found_is_switched_on_beside_what_it_tells_already(clients: Clients, cloud: Cloud) -> None:
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="mine")
    assert turn_on_notices(clients, "mine")
    assert not turn_on_notices(clients, "mine")
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket="mine")
    s3.delete_bucket(Bucket="mine")


def test_prefixes_that_meet_are_refused_before_anything_is_asked_of_aws(clients: Clients) -> None:
    with pytest.raises(UsageError, match="lie in one another"):
        up(clients, events=True, data_prefix="incoming/data/")
    with pytest.raises(UsageError, match="lie in one another"):
        up(clients, events=True, spec_prefix="foldfleet/specs/")


def rules(cloud: Cloud) -> set[str]:
    """Return the rules by their names in the template."""
    found = cloud.client("cloudformation").describe_stack_resources(StackName="foldfleet")["StackResources"]
    there = {rule["Name"] for rule in cloud.client("events").list_rules()["Rules"]}
    known = {one["PhysicalResourceId"]: one["LogicalResourceId"] for one in found}
    return {logical for physical, logical in known.items() if physical.rpartition("/")[2] in there}


def is_notified(cloud: Cloud) -> bool:
    return "EventBridgeConfiguration" in cloud.client("s3").get_bucket_notification_configuration(Bucket=BUCKET)
