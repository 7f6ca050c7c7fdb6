"""The Batch core of the stand-in with real containers: what a task finds in one, and how it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws
from moto.batch.models import batch_backends

from tests.aws.standin.batch import Hooks, Options, install
from tests.aws.standin.batch.docker_runner import LABEL, DockerRunner, log_lines, remove_leftovers
from tests.aws.standin.batch.hooks import LogLine

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

PATIENCE_S = 300.0
ACCOUNT, REGION = "123456789012", "us-east-1"
SHOW = """
import json, os, urllib.request as web
def get(url, **headers):
    return web.urlopen(web.Request(url, headers=headers)).read().decode()
imds = os.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
ask = web.Request(f"{imds}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
token = web.urlopen(ask).read().decode()
cache = "/var/lib/foldfleet"
open(f"{cache}/{os.environ['AWS_BATCH_JOB_ARRAY_INDEX']}", "w").close()
print(json.dumps({
    "environment": dict(os.environ),
    "user": os.getuid(),
    "root_is_writable": os.access("/", os.W_OK),
    "pid": os.getpid(),
    "stream": json.loads(get(os.environ["ECS_CONTAINER_METADATA_URI_V4"]))["LogOptions"]["awslogs-stream"],
    "instance": get(f"{imds}/latest/meta-data/instance-id", **{"X-aws-ec2-metadata-token": token}),
}))
"""
WAIT = "import time; print('waiting', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


class Fleet:
    """A queue whose tasks are containers."""

    def __init__(self, folder: Path, image: str, network: dict[str, Any]) -> None:
        self.image = image
        self.logs: dict[str, list[str]] = {}
        self.events: list[dict[str, Any]] = []
        self.heard = threading.Condition()
        hooks = Hooks(
            emit=self.events.append,
            credentials_uri=lambda role, task: f"http://127.0.0.1:9/{task}",
            container_environment=lambda: {"AWS_REGION": REGION},
            put_log=self.note,
        )
        self.folder = folder
        self.control = install(hooks, DockerRunner(hooks, folder), options=Options(grace_s=0.5, vcpu_quota=4))
        self.batch: Any = boto3.client("batch", region_name=REGION)
        resources: Any = {
            "type": "SPOT",
            "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
            "maxvCpus": 4,
            "instanceTypes": ["m5.large"],
            **network,
        }
        self.batch.create_compute_environment(computeEnvironmentName="spot", type="MANAGED", computeResources=resources)
        order: Any = [{"order": 1, "computeEnvironment": "spot"}]
        self.batch.create_job_queue(jobQueueName="queue", priority=1, computeEnvironmentOrder=order)
        self.engine = self.control.engine(batch_backends[ACCOUNT][REGION])

    def note(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        with self.heard:
            self.logs.setdefault(stream, []).extend(text for _, text in lines)
            self.heard.notify_all()

    def submit(self, script: str, *, size: int | None = None, memory: int = 200, **more: Any) -> str:
        self.batch.register_job_definition(
            jobDefinitionName="work",
            type="container",
            containerProperties={
                "image": more.pop("image", self.image),
                "command": ["python3", "-c", script],
                "user": more.pop("user", "10001:10001"),
                "readonlyRootFilesystem": True,
                "linuxParameters": {"initProcessEnabled": True},
                "jobRoleArn": f"arn:aws:iam::{ACCOUNT}:role/task",
                "volumes": [{"name": "cache", "host": {"sourcePath": "/var/lib/foldfleet"}}],
                "mountPoints": [{"sourceVolume": "cache", "containerPath": "/var/lib/foldfleet"}],
                "resourceRequirements": [
                    {"type": "VCPU", "value": "1"},
                    {"type": "MEMORY", "value": str(memory)},
                ],
            },
        )
        array = {} if size is None else {"arrayProperties": {"size": size}}
        return str(self.batch.submit_job(jobName="n", jobQueue="queue", jobDefinition="work", **array, **more)["jobId"])

    def await_status(self, job_id: str, *statuses: str) -> dict[str, Any]:
        assert self.engine.wait(lambda: self.engine.jobs[job_id].status in statuses, PATIENCE_S)
        return dict(self.batch.describe_jobs(jobs=[job_id])["jobs"][0])

    def await_line(self, job_id: str, line: str) -> None:
        stream = self.await_status(job_id, "RUNNING")["container"]["logStreamName"]
        with self.heard:
            assert self.heard.wait_for(lambda: line in self.logs.get(stream, ()), PATIENCE_S)


@pytest.fixture(scope="module")
def network() -> Iterator[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        ec2: Any = boto3.client("ec2", region_name=REGION)
        boto3.client("iam", region_name=REGION).create_instance_profile(InstanceProfileName="instances")
        yield {
            "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
            "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
            "instanceRole": "instances",
        }


@pytest.fixture
def fleet(tmp_path: Path, base_image: str, network: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    batch_backends[ACCOUNT][REGION].reset()
    made = Fleet(tmp_path / "hosts", base_image, network)
    yield made
    made.control.close()


def test_a_task_finds_what_batch_and_ecs_give_it(fleet: Fleet) -> None:
    parent = fleet.submit(SHOW, size=2)
    assert fleet.await_status(parent, "SUCCEEDED", "FAILED")["status"] == "SUCCEEDED"
    child = fleet.await_status(f"{parent}:1", "SUCCEEDED")
    stream = child["container"]["logStreamName"]
    told = json.loads("".join(fleet.logs[stream]))
    environment = told["environment"]
    assert environment["AWS_BATCH_JOB_ID"] == f"{parent}:1"
    assert (environment["AWS_BATCH_JOB_ARRAY_INDEX"], environment["AWS_BATCH_JOB_ATTEMPT"]) == ("1", "1")
    assert environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"].startswith("http://127.0.0.1:9/")
    assert environment["AWS_REGION"] == REGION
    assert (told["user"], told["root_is_writable"]) == (10001, False)
    assert told["pid"] != 1
    assert told["stream"] == stream
    host = fleet.control.hosts()[0]["instance_id"]
    assert told["instance"] == host
    # One cache folder for all tasks of a host.
    assert {path.name for path in (fleet.folder / str(host) / "var/lib/foldfleet").iterdir()} == {"0", "1"}


def test_a_folder_that_user_data_did_not_prepare_belongs_to_root(fleet: Fleet) -> None:
    fleet.control.set_options(prepared={})
    job_id = fleet.submit("open('/var/lib/foldfleet/x', 'w')")
    job = fleet.await_status(job_id, "SUCCEEDED", "FAILED")
    assert job["container"]["exitCode"] == 1
    assert "PermissionError" in fleet.logs[job["container"]["logStreamName"]][-1]


def test_memory_is_a_hard_limit(fleet: Fleet) -> None:
    job_id = fleet.submit("x = bytearray(400 * 2**20)", memory=100)
    container = fleet.await_status(job_id, "SUCCEEDED", "FAILED")["container"]
    assert container["exitCode"] == 137
    assert container["reason"] == "OutOfMemoryError: Container killed due to memory usage"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"image": "there/is-none:1"}, "CannotPullContainerError"),
        ({"user": "nobody-known"}, "CannotStartContainerError"),
    ],
)
def test_a_task_that_cannot_start_says_why(fleet: Fleet, more: dict[str, Any], reason: str) -> None:
    job = fleet.await_status(fleet.submit("", **more), "FAILED")
    assert job["statusReason"] == "Task failed to start"
    assert job["container"]["reason"].startswith(reason)


def test_terminate_is_sigterm_first(fleet: Fleet) -> None:
    fleet.control.set_options(grace_s=600.0)
    job_id = fleet.submit(WAIT)
    fleet.await_line(job_id, "waiting")
    fleet.batch.terminate_job(jobId=job_id, reason="enough")
    job = fleet.await_status(job_id, "FAILED")
    assert (job["statusReason"], job["container"]["exitCode"]) == ("enough", 143)


def test_a_deaf_task_is_killed_after_the_grace(fleet: Fleet) -> None:
    job_id = fleet.submit(STUBBORN)
    fleet.await_line(job_id, "deaf")
    fleet.batch.terminate_job(jobId=job_id, reason="enough")
    assert fleet.await_status(job_id, "FAILED")["container"]["exitCode"] == 137


def test_a_reclaimed_host_loses_its_containers_and_disks(fleet: Fleet, docker_engine: DockerClient) -> None:
    job_id = fleet.submit(WAIT, retryStrategy={"attempts": 2})
    fleet.await_line(job_id, "waiting")
    first = str(fleet.control.hosts()[0]["instance_id"])
    by_host: dict[str, Any] = {"label": f"foldfleet.instance={first}"}
    (container,) = docker_engine.containers.list(filters=by_host, ignore_removed=True)
    settings = container.attrs["HostConfig"]
    assert (settings["NetworkMode"], settings["CpuShares"]) == ("host", 1024)
    assert (settings["NanoCpus"], settings["CpuQuota"]) == (0, 0)
    fleet.control.reclaim(first)
    engine = fleet.engine
    assert engine.wait(lambda: len(engine.jobs[job_id].attempts) == 2, PATIENCE_S)
    job = fleet.await_status(job_id, "RUNNING")
    assert job["attempts"][0]["statusReason"] == f"Host EC2 (instance {first}) terminated."
    assert fleet.control.hosts()[0]["instance_id"] != first
    assert not (fleet.folder / first).exists()
    assert docker_engine.containers.list(all=True, filters=by_host, ignore_removed=True) == []


def test_closing_leaves_nothing(fleet: Fleet, docker_engine: DockerClient) -> None:
    job_id = fleet.submit(WAIT)
    fleet.await_line(job_id, "waiting")
    host = str(fleet.control.hosts()[0]["instance_id"])
    fleet.control.close()
    by_host: dict[str, Any] = {"label": f"foldfleet.instance={host}"}
    assert docker_engine.containers.list(all=True, filters=by_host, ignore_removed=True) == []
    assert not fleet.folder.exists()


def test_leftovers_of_a_dead_stand_in_are_removed(base_image: str, docker_engine: DockerClient) -> None:
    # No process has a number above the kernel's limit.
    left = docker_engine.containers.create(base_image, ["true"], labels={LABEL: "99999999"})
    remove_leftovers()
    # Every container of the engine: those of others vanish while one looks at them.
    assert left.id not in {found["Id"] for found in docker_engine.api.containers(all=True)}


def test_lines_are_cut_whatever_the_portions() -> None:
    stream = iter(
        [b"2026-01-01T00:00:00.123456789Z one\n2026-01-01T00:00:01Z t", b"wo\r\n", b"2026-01-01T00:00:02Z end"]
    )
    assert list(log_lines(stream)) == [
        [(1767225600123, "one")],
        [(1767225601000, "two")],
        [(1767225602000, "end")],
    ]
