"""`submit image push` and `submit doctor` against a registry that takes real pushes, as the user who submits."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobspec.stores.base import open_store
from submitter.cloud.record import ImageRecord, list_records
from tests.aws.fixtures import Deployed, deploy, expect, run_submit
from tests.aws.standin.cloud import Cloud
from tests.docker.test_image import empty_image

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

STACK = "pushing"
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def own(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deploy a stack for these tests alone: what they push must not become the image of others' runs."""
    return deploy(cloud, tmp_path_factory.mktemp("pushing") / "home", STACK)


@pytest.fixture
def empty(cloud: Cloud, tmp_path: Path) -> Deployed:
    """Deploy a stack to which nothing was pushed."""
    return deploy(cloud, tmp_path / "home", "pushing-first")


@pytest.fixture
def as_submitter(own: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process open the stack's store."""
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def other_build(docker_engine: DockerClient, image: str) -> Iterator[str]:
    """Return another image of the same engine."""
    tag = f"foldfleet-test-other:{os.getpid()}"
    recipe = f"FROM {image}\nLABEL other={tag}\n"
    for _ in docker_engine.api.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True, decode=True):
        pass
    yield tag
    docker_engine.images.remove(tag)


def push(own: Deployed, image: str, **env: str) -> dict[str, Any]:
    done = expect(own.submit("image", "push", "--image", image, "--json", env=env))
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def records(own: Deployed) -> list[ImageRecord]:
    return list_records(open_store(own.outputs["StoreUrl"]), own.name)


STEPS = (
    ("ecr:InitiateLayerUpload", "ecr:PutImage", "*"),
    ("ecr:PutImage", "batch:RegisterJobDefinition", "*"),
    ("batch:RegisterJobDefinition", "batch:RegisterJobDefinition", "*-reduce-*"),
    ("s3:PutObject", "batch:RegisterJobDefinition", "*-plan"),
)
"""What a push does, and what comes behind it, which is a gate: an action and its resource."""


