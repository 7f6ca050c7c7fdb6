"""Every path of the conclude machine, executed."""

from __future__ import annotations

from typing import Any

import pytest

from submitter.machines.conclude import conclude_definition
from tests.machines.interpreter import Failure, execute
from tests.machines.world import NAMES, World

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
    world.statuses = {SENDER: ["RUNNING"]}
    assert execute(conclude_definition(NAMES), GIVEN | {"execution": SENDER}, world).error is None
    assert requests(world) == ["aws-sdk:sfn:describeExecution"]


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
