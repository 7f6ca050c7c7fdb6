"""A stack as literals, and what tests of the cloud side say of images; no client, no network."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from jobspec.engine import EngineParts
from submitter.cloud.record import ImageRecord
from submitter.cloud.stack import Stack

REGION, ACCOUNT = "eu-west-1", "123456789012"
REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/foldfleet"
DIGEST = "sha256:" + "ab" * 32


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def make_stack(name: str = "foldfleet", **changes: Any) -> Stack:
    batch = f"arn:aws:batch:{REGION}:{ACCOUNT}"
    fields: dict[str, Any] = {
        "name": name,
        "region": REGION,
        "account": ACCOUNT,
        "bucket_name": "fleet",
        "store_url": "s3://fleet/foldfleet",
        "store_prefix": "foldfleet",
        "repository_name": "foldfleet",
        "repository_uri": REPOSITORY,
        "queue_arn": f"{batch}:job-queue/foldfleet-queue",
        "queue_name": "foldfleet-queue",
        "spot_environment_arn": f"{batch}:compute-environment/spot-1",
        "task_role_arn": role("task"),
        "reducer_role_arn": role("reducer"),
        "planner_role_arn": role("planner"),
        "execution_role_arn": role("execution"),
        "instance_role_arn": role("instance"),
        "submitter_policy_arn": f"arn:aws:iam::{ACCOUNT}:policy/submitter",
        "events_policy_arn": f"arn:aws:iam::{ACCOUNT}:policy/events",
        "log_group_name": "/foldfleet/foldfleet",
        "conclude_machine_arn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:conclude",
        "search_machine_arn": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:foldfleet-search",
        "dead_letters_arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:foldfleet-DeadLetters",
        "max_vcpus": 64,
        "instance_types": ("m6i", "c6i"),
        "data_places": ("arn:aws:s3:::fleet/incoming/*",),
        "events": False,
        "spec_prefix": "incoming/",
    }
    return Stack(**{**fields, **changes})


def make_parts(modules: dict[str, str] | None = None, **changes: Any) -> EngineParts:
    fields: dict[str, Any] = {
        "version": 1,
        "foldfleet": version("foldfleet"),
        "machine": "x86_64",
        "python": "3.11.2",
        "packages": {"numpy": "2.4.6", "scipy": "1.17.1", "scikit-learn": "1.9.1"},
        "modules": modules or {},
        "kernel": {"native": "native-1", "portable": "portable-1"},
    }
    return EngineParts(**{**fields, **changes})


def definition_arn(step: str, revision: int = 1) -> str:
    return f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/foldfleet-{step}-e-1:{revision}"


def make_record(digest: str = DIGEST, pushed_at: float = 1000.0, **changes: Any) -> ImageRecord:
    fields: dict[str, Any] = {
        "image": f"{REPOSITORY}@{digest}",
        "tag": "foldfleet:0.1.0",
        "image_digest": digest,
        "platform": "linux/amd64",
        "pushed_at": pushed_at,
        "stack": "foldfleet",
        "parts": make_parts(),
        "definitions": {step: definition_arn(step) for step in ("work", "reduce", "prepare")},
    }
    return ImageRecord(**{**fields, **changes})
