"""The conclude machine: reduces what is there after an array has ended, where nobody else will."""

from __future__ import annotations

from typing import Any

from submitter.machines.names import Names
from submitter.machines.states import ALL, API_SECONDS, backoff, both, choice, request, resource, when


def conclude_definition(names: Names) -> dict[str, Any]:
    """Return the definition of the conclude machine: pure.

    Its input is what the stack's rule makes of an array's end. Of an array that an execution sent, that execution
    makes the views, unless it ended before.
    """
    ask = request(
        names,
        "aws-sdk:sfn:describeExecution",
        {"ExecutionArn.$": "$.execution"},
        then="Running",
        failed="Reduce",
        ResultSelector={"status.$": "$.Status"},
        ResultPath="$.at",
    )
    return {
        "Comment": "Reduces what is there after an array has ended",
        "StartAt": "Sender",
        "TimeoutSeconds": 3600,
        "States": {
            "Sender": choice(
                both(when("$.execution", "IsPresent", True), when("$.execution", "StringMatches", "arn:*"), to="Ask"),
                default="Reduce",
            ),
            "Ask": ask,
            "Running": choice(when("$.at.status", "StringEquals", "RUNNING", "Over"), default="Reduce"),
            "Reduce": _reduce(names),
            "Over": {"Type": "Succeed"},
        },
    }


def _reduce(names: Names) -> dict[str, Any]:
    """Return the reduce step as large as a task; nobody waits for it, so that a failure is the machine's own."""
    needs = [{"Type": "VCPU", "Value.$": "$.vcpus"}, {"Type": "MEMORY", "Value.$": "$.memory_mib"}]
    return {
        "Type": "Task",
        "Resource": resource(names, "batch:submitJob"),
        "Parameters": {
            "JobName.$": "States.Format('conclude-{}',$.job)",
            "JobQueue.$": "$.queue",
            "JobDefinition.$": "$.reduce",
            "Parameters": {"store.$": "$.store", "run.$": "$.run"},
            "ContainerOverrides": {
                "Environment": [{"Name": "FOLDFLEET_WORKERS", "Value.$": "$.vcpus"}],
                "ResourceRequirements": needs,
            },
        },
        "TimeoutSeconds": API_SECONDS,
        "Retry": [backoff((ALL,), interval=5, attempts=8, longest=300)],
        "End": True,
    }
