"""Which events start a machine and with what input, by the patterns and transformers of the template."""

from __future__ import annotations

import json
from typing import Any

import pytest
from moto.events.models import EventPattern

from submitter.cloud.template import load_template
from tests.aws.documents import EXECUTIONS, NAMES, load, load_execution
from tests.aws.standin.events import make_input

RESOURCES = load_template()["Resources"]
ACCOUNT, BUCKET = "123456789012", "store"
QUEUE = "arn:aws:batch:us-east-1:123456789012:job-queue/foldfleet"
ELSEWHERE = "arn:aws:batch:us-east-1:999999999999:job-queue/foldfleet"
SEARCH, INTAKE, CONCLUDE = (
    f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:foldfleet-{name}" for name in ("search", "intake", "conclude")
)
SENT = {"store": "s3://b/foldfleet", "run": "r-1", "round": "0", "first_task": "0", "reduce": "arn", "arrays": "1"}


def rule(name: str, *, listening: bool = True) -> dict[str, Any]:
    """Return the properties of a rule; for the sake of the test, what CloudFormation fills in is filled in."""
    values = {"Queue": QUEUE, "AWS::AccountId": ACCOUNT, "BucketName": BUCKET}
    values |= {"SpecPrefix": "incoming/", "DataPrefix": "nightly/"}
    values |= {"SearchMachine": SEARCH, "IntakeMachine": INTAKE}
    text = json.dumps(RESOURCES[name]["Properties"])
    if name == "EndedRule":
        made = json.dumps({"Ref": "IntakeMachine"})
        conditional = json.dumps({"Fn::If": ["HasEvents", {"Ref": "IntakeMachine"}, {"Ref": "AWS::NoValue"}]})
        assert text.count(conditional) == 1
        text = text.replace(conditional, made) if listening else text.replace(f", {conditional}", "")
    for parameter, value in values.items():
        text = text.replace(json.dumps({"Ref": parameter}), json.dumps(value))
    properties: dict[str, Any] = json.loads(text)
    return properties


def matches(name: str, given: dict[str, Any], *, listening: bool = True) -> bool:
    pattern = rule(name, listening=listening)["EventPattern"]
    return EventPattern(json.dumps(pattern), pattern).matches_event(given)  # type: ignore[arg-type]


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
    assert matches("ConcludeRule", given) is starts


def test_the_conclude_machine_learns_which_execution_sent_the_array() -> None:
    (target,) = rule("ConcludeRule")["Targets"]
    shape = {"vcpus": "2", "memory_mib": "1884", "execution": "arn:aws:states:us-east-1:1:execution:foldfleet-search:x"}
    told = json.loads(make_input(target, event(parameters=SENT | shape)))
    wanted = {name: (SENT | shape)[name] for name in ("reduce", "store", "run", *shape)}
    assert told == {"job": "1", "queue": QUEUE, **wanted}


# --- executions -----------------------------------------------------------------------------------------------------


def ended(name: str, machine: str = SEARCH) -> dict[str, Any]:
    return load_execution(name, machine=machine, execution=f"{machine.replace('stateMachine', 'execution')}:e1")


@pytest.mark.parametrize("name", EXECUTIONS)
def test_executions_that_may_not_have_told_of_their_end_are_told_of(name: str) -> None:
    starts = name in {"aborted", "failed", "timed-out"}
    assert matches("EndedRule", ended(name)) is matches("EndedRule", ended(name, INTAKE)) is starts
    assert matches("EndedRule", ended(name), listening=False) is starts
    assert not matches("EndedRule", ended(name, INTAKE), listening=False)
    # One of the machine that tells, and of any other: else it would go round in circles.
    for machine in (CONCLUDE, SEARCH.replace("foldfleet-search", "other-search"), SEARCH.replace(ACCOUNT, "9" * 12)):
        assert not matches("EndedRule", ended(name, machine))
    assert not matches("EndedRule", ended(name) | {"source": "my.app"})
    assert not matches("ConcludeRule", ended(name))


def test_the_conclude_machine_learns_which_execution_has_ended_and_how() -> None:
    (target,) = rule("EndedRule")["Targets"]
    given = ended("timed-out")
    told = json.loads(make_input(target, given))
    assert told == {"ended": given["detail"]["executionArn"], "status": "TIMED_OUT", "time": given["time"]}
    given["detail"] |= {"input": None, "inputDetails": {"included": False}}  # too long for an event
    assert json.loads(make_input(target, given)) == told


# --- uploads ------------------------------------------------------------------------------------------------------

RULES = {"spec": "SpecUploadRule", "data": "DataUploadRule"}


def upload(name: str = "put-plain", key: str = "incoming/spec.yaml", **changes: str) -> dict[str, Any]:
    return load(name, **{"bucket": BUCKET, "account": ACCOUNT, "key": key, **changes})


@pytest.mark.parametrize("name", NAMES)
def test_an_object_that_was_put_copied_or_completed_is_an_upload_of_one_kind(name: str) -> None:
    for key, wanted in (("incoming/spec.yaml", "spec"), ("nightly/letters/new.csv", "data"), ("elsewhere/x", None)):
        given = upload(name, key)
        assert {kind for kind, one in RULES.items() if matches(one, given)} == ({wanted} if wanted else set())


@pytest.mark.parametrize(
    "key",
    [
        "incoming/two words+plus%2F.yaml",
        "incoming/\u00e4\u00f6\u00fc\u2028.yaml",
        "incoming/../foldfleet/runs/r/spec.yaml",
        'incoming/"quoted\\".yaml',
        "incoming/",
    ],
)
def test_odd_keys_reach_the_intake_machine_as_they_are(key: str) -> None:
    given = upload(key=key)
    assert matches("SpecUploadRule", given)
    (target,) = rule("SpecUploadRule")["Targets"]
    assert json.loads(make_input(target, given))["object"]["key"] == key


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(upload(key="foldfleet/runs/r-1/views/best.json"), id="our-own-output"),
        pytest.param(upload(key="foldfleet/outcomes/2026-01-01/x-refused.txt"), id="a-refusal"),
        pytest.param(upload(key="foldfleet/uploads/0123/spec.yaml"), id="an-inline-spec"),
        pytest.param(upload(key="incoming.yaml"), id="beside-the-prefix"),
        pytest.param(upload(key="Incoming/spec.yaml"), id="another-case"),
        pytest.param(upload(bucket="another"), id="a-foreign-bucket"),
        pytest.param(upload(account="999999999999"), id="a-foreign-account"),
        pytest.param(upload() | {"detail-type": "Object Deleted"}, id="a-deletion"),
        pytest.param(upload() | {"source": "my.app"}, id="somebody-elses-event"),
    ],
)
def test_nothing_else_starts_the_intake_machine(given: dict[str, Any]) -> None:
    assert not [one for one in RULES.values() if matches(one, given)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", RULES)
def test_the_intake_machine_gets_the_object_whole(name: str, kind: str) -> None:
    given = upload(name)
    (target,) = rule(RULES[kind])["Targets"]
    assert json.loads(make_input(target, given)) == {
        "kind": kind,
        "account": ACCOUNT,
        "bucket": BUCKET,
        "object": given["detail"]["object"],
        "reason": given["detail"]["reason"],
        "time": given["time"],
    }
