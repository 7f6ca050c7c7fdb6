"""Which events start the conclude machine, by the deployed pattern: those of our arrays, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from submitter.cloud.template import load_template

QUEUE = "arn:aws:batch:us-east-1:123456789012:job-queue/foldfleet"
ELSEWHERE = "arn:aws:batch:us-east-1:999999999999:job-queue/foldfleet"
SENT = {"store": "s3://b/foldfleet", "run": "r-1", "round": "0", "first_task": "0", "reduce": "arn", "arrays": "1"}


def pattern() -> EventPattern:
    rules = [one for one in load_template()["Resources"].values() if one["Type"] == "AWS::Events::Rule"]
    assert len(rules) == 1
    text = json.dumps(rules[0]["Properties"]["EventPattern"]).replace('{"Ref": "Queue"}', json.dumps(QUEUE))
    return EventPattern(text, json.loads(text))


def event(status: str = "FAILED", **detail: Any) -> dict[str, Any]:
    base = {"jobQueue": QUEUE, "status": status, "jobId": "1", "parameters": SENT, "arrayProperties": {"size": 7}}
    return {"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": base | detail}


OBJECT = {
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "b"}, "object": {"key": "foldfleet/runs/r-1/views/best.json"}},
}


@pytest.mark.parametrize(
    ("given", "starts"),
    [
        pytest.param(event(), True, id="an-array-that-failed"),
        pytest.param(event(arrayProperties={}), True, id="a-request-of-one-task-that-failed"),
        pytest.param(event("SUCCEEDED", parameters=SENT | {"arrays": "2"}), True, id="an-array-beside-others"),
        pytest.param(event("SUCCEEDED"), False, id="the-only-array-succeeded"),
        pytest.param(event("RUNNING"), False, id="not-ended"),
        pytest.param(event(arrayProperties={"index": 3}), False, id="a-child"),
        pytest.param(event(arrayProperties={"index": 0}), False, id="the-first-child"),
        pytest.param(event(parameters={"run": "r", "answer": "-"}), False, id="a-reduce-step-that-failed"),
        pytest.param(event(jobQueue=ELSEWHERE), False, id="a-foreign-queue"),
        pytest.param(event() | {"source": "my.app"}, False, id="somebody-elses-event"),
        pytest.param(OBJECT, False, id="our-own-output"),
    ],
)
def test_only_ended_arrays_of_the_stack_start_a_reduce(given: dict[str, Any], starts: bool) -> None:
    assert pattern().matches_event(given) is starts  # type: ignore[arg-type]
