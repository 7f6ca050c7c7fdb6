"""Step Functions in the stand-in is as strict as AWS: integrations under the role, their errors, names and stopping."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws.standin.cloud import ACCOUNT, Cloud
from tests.aws.test_standin_edges import code_of, wait_until

BUCKET = "machines-store"
QUEUE, DEFINITION = "machines-queue", "machines-work"
EVENTS = f"arn:aws:events:us-east-1:{ACCOUNT}"
SDK = "arn:aws:states:::aws-sdk:"
STORE = [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": f"arn:aws:s3:::{BUCKET}/p/*"}]
LISTING = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"}
BATCH = [
    {"Effect": "Allow", "Action": ["batch:SubmitJob", "batch:TerminateJob", "batch:TagResource"], "Resource": "*"},
    {"Effect": "Allow", "Action": ["batch:DescribeJobs", "batch:ListJobs"], "Resource": "*"},
]
MANAGED = [
    {
        "Effect": "Allow",
        "Action": ["events:DescribeRule", "events:PutRule", "events:PutTargets"],
        "Resource": f"{EVENTS}:rule/StepFunctionsGetEventsFor{what}Rule",
    }
    for what in ("BatchJobs", "StepFunctionsExecution")
]
SUBMIT = {"JobName": "j", "JobQueue": QUEUE, "JobDefinition": DEFINITION, "Parameters": {"Mixed": "kept"}}


@pytest.fixture(scope="module")
def bare(bare: Cloud) -> Cloud:
    """Give machines a bucket and a queue, and let them wait for nothing."""
    bare.client("s3").create_bucket(Bucket=BUCKET)
    make_queue(bare)
    bare.options(wait_scale=0.0)
    return bare


@pytest.fixture(autouse=True)
def _released(bare: Cloud) -> Iterator[None]:
    yield
    bare.no_faults()
    bare.release()


def make_queue(cloud: Cloud) -> None:
    ec2, batch = cloud.client("ec2"), cloud.client("batch")
    cloud.client("iam").create_instance_profile(InstanceProfileName="instances")
    resources = {
        "type": "SPOT",
        "maxvCpus": 8,
        "minvCpus": 0,
        "instanceTypes": ["c5"],
        "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
        "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
        "instanceRole": "instances",
        "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
    }
    batch.create_compute_environment(computeEnvironmentName="spot", type="MANAGED", computeResources=resources)
    order = [{"order": 1, "computeEnvironment": "spot"}]
    batch.create_job_queue(jobQueueName=QUEUE, priority=1, computeEnvironmentOrder=order)
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "500"}]
    container = {"image": "absent:1", "command": ["work"], "resourceRequirements": needs}
    batch.register_job_definition(jobDefinitionName=DEFINITION, type="container", containerProperties=container)


def make_role(cloud: Cloud, statements: Sequence[Any], service: str = "states.amazonaws.com") -> str:
    iam, name = cloud.client("iam"), f"role-{uuid.uuid4().hex[:8]}"
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
    arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"])
    if statements:
        policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
        iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy)
    return arn


def make_machine(cloud: Cloud, states: dict[str, Any], statements: Sequence[Any] = (), **top: Any) -> str:
    definition = {"StartAt": next(iter(states)), "States": states, **top}
    made = cloud.client("stepfunctions").create_state_machine(
        name=f"machine-{uuid.uuid4().hex[:8]}",
        definition=json.dumps(definition),
        roleArn=make_role(cloud, statements),
    )
    return str(made["stateMachineArn"])


def task(resource: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"Type": "Task", "Resource": resource, "Parameters": parameters, "End": True, **more}


def start(cloud: Cloud, machine: str, given: Any = None, name: str = "") -> str:
    told = cloud.client("stepfunctions").start_execution(
        stateMachineArn=machine, name=name or str(uuid.uuid4()), input=json.dumps(given or {})
    )
    return str(told["executionArn"])


def end_of(cloud: Cloud, execution: str) -> dict[str, Any]:
    states = cloud.client("stepfunctions")
    wait_until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING")
    return dict(states.describe_execution(executionArn=execution))


def run(cloud: Cloud, states: dict[str, Any], statements: Sequence[Any] = (), given: Any = None) -> dict[str, Any]:
    return end_of(cloud, start(cloud, make_machine(cloud, states, statements), given))


def output(ended: dict[str, Any]) -> Any:
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    return json.loads(ended["output"])


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "stored", "etag"),
    [
        ("text data", b'"text data"', "2b5df3712557f503a9977a8ea893b2c9"),
        ({"Dict": "Value"}, b'{"Dict":"Value"}', "49e31cee5aec8faf3345893addb14346"),
        (["List", "Data"], b'["List","Data"]', "6b23860357f6e63a0272b7f1143a663a"),
        (False, b"false", "68934a3e9455fa72420237eb05902327"),
    ],
)
def test_a_machine_writes_json_whatever_it_is_given(bare: Cloud, body: Any, stored: bytes, etag: str) -> None:
    put = task(f"{SDK}s3:putObject", {"Bucket": BUCKET, "Key": "p/body", "Body.$": "$.body"})
    told = output(run(bare, {"Put": put}, STORE, {"body": body}))
    assert told["ETag"] == f'"{etag}"'
    assert bare.client("s3").get_object(Bucket=BUCKET, Key="p/body")["Body"].read() == stored


def test_a_machine_reads_an_object_as_text(bare: Cloud) -> None:
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/read", Body='{"a": "ü"}'.encode())
    get = task(f"{SDK}s3:getObject", {"Bucket": BUCKET, "Key": "p/read"})
    get["ResultSelector"] = {"read.$": "States.StringToJson($.Body)", "size.$": "$.ContentLength"}
    assert output(run(bare, {"Get": get}, STORE)) == {"read": {"a": "ü"}, "size": 11}


@pytest.mark.parametrize(
    ("action", "key", "more", "statements", "error", "words"),
    [
        ("getObject", "p/none", {}, [*STORE, LISTING], "S3.NoSuchKeyException", "Status Code: 404"),
        ("getObject", "p/none", {}, STORE, "S3.AccessDeniedException", "Status Code: 403"),
        ("getObject", "q/none", {}, STORE, "S3.AccessDeniedException", "Status Code: 403"),
        ("putObject", "p/once", {"Body": 1, "IfNoneMatch": "*"}, STORE, "S3.S3Exception", "Status Code: 412"),
        ("putObject", "p/x", {"body": 1}, STORE, "States.Runtime", "is not supported by Step Functions"),
    ],
)
def test_errors_of_s3_have_the_sdks_names(
    bare: Cloud, action: str, key: str, more: Any, statements: Any, error: str, words: str
) -> None:
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/once", Body=b"1")
    ended = run(bare, {"Do": task(f"{SDK}s3:{action}", {"Bucket": BUCKET, "Key": key, **more})}, statements)
    assert (ended["status"], ended["error"]) == ("FAILED", error)
    assert words in ended["cause"]


def test_a_result_over_256_kib_fails_the_state(bare: Cloud) -> None:
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/large", Body=b"x" * 262_145)
    get = task(f"{SDK}s3:getObject", {"Bucket": BUCKET, "Key": "p/large"})
    assert run(bare, {"Get": get}, STORE)["error"] == "States.DataLimitExceeded"


# --- Batch ----------------------------------------------------------------------------------------------------------


def submit(**more: Any) -> dict[str, Any]:
    return task("arn:aws:states:::batch:submitJob.sync", SUBMIT | more)


def job_of(cloud: Cloud, name: str) -> dict[str, Any]:
    return dict(wait_until(lambda: next((job for job in cloud.jobs() if job["jobName"] == name), None)))


def test_a_job_that_ends_well_is_told_in_pascal_case(bare: Cloud) -> None:
    told = output(run(bare, {"Do": submit(JobName="well", Tags={"Mixed": "tag"})}, [*BATCH, *MANAGED]))
    assert (told["Status"], told["Parameters"], told["Tags"]["Mixed"]) == ("SUCCEEDED", {"Mixed": "kept"}, "tag")
    assert {"Name": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"} in told["Container"]["Environment"]


def test_a_job_that_fails_is_the_cause_in_pascal_case(bare: Cloud) -> None:
    bare.hold()
    execution = start(bare, make_machine(bare, {"Do": submit(JobName="badly")}, [*BATCH, *MANAGED]))
    bare.client("batch").terminate_job(jobId=job_of(bare, "badly")["jobId"], reason="no more")
    ended = end_of(bare, execution)
    assert ended["error"] == "States.TaskFailed"
    cause = json.loads(ended["cause"])
    assert (cause["JobName"], cause["Status"], cause["StatusReason"]) == ("badly", "FAILED", "no more")


def test_a_machine_asks_after_jobs_and_ends_them(bare: Cloud) -> None:
    bare.hold()
    job = bare.client("batch").submit_job(jobName="asked", jobQueue=QUEUE, jobDefinition=DEFINITION)["jobId"]
    states = {
        "List": task(
            f"{SDK}batch:listJobs",
            {"JobQueue": QUEUE, "Filters": [{"Name": "JOB_NAME", "Values": ["asked"]}]},
            ResultSelector={"id.$": "$.JobSummaryList[0].JobId"},
        ),
        "End": task(f"{SDK}batch:terminateJob", {"JobId.$": "$.id", "Reason": "asked to"}, ResultPath=None),
        "Look": task(
            f"{SDK}batch:describeJobs",
            {"Jobs.$": "States.Array($.id)"},
            ResultSelector={"status.$": "$.Jobs[0].Status", "reason.$": "$.Jobs[0].StatusReason"},
        ),
    }
    for name, after in (("List", "End"), ("End", "Look")):
        del states[name]["End"]
        states[name]["Next"] = after
    assert output(run(bare, states, BATCH)) == {"status": "FAILED", "reason": "asked to"}
    assert job_of(bare, "asked")["jobId"] == job


def test_throttling_has_the_name_of_batchs_general_error(bare: Cloud) -> None:
    bare.fault("batch:SubmitJob", "throttle", times=1)
    ended = run(bare, {"Do": submit(JobName="often")}, [*BATCH, *MANAGED])
    assert ended["error"] == "Batch.AWSBatchException"
    assert "Error Code: TooManyRequestsException" in ended["cause"]
    bare.fault("batch:DescribeJobs", "throttle", times=2)  # of that, .sync says nothing
    assert run(bare, {"Do": submit(JobName="seldom")}, [*BATCH, *MANAGED])["status"] == "SUCCEEDED"


def test_a_retried_submission_waits_for_as_long_as_the_test_wants(bare: Cloud) -> None:
    bare.fault("batch:SubmitJob", "throttle", times=2)
    retry = {
        "ErrorEquals": ["Batch.AWSBatchException"],
        "IntervalSeconds": 60,
        "MaxAttempts": 3,
        "BackoffRate": 2,
        "JitterStrategy": "FULL",
    }
    state = submit(JobName="again") | {"Retry": [retry]}
    assert run(bare, {"Do": state}, [*BATCH, *MANAGED])["status"] == "SUCCEEDED"


# --- events, metrics, notices ----------------------------------------------------------------------------------------


def put_events(source: str) -> dict[str, Any]:
    entry = {"Source": source, "DetailType": "told", "Detail": {"deep": {"n.$": "$.n"}}}
    return task("arn:aws:states:::events:putEvents", {"Entries": [entry]})


def allow(action: str, resource: str = "*", **condition: Any) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Action": action,
        "Resource": resource,
        **({"Condition": condition} if condition else {}),
    }


def test_an_event_of_a_machine_reaches_deployed_rules_and_is_kept(bare: Cloud) -> None:
    events, sqs = bare.client("events"), bare.client("sqs")
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    pattern = {"source": ["own"], "detail": {"deep": {"n": [7]}}}
    events.put_rule(Name="heard", EventPattern=json.dumps(pattern))
    events.put_targets(Rule="heard", Targets=[{"Id": "1", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:heard"}])
    right = allow("events:PutEvents", f"{EVENTS}:event-bus/default", StringEquals={"events:source": "own"})
    assert output(run(bare, {"Tell": put_events("own")}, [right], {"n": 7}))["FailedEntryCount"] == 0
    [letter] = wait_until(lambda: sqs.receive_message(QueueUrl=queue).get("Messages"))
    heard = json.loads(letter["Body"])
    assert heard["detail"] == {"deep": {"n": 7}}
    assert [arn.split(":")[5] for arn in heard["resources"]] == ["stateMachine", "execution"]
    assert heard["id"] == bare.published()[-1]["id"]
    assert run(bare, {"Tell": put_events("foreign")}, [right], {"n": 7})["error"].startswith("EventBridge.")
    assert run(bare, {"Tell": put_events("aws.own")}, [allow("events:PutEvents")])["error"] == "States.Runtime"


def test_nobody_speaks_for_aws(bare: Cloud) -> None:
    ended = run(bare, {"Tell": put_events("aws.s3")}, [allow("events:PutEvents")], {"n": 7})
    assert ended["error"] == "EventBridge.FailedEntry"


def test_a_metric_is_kept_where_the_namespace_is_allowed(bare: Cloud) -> None:
    def put(namespace: str) -> dict[str, Any]:
        point = {"MetricName": "Refused", "Value": 1, "Dimensions": [{"Name": "Stack", "Value": "s"}]}
        return task(f"{SDK}cloudwatch:putMetricData", {"Namespace": namespace, "MetricData": [point]})

    right = allow("cloudwatch:PutMetricData", StringEquals={"cloudwatch:namespace": "own"})
    assert run(bare, {"Put": put("own")}, [right])["status"] == "SUCCEEDED"
    assert bare.metrics()[-1] == {"namespace": "own", "name": "Refused", "value": 1, "dimensions": {"Stack": "s"}}
    ended = run(bare, {"Put": put("foreign")}, [right])
    assert ended["error"] == "CloudWatch.CloudWatchException"
    assert "is not authorized to perform: cloudwatch:PutMetricData" in ended["cause"]


def test_a_notice_is_kept(bare: Cloud) -> None:
    topic = bare.client("sns").create_topic(Name="notices")["TopicArn"]
    publish = task("arn:aws:states:::sns:publish", {"TopicArn": topic, "Message": {"a": 1}, "Subject": "told"})
    assert run(bare, {"Tell": publish}, [allow("sns:Publish", topic)])["status"] == "SUCCEEDED"
    sent = bare.notices()[-1]
    assert (json.loads(sent["message"]), sent["subject"]) == ({"a": 1}, "told")
    assert run(bare, {"Tell": publish}, [])["error"] == "SNS.AuthorizationErrorException"


# --- executions -----------------------------------------------------------------------------------------------------

NAP = {"Nap": {"Type": "Wait", "Seconds": 36_000, "End": True}}


@pytest.mark.parametrize("name", ["x" * 81, "a b", "a/b", "a:b", "ä*", "a#b"])
def test_names_of_executions_are_checked(bare: Cloud, name: str) -> None:
    machine = make_machine(bare, {"Done": {"Type": "Succeed"}})
    states = bare.client("stepfunctions")
    expected = "ValidationException" if len(name) > 80 else "InvalidName"
    assert code_of(states.start_execution, stateMachineArn=machine, name=name) == expected


def test_one_name_is_one_execution_while_it_runs_with_the_same_input(bare: Cloud) -> None:
    bare.options(wait_scale=1.0)
    states, machine = bare.client("stepfunctions"), make_machine(bare, NAP)
    found: list[str] = []
    racers = [threading.Thread(target=lambda: found.append(start(bare, machine, {"n": 1}, "n" * 80))) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    same = {"stateMachineArn": machine, "name": "n" * 80}
    assert code_of(states.start_execution, **same, input='{"n":2}') == "ExecutionAlreadyExists"
    states.stop_execution(executionArn=found[0], error="E", cause="C")
    assert end_of(bare, found[0])["status"] == "ABORTED"
    assert code_of(states.start_execution, **same, input='{"n": 1}') == "ExecutionAlreadyExists"
    bare.options(wait_scale=0.0)
    child = task(f"{SDK}sfn:startExecution", {"StateMachineArn": machine, "Name": "n" * 80, "Input": {"n": 2}})
    ended = run(bare, {"Start": child}, [allow("states:StartExecution", machine)])
    assert ended["error"] == "Sfn.ExecutionAlreadyExistsException"
    child["Resource"] = "arn:aws:states:::states:startExecution"
    ended = run(bare, {"Start": child}, [allow("states:StartExecution", machine)])
    assert ended["error"] == "StepFunctions.ExecutionAlreadyExistsException"


def test_an_input_has_at_most_256_kib(bare: Cloud) -> None:
    machine = make_machine(bare, {"Done": {"Type": "Succeed"}})
    with pytest.raises(ClientError) as caught:
        start(bare, machine, "x" * 262_145)
    assert caught.value.response["Error"]["Code"] == "InvalidExecutionInput"


def test_waiting_takes_as_long_as_the_test_wants(bare: Cloud) -> None:
    assert run(bare, NAP)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("may", [True, False])
def test_stopping_ends_the_job_that_is_waited_for_if_the_role_may(bare: Cloud, may: bool) -> None:
    bare.hold()
    name = f"stopped-{may}"
    statements = [*(BATCH if may else [allow("batch:SubmitJob"), BATCH[1]]), *MANAGED]
    execution = start(bare, make_machine(bare, {"Do": submit(JobName=name)}, statements))
    wait_until(lambda: job_of(bare, name)["status"] == "RUNNABLE")
    before = len(bare.calls())
    bare.client("stepfunctions").stop_execution(executionArn=execution)
    assert end_of(bare, execution)["status"] == "ABORTED"
    [asked] = wait_until(lambda: [call for call in bare.calls(before) if call.action == "batch:TerminateJob"])
    assert asked.decision == ("allowed" if may else "not allowed")
    if may:
        wait_until(lambda: job_of(bare, name)["status"] == "FAILED")
    assert job_of(bare, name)["status"] == ("FAILED" if may else "RUNNABLE")


@pytest.mark.parametrize("given", [{"error": "own.Stopped", "cause": "no more"}, {}])
def test_stopping_a_map_aborts_it_for_the_reason_given_and_ends_its_jobs(bare: Cloud, given: dict[str, str]) -> None:
    bare.hold()
    names = [f"item-{part}-{len(given)}" for part in "ab"]
    caught = {"Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}
    more = {"Caught": {"Type": "Succeed"}}
    named = {name: value for name, value in SUBMIT.items() if name != "JobName"} | {"JobName.$": "$"}
    each = {"StartAt": "Do", "States": {"Do": submit() | {"Parameters": named} | caught} | more}
    retry = {"Retry": [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 2}]}
    every = {"Type": "Map", "ItemsPath": "$.names", "ItemProcessor": each, "End": True} | retry | caught
    machine = make_machine(bare, {"Every": every} | more, [*BATCH, *MANAGED])
    execution, states = start(bare, machine, {"names": names}), bare.client("stepfunctions")
    jobs = [job_of(bare, name)["jobId"] for name in names]
    states.stop_execution(executionArn=execution, **given)
    ended = end_of(bare, execution)
    assert ended["status"] == "ABORTED"
    assert {name: ended[name] for name in ("error", "cause") if name in ended} == given
    # What was submitted while the map was being stopped ends a little later.
    wait_until(lambda: all(job_of(bare, name)["status"] == "FAILED" for name in names))
    found = bare.client("batch").describe_jobs(jobs=jobs)["jobs"]
    assert [(job["status"], job["statusReason"]) for job in found] == [("FAILED", "The execution was stopped")] * 2
    history = states.get_execution_history(executionArn=execution)["events"]
    [told] = [event for event in history if event["type"] == "ExecutionAborted"]
    assert told.get("executionAbortedEventDetails", {}) == given
    assert len([event for event in history if event["type"] == "MapStateStarted"]) == 1
    assert "Caught" not in [event.get("stateEnteredEventDetails", {}).get("name") for event in history]
    states.stop_execution(executionArn=execution, error="own.Late", cause="too late")
    assert states.describe_execution(executionArn=execution).get("error") == given.get("error")


def test_a_timeout_fails_the_state_and_leaves_the_job(bare: Cloud) -> None:
    bare.hold()
    state = submit(JobName="slow") | {"TimeoutSecondsPath": "$.most"}
    ended = end_of(bare, start(bare, make_machine(bare, {"Do": state}, [*BATCH, *MANAGED]), {"most": 1}))
    assert (ended["status"], ended["error"]) == ("FAILED", "States.Timeout")
    wait_until(lambda: job_of(bare, "slow")["status"] == "RUNNABLE")


def test_a_machine_has_a_time_limit_of_its_own(bare: Cloud) -> None:
    bare.options(wait_scale=1.0)
    ended = end_of(bare, start(bare, make_machine(bare, NAP, TimeoutSeconds=1)))
    bare.options(wait_scale=0.0)
    assert ended["status"] == "TIMED_OUT"


def test_error_and_cause_may_be_computed(bare: Cloud) -> None:
    fail = {"Type": "Fail", "ErrorPath": "$.error", "CausePath": "States.Format('because {}', $.why)"}
    ended = run(bare, {"No": fail}, given={"error": "own.Refused", "why": "of it"})
    assert (ended["error"], ended["cause"]) == ("own.Refused", "because of it")


def test_intrinsics_compute(bare: Cloud) -> None:
    made = {
        "hash.$": "States.Hash(States.Format('{}/{}', $.a, $.n), 'SHA-256')",
        "json.$": "States.JsonToString($.list)",
        "item.$": "States.ArrayGetItem($.list, 1)",
        "length.$": "States.ArrayLength($.list)",
        "sum.$": "States.MathAdd($.n, -1)",
        "parts.$": "States.StringSplit($.a, '/')",
        "both.$": "States.JsonMerge($.one, $.two, false)",
    }
    given = {"a": "x/y", "n": 3, "list": [1, 2], "one": {"a": 1}, "two": {"b": 2}}
    told = output(run(bare, {"Do": {"Type": "Pass", "Parameters": made, "End": True}}, given=given))
    assert len(told.pop("hash")) == 64
    assert told == {
        "json": "[1,2]",
        "item": 2,
        "length": 2,
        "sum": 2,
        "parts": ["x", "y"],
        "both": {"a": 1, "b": 2},
    }


def test_an_execution_knows_when_it_began(bare: Cloud) -> None:
    made = {"day.$": "States.ArrayGetItem(States.StringSplit($$.Execution.StartTime,'T'),0)", "all.$": "$$.Execution"}
    ended = run(bare, {"Do": {"Type": "Pass", "Parameters": made, "End": True}})
    assert output(ended)["day"] == ended["startDate"].strftime("%Y-%m-%d")
    assert output(ended)["all"]["StartTime"].endswith("Z")


def test_a_nested_machine_is_waited_for(bare: Cloud) -> None:
    child = make_machine(bare, {"Done": {"Type": "Pass", "Result": {"r": 1}, "End": True}})
    children = child.replace(":stateMachine:", ":execution:") + ":*"
    rights = [allow("states:StartExecution", child), allow("states:DescribeExecution", children), *MANAGED]
    wait = task("arn:aws:states:::states:startExecution.sync:2", {"StateMachineArn": child, "Input": {"i": 1}})
    told = output(run(bare, {"Nest": wait}, rights))
    assert (told["Input"], told["Output"]) == ({"i": 1}, {"r": 1})
    wrong = make_machine(bare, {"No": {"Type": "Fail", "Error": "own.No", "Cause": "why"}})
    rights = [allow("states:*"), *MANAGED]
    wait["Parameters"]["StateMachineArn"] = wrong
    ended = run(bare, {"Nest": wait}, rights)
    assert ended["error"] == "States.TaskFailed"
    assert json.loads(ended["cause"])["Error"] == "own.No"


# --- who may what ---------------------------------------------------------------------------------------------------


def test_a_user_needs_the_right_to_start_describe_and_stop(bare: Cloud) -> None:
    machine, states = make_machine(bare, NAP), bare.client("stepfunctions", bare.environment)
    execution = start(bare, machine)
    assert code_of(states.start_execution, stateMachineArn=machine) == "AccessDeniedException"
    assert code_of(states.describe_execution, executionArn=execution) == "AccessDeniedException"
    assert code_of(states.stop_execution, executionArn=execution) == "AccessDeniedException"
    assert code_of(states.list_executions, stateMachineArn=machine) == "AccessDeniedException"


def test_waiting_for_a_job_needs_a_role_that_can_make_the_managed_rule(bare: Cloud) -> None:
    with pytest.raises(ClientError, match="is not authorized to create managed-rule"):
        make_machine(bare, {"Do": submit()}, BATCH)


def test_a_role_must_trust_step_functions(bare: Cloud) -> None:
    make: Callable[..., Any] = bare.client("stepfunctions").create_state_machine
    definition = json.dumps({"StartAt": "A", "States": {"A": {"Type": "Succeed"}}})
    with pytest.raises(ClientError, match=r"Neither the global service principal states\.amazonaws\.com"):
        make(name="untrusted", definition=definition, roleArn=make_role(bare, [], "ecs-tasks.amazonaws.com"))
