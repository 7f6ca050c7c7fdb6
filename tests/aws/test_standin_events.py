"""Events of S3 and schedules in the stand-in: documents as AWS sends them, delivery as AWS delivers."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.documents import NAMES, load
from tests.aws.standin.cloud import ACCOUNT, Cloud
from tests.aws.test_standin_edges import change, code_of, execute, wait_until
from tests.aws.test_standin_stepfunctions import allow, make_machine

GROUP_ARN = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule-group/"
ON: dict[str, Any] = {"EventBridgeConfiguration": {}}
NEWEST = "event-version"
"""A field that documents recorded before 2025 do not have."""


@pytest.fixture(scope="module")
def bare(bare: Cloud) -> Cloud:
    """Have a queue hear every event of S3."""
    events = bare.client("events")
    bare.client("sqs").create_queue(QueueName="all")
    events.put_rule(Name="all", EventPattern=json.dumps({"source": ["aws.s3"]}))
    events.put_targets(Rule="all", Targets=[{"Id": "1", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:all"}])
    return bare


def heard(cloud: Cloud) -> dict[str, Any]:
    """Return the next event of S3."""
    sqs = cloud.client("sqs")
    url = sqs.get_queue_url(QueueName="all")["QueueUrl"]
    [letter] = wait_until(lambda: sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1).get("Messages"))
    sqs.delete_message(QueueUrl=url, ReceiptHandle=letter["ReceiptHandle"])
    event: dict[str, Any] = json.loads(letter["Body"])
    return event


def make_bucket(cloud: Cloud, **settings: Any) -> str:
    s3, name = cloud.client("s3"), f"b-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    if settings.get("versioned"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=ON)
    return name


def upload(cloud: Cloud, how: str, bucket: str, key: str) -> bytes:
    s3, body = cloud.client("s3"), b"x" * 5_300_000
    if how == "put":
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    elif how == "copy":
        other = make_bucket(cloud)
        s3.put_bucket_notification_configuration(Bucket=other, NotificationConfiguration={})
        s3.put_object(Bucket=other, Key="from", Body=body)
        s3.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": other, "Key": "from"})
    else:
        upload = {"Bucket": bucket, "Key": key}
        upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
        part = s3.upload_part(**upload, PartNumber=1, Body=body)
        s3.complete_multipart_upload(
            **upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}, IfNoneMatch="*"
        )
    return body


def shape(node: Any) -> Any:
    """Return the names and types of a document."""
    if isinstance(node, dict):
        return {name: shape(value) for name, value in node.items() if name != NEWEST}
    return [shape(entry) for entry in node] if isinstance(node, list) else type(node).__name__


@pytest.mark.parametrize("name", NAMES)
def test_a_new_object_is_told_in_the_form_of_the_recorded_documents(bare: Cloud, name: str) -> None:
    recorded = load(name)
    how, _, versioned = name.partition("-")
    bucket = make_bucket(bare, versioned=versioned == "versioned")
    key = "in/a b+c%2Fü/../d.yaml" if how == "put" else "in/x.csv"
    body = upload(bare, how, bucket, key)
    event = heard(bare)
    assert shape(event) == shape(recorded)
    about = event["detail"]["object"]
    assert (about["key"], about["size"]) == (key, len(body))
    assert event["detail"]["reason"] == recorded["detail"]["reason"]
    head = bare.client("s3").head_object(Bucket=bucket, Key=key)
    assert about["etag"] == head["ETag"].strip('"')
    assert (event["account"], event["resources"]) == (ACCOUNT, [f"arn:aws:s3:::{bucket}"])


def test_keys_with_parts_of_dots_are_keys_as_others(bare: Cloud) -> None:
    s3, bucket = bare.client("s3"), make_bucket(bare)
    keys = ["in/../a", "in/./b", "in/.../c", "in/..d"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert [heard(bare)["detail"]["object"]["key"] for _ in keys] == keys
    listed = s3.list_objects_v2(Bucket=bucket, Prefix="in/")["Contents"]
    assert sorted(entry["Key"] for entry in listed) == sorted(keys)
    s3.copy_object(Bucket=bucket, Key="out/../e", CopySource={"Bucket": bucket, "Key": keys[0]})
    assert s3.get_object(Bucket=bucket, Key="out/../e")["Body"].read() == keys[0].encode()
    assert heard(bare)["detail"]["object"]["size"] == len(keys[0])


def test_sequencers_order_the_events_of_a_key(bare: Cloud) -> None:
    bucket = make_bucket(bare)
    for body in (b"1", b"2"):
        bare.client("s3").put_object(Bucket=bucket, Key="k", Body=body)
    first, second = heard(bare), heard(bare)
    assert first["detail"]["object"]["sequencer"] < second["detail"]["object"]["sequencer"]


def test_a_bucket_tells_nothing_until_its_events_are_on(bare: Cloud) -> None:
    s3, bucket = bare.client("s3"), make_bucket(bare)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.put_object(Bucket=bucket, Key="silent", Body=b"1")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=ON)
    assert "EventBridgeConfiguration" in s3.get_bucket_notification_configuration(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="told", Body=b"1")
    assert heard(bare)["detail"]["object"]["key"] == "told"


def test_a_write_that_was_refused_is_no_event(bare: Cloud) -> None:
    s3, bucket = bare.client("s3"), make_bucket(bare)
    s3.put_object(Bucket=bucket, Key="once", Body=b"1")
    assert code_of(s3.put_object, Bucket=bucket, Key="once", Body=b"2", IfNoneMatch="*") == "PreconditionFailed"
    s3.put_object(Bucket=bucket, Key="last", Body=b"1")
    assert [heard(bare)["detail"]["object"]["key"] for _ in range(2)] == ["once", "last"]


# --- schedules ------------------------------------------------------------------------------------------------------


def scheduling_role(cloud: Cloud, machine: str, group: str) -> str:
    iam, name = cloud.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "scheduler.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": GROUP_ARN + group}},
    }
    arn = str(
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trust]}))["Role"]["Arn"]
    )
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allow("states:StartExecution", machine)]})
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy)
    return arn


@pytest.fixture
def plan(bare: Cloud) -> dict[str, Any]:
    """Return a schedule in a group of its own."""
    machine = make_machine(bare, {"Done": {"Type": "Succeed"}})
    group = f"g-{uuid.uuid4().hex[:8]}"
    bare.client("scheduler").create_schedule_group(Name=group)
    told = {"kind": "schedule", "time": "<aws.scheduler.scheduled-time>", "try": "<aws.scheduler.attempt-number>"}
    target = {"Arn": machine, "RoleArn": scheduling_role(bare, machine, group), "Input": json.dumps(told)}
    return {
        "Name": "nightly",
        "GroupName": group,
        "ScheduleExpression": "cron(0 3 * * ? *)",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": target,
    }


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("cron(0 3 * * ? *)", True),
        ("cron(15 10 ? * 6L 2022-2030)", True),
        ("rate(1 day)", True),
        ("rate(5 minutes)", True),
        ("at(2030-01-01T03:00:00)", True),
        ("cron(0 3 * * *)", False),
        ("cron(0 3 * * * *)", False),
        ("cron(0 3 ? * ? *)", False),
        ("rate(1 days)", False),
        ("rate(5 minute)", False),
        ("rate(0 days)", False),
        ("0 3 * * *", False),
        ("at(2030-01-01)", False),
    ],
)
def test_expressions_are_checked(bare: Cloud, plan: dict[str, Any], expression: str, good: bool) -> None:
    create = bare.client("scheduler").create_schedule
    if good:
        create(**plan | {"ScheduleExpression": expression})
    else:
        assert code_of(create, **plan | {"ScheduleExpression": expression}) == "ValidationException"


def test_a_schedule_needs_a_group_a_zone_and_a_role_that_trusts_it(bare: Cloud, plan: dict[str, Any]) -> None:
    create = bare.client("scheduler").create_schedule
    assert code_of(create, **plan | {"GroupName": "none"}) == "ResourceNotFoundException"
    assert code_of(create, **plan | {"ScheduleExpressionTimezone": "Mars/Olympus"}) == "ValidationException"
    assert code_of(create, **plan | {"Target": plan["Target"] | {"Input": "{"}}) == "ValidationException"
    foreign = scheduling_role(bare, plan["Target"]["Arn"], "another")
    with pytest.raises(ClientError, match="must allow AWS EventBridge Scheduler to assume the role"):
        create(**plan | {"Target": plan["Target"] | {"RoleArn": foreign}})
    create(**plan)
    assert code_of(create, **plan) == "ConflictException"


def test_a_schedule_starts_its_target_under_its_role(bare: Cloud, plan: dict[str, Any]) -> None:
    bare.client("scheduler").create_schedule(**plan)
    start = len(bare.calls())
    bare.fire_schedule("nightly", "2026-01-01T03:00:00Z", plan["GroupName"], copies=2)
    states = bare.client("stepfunctions")
    found = states.list_executions(stateMachineArn=plan["Target"]["Arn"])["executions"]
    assert len(found) == 2  # at least once
    told = json.loads(states.describe_execution(executionArn=found[0]["executionArn"])["input"])
    assert told == {"kind": "schedule", "time": "2026-01-01T03:00:00Z", "try": "1"}
    role = plan["Target"]["RoleArn"].rpartition("/")[2]
    [call, _] = [one for one in bare.calls(start) if one.principal == f"role/{role}"]
    assert (call.action, call.resource, call.decision) == ("states:StartExecution", plan["Target"]["Arn"], "allowed")


def test_a_schedule_whose_role_may_not_start_is_not_delivered(bare: Cloud, plan: dict[str, Any]) -> None:
    other = make_machine(bare, {"Done": {"Type": "Succeed"}})
    bare.client("scheduler").create_schedule(**plan | {"Target": plan["Target"] | {"Arn": other}})
    bare.fire_schedule("nightly", "2026-01-01T03:00:00Z", plan["GroupName"])
    assert bare.undelivered()[-1]["code"] == "NO_PERMISSIONS"
    assert not bare.client("stepfunctions").list_executions(stateMachineArn=other)["executions"]


def test_a_disabled_schedule_does_nothing(bare: Cloud, plan: dict[str, Any]) -> None:
    bare.client("scheduler").create_schedule(**plan, State="DISABLED")
    bare.fire_schedule("nightly", "2026-01-01T03:00:00Z", plan["GroupName"])
    assert not bare.client("stepfunctions").list_executions(stateMachineArn=plan["Target"]["Arn"])["executions"]


def test_making_a_schedule_needs_the_right_to_pass_its_role(bare: Cloud, plan: dict[str, Any]) -> None:
    mine = bare.client("scheduler", bare.environment)
    assert code_of(mine.create_schedule, **plan) == "AccessDeniedException"
    start = len(bare.calls())
    bare.client("scheduler").create_schedule(**plan)
    rights = [(call.action, call.resource, dict(call.context)) for call in bare.calls(start)]
    arn = f"arn:aws:scheduler:us-east-1:{ACCOUNT}:schedule/{plan['GroupName']}/nightly"
    passed = {"iam:passedtoservice": "scheduler.amazonaws.com"}
    assert rights == [("scheduler:CreateSchedule", arn, {}), ("iam:PassRole", plan["Target"]["RoleArn"], passed)]
    assert code_of(mine.delete_schedule, Name="nightly", GroupName=plan["GroupName"]) == "AccessDeniedException"
    assert bare.calls()[-1].resource == arn


def test_a_group_in_a_stack_takes_its_schedules_along(bare: Cloud, plan: dict[str, Any]) -> None:
    group = {"Type": "AWS::Scheduler::ScheduleGroup", "Properties": {"Name": "grouped"}, "Condition": "IsOn"}
    template = {
        "Parameters": {"On": {"Type": "String", "Default": "yes"}},
        "Conditions": {"IsOn": {"Fn::Equals": [{"Ref": "On"}, "yes"]}},
        "Resources": {"Group": group, "Queue": {"Type": "AWS::SQS::Queue"}},
        "Outputs": {"Arn": {"Value": {"Fn::GetAtt": ["Group", "Arn"]}, "Condition": "IsOn"}},
    }
    change(bare, "CREATE", "first", template, "grouped")
    outputs = execute(bare, "first", "grouped")["Outputs"]
    assert [one["OutputValue"] for one in outputs] == [f"{GROUP_ARN}grouped"]
    role = scheduling_role(bare, plan["Target"]["Arn"], "grouped")
    scheduler = bare.client("scheduler")
    scheduler.create_schedule(**plan | {"GroupName": "grouped", "Target": plan["Target"] | {"RoleArn": role}})
    assert [one["Name"] for one in scheduler.list_schedules(GroupName="grouped")["Schedules"]] == ["nightly"]
    change(bare, "UPDATE", "off", template, "grouped", On="no")
    stack = execute(bare, "off", "grouped")
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert not stack.get("Outputs")
    assert scheduler.list_schedules(GroupName="grouped")["Schedules"] == []
    assert code_of(scheduler.get_schedule, Name="nightly", GroupName="grouped") == "ResourceNotFoundException"


def test_events_of_a_bucket_are_switched_by_its_stack(bare: Cloud) -> None:
    on = {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    bucket = {
        "Type": "AWS::S3::Bucket",
        "Properties": {
            "BucketName": "switched",
            "NotificationConfiguration": {"Fn::If": ["IsOn", on, {"Ref": "AWS::NoValue"}]},
        },
    }
    template = {
        "Parameters": {"On": {"Type": "String", "Default": "no"}},
        "Conditions": {"IsOn": {"Fn::Equals": [{"Ref": "On"}, "yes"]}},
        "Resources": {"Bucket": bucket},
    }

    def is_on() -> bool:
        told = bare.client("s3").get_bucket_notification_configuration(Bucket="switched")
        return "EventBridgeConfiguration" in told

    change(bare, "CREATE", "first", template, "switched")
    execute(bare, "first", "switched")
    assert not is_on()
    for name, value in (("on", "yes"), ("off", "no")):
        change(bare, "UPDATE", name, template, "switched", On=value)
        assert execute(bare, name, "switched")["StackStatus"] == "UPDATE_COMPLETE"
        assert is_on() is (value == "yes")
