"""Every path of the conclude machine, executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from submitter.machines.conclude import LOOK_AGAIN_SECONDS, conclude_definition
from tests.machines.interpreter import Execution, Failure, execute
from tests.machines.schema import check_event
from tests.machines.world import NAMES, RUN, World, order

GIVEN: dict[str, Any] = {
    "job": "j-1",
    "queue": NAMES.queue_arn,
    "reduce": "arn:reduce",
    "store": "s3://bucket-1/store",
    "run": "digits-1",
    "vcpus": "2",
    "memory_mib": "3800",
}
SENDER = "arn:aws:states:eu-central-1:123456789012:execution:ff:x"


def requests(world: World) -> list[str]:
    return [call.integration for call in world.calls]


@pytest.mark.parametrize("more", [{}, {"execution": "-"}, {"execution": None}, {"execution": ""}])
def test_an_array_of_no_execution_is_reduced(more: dict[str, Any]) -> None:
    world = World()
    assert execute(conclude_definition(NAMES), GIVEN | more, world).error is None
    assert world.of("submitJob") == [
        {
            "JobName": "conclude-j-1",
            "JobQueue": NAMES.queue_arn,
            "JobDefinition": "arn:reduce",
            "Parameters": {"store": "s3://bucket-1/store", "run": "digits-1"},
            "ContainerOverrides": {
                "Environment": [{"Name": "FOLDFLEET_WORKERS", "Value": "2"}],
                "ResourceRequirements": [{"Type": "VCPU", "Value": "2"}, {"Type": "MEMORY", "Value": "3800"}],
            },
        }
    ]


def test_that_of_an_execution_that_goes_on_is_left_to_it() -> None:
    world = World()
    world.statuses = {SENDER: ["RUNNING", "RUNNING"]}
    execution = execute(conclude_definition(NAMES), GIVEN | {"execution": SENDER}, world)
    assert (execution.error, execution.waits) == (None, [LOOK_AGAIN_SECONDS])
    assert requests(world) == ["aws-sdk:sfn:describeExecution"] * 2


def test_that_of_an_execution_of_which_aws_learns_late_that_it_ended_is_reduced() -> None:
    world = World()
    world.statuses = {SENDER: ["RUNNING", "ABORTED"]}
    execute(conclude_definition(NAMES), GIVEN | {"execution": SENDER}, world)
    assert requests(world) == ["aws-sdk:sfn:describeExecution"] * 2 + ["batch:submitJob"]


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED_OUT", "SUCCEEDED", None])
def test_that_of_an_execution_that_ended_is_reduced(status: str | None) -> None:
    world = World()
    world.statuses = {} if status is None else {SENDER: [status]}
    execute(conclude_definition(NAMES), GIVEN | {"execution": SENDER}, world)
    assert requests(world)[-1] == "batch:submitJob"


def test_throttling_is_waited_out() -> None:
    world = World()
    world.broken["batch:submitJob"] = [Failure("Batch.TooManyRequestsException")] * 5
    assert execute(conclude_definition(NAMES), GIVEN, world).error is None


# --- executions that could not tell ---------------------------------------------------------------------------------

UPLOAD = {"kind": "spec", "bucket": "bucket-1", "key": "incoming/a b\u00e9'{}.yaml", "version": "", "size": 5}
ARRIVED = {
    "kind": "data",
    "account": "1",
    "bucket": "bucket-1",
    "object": {"key": "data/letters/new.csv", "size": 5},
    "reason": "PutObject",
    "time": "2026-03-04T05:06:06Z",
}
STARTED = "2026-03-04T05:06:07.089Z"
CANCELLED = {"Error": "foldfleet.Cancelled", "Cause": "cancelled by `submit cancel`"}
RUNTIME = {"Error": "States.Runtime", "Cause": "An error occurred while executing the state 'Plan'."}
TOPIC = "arn:aws:sns:eu-central-1:123456789012:searches"


class Ended(World):
    """A world in which DescribeExecution answers as Step Functions does: without ``Error`` where there is none."""

    def __init__(self, given: Any = None, told: Mapping[str, Any] | None = None, status: str = "ABORTED") -> None:
        super().__init__()
        self.statuses = {SENDER: [status]}
        self.told = {
            "ExecutionArn": SENDER,
            "StateMachineArn": NAMES.search_machine,
            "Name": "x",
            "StartDate": STARTED,
            "Input": json.dumps({} if given is None else given),
            "InputDetails": {"Included": True},
            "RedriveCount": 0,
            **(told or {}),
        }

    def _describeExecution(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as AWS calls it
        return super()._describeExecution(given) | self.told


def end(world: World, status: str, **names: str) -> Execution:
    given = {"ended": SENDER, "status": status, "time": "2026-03-04T06:00:00Z"}
    execution = execute(conclude_definition(dataclasses.replace(NAMES, **names)), given, world)
    assert execution.error is None, execution.cause
    for one in world.events:
        check_event(one["Detail"])
    return execution


@pytest.mark.parametrize(
    ("given", "run", "upload", "words"),
    [
        ({"round": order("send")}, RUN, None, f"{RUN} was stopped (cancelled by `submit cancel`). What is finished "),
        ({"run": "letters-1"}, "letters-1", None, "`submit resume letters-1` goes on."),
        ({"upload": UPLOAD}, "", UPLOAD, f"The search for s3://bucket-1/{UPLOAD['key']} was stopped (cancelled by "),
        (
            ARRIVED,
            "",
            {"kind": "data", "bucket": "bucket-1", "key": "data/letters/new.csv"},
            "`submit events list` names it and `submit resume RUN` goes on; else upload the object again.",
        ),
        ({"spec": "s3://b/k"}, "", None, f"The execution {SENDER} was stopped (cancelled by `submit cancel`). If it"),
        # What anybody may type: the telling must come through it.
        ({"run": {"a": 1}, "upload": {"key": "k"}, "round": {"run_id": 5}}, "", None, "else start it again."),
        ({"spec": "s3://b/k", "schedule": {"name": {"a": 1}, "time": 5}}, "", None, "else start it again."),
        ({"spec": "s3://b/k", "schedule": "nightly", "name": [], "time": "t"}, "", None, "else start it again."),
        ({"name": "n"}, "", None, "else start it again."),
        ("a text", "", None, "else start it again."),
        ([], "", None, "else start it again."),
        ({}, "", None, "else start it again."),
    ],
)
def test_one_that_was_stopped_is_told_of_once(given: Any, run: str, upload: Any, words: str) -> None:
    world = Ended(given, CANCELLED)
    end(world, "ABORTED")
    [event], [outcome] = world.events, world.outcomes()
    assert (event["Source"], event["DetailType"], event["Detail"]) == ("foldfleet", "foldfleet Run Failed", outcome)
    assert words in outcome.pop("message")
    nothing = {"cells": None, "best": None, "files": None}
    told = {"format_version": 1, "stack": "ff", "execution": SENDER, "started": STARTED, "state": "cancelled"}
    assert outcome == {**told, **nothing, "run_id": run, "upload": upload, "schedule": None}
    assert world.count() == {"describeExecution": 1, "putEvents": 1, "putObject": 1}


MOMENT = {"name": "nightly 'b' {}", "time": "2026-03-04T05:00:00Z"}


@pytest.mark.parametrize(
    "given", [{"spec": "s3://b/k", "schedule": MOMENT}, {"kind": "schedule", **MOMENT, "spec": "s3://b/k"}]
)
def test_one_that_a_schedule_started_is_told_of_by_its_name(given: dict[str, Any]) -> None:
    world = Ended(given, CANCELLED)
    end(world, "ABORTED")
    [event], [outcome] = world.events, world.outcomes()
    assert event["Detail"] == outcome
    assert outcome["message"].startswith(f"The search of the schedule {MOMENT['name']} was stopped (cancelled by")
    assert "`submit events list` names it" in outcome["message"]
    assert (outcome["upload"], outcome["schedule"], outcome["state"]) == (None, MOMENT, "cancelled")


@pytest.mark.parametrize(
    ("status", "told", "state", "words"),
    [
        ("ABORTED", {}, "cancelled", f"{RUN} was stopped. What"),
        ("TIMED_OUT", {}, "failed", f"{RUN} was over its time. What"),
        ("FAILED", RUNTIME, "failed", f"{RUN} failed (An error occurred while executing the state 'Plan'.). What"),
        ("FAILED", {"Error": "States.DataLimitExceeded"}, "failed", f"{RUN} failed. What"),
        ("ABORTED", {"Error": "foldfleet.Refused", "Cause": "c"}, "cancelled", f"{RUN} was stopped (c). What"),
    ],
)
def test_it_says_how_it_ended(status: str, told: dict[str, str], state: str, words: str) -> None:
    world = Ended({"round": order("send")}, told, status)
    end(world, status)
    [outcome] = world.outcomes()
    assert outcome["state"] == state
    assert outcome["message"].startswith(words)


@pytest.mark.parametrize("error", ["foldfleet.Refused", "foldfleet.Broken", "foldfleet.NoImage"])
def test_one_that_has_told_of_its_end_itself_is_not_told_of_again(error: str) -> None:
    world = Ended({"upload": UPLOAD}, {"Error": error, "Cause": "because"}, "FAILED")
    end(world, "FAILED")
    assert world.count() == {"describeExecution": 1}


def test_an_end_that_is_not_to_be_seen_yet_is_waited_for() -> None:
    world = Ended({"upload": UPLOAD}, {"Error": "foldfleet.Refused", "Cause": "because"})
    world.statuses = {SENDER: ["RUNNING", "RUNNING", "FAILED"]}
    assert end(world, "FAILED").waits == [15, 15]
    assert world.events == []


@pytest.mark.parametrize("failure", ["States.DataLimitExceeded", "Sfn.SfnException"])
def test_one_that_cannot_be_read_is_told_of_all_the_same(failure: str) -> None:
    world = Ended({"upload": UPLOAD})
    world.broken["aws-sdk:sfn:describeExecution"] = [Failure(failure, "c")] * 7
    end(world, "TIMED_OUT")
    [outcome] = world.outcomes()
    assert (outcome["state"], outcome["run_id"], outcome["upload"]) == ("failed", "", None)
    assert (outcome["started"], outcome["execution"]) == ("2026-03-04T06:00:00Z", SENDER)
    assert len(world.events) == 1
    # The interpreter lets States.ALL hold what it does not on AWS.
    [limit, _] = conclude_definition(NAMES)["States"]["Look"]["Catch"]
    assert limit["ErrorEquals"] == ["States.DataLimitExceeded"]


def test_an_input_as_long_as_may_be_read_is() -> None:
    world = Ended({"run": "letters-1", "spec": "x" * 261_400}, CANCELLED)
    end(world, "ABORTED")
    assert world.outcomes()[0]["run_id"] == "letters-1"


@pytest.mark.parametrize(("given", "cause"), [(170_000, 32_000), (200_000, 32_000), (220_000, 20_000)])
def test_a_long_cause_beside_a_long_input_is_told(given: int, cause: int) -> None:
    world = Ended({"run": "letters-1", "spec": "x" * given}, {"Error": "States.Runtime", "Cause": "c" * cause})
    end(world, "FAILED")
    assert world.outcomes()[0]["run_id"] == "letters-1"


def test_the_transitions_that_docs_count() -> None:
    told = {"Error": "foldfleet.Incomplete", "Cause": "x"}
    assert len(end(Ended({"upload": UPLOAD}, told), "FAILED").states) == 5
    assert len(end(Ended({"upload": UPLOAD}, CANCELLED), "ABORTED").states) == 14
    world = World()
    world.statuses = {SENDER: ["RUNNING", "RUNNING"]}
    assert len(execute(conclude_definition(NAMES), GIVEN | {"execution": SENDER}, world).states) == 8


def test_an_event_that_comes_twice_leaves_one_outcome() -> None:
    world = Ended({"upload": UPLOAD})
    for _ in range(2):
        end(world, "ABORTED")
    [key] = world.objects.keys() - World().objects.keys()
    token = hashlib.sha256(SENDER.encode()).hexdigest()
    assert key == f"store/outcomes/2026-03-04/05:06:07.089Z-cancelled-{token}.json"


def test_the_topic_is_told_too_and_nothing_that_fails_keeps_the_outcome_from_being_written() -> None:
    world = Ended({"upload": UPLOAD})
    world.broken["events:putEvents"] = [Failure("EventBridge.FailedEntry")] * 7
    world.broken["sns:publish"] = [Failure("SNS.AuthorizationErrorException")] * 7
    end(world, "ABORTED", topic_arn=TOPIC)
    assert len(world.outcomes()) == 1
    world = Ended({"upload": UPLOAD})
    end(world, "ABORTED", topic_arn=TOPIC)
    [notice] = world.of("publish")
    assert (notice["TopicArn"], notice["Subject"]) == (TOPIC, "foldfleet Run Failed")
    assert notice["Message"] == world.outcomes()[0]
