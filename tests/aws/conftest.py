"""What `make test` runs of the stories on the stand-in; `make test-thorough` runs the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws.fixtures import Deployed, expect, run_submit
from tests.aws.house import DATA, SPECS, House
from tests.aws.standin.cloud import Cloud, running_cloud
from tests.aws.standin.registry import PROGRAM, find_registry
from tests.docker.fixtures import refuse

STORIES = ("test_events.py", "test_infra.py", "test_push.py", "test_run.py", "test_stepfunctions.py")
"""Each of their tests takes from ten seconds to a minute, most of it containers that start."""

EVERY_TIME = (
    "test_an_uploaded_spec_ends_in_results_and_a_model_in_the_bucket",
    "test_a_detached_run_ends_without_its_desk_and_another_one_tells_its_answer",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-thorough` what takes a minute of processes and shows little more."""
    for item in items:
        if item.path.parent.name == "aws" and item.path.name in STORIES and item.name not in EVERY_TIME:
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Run a stand-in for one module, with nothing deployed, that needs no Docker engine: tasks do not run."""
    if find_registry() is None:
        refuse(f"{PROGRAM} is not installed: `.ci/registry` installs it.")
    with running_cloud(tmp_path_factory.mktemp("bare"), containers=False) as running:
        yield running


@pytest.fixture(scope="session")
def uploader(pushed: Deployed) -> dict[str, str]:
    """Make a user who may put objects under the watched prefixes."""
    iam = pushed.cloud.client("iam")
    iam.create_user(UserName="uploader")
    bucket = pushed.outputs["BucketName"]
    places = [f"arn:aws:s3:::{bucket}/{prefix}*" for prefix in (SPECS, DATA)]
    allowed = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload"], "Resource": places}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="uploader", PolicyName="own", PolicyDocument=document)
    key = iam.create_access_key(UserName="uploader")["AccessKey"]
    own = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    return {**pushed.cloud.admin, **own}


@pytest.fixture(scope="session")
def listening(pushed: Deployed) -> Deployed:
    """Switch events on in the stack by `submit events enable`."""
    env = {**pushed.cloud.admin, "FOLDFLEET_STACK": pushed.name}
    expect(run_submit(pushed.home, env, "events", "enable", "--yes", "--data-prefix", DATA))
    described: dict[str, Any] = pushed.cloud.client("cloudformation").describe_stacks(StackName=pushed.name)
    outputs = {one["OutputKey"]: one["OutputValue"] for one in described["Stacks"][0]["Outputs"]}
    if "EventsPolicyArn" in outputs:
        pushed.cloud.client("iam").attach_user_policy(UserName="desk", PolicyArn=outputs["EventsPolicyArn"])
    return Deployed(pushed.cloud, pushed.name, outputs, pushed.home)


@pytest.fixture
def house(listening: Deployed, uploader: dict[str, str], tmp_path: Path) -> Iterator[House]:
    listening.cloud.options(wait_scale=0.02)
    yield House(listening, tmp_path, uploader)
    listening.cloud.no_faults()
    listening.cloud.events(hold=False, copies=1)
    listening.cloud.options(wait_scale=1.0)
