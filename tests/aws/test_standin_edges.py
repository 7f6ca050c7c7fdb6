"""The stand-in's edges are as strict as AWS: IAM, S3, ECR, EventBridge, Step Functions, CloudFormation, faults."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from tests.aws.standin.cloud import ACCOUNT, Cloud
from tests.aws.standin.recorder import Call

STACK = "edges"
BUCKET = "edges-store"
QUEUE = f"arn:aws:batch:us-east-1:{ACCOUNT}:job-queue/"
LOST = (ConnectionClosedError, EndpointConnectionError)


def statement(action: Any, resource: Any, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def role(service: str, *statements: dict[str, Any], **condition: Any) -> dict[str, Any]:
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole", **condition}
    policy = {"PolicyName": "own", "PolicyDocument": {"Version": "2012-10-17", "Statement": list(statements)}}
    properties = {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}, "Policies": [policy]}
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def make_template() -> dict[str, Any]:
    """Return a stack that has one of each edge: a bucket with a policy, roles, a rule, a machine, a repository."""
    every = f"arn:aws:s3:::{BUCKET}/p/*"
    listing = {"StringLike": {"s3:prefix": "p/*"}}
    put_once = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    denials = [
        statement("s3:PutObject", f"arn:aws:s3:::{BUCKET}/p/once/*", "Deny", Principal="*", Condition=put_once),
        statement("s3:*", every, "Deny", Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}}),
    ]
    definition = {
        "StartAt": "Reduce",
        "States": {
            "Reduce": {
                "Type": "Task",
                "Resource": "arn:aws:states:::batch:submitJob",
                "Parameters": {
                    "JobName.$": "$.name",
                    "JobQueue.$": "$.queue",
                    "JobDefinition": "absent:1",
                    "Parameters": {"MixedCase": "kept"},
                },
                "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": "Told"}],
                "End": True,
            },
            "Told": {"Type": "Pass", "End": True},
        },
    }
    pattern = {
        "source": ["aws.batch"],
        "detail": {
            "parameters": {"first_task": [{"exists": True}]},
            "arrayProperties": {"index": [{"exists": False}]},
            "$or": [
                {"status": ["FAILED"]},
                {"status": ["SUCCEEDED"], "parameters": {"arrays": [{"anything-but": "1"}]}},
            ],
        },
    }
    target = {
        "Id": "conclude",
        "Arn": {"Ref": "Machine"},
        "RoleArn": {"Fn::GetAtt": ["EventsRole", "Arn"]},
        "DeadLetterConfig": {"Arn": {"Fn::GetAtt": ["Dead", "Arn"]}},
        "InputTransformer": {
            "InputPathsMap": {"job": "$.detail.jobId", "queue": "$.detail.jobQueue"},
            "InputTemplate": '{"name": "again-<job>", "queue": <queue>}',
        },
    }
    return {
        "Parameters": {
            "Size": {"Type": "Number", "Default": 1, "MinValue": 0, "MaxValue": 9},
            "Names": {"Type": "CommaDelimitedList", "Default": "a,b"},
            "More": {"Type": "String", "Default": "no", "AllowedValues": ["yes", "no"]},
        },
        "Conditions": {"HasMore": {"Fn::Equals": [{"Ref": "More"}, "yes"]}},
        "Resources": {
            "Bucket": {
                "Type": "AWS::S3::Bucket",
                "DeletionPolicy": "Retain",
                "Properties": {
                    "BucketName": BUCKET,
                    "NotificationConfiguration": {"EventBridgeConfiguration": {"EventBridgeEnabled": True}},
                    "PublicAccessBlockConfiguration": {"BlockPublicAcls": True},
                    "LifecycleConfiguration": {
                        "Rules": [{"Status": "Enabled", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}]
                    },
                },
            },
            "Policy": {
                "Type": "AWS::S3::BucketPolicy",
                "Properties": {
                    "Bucket": {"Ref": "Bucket"},
                    "PolicyDocument": {"Version": "2012-10-17", "Statement": denials},
                },
            },
            "Reader": role(
                "ecs-tasks.amazonaws.com",
                statement(["s3:GetObject", "s3:PutObject"], every),
                statement("s3:ListBucket", f"arn:aws:s3:::{BUCKET}", Condition=listing),
            ),
            "Blind": role("ecs-tasks.amazonaws.com", statement(["s3:GetObject", "s3:DeleteObject"], every)),
            "MachineRole": role("states.amazonaws.com", statement("batch:SubmitJob", f"{QUEUE}mine")),
            "EventsRole": role(
                "events.amazonaws.com",
                statement("states:StartExecution", {"Ref": "Machine"}),
                Condition={"ArnLike": {"aws:SourceArn": f"arn:aws:events:us-east-1:{ACCOUNT}:rule/{STACK}-*"}},
            ),
            "Machine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {
                    "RoleArn": {"Fn::GetAtt": ["MachineRole", "Arn"]},
                    "DefinitionString": json.dumps(definition),
                },
            },
            "Rule": {
                "Type": "AWS::Events::Rule",
                "Properties": {"EventPattern": pattern, "State": "ENABLED", "Targets": [target]},
            },
            "Dead": {"Type": "AWS::SQS::Queue"},
            "Seen": {"Type": "AWS::SQS::Queue"},
            "SeenRule": {
                "Type": "AWS::Events::Rule",
                "Properties": {
                    "EventPattern": {"source": ["aws.s3"], "detail": {"object": {"key": [{"wildcard": "p/*.yaml"}]}}},
                    "State": "ENABLED",
                    "Targets": [{"Id": "seen", "Arn": {"Fn::GetAtt": ["Seen", "Arn"]}}],
                },
            },
            "Repository": {
                "Type": "AWS::ECR::Repository",
                "Properties": {"RepositoryName": STACK, "ImageTagMutability": "IMMUTABLE"},
            },
            "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": {"Ref": "Size"}}},
            "Extra": {"Type": "AWS::SQS::Queue", "Condition": "HasMore"},
        },
        "Outputs": {
            "ReaderArn": {"Value": {"Fn::GetAtt": ["Reader", "Arn"]}},
            "Reader": {"Value": {"Ref": "Reader"}},
            "Blind": {"Value": {"Ref": "Blind"}},
            "Machine": {"Value": {"Ref": "Machine"}},
            "Dead": {"Value": {"Ref": "Dead"}},
            "Seen": {"Value": {"Ref": "Seen"}},
            "RuleName": {"Value": {"Ref": "Rule"}},
            "LogsArn": {"Value": {"Fn::GetAtt": ["Logs", "Arn"]}},
        },
    }


@pytest.fixture(autouse=True)
def _no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "bare" in request.fixturenames:
        request.getfixturevalue("bare").no_faults()


def change(
    cloud: Cloud, kind: str, name: str, template: dict[str, Any], stack: str = STACK, **parameters: str
) -> dict[str, Any]:
    """Make a change set and wait for it; return what it says."""
    formation = cloud.client("cloudformation")
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    formation.create_change_set(
        StackName=stack,
        ChangeSetName=name,
        ChangeSetType=kind,
        TemplateBody=json.dumps(template),
        Parameters=given,
        Capabilities=["CAPABILITY_IAM"],
    )
    ask: Callable[..., Any] = lambda: formation.describe_change_set(StackName=stack, ChangeSetName=name)  # noqa: E731
    assert ask()["Status"] == "CREATE_IN_PROGRESS"
    wait_until(lambda: ask()["Status"] != "CREATE_IN_PROGRESS")
    told: dict[str, Any] = ask()
    return told


def execute(cloud: Cloud, name: str, stack: str = STACK) -> dict[str, Any]:
    """Carry a change set out; return the stack."""
    formation = cloud.client("cloudformation")
    formation.execute_change_set(StackName=stack, ChangeSetName=name)
    ask: Callable[..., Any] = lambda: formation.describe_stacks(StackName=stack)["Stacks"][0]  # noqa: E731
    wait_until(lambda: not ask()["StackStatus"].endswith("IN_PROGRESS"))
    told: dict[str, Any] = ask()
    return told


def wait_until(condition: Callable[[], Any], patience_s: float = 60) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        threading.Event().wait(0.05)
    return found


@pytest.fixture(scope="module")
def outputs(bare: Cloud) -> dict[str, str]:
    """Deploy the stack; return its outputs."""
    told = change(bare, "CREATE", "first", make_template())
    assert told["Status"] == "CREATE_COMPLETE"
    assert "Extra" not in [one["ResourceChange"]["LogicalResourceId"] for one in told["Changes"]]
    stack = execute(bare, "first")
    assert stack["StackStatus"] == "CREATE_COMPLETE", bare.folder
    return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}


def act_as(cloud: Cloud, name: str) -> dict[str, str]:
    """Return the environment of somebody who has taken a role on."""
    arn = f"arn:aws:iam::{ACCOUNT}:role/{name}"
    key = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]
    return {
        **cloud.admin,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_SESSION_TOKEN": key["SessionToken"],
    }


def code_of(call: Callable[..., Any], **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


def calls_of_admin(cloud: Cloud, start: int) -> list[Call]:
    """Return what the administrator asked for: machines that other tests started may still be at work."""
    return [call for call in cloud.calls(start) if call.principal == "user/admin"]


# --- S3 -------------------------------------------------------------------------------------------------------------


def test_an_absent_key_is_forbidden_to_whom_may_not_list(bare: Cloud, outputs: dict[str, str]) -> None:
    reader, blind = (bare.client("s3", act_as(bare, outputs[name])) for name in ("Reader", "Blind"))
    assert code_of(reader.get_object, Bucket=BUCKET, Key="p/none") == "NoSuchKey"
    assert code_of(blind.get_object, Bucket=BUCKET, Key="p/none") == "AccessDenied"
    assert code_of(reader.head_object, Bucket=BUCKET, Key="p/none") == "404"
    assert code_of(blind.head_object, Bucket=BUCKET, Key="p/none") == "403"


def test_a_listing_must_ask_for_an_allowed_prefix(bare: Cloud, outputs: dict[str, str]) -> None:
    reader = bare.client("s3", act_as(bare, outputs["Reader"]))
    assert reader.list_objects_v2(Bucket=BUCKET, Prefix="p/x/")["KeyCount"] == 0
    assert code_of(reader.list_objects_v2, Bucket=BUCKET, Prefix="q/") == "AccessDenied"
    assert code_of(reader.list_objects_v2, Bucket=BUCKET) == "AccessDenied"


def test_what_is_created_once_needs_a_condition_even_of_an_administrator(bare: Cloud, outputs: dict[str, str]) -> None:
    s3 = bare.client("s3")
    key = {"Bucket": BUCKET, "Key": "p/once/a"}
    assert code_of(s3.put_object, **key, Body=b"1") == "AccessDenied"
    s3.put_object(**key, Body=b"1", IfNoneMatch="*")
    assert code_of(s3.put_object, **key, Body=b"2", IfNoneMatch="*") == "PreconditionFailed"


def test_parts_of_a_multipart_upload_need_no_condition_and_its_completion_does(
    bare: Cloud, outputs: dict[str, str]
) -> None:
    s3 = bare.client("s3")
    key = {"Bucket": BUCKET, "Key": "p/once/parts"}
    upload = {**key, "UploadId": s3.create_multipart_upload(**key)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"x" * 5_300_000)
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    assert code_of(s3.complete_multipart_upload, **upload, MultipartUpload=parts) == "AccessDenied"
    s3.complete_multipart_upload(**upload, MultipartUpload=parts, IfNoneMatch="*")
    assert s3.head_object(**key)["ContentLength"] == 5_300_000


def test_a_denied_write_is_recorded_and_takes_no_effect(bare: Cloud, outputs: dict[str, str]) -> None:
    reader = bare.client("s3", act_as(bare, outputs["Reader"]))
    assert code_of(reader.put_object, Bucket=BUCKET, Key="q/a", Body=b"1") == "AccessDenied"
    [call] = [call for call in bare.calls() if call.resource.endswith("/q/a")]
    assert (call.principal, call.action, call.decision) == (f"role/{outputs['Reader']}", "s3:PutObject", "not allowed")
    assert code_of(bare.client("s3").head_object, Bucket=BUCKET, Key="q/a") == "404"


def test_a_conditional_overwrite_needs_the_right_to_read(bare: Cloud, outputs: dict[str, str]) -> None:
    s3 = bare.client("s3")
    tag = s3.put_object(Bucket=BUCKET, Key="p/view", Body=b"1")["ETag"]
    start = len(bare.calls())
    s3.put_object(Bucket=BUCKET, Key="p/view", Body=b"2", IfMatch=tag)
    assert [call.action for call in calls_of_admin(bare, start)] == ["s3:PutObject", "s3:GetObject"]


def test_deleting_many_names_the_keys_that_were_refused(bare: Cloud, outputs: dict[str, str]) -> None:
    s3 = bare.client("s3")
    for key in ("p/d", "q/d"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    blind = bare.client("s3", act_as(bare, outputs["Blind"]))
    told = blind.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "p/d"}, {"Key": "q/d"}]})
    assert [one["Key"] for one in told["Deleted"]] == ["p/d"]
    assert [(one["Key"], one["Code"]) for one in told["Errors"]] == [("q/d", "AccessDenied")]
    assert s3.head_object(Bucket=BUCKET, Key="q/d")["ContentLength"] == 1


def test_a_large_object_comes_back_whole_and_in_ranges(bare: Cloud, outputs: dict[str, str]) -> None:
    s3 = bare.client("s3")
    body = hashlib.sha256(b"seed").digest() * 400_000
    s3.put_object(Bucket=BUCKET, Key="p/a b+c/ü%", Body=body)
    assert s3.get_object(Bucket=BUCKET, Key="p/a b+c/ü%")["Body"].read() == body
    part = s3.get_object(Bucket=BUCKET, Key="p/a b+c/ü%", Range="bytes=7-1000006")
    assert part["Body"].read() == body[7:1_000_007]


def test_a_presigned_url_speaks_for_whoever_signed_it(bare: Cloud, outputs: dict[str, str]) -> None:
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/shared", Body=b"told")
    wanted = {"Bucket": BUCKET, "Key": "p/shared"}
    url = bare.client("s3", signature_version="s3v4").generate_presigned_url("get_object", Params=wanted)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"told"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("p/shared", "p/other"))


@pytest.mark.parametrize(
    ("change_key", "code"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIA0000000000000000"}, "InvalidAccessKeyId"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
    ],
)
def test_wrong_keys_are_refused(bare: Cloud, change_key: dict[str, str], code: str) -> None:
    assert code_of(bare.client("s3", {**bare.admin, **change_key}).list_buckets) == code


def test_a_bucket_with_objects_is_not_deleted(bare: Cloud) -> None:
    s3 = bare.client("s3")
    s3.create_bucket(Bucket="full-one")
    s3.put_object(Bucket="full-one", Key="k", Body=b"1")
    assert code_of(s3.delete_bucket, Bucket="full-one") == "BucketNotEmpty"
    s3.delete_object(Bucket="full-one", Key="k")
    s3.delete_bucket(Bucket="full-one")
    assert code_of(s3.put_object, Bucket="full-one", Key="k", Body=b"1") == "NoSuchBucket"


# --- faults ---------------------------------------------------------------------------------------------------------


def test_a_lost_acknowledgement_leaves_the_object_there(bare: Cloud, outputs: dict[str, str]) -> None:
    s3 = bare.client("s3")
    bare.fault("s3:PutObject", "lost_ack", resource="*/p/lost")
    with pytest.raises(LOST):
        s3.put_object(Bucket=BUCKET, Key="p/lost", Body=b"1")
    assert s3.get_object(Bucket=BUCKET, Key="p/lost")["Body"].read() == b"1"


def test_a_lost_acknowledgement_of_an_api_call_leaves_it_done(bare: Cloud) -> None:
    queues = bare.client("sqs")
    bare.fault("sqs:CreateQueue", "lost_ack")
    with pytest.raises(LOST):
        queues.create_queue(QueueName="made-in-silence")
    assert queues.get_queue_url(QueueName="made-in-silence")


def test_a_reset_before_the_call_leaves_it_undone(bare: Cloud) -> None:
    queues = bare.client("sqs")
    bare.fault("sqs:CreateQueue", "reset_before")
    with pytest.raises(LOST):
        queues.create_queue(QueueName="never-made")
    assert "NonExistentQueue" in code_of(queues.get_queue_url, QueueName="never-made")


@pytest.mark.parametrize(
    ("service", "action", "call", "kind", "code"),
    [
        ("batch", "batch:DescribeJobQueues", "describe_job_queues", "throttle", "TooManyRequestsException"),
        ("batch", "batch:DescribeJobQueues", "describe_job_queues", "internal", "ServerException"),
        ("batch", "batch:DescribeJobQueues", "describe_job_queues", "denied", "AccessDeniedException"),
        ("batch", "batch:DescribeJobQueues", "describe_job_queues", "expired", "ExpiredTokenException"),
        ("ecr", "ecr:DescribeRepositories", "describe_repositories", "throttle", "ThrottlingException"),
        ("cloudformation", "cloudformation:ListStacks", "list_stacks", "throttle", "Throttling"),
        ("ec2", "ec2:DescribeVpcs", "describe_vpcs", "denied", "UnauthorizedOperation"),
        ("s3", "s3:ListAllMyBuckets", "list_buckets", "throttle", "SlowDown"),
    ],
)
def test_each_service_fails_in_its_own_words(
    bare: Cloud, service: str, action: str, call: str, kind: str, code: str
) -> None:
    bare.fault(action, kind, after=1)
    client = bare.client(service)
    getattr(client, call)()
    assert code_of(getattr(client, call)) == code
    getattr(client, call)()


# --- who, and what they may ------------------------------------------------------------------------------------------


def test_a_user_without_a_policy_may_do_nothing_but_ask_who_it_is(bare: Cloud) -> None:
    desk = bare.environment
    assert bare.client("sts", desk).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/desk"
    assert code_of(bare.client("batch", desk).describe_job_queues) == "AccessDeniedException"
    assert code_of(bare.client("ec2", desk).describe_vpcs) == "UnauthorizedOperation"
    with pytest.raises(ClientError, match=r"user/desk is not authorized to perform: batch:ListJobs on resource: \*"):
        bare.client("batch", desk).list_jobs(jobQueue="q")


def test_submitting_needs_the_queue_and_the_definition(bare: Cloud) -> None:
    start = len(bare.calls())
    code_of(bare.client("batch").submit_job, jobName="j", jobQueue="q", jobDefinition="d:3", tags={"a": "b"})
    assert [(call.action, call.resource.rpartition(":batch:")[2]) for call in calls_of_admin(bare, start)] == [
        ("batch:SubmitJob", f"us-east-1:{ACCOUNT}:job-queue/q"),
        ("batch:SubmitJob", f"us-east-1:{ACCOUNT}:job-definition/d:3"),
        ("batch:TagResource", f"us-east-1:{ACCOUNT}:job/*"),
    ]


def test_a_definition_needs_the_right_to_pass_its_roles(bare: Cloud, outputs: dict[str, str]) -> None:
    start = len(bare.calls())
    bare.client("batch").register_job_definition(
        jobDefinitionName="passing",
        type="container",
        containerProperties={
            "image": "i",
            "jobRoleArn": outputs["ReaderArn"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
        },
    )
    passed = [call for call in bare.calls(start) if call.action == "iam:PassRole"]
    assert [(call.resource, dict(call.context)) for call in passed] == [
        (outputs["ReaderArn"], {"iam:passedtoservice": "ecs-tasks.amazonaws.com"})
    ]


def test_expired_credentials_are_refused(bare: Cloud, outputs: dict[str, str]) -> None:
    given = act_as(bare, outputs["Blind"])
    bare.client("sts", given).get_caller_identity()
    assert bare.expire(outputs["Blind"]) >= 1
    assert code_of(bare.client("s3", given).list_buckets) == "ExpiredToken"
    assert code_of(bare.client("batch", given).describe_job_queues) == "ExpiredTokenException"


def test_decisions_can_be_asked_for(bare: Cloud, outputs: dict[str, str]) -> None:
    reader, bucket = f"role/{outputs['Reader']}", f"arn:aws:s3:::{BUCKET}"
    assert bare.may(reader, "s3:GetObject", f"{bucket}/p/a") == "allowed"
    assert bare.may(reader, "s3:GetObject", f"{bucket}/q/a") == "not allowed"
    assert bare.may(reader, "s3:ListBucket", bucket, **{"s3:prefix": "p/"}) == "allowed"
    assert bare.may(reader, "s3:ListBucket", bucket) == "not allowed"


# --- the account -----------------------------------------------------------------------------------------------------


def test_quotas_are_told_and_can_be_those_of_a_new_account(bare: Cloud) -> None:
    bare.quota("L-34B43A08", 0)
    quotas = bare.client("service-quotas")
    assert quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-34B43A08")["Quota"]["Value"] == 0
    bare.quota("L-34B43A08", 640)
    assert code_of(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-0") == "NoSuchResourceException"


def test_a_new_account_has_a_network_and_no_service_linked_role(bare: Cloud) -> None:
    routes = [route for table in bare.client("ec2").describe_route_tables()["RouteTables"] for route in table["Routes"]]
    assert any(route.get("GatewayId", "").startswith("igw-") for route in routes)
    iam = bare.client("iam")
    assert code_of(iam.get_role, RoleName="AWSServiceRoleForEC2Spot") == "NoSuchEntity"
    iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
    assert iam.get_role(RoleName="AWSServiceRoleForEC2Spot")["Role"]["Path"].startswith("/aws-service-role/")


# --- ECR -------------------------------------------------------------------------------------------------------------


class Registry:
    """A client of the registry, as a Docker engine is one."""

    def __init__(self, cloud: Cloud, environment: dict[str, str]) -> None:
        data = cloud.client("ecr", environment).get_authorization_token()["authorizationData"][0]
        self.host = data["proxyEndpoint"].removeprefix("http://")
        self.token = data["authorizationToken"]

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> Any:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        headers = {"Authorization": f"Basic {self.token}", "Content-Type": kind}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def put_blob(self, name: str, body: bytes) -> dict[str, Any]:
        status, headers, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        place = headers["Location"].removeprefix(f"http://{self.host}")
        assert self.ask("PUT", f"{place}&digest={digest}", body)[0] == 201
        return {"digest": digest, "size": len(body)}

    def push(self, name: str, tag: str, architecture: str = "amd64") -> tuple[int, str]:
        """Push an image of one layer; return the status and the digest."""
        config = self.put_blob(name, json.dumps({"architecture": architecture, "os": "linux"}).encode())
        layer = self.put_blob(name, f"layer of {tag}".encode())
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", **layer}],
        }
        status, headers, _ = self.ask("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(), kind)
        return status, headers.get("Docker-Content-Digest", "")


def test_what_was_pushed_is_what_ecr_tells(bare: Cloud, outputs: dict[str, str]) -> None:
    status, digest = Registry(bare, bare.admin).push(STACK, "1.0", "arm64")
    assert status == 201
    ecr = bare.client("ecr")
    [told] = ecr.describe_images(repositoryName=STACK, imageIds=[{"imageTag": "1.0"}])["imageDetails"]
    assert (told["imageDigest"], told["imageTags"]) == (digest, ["1.0"])
    [image] = ecr.batch_get_image(repositoryName=STACK, imageIds=[{"imageDigest": digest}])["images"]
    config = json.loads(image["imageManifest"])["config"]["digest"]
    url = ecr.get_download_url_for_layer(repositoryName=STACK, layerDigest=config)["downloadUrl"]
    with urllib.request.urlopen(url) as answer:
        assert json.loads(answer.read())["architecture"] == "arm64"
    absent = {"imageDigest": f"sha256:{'0' * 64}"}
    assert code_of(ecr.describe_images, repositoryName=STACK, imageIds=[absent]) == "ImageNotFoundException"
    failures = ecr.batch_get_image(repositoryName=STACK, imageIds=[absent])["failures"]
    assert [one["failureCode"] for one in failures] == ["ImageNotFound"]


def test_a_tag_cannot_be_pushed_again(bare: Cloud, outputs: dict[str, str]) -> None:
    registry = Registry(bare, bare.admin)
    assert registry.push(STACK, "2.0")[0] == 201
    assert registry.push(STACK, "2.0", "arm64")[0] == 400


def test_a_deleted_image_is_gone_from_the_registry(bare: Cloud, outputs: dict[str, str]) -> None:
    registry, ecr = Registry(bare, bare.admin), bare.client("ecr")
    _, digest = registry.push(STACK, "3.0", "other")
    assert ecr.batch_delete_image(repositoryName=STACK, imageIds=[{"imageTag": "3.0"}])["failures"] == []
    assert registry.ask("GET", f"/v2/{STACK}/manifests/{digest}")[0] == 404
    assert {"imageTag": "3.0"} not in [{"imageTag": one.get("imageTag")} for one in _listed(ecr)]


def _listed(ecr: Any) -> list[dict[str, str]]:
    return list(ecr.list_images(repositoryName=STACK)["imageIds"])


def test_the_registry_asks_for_rights(bare: Cloud, outputs: dict[str, str]) -> None:
    registry = Registry(bare, bare.admin)
    assert registry.ask("POST", "/v2/absent/blobs/uploads/")[0] == 404
    registry.token = base64.b64encode(b"AWS:guessed").decode()
    status, headers, _ = registry.ask("GET", "/v2/")
    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic")
    assert code_of(bare.client("ecr", bare.environment).get_authorization_token) == "AccessDeniedException"


def test_a_repository_with_images_is_not_deleted(bare: Cloud) -> None:
    ecr = bare.client("ecr")
    ecr.create_repository(repositoryName="kept")
    Registry(bare, bare.admin).push("kept", "1")
    assert code_of(ecr.delete_repository, repositoryName="kept") == "RepositoryNotEmptyException"
    ecr.delete_repository(repositoryName="kept", force=True)


# --- EventBridge and Step Functions -----------------------------------------------------------------------------------


def job_event(status: str, job: str, **detail: Any) -> dict[str, Any]:
    told = {
        "jobId": job,
        "jobQueue": f"{QUEUE}mine",
        "status": status,
        "parameters": {"first_task": "0", "arrays": "1"},
    }
    return {"source": "aws.batch", "detail-type": "Batch Job State Change", "detail": {**told, **detail}}


def executions(cloud: Cloud, machine: str) -> list[dict[str, Any]]:
    states = cloud.client("stepfunctions")
    found = states.list_executions(stateMachineArn=machine)["executions"]
    return [states.describe_execution(executionArn=one["executionArn"]) for one in found]


def test_an_event_reaches_the_machine_through_the_deployed_rule(bare: Cloud, outputs: dict[str, str]) -> None:
    start, machine = len(bare.calls()), outputs["Machine"]
    before = {one["executionArn"] for one in executions(bare, machine)}
    for event in (
        job_event("SUCCEEDED", "one-array"),
        job_event("FAILED", "a-child", arrayProperties={"index": 3}),
        job_event("RUNNING", "not-over"),
        job_event("FAILED", "parent", arrayProperties={"size": 4}),
    ):
        bare.emit(event)

    def started() -> list[dict[str, Any]]:
        return [one for one in executions(bare, machine) if one["executionArn"] not in before]

    wait_until(lambda: started() and started()[0]["status"] != "RUNNING")
    [execution] = started()
    assert execution["status"] == "SUCCEEDED", execution.get("cause")
    assert json.loads(execution["input"]) == {"name": "again-parent", "queue": f"{QUEUE}mine"}
    # The machine's role may use the queue, and no definition: Batch says so, the machine catches it.
    error = json.loads(execution["output"])["error"]
    assert error["Error"] == "Batch.AWSBatchException"
    assert "Error Code: AccessDeniedException" in error["Cause"]
    seen = {
        (call.principal.partition("-")[2].partition("-")[0], call.action, call.decision) for call in bare.calls(start)
    }
    assert ("EventsRole", "states:StartExecution", "allowed") in seen
    assert ("MachineRole", "batch:SubmitJob", "allowed") in seen
    assert ("MachineRole", "batch:SubmitJob", "not allowed") in seen


def test_a_duplicate_event_starts_twice(bare: Cloud, outputs: dict[str, str]) -> None:
    before = len(executions(bare, outputs["Machine"]))
    bare.events(copies=2)
    bare.emit(job_event("FAILED", "twice"))
    wait_until(lambda: len(executions(bare, outputs["Machine"])) == before + 2)
    bare.events(copies=1)


def test_an_event_that_the_role_may_not_deliver_becomes_a_dead_letter(bare: Cloud, outputs: dict[str, str]) -> None:
    iam = bare.client("iam")
    [name] = [one["RoleName"] for one in iam.list_roles()["Roles"] if "EventsRole" in one["RoleName"]]
    policy = json.dumps(make_template()["Resources"]["EventsRole"]["Properties"]["Policies"][0]["PolicyDocument"])
    policy = policy.replace('{"Ref": "Machine"}', json.dumps(outputs["Machine"]))
    iam.delete_role_policy(RoleName=name, PolicyName="own")
    bare.emit(job_event("FAILED", "undeliverable"))
    read: Callable[..., Any] = lambda: bare.client("sqs").receive_message(QueueUrl=outputs["Dead"]).get("Messages")  # noqa: E731
    [letter] = wait_until(read)
    assert json.loads(letter["Body"])["detail"]["jobId"] == "undeliverable"
    assert bare.undelivered()[-1]["code"] == "NO_PERMISSIONS"
    iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=policy)


def test_held_events_wait(bare: Cloud, outputs: dict[str, str]) -> None:
    before = len(executions(bare, outputs["Machine"]))
    bare.events(hold=True)
    bare.emit(job_event("FAILED", "later"))
    assert len(executions(bare, outputs["Machine"])) == before
    bare.events(hold=False)
    wait_until(lambda: len(executions(bare, outputs["Machine"])) == before + 1)


def test_a_new_object_is_an_event_where_the_bucket_says_so(bare: Cloud, outputs: dict[str, str]) -> None:
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/in/a b.yaml", Body=b"123")
    bare.client("s3").put_object(Bucket=BUCKET, Key="p/in/other.csv", Body=b"123")
    read: Callable[..., Any] = lambda: bare.client("sqs").receive_message(QueueUrl=outputs["Seen"]).get("Messages")  # noqa: E731
    [letter] = wait_until(read)
    told = json.loads(letter["Body"])
    assert told["detail-type"] == "Object Created"
    assert (told["detail"]["object"]["key"], told["detail"]["object"]["size"]) == ("p/in/a b.yaml", 3)


def test_an_execution_name_can_be_used_once(bare: Cloud, outputs: dict[str, str]) -> None:
    states, machine = bare.client("stepfunctions"), outputs["Machine"]
    given = {"name": "n", "queue": f"{QUEUE}mine"}
    first = states.start_execution(stateMachineArn=machine, name="once", input=json.dumps(given))
    wait_until(lambda: states.describe_execution(executionArn=first["executionArn"])["status"] != "RUNNING")
    again = {"stateMachineArn": machine, "name": "once", "input": json.dumps({**given, "name": "m"})}
    assert code_of(states.start_execution, **again) == "ExecutionAlreadyExists"
    for _ in range(2):
        states.start_execution(stateMachineArn=machine, input=json.dumps(given))


# --- CloudFormation ---------------------------------------------------------------------------------------------------


def test_a_change_set_without_changes_fails_in_aws_words(bare: Cloud, outputs: dict[str, str]) -> None:
    told = change(bare, "UPDATE", "nothing", make_template())
    assert (told["Status"], told["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert told["StatusReason"].startswith("The submitted information didn't contain changes.")
    formation = bare.client("cloudformation")
    assert code_of(formation.execute_change_set, StackName=STACK, ChangeSetName="nothing") == "InvalidChangeSetStatus"
    formation.delete_change_set(StackName=STACK, ChangeSetName="nothing")


def test_a_change_set_names_what_changes(bare: Cloud, outputs: dict[str, str]) -> None:
    told = change(bare, "UPDATE", "more", make_template(), More="yes", Size="3")
    changes = {(one["ResourceChange"]["Action"], one["ResourceChange"]["LogicalResourceId"]) for one in told["Changes"]}
    assert changes == {("Add", "Extra"), ("Modify", "Logs")}
    assert execute(bare, "more")["StackStatus"] == "UPDATE_COMPLETE"
    back = change(bare, "UPDATE", "back", make_template())
    assert [one["ResourceChange"]["Action"] for one in back["Changes"]] == ["Modify", "Remove"]
    stack = execute(bare, "back")
    assert stack["StackStatus"] == "UPDATE_COMPLETE"
    assert {"ParameterKey": "Names", "ParameterValue": "a,b"} in stack["Parameters"]
    assert outputs["LogsArn"].endswith(":*")


def test_roles_policies_and_rules_are_changed_in_place(bare: Cloud) -> None:
    def make(action: str, status: str) -> dict[str, Any]:
        user = statement(action, "*")
        managed = {"PolicyDocument": {"Version": "2012-10-17", "Statement": [user]}, "Roles": [{"Ref": "Role"}]}
        rule = {"EventPattern": {"detail": {"status": [status]}}, "State": "ENABLED"}
        return {
            "Resources": {
                "Role": role(f"{status.lower()}.amazonaws.com", statement(f"{action}Inline", "*")),
                "Managed": {"Type": "AWS::IAM::ManagedPolicy", "Properties": managed},
                "Rule": {"Type": "AWS::Events::Rule", "Properties": rule},
            },
            "Outputs": {name: {"Value": {"Ref": name}} for name in ("Role", "Managed", "Rule")},
        }

    def may(action: str) -> str:
        return bare.may(f"role/{first['Role']}", action, "*")

    change(bare, "CREATE", "one", make("a:One", "A"), "changing")
    first = {one["OutputKey"]: one["OutputValue"] for one in execute(bare, "one", "changing")["Outputs"]}
    assert [may("a:One"), may("a:OneInline"), may("a:Two")] == ["allowed", "allowed", "not allowed"]
    change(bare, "UPDATE", "two", make("a:Two", "B"), "changing")
    stack = execute(bare, "two", "changing")
    assert {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]} == first
    assert [may("a:One"), may("a:OneInline")] == ["not allowed", "not allowed"]
    assert [may("a:Two"), may("a:TwoInline")] == ["allowed", "allowed"]
    trust = bare.client("iam").get_role(RoleName=first["Role"])["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"Service": "b.amazonaws.com"}
    name = first["Rule"].rpartition("/")[2]
    assert json.loads(bare.client("events").describe_rule(Name=name)["EventPattern"]) == {"detail": {"status": ["B"]}}


def test_a_failed_update_leads_back(bare: Cloud, outputs: dict[str, str]) -> None:
    template = make_template()
    wrong = {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": "Not Allowed"}}
    template["Resources"]["Wrong"] = wrong
    change(bare, "UPDATE", "wrong", template)
    stack = execute(bare, "wrong")
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    events = bare.client("cloudformation").describe_stack_events(StackName=STACK)["StackEvents"]
    [failed] = [one for one in events if one["ResourceStatus"] == "CREATE_FAILED"]
    assert failed["LogicalResourceId"] == "Wrong"
    assert "repositoryName" in failed["ResourceStatusReason"]
    assert change(bare, "UPDATE", "same", make_template())["Status"] == "FAILED"
    bare.client("cloudformation").delete_change_set(StackName=STACK, ChangeSetName="same")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ChangeSetType": "CREATE"}, "already exists and cannot be created again"),
        ({"StackName": "absent", "ChangeSetType": "UPDATE"}, r"Stack \[absent\] does not exist"),
        ({"Capabilities": []}, r"Requires capabilities : \[CAPABILITY_IAM\]"),
        ({"Parameters": [{"ParameterKey": "Other", "ParameterValue": "1"}]}, "do not exist in the template"),
        ({"Parameters": [{"ParameterKey": "More", "ParameterValue": "maybe"}]}, "AllowedValues"),
        ({"Parameters": [{"ParameterKey": "Size", "ParameterValue": "10"}]}, "MaxValue"),
        ({"TemplateBody": " " * 51_201}, "51200"),
    ],
)
def test_a_wrong_change_set_is_refused(bare: Cloud, outputs: dict[str, str], given: dict[str, Any], words: str) -> None:
    whole = {
        "StackName": STACK,
        "ChangeSetName": "refused",
        "ChangeSetType": "UPDATE",
        "TemplateBody": json.dumps(make_template()),
        "Capabilities": ["CAPABILITY_IAM"],
    }
    with pytest.raises(ClientError, match=words):
        bare.client("cloudformation", parameter_validation=False).create_change_set(**{**whole, **given})


def test_deleting_keeps_what_is_retained_and_names_what_will_not_go(bare: Cloud) -> None:
    whole = make_template()["Resources"]
    chosen = {name: whole[name] for name in ("Bucket", "Repository", "Dead")}
    chosen["Bucket"]["Properties"]["BucketName"] = "gone-store"
    chosen["Repository"]["Properties"]["RepositoryName"] = "gone"
    change(bare, "CREATE", "made", {"Resources": chosen}, "gone")
    identity = execute(bare, "made", "gone")["StackId"]
    bare.client("s3").put_object(Bucket="gone-store", Key="k", Body=b"1")
    Registry(bare, bare.admin).push("gone", "last")
    formation = bare.client("cloudformation")
    ask: Callable[..., Any] = lambda name=identity: formation.describe_stacks(StackName=name)["Stacks"][0][  # noqa: E731
        "StackStatus"
    ]
    formation.delete_stack(StackName="gone")
    wait_until(lambda: ask() == "DELETE_FAILED")  # the repository still holds images
    newest_first = formation.describe_stack_events(StackName="gone")["StackEvents"]
    events = {one["LogicalResourceId"]: one for one in reversed(newest_first)}
    assert events["Bucket"]["ResourceStatus"] == "DELETE_SKIPPED"
    assert events["Dead"]["ResourceStatus"] == "DELETE_COMPLETE"
    assert "still contains images" in events["Repository"]["ResourceStatusReason"]
    formation.delete_stack(StackName="gone", RetainResources=["Repository"])
    wait_until(lambda: ask() == "DELETE_COMPLETE")
    with pytest.raises(ClientError, match="Stack with id gone does not exist"):
        ask("gone")
    assert bare.client("s3").get_object(Bucket="gone-store", Key="k")["Body"].read() == b"1"
