"""The deployed rules and the intake machine against events of S3 as AWS sends them; no containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws.documents import NAMES, load
from tests.aws.fixtures import Deployed, deploy, expect, run_submit
from tests.aws.house import DATA, SPECS, House, until
from tests.aws.standin.cloud import ACCOUNT, REGION, Cloud
from tests.machines.schema import check_event


@pytest.fixture(scope="module")
def listening(bare: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deploy a stack that listens."""
    bare.options(wait_scale=0.0)
    deployed = deploy(bare, tmp_path_factory.mktemp("uploads") / "home", "foldfleet")
    env = {**bare.admin, "FOLDFLEET_STACK": "foldfleet"}
    expect(run_submit(deployed.home, env, "events", "enable", "--yes", "--data-prefix", DATA))
    described = bare.client("cloudformation").describe_stacks(StackName="foldfleet")["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    return Deployed(bare, "foldfleet", outputs, deployed.home)


@pytest.fixture
def house(listening: Deployed, tmp_path: Path) -> House:
    return House(listening, tmp_path, listening.cloud.admin)


def emit(house: House, name: str, key: str = f"{SPECS}a.yaml", **more: str) -> dict[str, Any]:
    given = {"bucket": house.bucket, "account": ACCOUNT, "region": REGION, "key": key, **more}
    event = load(name, **given)
    house.cloud.emit(event)
    return event


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", [f"{SPECS}a b+c%2Fü.yaml", f"{DATA}daily/2026.csv"])
def test_the_intake_machine_gets_what_the_document_says(house: House, name: str, key: str) -> None:
    event = emit(house, name, key)
    [execution] = house.ended(machine="Intake")
    assert json.loads(execution["input"]) == {
        "kind": "spec" if key.startswith(SPECS) else "data",
        "account": ACCOUNT,
        "bucket": house.bucket,
        "object": event["detail"]["object"],
        "reason": event["detail"]["reason"],
        "time": event["time"],
    }
    assert execution["status"] == "SUCCEEDED", house.explain(execution)
    [search] = house.ended()
    upload = json.loads(search["input"])["upload"]
    about = event["detail"]["object"]
    assert (upload["key"], upload["version"]) == (key, about.get("version-id", ""))
    assert (upload["etag"], upload["size"], upload["sequencer"]) == (about["etag"], about["size"], about["sequencer"])
    # There is no image in this stack: the search says so, and says what to type.
    assert search["error"] == "foldfleet.NoImage", house.explain(search)
    assert "submit image push" in search["cause"]
    assert [one["dimensions"] for one in house.refusals()] == [{"Stack": "foldfleet"}]


def test_the_same_event_twice_and_late_is_one_search(house: House) -> None:
    house.cloud.events(copies=2)
    emit(house, "put-plain", f"{SPECS}doubled.yaml")
    house.ended(2, "Intake")
    house.cloud.events(copies=1)
    emit(house, "put-plain", f"{SPECS}doubled.yaml")
    assert {one["status"] for one in house.ended(3, "Intake")} == {"SUCCEEDED"}
    assert len(house.ended()) == 1


def test_another_version_of_a_key_is_another_search(house: House) -> None:
    for name in ("put-versioned", "copy-versioned", "put-plain", "copy-plain"):
        emit(house, name, f"{SPECS}versions.yaml")
    house.ended(4, "Intake")
    assert len(house.ended(4)) == 4


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"key": "foldfleet/uploads/0/spec.yaml"}, "the store"),
        ({"key": "foldfleet/outcomes/2026-01-01/x.json"}, "an outcome"),
        ({"key": "elsewhere/a.yaml"}, "another prefix"),
        ({"bucket": "foreign-bucket"}, "another bucket"),
        ({"account": "999999999999"}, "another account"),
    ],
)
def test_what_does_not_concern_the_stack_starts_nothing(house: House, more: dict[str, str], why: str) -> None:
    emit(house, "put-plain", **more)
    emit(house, "put-plain", f"{SPECS}concerns {why}.yaml")
    [execution] = house.ended(machine="Intake")
    assert json.loads(execution["input"])["object"]["key"] == f"{SPECS}concerns {why}.yaml"
    house.ended()  # what it tells belongs to this test


@pytest.mark.parametrize("key", [f"{SPECS}folder/", f"{SPECS}notes.txt", f"{SPECS}spec.yaml.bak", f"{SPECS}yaml"])
def test_what_is_no_spec_is_passed_over(house: House, key: str) -> None:
    emit(house, "put-plain", key)
    emit(house, "put-plain", f"{SPECS}beside {key.rpartition('/')[2] or 'folder'}.yml")
    house.ended(machine="Intake")
    [search] = house.ended()
    assert json.loads(search["input"])["upload"]["key"].endswith(".yml")


def test_a_foreign_bucket_in_the_intake_machines_input_is_refused(house: House) -> None:
    given = {"kind": "spec", "account": ACCOUNT, "bucket": "elsewhere", "object": {"key": "incoming/a.yaml"}}
    house.cloud.client("stepfunctions").start_execution(
        stateMachineArn=house.outputs["IntakeMachineArn"], input=json.dumps({**given, "reason": "x", "time": "t"})
    )
    [execution] = house.ended(machine="Intake")
    assert execution["error"] == "foldfleet.Refused", house.explain(execution)
    assert house.executions() == []
    assert [outcome["state"] for outcome in house.outcomes()] == ["refused"]
    assert house.kinds() == ["Upload Refused"]
    assert [one["dimensions"] for one in house.refusals()] == [{"Stack": "foldfleet"}]