def kill_at(own: Deployed, image: str, action: str, gate: str, resource: str) -> None:
    """Kill a push with SIGKILL as soon as a right for some action was asked for, at the gate at the latest."""

    def is_there() -> bool:
        return any(
            call.action == action or (call.action == gate and fnmatch(call.resource, resource))
            for call in own.cloud.calls(start)
        )

    start = len(own.cloud.calls())
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOLDFLEET_"))}
    deadline = time.monotonic() + PATIENCE_S
    try:
        own.cloud.fault(gate, "throttle", times=10**6, resource=resource, principal="user/desk")
        process = subprocess.Popen(
            [sys.executable, "-m", "submitter", "image", "push", "--image", image],
            cwd=own.home,
            env={**clean, "HOME": str(own.home), "FOLDFLEET_CACHE": str(own.home / "cache"), **own.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        has_ended = False
        while not (has_come := is_there()) and not has_ended and time.monotonic() < deadline:
            has_ended = process.poll() is not None  # after which it is looked once more
            time.sleep(0.02)
        process.kill()
        errors = process.communicate()[1]
        assert has_come, errors
    finally:
        own.cloud.no_faults()


def of_image(told: dict[str, Any]) -> dict[str, str]:
    """Return the job definitions that belong to the image, and not to the stack."""
    assert told["definitions"].keys() == {"work", "reduce", "prepare", "plan"}
    return {step: arn for step, arn in told["definitions"].items() if step != "plan"}


def test_a_push_that_is_killed_at_every_step_is_completed_by_the_next(
    empty: Deployed, image: str, docker_engine: DockerClient, as_submitter: None
) -> None:
    own = empty
    for step in STEPS:
        kill_at(own, image, *step)
    done = push(own, image)
    (record,) = records(own)
    assert done["image"] == record.image and of_image(done) == record.definitions
    found = own.cloud.client("batch").describe_job_definitions(jobDefinitions=list(done["definitions"].values()))
    assert {one["containerProperties"]["image"] for one in found["jobDefinitions"]} == {record.image}
    assert {one["status"] for one in found["jobDefinitions"]} == {"ACTIVE"}
    assert not [tag for tag in docker_engine.images.get(image).tags if tag.startswith(own.outputs["RepositoryUri"])]


def test_a_second_push_has_nothing_to_do(own: Deployed, image: str, as_submitter: None) -> None:
    first = push(own, image)
    start, known = len(own.cloud.calls()), records(own)
    done = expect(own.submit("image", "push", "--image", image))
    assert "Nothing to do" in done.stderr and "layers" not in done.stderr
    assert first["image"] in done.stdout
    asked = {call.action for call in own.cloud.calls(start)}
    assert not asked & {"ecr:PutImage", "ecr:GetAuthorizationToken", "batch:RegisterJobDefinition", "s3:PutObject"}
    assert records(own) == known


def test_what_was_pushed_can_be_pulled_by_its_digest_and_is_the_same_image(
    own: Deployed, image: str, docker_engine: DockerClient
) -> None:
    import base64

    pushed = push(own, image)["image"]
    token = own.cloud.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(token).decode().partition(":")
    name, _, digest = pushed.partition("@")
    pulled = docker_engine.images.pull(name, tag=digest, auth_config={"username": user, "password": password})
    try:
        assert pulled.id == docker_engine.images.get(image).id
        assert pulled.labels["foldfleet.engine_id"] == push(own, image)["engine_id"]
    finally:
        docker_engine.images.remove(pushed, noprune=True)


def test_a_push_leaves_nothing_of_the_login_behind(own: Deployed, image: str) -> None:
    push(own, image)
    assert not (own.home / ".docker").exists()
    assert not [path for path in own.home.rglob("*") if path.is_file() and b"AWS:" in path.read_bytes()]


def test_another_build_becomes_the_newest_and_the_older_one_is_still_found(
    own: Deployed, image: str, other_build: str, as_submitter: None
) -> None:
    first, second = push(own, image), push(own, other_build)
    assert first["engine_id"] == second["engine_id"] and first["image"] != second["image"]
    newest, older, *_ = records(own)
    assert (newest.image, older.image) == (second["image"], first["image"])
    again = push(own, image)
    assert again["recorded"] and not again["sent"] and of_image(again) == of_image(first)
    assert records(own)[0].image == first["image"]


def test_the_image_that_settings_name_is_pushed(own: Deployed, other_build: str) -> None:
    done = expect(own.submit("image", "push", "--json", env={"FOLDFLEET_IMAGE": other_build}))
    assert json.loads(done.stdout)["tag"] == other_build


@pytest.mark.parametrize(
    ("action", "kind", "told"),
    [
        ("ecr:GetAuthorizationToken", "denied", "ecr:GetAuthorizationToken is missing"),
        ("ecr:BatchGetImage", "denied", "ecr:BatchGetImage is missing"),
        ("batch:DescribeJobDefinitions", "denied", "batch:DescribeJobDefinitions is missing"),
        ("cloudformation:DescribeStacks", "denied", "cloudformation:DescribeStacks is missing"),
    ],
)
def test_a_right_that_is_missing_is_named(
    own: Deployed, docker_engine: DockerClient, image: str, action: str, kind: str, told: str
) -> None:
    tag = f"foldfleet-test-denied:{os.getpid()}"
    build(docker_engine, tag, image)
    own.cloud.fault(action, kind, times=20)
    try:
        done = expect(own.submit("image", "push", "--image", tag), 4)
        assert told in done.stderr and f"Allow {action}" in done.stderr
    finally:
        own.cloud.no_faults()
        docker_engine.images.remove(tag)


def test_a_right_that_the_registry_misses_is_named_too(own: Deployed, docker_engine: DockerClient, image: str) -> None:
    tag = f"foldfleet-test-refused:{os.getpid()}"
    build(docker_engine, tag, image)
    own.cloud.fault("ecr:PutImage", "denied", times=20)
    try:
        done = expect(own.submit("image", "push", "--image", tag), 4)
        assert "ecr:PutImage is missing. Allow ecr:PutImage on" in done.stderr
    finally:
        own.cloud.no_faults()
    assert push(own, tag)["sent"]
    docker_engine.images.remove(tag)


def build(docker_engine: DockerClient, tag: str, image: str) -> None:
    """Make an image that was pushed nowhere yet."""
    recipe = f"FROM {image}\nLABEL only={tag}-{time.time()}\n"
    for _ in docker_engine.api.build(fileobj=io.BytesIO(recipe.encode()), tag=tag, rm=True, decode=True):
        pass


def test_an_acknowledgement_that_is_lost_costs_a_revision_at_most(
    own: Deployed, docker_engine: DockerClient, image: str, as_submitter: None
) -> None:
    tag = f"foldfleet-test-lost:{os.getpid()}"
    build(docker_engine, tag, image)
    own.cloud.fault("batch:RegisterJobDefinition", "lost_ack", times=1)
    own.cloud.fault("batch:DescribeJobDefinitions", "throttle", times=2)
    own.cloud.fault("ecr:BatchGetImage", "internal", times=1)
    try:
        done = push(own, tag)
        assert records(own)[0].definitions == of_image(done)
        assert not push(own, tag)["recorded"]
    finally:
        own.cloud.no_faults()
        docker_engine.images.remove(tag)


def test_an_image_for_other_machines_is_refused(own: Deployed, docker_engine: DockerClient) -> None:
    tag = f"foldfleet-test-push-arm64:{os.getpid()}"
    docker_engine.images.load(empty_image(tag, "arm64"))
    try:
        done = expect(own.submit("image", "push", "--image", tag), 2)
        assert '"exec format error"' in done.stderr and "--platform linux/amd64" in done.stderr
    finally:
        docker_engine.images.remove(tag)


def test_a_foreign_image_and_an_absent_one_are_refused(own: Deployed, base_image: str) -> None:
    done = expect(own.submit("image", "push", "--image", base_image), 2)
    assert "none of foldfleet's" in done.stderr
    done = expect(own.submit("image", "push", "--image", "no-such:image"), 5)
    assert "has no image no-such:image" in done.stderr


def test_without_stack_region_credentials_or_engine_it_says_so(own: Deployed, image: str) -> None:
    done = expect(run_submit(own.home, own.cloud.admin, "image", "push", "--image", image, "--stack", "nowhere"), 5)
    assert "There is no stack 'nowhere'" in done.stderr and "`submit infra up --stack nowhere`" in done.stderr
    done = expect(own.submit("image", "push", "--image", image, env={"AWS_REGION": "eu-west-1"}), 4, 5)
    assert "eu-west-1" in done.stderr
    nobody = {name: value for name, value in own.environment.items() if "KEY" not in name}
    done = expect(run_submit(own.home, nobody, "image", "push", "--image", image), 4)
    assert "AWS_PROFILE" in done.stderr
    done = expect(own.submit("image", "push", "--image", image, env={"DOCKER_HOST": "tcp://127.0.0.1:9"}), 75)
    assert "The Docker engine does not answer" in done.stderr


# --- doctor ---------------------------------------------------------------------------------------------------


def findings(own: Deployed, *codes: int) -> list[dict[str, Any]]:
    done = expect(own.submit("doctor", "--on", "aws", "--json"), *codes)
    document = json.loads(done.stdout)
    assert document["healthy"] == (done.returncode == 0)
    return [one for one in document["findings"] if one["level"] != "ok"]


def test_doctor_finds_nothing_wrong_with_a_stack_that_was_just_made(own: Deployed, image: str) -> None:
    push(own, image)
    assert not [one for one in findings(own) if "not looked at" not in one["text"]]


def test_doctor_names_what_is_wrong_with_a_stack(own: Deployed, image: str) -> None:
    push(own, image)
    batch = own.cloud.client("batch")
    batch.update_job_queue(jobQueue=own.outputs["QueueName"], state="DISABLED")
    own.cloud.quota("L-34B43A08", 5)
    try:
        found = findings(own, 5)
        assert sorted(one["check"] for one in found if "not looked at" not in one["text"]) == ["queue", "quota"]
        remedies = " ".join(one["remedy"] for one in found)
        assert "aws batch update-job-queue" in remedies and "request-service-quota-increase" in remedies
    finally:
        batch.update_job_queue(jobQueue=own.outputs["QueueName"], state="ENABLED")
        own.cloud.quota("L-34B43A08", 640)


def test_doctor_finds_an_image_that_was_deleted(own: Deployed, other_build: str, image: str) -> None:
    gone = push(own, other_build)
    ecr = own.cloud.client("ecr")
    ecr.batch_delete_image(
        repositoryName=own.outputs["RepositoryName"], imageIds=[{"imageDigest": gone["image_digest"]}]
    )
    (found,) = [one for one in findings(own, 5) if one["check"] == "images" and one["level"] == "wrong"]
    assert f"`submit image push --image {other_build}`" in found["remedy"]
    assert push(own, other_build)["sent"]
    push(own, image)


def test_doctor_tells_that_the_right_to_list_is_missing(own: Deployed) -> None:
    iam = own.cloud.client("iam")
    statement = {"Effect": "Deny", "Action": "s3:ListBucket", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="desk", PolicyName="no-list", PolicyDocument=policy)
    try:
        (found,) = [one for one in findings(own, 4) if one["check"] == "bucket"]
        assert "s3:ListBucket" in found["remedy"]
    finally:
        iam.delete_user_policy(UserName="desk", PolicyName="no-list")
