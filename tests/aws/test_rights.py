"""Each call of a whole story is one that the deployed policies allow, and each grant is used or has its reason."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from submitter.cloud.template import load_template
from tests.aws.fixtures import Deployed, expect, forget_linked_roles, run_submit
from tests.aws.grants import Deployment, compare, find_unused, make_user, read_deployment, read_reasons, split
from tests.aws.house import DATA, SPECS, House, write_spec, write_table
from tests.aws.standin.cloud import Cloud
from tests.aws.standin.recorder import Call

pytestmark = pytest.mark.docker

STACK = "rights"
PATIENCE_S = 300.0

EXPLAINED: Mapping[tuple[str, str], str] = {}
"""Refused calls that are part of the plan: (who, action) -> why."""

REMOTE = """
name: remote
data: {{path: 's3://{bucket}/incoming/table.csv', target: y}}
cv: 3
candidates: [{{estimator: sklearn.svm.SVC, grid: {{C: [1, 2]}}}}]
scoring: accuracy
resources: {{vcpus: 2, memory_gib: 1}}
"""

SLOW = """
name: slow
data: {builtin: digits}
cv: 3
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {random_state: 0}
  grid: {n_estimators: [301, 302, 303, 304]}
scoring: accuracy
resources: {vcpus: 2, memory_gib: 1}
"""


@dataclass
class Story:
    """Who did what in it."""

    cloud: Cloud
    home: Path
    calls: list[Call]
    deployment: Deployment
    infra: Mapping[str, Any]

    def of(self, *principals: str) -> list[Call]:
        return [call for call in self.calls if call.principal in principals]


class Teller:
    """Types commands as one user, whose rights are those of one policy."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self.home = home
        self.environment = {**environment, "FOLDFLEET_STACK": STACK}
        home.mkdir()

    def __call__(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
        done = expect(run_submit(self.home, self.environment, *arguments, "--json"), *codes)
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return answer


def wait(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def story(cloud: Cloud, image: str, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Use everything once: `infra` as its own user, all else as a user with the submitter policy alone."""
    home = tmp_path_factory.mktemp("story")
    forget_linked_roles(cloud)
    begin = len(cloud.calls())
    shown = expect(run_submit(home, cloud.admin, "infra", "up", "--show-permissions", "--stack", STACK)).stdout
    policy = join(json.loads(shown).values())
    builder = Teller(home / "builder", make_user(cloud, "rights-builder", policy))
    builder("infra", "up", "--yes", "--max-vcpus", 4)
    builder("infra", "up", "--yes")
    topic = cloud.client("sns").create_topic(Name=STACK)["TopicArn"]
    builder("events", "enable", "--yes", "--data-prefix", DATA, "--notify", topic)
    described = cloud.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    deployment = read_deployment(cloud, STACK, outputs)
    desk = Teller(home / "desk", make_user(cloud, "rights-desk", outputs["SubmitterPolicyArn"]))
    cloud.client("iam").attach_user_policy(UserName="rights-desk", PolicyArn=outputs["EventsPolicyArn"])
    desk.environment["FOLDFLEET_STORE"] = outputs["StoreUrl"]
    cloud.options(wait_scale=0.02)
    tell(cloud, desk, image, outputs)
    listen(cloud, desk, outputs)
    cloud.options(wait_scale=1.0)
    builder("infra", "status")
    builder("infra", "up", "--yes", "--max-vcpus", 8)
    # Who may build need not have a right on users: then the policies are taken from them before.
    for name in ("SubmitterPolicyArn", "EventsPolicyArn"):
        cloud.client("iam").detach_user_policy(UserName="rights-desk", PolicyArn=outputs[name])
    builder("infra", "down", "--yes", "--delete-data")
    return Story(cloud, home, cloud.calls(start=begin), deployment, policy)


def join(policies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return policies as one, which only the stand-in lets be as long."""
    return {"Version": "2012-10-17", "Statement": [one for policy in policies for one in policy["Statement"]]}


def tell(cloud: Cloud, desk: Teller, image: str, outputs: Mapping[str, str]) -> None:
    bucket, prefix = outputs["BucketName"], outputs["StorePrefix"]
    s3 = cloud.client("s3")
    table = "x,z,y\n" + "\n".join(f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60)) + "\n"
    s3.put_object(Bucket=bucket, Key="incoming/table.csv", Body=table.encode())
    desk("doctor", "--on", "aws", codes=(0, 5))  # before anything was pushed
    desk("image", "push", "--image", image)
    desk("doctor", "--on", "aws")
    # Data that only the cloud sees: prepare runs there.
    remote = desk.home / "remote.yaml"
    remote.write_text(REMOTE.format(bucket=bucket))
    desk("plan", remote, "--on", "aws")
    run = desk("run", remote, "--on", "aws")["run_id"]
    desk("run", remote, "--on", "aws")
    for command in ("status", "watch", "logs", "results"):
        desk(command, run)
    # Data of scikit-learn: prepare runs at the desk. Ended on the way, which EventBridge and the machine behind it see.
    slow = desk.home / "slow.yaml"
    slow.write_text(SLOW)
    desk("validate", slow)
    desk("plan", slow, "--on", "aws")
    ended = desk("run", slow, "--on", "aws", "--detach")["run_id"]
    wait(lambda: desk("status", ended)["cells"]["done"])
    desk("cancel", ended)
    wait(lambda: all(job["status"] in {"SUCCEEDED", "FAILED"} for job in cloud.jobs()))
    wait(lambda: any(job["jobName"].startswith("conclude-") for job in jobs_of(cloud, ended)))
    cancel_execution(cloud, desk, slow)
    # Which the execution cannot tell of: the conclude machine does.
    outcomes = {"Bucket": bucket, "Prefix": f"{prefix}/outcomes/"}
    wait(lambda: any("-cancelled-" in one["Key"] for one in s3.list_objects_v2(**outcomes).get("Contents", ())))
    desk("resume", ended)
    desk("list")
    desk("infra", "status")
    # What an upload that was cut off leaves behind, and a dataset of no run.
    for key in ("datasets/d-0123456789abcdef/X.npy", "uploads/0123/table.csv"):
        s3.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{key}")
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{key}.left", Body=b"x", IfNoneMatch="*")
    desk("gc", "--older-than", 0)
    desk("gc", "--older-than", 0, "--yes")
    desk("results", ended)


def cancel_execution(cloud: Cloud, desk: Teller, spec: Path) -> None:
    """Go on with a run by an execution, and end it as soon as its array is sent: what is left takes hosts two waves."""
    before = len(cloud.jobs())
    run = desk("run", spec, "--on", "stepfunctions", "--detach")["run_id"]
    wait(lambda: len(cloud.jobs()) > before)
    desk("cancel", run)


def listen(cloud: Cloud, desk: Teller, outputs: Mapping[str, str]) -> None:
    """Start searches by uploads, by the clock and by a program, beside each other; two of them are the same search."""
    puts = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{outputs['BucketName']}/*"}
    uploader = make_user(cloud, "rights-uploader", {"Version": "2012-10-17", "Statement": [puts]})
    house = House(Deployed(cloud, STACK, outputs, desk.home), desk.home, uploader)
    small, table = write_spec("small"), f"{{path: 's3://{house.bucket}/{SPECS}table.csv', target: y}}"
    daily = house.spec("daily", write_spec("daily").replace("{builtin: iris}", table))
    desk("events", "template", "daily", daily)
    desk("events", "templates")
    for moment in ("rate(1 day)", "cron(0 3 * * ? *)"):
        desk("events", "schedule", moment, house.spec("small", small), "--name", "clock")
    desk("events", "schedules")
    house.upload(f"{DATA}daily/2026-01-02.csv", write_table(1))
    house.upload(f"{SPECS}small.yaml", small)
    cloud.fire_schedule("clock", "2026-01-02T03:00:00Z", outputs["ScheduleGroupName"])
    # A program with the rights of a desk asks for too much, and for what is not there.
    program = cloud.client("stepfunctions", desk.environment)
    too_large, absent = small.replace("vcpus: 2", "vcpus: 64"), f"s3://{house.bucket}/{SPECS}absent.yaml"
    for name, spec in (("large", too_large), ("absent", absent)):
        given = json.dumps({"spec": spec})
        program.start_execution(stateMachineArn=outputs["SearchMachineArn"], name=name, input=given)
    # No rule makes an input like this one: somebody tries the machine.
    cloud.client("stepfunctions").start_execution(stateMachineArn=outputs["IntakeMachineArn"], input="{}")
    expect(run_submit(desk.home, desk.environment, "stepfunctions", "template"))
    ended = house.ended(5)
    states = sorted(house.answer(one)["state"] for one in ended if one.get("error") != "foldfleet.Refused")
    assert states == ["finished"] * 3, [house.explain(one) for one in ended]
    wait(lambda: all(one["status"] != "RUNNING" for one in house.executions("Intake")))
    # Executions that failed are looked at: have they told of it? The one of the intake machine is the last.
    wait(lambda: [one for one in house.executions("Conclude") if f":{STACK}-intake:" in one["input"]])
    wait(lambda: all(one["status"] != "RUNNING" for one in house.executions("Conclude")))
    desk("events", "list")
    desk("events", "unschedule", "clock")


def jobs_of(cloud: Cloud, run_id: str) -> list[dict[str, Any]]:
    return [job for job in cloud.jobs() if job["parameters"].get("run") == run_id]


@pytest.mark.thorough
def test_every_call_is_allowed_by_the_deployed_policies(story: Story) -> None:
    who = {f"role/{name}": logical for logical, name in story.deployment.roles.items()}
    who |= {"user/rights-desk": "SubmitterPolicy", "user/rights-builder": "infra"}
    made = {who[call.principal] for call in story.calls if call.principal in who}
    assert made == {*who.values()} - {"InstanceRole"}
    refused = [
        f"{who[call.principal]}: {call.action} on {call.resource} {dict(call.context)} is {call.decision}"
        for call in story.calls
        if call.principal in who and call.decision != "allowed" and (who[call.principal], call.action) not in EXPLAINED
    ]
    assert not sorted(set(refused))


@pytest.mark.thorough
def test_every_grant_is_used_or_has_its_reason(story: Story) -> None:
    roles = story.deployment.roles
    unused = []
    for who in {grant.who for grant in story.deployment.grants}:
        principal = f"role/{roles[who]}" if who in roles else "user/rights-desk"
        unused += find_unused([g for g in story.deployment.grants if g.who == who], story.of(principal))
    infra = split("infra", story.infra, {STACK: "STACK"}, by_resource=False)
    unused += find_unused(infra, story.of("user/rights-builder"))
    missing, stale = compare(unused, read_reasons())
    assert (sorted(missing), sorted(stale)) == ([], [])


def test_reasons_speak_of_what_is_in_the_template() -> None:
    there = {resource["Type"] for resource in load_template()["Resources"].values()}
    reasons = read_reasons()
    assert {kind for reason in reasons for kind in reason.types} <= there
    named = [(reason.who, action, reason.resource) for reason in reasons for action in reason.actions]
    assert len(named) == len(set(named))
    assert all(len(reason.reason) > 20 for reason in reasons)


# --- what nobody may -------------------------------------------------------------------------------------------------

ONCE = (
    "datasets/d/X.npy",
    "books/b/000000.json",
    "images/e.json",
    "uploads/u/table.csv",
    "runs/r/spec.yaml",
    "runs/r/space.json",
    "runs/r/rounds/000/plan.json",
    "runs/r/rounds/000/log/000000/000000.json",
    "runs/r/rounds/000/done/000000.parquet",
    "runs/r/rounds/000/all.parquet",
)
"""Keys that are written once."""

OFTEN = ("runs/r/views/best.json", "answers/a.json")
MEMO = "sources/s.json"


class Bucket:
    """The stack's bucket, in which every kind of key holds an object."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.cloud = deployed.cloud
        self.name, self.prefix = deployed.outputs["BucketName"], deployed.outputs["StorePrefix"]
        for key in (*ONCE, *OFTEN, MEMO):
            if key.startswith("images/"):
                self.cloud.client("s3").delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")
            assert self.put(self.cloud.client("s3"), key, IfNoneMatch="*") is None

    def as_role(self, output: str) -> Any:
        """Return a client with the rights of a role; how one comes by them is not what is tested here."""
        made = self.cloud.client("sts").assume_role(RoleArn=self.deployed.outputs[output], RoleSessionName="test")
        keys = {"ACCESS_KEY_ID": "AccessKeyId", "SECRET_ACCESS_KEY": "SecretAccessKey", "SESSION_TOKEN": "SessionToken"}
        own = {f"AWS_{name}": made["Credentials"][key] for name, key in keys.items()}
        return self.cloud.client("s3", {**self.cloud.environment, **own})

    def put(self, client: Any, key: str, **condition: str) -> str | None:
        return refusal(client.put_object, Bucket=self.name, Key=f"{self.prefix}/{key}", Body=b"x", **condition)

    def get(self, client: Any, key: str) -> str | None:
        return refusal(client.get_object, Bucket=self.name, Key=f"{self.prefix}/{key}")

    def etag(self, key: str) -> str:
        return str(self.cloud.client("s3").head_object(Bucket=self.name, Key=f"{self.prefix}/{key}")["ETag"])


def refusal(call: Callable[..., Any], **given: Any) -> str | None:
    """Return the code of the error that a call ends with, None for none."""
    try:
        call(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return None


@pytest.fixture
def bucket(stack: Deployed) -> Iterator[Bucket]:
    stack.empty_store()
    yield Bucket(stack)
    stack.cloud.client("s3").delete_object(
        Bucket=stack.outputs["BucketName"], Key=f"{stack.outputs['StorePrefix']}/images/e.json"
    )
    stack.empty_store()


DENIED = "AccessDenied"
EXISTS = "PreconditionFailed"


def test_a_task_reads_its_plan_and_adds_to_its_log_and_nothing_else(bucket: Bucket) -> None:
    task = bucket.as_role("TaskRoleArn")
    readable = {key for key in (*ONCE, *OFTEN, MEMO) if bucket.get(task, key) is None}
    assert readable == {key for key in ONCE if key.startswith(("datasets/", "runs/"))}
    log, next_log = ONCE[7], "runs/r/rounds/000/log/000000/000001.json"
    assert bucket.put(task, log) == DENIED
    assert bucket.put(task, log, IfNoneMatch="*") == EXISTS
    assert bucket.put(task, log, IfMatch=bucket.etag(log)) == DENIED
    assert bucket.put(task, next_log, IfNoneMatch="*") is None
    for key in (*ONCE, *OFTEN, MEMO):
        if not key.startswith(("runs/r/rounds/000/log/", "runs/r/rounds/000/done/")):
            assert bucket.put(task, f"{key}.new", IfNoneMatch="*") == DENIED, key
        named = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/{key}"}
        assert refusal(task.delete_object, **named) == DENIED
    assert refusal(task.list_objects_v2, Bucket=bucket.name) == DENIED
    assert bucket.get(task, "runs/r/rounds/000/absent.json") == "NoSuchKey"
    assert refusal(task.get_object, Bucket=bucket.name, Key="incoming/table.csv") == DENIED


@pytest.mark.parametrize(
    ("output", "readable", "writable"),
    [
        ("ReducerRoleArn", ("datasets/", "runs/", "answers/"), ("runs/r/rounds/000/all", "runs/r/views/", "answers/")),
        (
            "PlannerRoleArn",
            ("datasets/", "sources/", "uploads/", "images/", "books/", "runs/", "answers/"),
            (
                *("datasets/", "sources/", "uploads/", "books/", "answers/"),
                *("runs/r/spec", "runs/r/space", "runs/r/rounds/000/plan"),
            ),
        ),
    ],
)
def test_the_other_roles_keep_to_their_keys(
    bucket: Bucket, output: str, readable: tuple[str, ...], writable: tuple[str, ...]
) -> None:
    client = bucket.as_role(output)
    for key in (*ONCE, *OFTEN, MEMO):
        assert bucket.get(client, key) == (None if key.startswith(readable) else DENIED), key
        new = bucket.put(client, key.replace("r/views/", "r/views/new-").replace("000/all", "001/all"), IfNoneMatch="*")
        assert (new == DENIED) != key.startswith(writable), (key, new)
    assert refusal(client.delete_object, Bucket=bucket.name, Key=f"{bucket.prefix}/{OFTEN[0]}") == DENIED


def test_a_host_itself_has_no_right_on_data(stack: Deployed) -> None:
    role = f"role/{stack.outputs['InstanceRoleArn'].rpartition('/')[2]}"
    bucket = f"arn:aws:s3:::{stack.outputs['BucketName']}"
    for action in ("GetObject", "PutObject", "DeleteObject", "ListBucket", "GetBucketPolicy", "PutBucketPolicy"):
        for resource in (bucket, f"{bucket}/*", f"{bucket}/foldfleet/datasets/d/X.npy"):
            assert stack.cloud.may(role, f"s3:{action}", resource) == "not allowed"
    for action in ("batch:SubmitJob", "iam:PassRole", "sts:AssumeRole", "secretsmanager:GetSecretValue"):
        assert stack.cloud.may(role, action, "*") == "not allowed"


def test_nobody_overwrites_what_is_written_once_not_even_who_may_everything(bucket: Bucket) -> None:
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    almighty = bucket.cloud.client("s3", make_user(bucket.cloud, f"almighty-{time.time_ns()}", everything))
    for client in (almighty, bucket.cloud.client("s3")):
        for key in ONCE:
            assert bucket.put(client, key) == DENIED, key
            assert bucket.put(client, key, IfMatch=bucket.etag(key)) == DENIED, key
            assert bucket.put(client, key, IfNoneMatch="*") == EXISTS, key
        assert bucket.put(client, MEMO) == DENIED
        assert bucket.put(client, MEMO, IfMatch=bucket.etag(MEMO)) is None
        for key in OFTEN:
            assert bucket.put(client, key) is None