def test_what_a_schedule_starts_is_told_of_by_the_schedules_name(house: House) -> None:
    moment = {"name": "nightly", "time": "2030-01-01T03:00:00Z"}
    given = {"kind": "schedule", **moment, "spec": f"s3://{house.bucket}/{SPECS}nightly.yaml"}
    house.cloud.client("stepfunctions").start_execution(
        stateMachineArn=house.outputs["IntakeMachineArn"], input=json.dumps(given)
    )
    [search] = house.ended()
    assert search["error"] == "foldfleet.NoImage", house.explain(search)
    [outcome], [event] = house.outcomes(), house.told()
    assert (outcome["schedule"], outcome["upload"]) == (moment, None)
    assert event["detail"] == outcome
    check_event(outcome)


def test_an_event_that_cannot_be_delivered_is_kept_as_a_dead_letter(house: House) -> None:
    iam, events = house.cloud.client("iam"), house.cloud.client("events")
    [rule] = [one for one in events.list_rules()["Rules"] if "SpecUploadRule" in one["Name"]]
    [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    role = target["RoleArn"].rpartition("/")[2]
    denial = {"Effect": "Deny", "Action": "states:StartExecution", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [denial]})
    iam.put_role_policy(RoleName=role, PolicyName="denied", PolicyDocument=document)
    try:
        emit(house, "put-plain", f"{SPECS}undeliverable.yaml")
        sqs = house.cloud.client("sqs")
        url = sqs.get_queue_url(QueueName=target["DeadLetterConfig"]["Arn"].rpartition(":")[2])["QueueUrl"]
        [letter] = until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
        assert json.loads(letter["Body"])["detail"]["object"]["key"] == f"{SPECS}undeliverable.yaml"
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="denied")
    assert house.executions("Intake") == []


# --- ends that an execution cannot tell of -------------------------------------------------------------------------


@pytest.fixture
def planning(house: House) -> Iterator[House]:
    """Let searches wait for their planner, of which this stack has no image."""
    batch = house.cloud.client("batch")
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "500"}]
    container = {"image": "absent:1", "command": ["plan"], "resourceRequirements": needs}
    made = batch.register_job_definition(
        jobDefinitionName="foldfleet-plan", type="container", containerProperties=container
    )
    house.cloud.hold()
    yield house
    batch.deregister_job_definition(jobDefinition=made["jobDefinitionArn"])
    house.cloud.release()
    house.cloud.events(copies=1)


def concluded(house: House, execution: str, count: int = 1) -> list[dict[str, Any]]:
    """Wait until the conclude machine has looked at the end of an execution so many times."""

    def over() -> list[dict[str, Any]]:
        asked = [one for one in house.executions("Conclude") if execution in one["input"]]
        return asked if len(asked) >= count and all(one["status"] != "RUNNING" for one in asked) else []

    return until(over)


@pytest.mark.parametrize("copies", [1, 2])
def test_a_search_that_is_stopped_while_it_is_planned_leaves_one_outcome(planning: House, copies: int) -> None:
    key = f"{SPECS}stopped {copies}.yaml"
    emit(planning, "put-plain", key)
    [search] = until(planning.executions)
    until(lambda: [job for job in planning.cloud.jobs() if job["status"] == "RUNNABLE"])
    planning.cloud.events(copies=copies)
    states = planning.cloud.client("stepfunctions")
    states.stop_execution(executionArn=search["executionArn"], cause="too dear")
    asked = concluded(planning, search["executionArn"], copies)
    assert [one["status"] for one in asked] == ["SUCCEEDED"] * copies, [planning.explain(one) for one in asked]
    [outcome] = planning.outcomes()
    told = [(event["detail-type"], event["detail"]) for event in planning.told()]
    assert told == [("foldfleet Run Failed", outcome)] * copies
    assert (outcome["state"], outcome["run_id"], outcome["upload"]["key"]) == ("cancelled", "", key)
    assert (outcome["execution"], outcome["upload"]["kind"]) == (search["executionArn"], "spec")
    assert "was stopped (too dear)" in outcome["message"]
    check_event(outcome)
    admin = {**planning.cloud.admin, "FOLDFLEET_STORE": planning.outputs["StoreUrl"]}
    listed = json.loads(expect(planning.deployed.submit("events", "list", "--json", env=admin)).stdout)["arrivals"]
    states_of = {one["name"]: one["state"] for one in listed}
    assert states_of[f"s3://{planning.bucket}/{key}"] == "cancelled"


def test_an_end_that_was_told_is_not_told_again(house: House) -> None:
    emit(house, "put-plain", f"{SPECS}told.yaml")
    [search] = house.ended()
    assert search["error"] == "foldfleet.NoImage"
    [asked] = concluded(house, search["executionArn"])
    assert asked["status"] == "SUCCEEDED", house.explain(asked)
    assert house.kinds() == ["Run Failed"]
    assert [outcome["state"] for outcome in house.outcomes()] == ["failed"]


def test_an_intake_that_fails_outside_of_its_telling_leaves_an_outcome_for_its_upload(house: House) -> None:
    states, key = house.cloud.client("stepfunctions"), f"{SPECS}broken.yaml"
    given = {"kind": "spec", "account": ACCOUNT, "bucket": house.bucket, "object": {"key": key}}
    arn = states.start_execution(stateMachineArn=house.outputs["IntakeMachineArn"], input=json.dumps(given))
    [intake] = house.ended(machine="Intake")
    assert (intake["status"], intake["error"]) == ("FAILED", "States.Runtime")
    concluded(house, arn["executionArn"])
    [outcome] = house.outcomes()
    assert (outcome["state"], outcome["execution"]) == ("failed", arn["executionArn"])
    assert outcome["upload"] == {"kind": "spec", "bucket": house.bucket, "key": key}
    assert [event["detail"] for event in house.told()] == [outcome]
    check_event(outcome)
