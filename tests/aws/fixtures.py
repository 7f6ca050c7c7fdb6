"""Fixtures of the stand-in for AWS: `cloud` runs it, `stack` is deployed in it, `pushed` has the image there.

Without a Docker engine or docker-registry their tests are skipped, loudly; in CI a skip is a failure. Each test process
has a stand-in of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.aws.standin.cloud import RUNNING, Cloud, running_cloud
from tests.aws.standin.registry import PROGRAM, find_registry
from tests.docker.fixtures import refuse

if TYPE_CHECKING:
    from docker import DockerClient

STACK = "foldfleet"
MAX_VCPUS = 8
"""Two hosts of four vCPUs, beside each other on two cores."""

LONGEST_LOG = 4_000
_PATIENCE_S = 600


@dataclass(frozen=True)
class Deployed:
    """A stack in a stand-in."""

    cloud: Cloud
    name: str
    outputs: Mapping[str, str]
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the user who submits: who they are, and the stack that they mean."""
        return {**self.cloud.environment, "FOLDFLEET_STACK": self.name}

    def submit(self, *arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the real command line as the user who submits."""
        return run_submit(self.home, {**self.environment, **(env or {})}, *arguments)

    def empty_store(self) -> None:
        """Remove every object of the store, as nobody else may."""
        s3 = self.cloud.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.outputs["BucketName"], Prefix=f"{self.outputs['StorePrefix']}/"
        ):
            for entry in page.get("Contents", ()):
                if "/images/" not in entry["Key"]:
                    s3.delete_object(Bucket=self.outputs["BucketName"], Key=entry["Key"])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show beside a failed test what the stand-in wrote last: an answer 500 has its traceback there."""
    report = yield
    if report.failed:
        for cloud in RUNNING:
            report.sections.append((f"log of {cloud.folder}", cloud.read_log()[-LONGEST_LOG:]))
    return report


def run_submit(home: Path, env: Mapping[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the real command line with a home of its own and wait for it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOLDFLEET_"))}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "FOLDFLEET_CACHE": str(home / "cache")}
    return subprocess.run(
        [sys.executable, "-m", "submitter", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=home,
        env={**clean, **own, **env},
        timeout=_PATIENCE_S,
    )


def expect(done: subprocess.CompletedProcess[str], *codes: int) -> subprocess.CompletedProcess[str]:
    """Fail with what a command said unless it ended as expected."""
    if done.returncode not in (codes or (0,)):
        pytest.fail(f"{' '.join(done.args[1:])} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def deploy(cloud: Cloud, home: Path, name: str = STACK, *more: object) -> Deployed:
    """Deploy a stack by the real command line as the administrator, and give the submitter its policy."""
    home.mkdir(parents=True, exist_ok=True)
    expect(run_submit(home, {**cloud.admin, "FOLDFLEET_STACK": name}, "infra", "up", "--yes", *more))
    described: dict[str, Any] = cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}
    cloud.client("iam").attach_user_policy(UserName="desk", PolicyArn=outputs["SubmitterPolicyArn"])
    return Deployed(cloud, name, outputs, home)


def forget_linked_roles(cloud: Cloud) -> None:
    """Make the account a new one: other stacks' tests leave roles behind that `infra up` then need not make."""
    iam = cloud.client("iam")
    for role in iam.list_roles()["Roles"]:
        if role["RoleName"].startswith("AWSServiceRoleFor"):
            iam.delete_role(RoleName=role["RoleName"])


@pytest.fixture(scope="session")
def cloud(docker_engine: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Run a stand-in with real containers, in which nothing is deployed."""
    if find_registry() is None:
        refuse(f"{PROGRAM} is not installed: `.ci/registry` installs it.")
    with running_cloud(tmp_path_factory.mktemp("cloud")) as running:
        yield running


@pytest.fixture(scope="session")
def stack(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """Deploy a stack by `submit infra up`."""
    return deploy(cloud, tmp_path_factory.mktemp("stack") / "home", STACK, "--max-vcpus", MAX_VCPUS)


@pytest.fixture(scope="session")
def pushed(stack: Deployed, image: str) -> Deployed:
    """Push the image of this checkout to the stack by `submit image push`."""
    expect(stack.submit("image", "push", "--image", image))
    return stack
