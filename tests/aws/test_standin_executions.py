"""Events of Step Functions in the stand-in: what starts or ends is told, in the form that AWS documents."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.aws.documents import load_execution
from tests.aws.standin.cloud import ACCOUNT, REPOSITORY, Cloud
from tests.aws.standin.executions import make_event
from tests.aws.test_standin_edges import wait_until
from tests.aws.test_standin_stepfunctions import NAP, end_of, make_machine, start

QUEUE = "statuses"
DONE = {"Done": {"Type": "Succeed"}}
FAIL = {"Fail": {"Type": "Fail", "Error": "own.Error", "Cause": "why"}}


@pytest.fixture(scope="module")
def bare(bare: Cloud) -> Cloud:
    """Have a queue hear every event of Step Functions."""
    events = bare.client("events")
    bare.client("sqs").create_queue(QueueName=QUEUE)
    pattern = {"source": ["aws.states"], "detail-type": ["Step Functions Execution Status Change"]}
    events.put_rule(Name=QUEUE, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=QUEUE, Targets=[{"Id": "1", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:{QUEUE}"}])
    return bare


def heard(cloud: Cloud) -> dict[str, Any]:
    """Return the next event."""
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
    [letter] = wait_until(lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages"))
    sqs.delete_message(QueueUrl=url, ReceiptHandle=letter["ReceiptHandle"])
    event: dict[str, Any] = json.loads(letter["Body"])
    return event


def shape(node: Any) -> Any:
    """Return the names and types of a document."""
    if isinstance(node, dict):
        return {name: shape(value) for name, value in node.items()}
    return [shape(entry) for entry in node] if isinstance(node, list) else type(node).__name__


@pytest.mark.parametrize(
    ("name", "status", "states", "limit"),
    [
        ("succeeded", "SUCCEEDED", DONE, 60),
        ("failed", "FAILED", FAIL, 60),
        ("timed-out", "TIMED_OUT", NAP, 1),
        ("aborted", "ABORTED", NAP, 60),
    ],
)
def test_executions_tell_of_their_start_and_end_in_the_form_of_the_documents(
    bare: Cloud, name: str, status: str, states: dict[str, Any], limit: int
) -> None:
    machine = make_machine(bare, states, TimeoutSeconds=limit)
    execution = start(bare, machine, {"n": "ü"})
    if name == "aborted":
        bare.client("stepfunctions").stop_execution(executionArn=execution, error="own.Stopped", cause="no more")
    told = end_of(bare, execution)
    began, ended = heard(bare), heard(bare)
    assert [shape(began), shape(ended)] == [shape(load_execution("started")), shape(load_execution(name))]
    assert [event["detail"]["status"] for event in (began, ended)] == ["RUNNING", status]
    assert began["resources"] == ended["resources"] == [execution]
    detail = ended["detail"]
    assert (detail["executionArn"], detail["stateMachineArn"]) == (execution, machine)
    assert json.loads(detail["input"]) == {"n": "ü"}
    assert detail["startDate"] == round(told["startDate"].timestamp() * 1000)
    assert detail["stopDate"] >= detail["startDate"]


def test_what_is_too_long_for_an_event_is_left_out_of_it(bare: Cloud) -> None:
    execution = start(bare, make_machine(bare, DONE), {"text": '"' * 60_000})
    end_of(bare, execution)
    began, ended = heard(bare)["detail"], heard(bare)["detail"]
    assert (len(began["input"]), began["inputDetails"]) == (120_011, {"included": True})
    # Within the event, each quotation mark and each backslash has a backslash more.
    assert (ended["input"], ended["inputDetails"]) == (None, {"included": False})
    assert ended["outputDetails"] == {"included": True}
    told = bare.client("stepfunctions").describe_execution(executionArn=execution)
    assert make_event({**told, "output": "x" * 300_000}, "SUCCEEDED")["detail"]["output"] is None


WATCH = """
import json, sys, threading
from tests.aws.standin import executions
from tests.aws.standin.identity import ACCOUNT, REGION
from moto.stepfunctions.parser.backend.execution import Execution
from moto.stepfunctions.parser.models import stepfunctions_parser_backends

states, over, found = stepfunctions_parser_backends[ACCOUNT][REGION], threading.Event(), {}

def emit(event):
    if event["detail"]["status"] == "RUNNING":  # it is listed, and has not begun
        [listed], _ = states.list_executions(machine.arn)
        found["begins"] = [listed.status, listed.to_history_output()["events"]]
    else:
        over.set()

def set_status(execution, status):  # what can be read from this moment on
    execution.__dict__["status"] = status
    if status not in {None, "RUNNING"}:
        found["ends"] = [status, execution.output, execution.error, execution.cause, execution.stop_date is not None]

Execution.exec_status = property(lambda execution: execution.__dict__["status"], set_status)
executions.install(emit)
definition = {"StartAt": "S", "States": {"S": json.loads(sys.argv[1])}}
machine = states.create_state_machine("m", json.dumps(definition), f"arn:aws:iam::{ACCOUNT}:role/r")
states.start_execution(machine.arn, "one", "{}")
assert over.wait(60)
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("state", "ends"),
    [
        ({"Type": "Pass", "Result": {"r": 1}, "End": True}, ["SUCCEEDED", {"r": 1}, None, None, True]),
        ({"Type": "Fail", "Error": "own.Error", "Cause": "why"}, ["FAILED", None, "own.Error", "why", True]),
    ],
)
def test_an_execution_is_whole_whenever_it_is_read(state: dict[str, Any], ends: list[Any]) -> None:
    watch = [sys.executable, "-c", WATCH, json.dumps(state)]
    done = subprocess.run(watch, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"begins": ["RUNNING", []], "ends": ends}
