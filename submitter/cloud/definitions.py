"""Job definitions: one for each step of an image, since SubmitJob cannot name another image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from jobspec import protocol
from jobspec.engine import numeric_environment
from jobspec.errors import UsageError
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.record import Step
from submitter.cloud.stack import Stack

Tell = Callable[[str], None]
"""Says what is being done."""

STEPS: tuple[Step, ...] = ("work", "reduce", "prepare")
"""The steps whose definitions belong to one image; that of planning is the stack's, and each push makes it anew."""

PLANNER = "submitter.planner"
"""The module that plans for a state machine."""

HOST_FOLDER = "/var/lib/foldfleet"
"""A folder of the host, made for the container's user by the launch template: what its containers share."""

CACHE_FOLDER = f"{HOST_FOLDER}/cache"
TEMPORARY_FOLDER = f"{HOST_FOLDER}/tmp"  # noqa: S108 - on the host's disk, for the container's user alone

CONTAINER_USER = "10001:10001"

NO_ANSWER = "-"
"""The default of ``answer``: nobody waits for one. Batch leaves `Ref::answer` as it is where a default is missing."""

RETRY_STRATEGY: Mapping[str, Any] = {
    "attempts": 5,
    # The first match counts, and no match is a retry: hence the last rule. At most five are allowed.
    "evaluateOnExit": [
        {"onStatusReason": "Host EC2*", "action": "RETRY"},
        {"onStatusReason": "Task failed to start*", "action": "RETRY"},
        {"onReason": "Cannot*", "action": "RETRY"},
        {"onExitCode": "75", "action": "RETRY"},
        {"onStatusReason": "*", "action": "EXIT"},
    ],
}

TIMEOUT_SECONDS = 24 * 3600
"""Ends what would run for ever, unless the request says otherwise; a spec's own limits lie below it."""

STACK_TAG, ENGINE_TAG, DIGEST_TAG = "foldfleet:stack", "foldfleet:engine", "foldfleet:definition"

_DEFAULT_VCPUS, _DEFAULT_MEMORY_MIB = 1, 1884
"""What every request replaces; Batch wants a definition to be complete. 2 GiB less what the host keeps."""

_TMP_MIB = 256
"""For libraries that insist on /tmp. It is memory: temporary files that foldfleet writes lie on the host's disk."""

_COMMANDS: Mapping[Step, tuple[str, ...]] = {
    "work": (
        *(protocol.IMAGE_MODULE, "work", "--store", "Ref::store", "--run", "Ref::run"),
        *("--round", "Ref::round", "--first-task", "Ref::first_task"),
    ),
    "reduce": (
        *(protocol.IMAGE_MODULE, "reduce", "--store", "Ref::store", "--run", "Ref::run"),
        *("--refit", "--answer", "Ref::answer"),
    ),
    "prepare": (
        *(protocol.IMAGE_MODULE, "prepare", "--store", "Ref::store", "--spec", "Ref::spec"),
        *("--numerics", "portable", "--answer", "Ref::answer"),
    ),
    "plan": (PLANNER, "--site", "Ref::site", "--ask", "Ref::ask", "--answer", "Ref::answer"),
}


def definition_name(stack_name: str, step: Step, engine_id: str) -> str:
    """Return the name of a step's job definition; each image of the engine is a revision of it."""
    return planner_name(stack_name) if step == "plan" else f"{stack_name}-{step}-{engine_id}"


def planner_name(stack_name: str) -> str:
    """Return the name of the job definition that plans, whose newest revision a state machine starts by this name."""
    return f"{stack_name}-plan"


def job_definition(step: Step, stack: Stack, image: str, engine_id: str) -> dict[str, Any]:
    """Return the parameters of RegisterJobDefinition for one step of an image: pure.

    Args:
        step: what the container does; it decides about its role.
        stack: the roles and the log group.
        image: ``repository@sha256:...``; a tag could change below a run.
        engine_id: what the image computes with.
    """
    role = {"work": stack.task_role_arn, "reduce": stack.reducer_role_arn}.get(step, stack.planner_role_arn)
    definition = {
        "jobDefinitionName": definition_name(stack.name, step, engine_id),
        "type": "container",
        "platformCapabilities": ["EC2"],
        "parameters": {"answer": NO_ANSWER} if step in ("reduce", "prepare") else {},
        "containerProperties": _container(step, stack, image, role),
        "retryStrategy": dict(RETRY_STRATEGY),
        "timeout": {"attemptDurationSeconds": TIMEOUT_SECONDS},
        "propagateTags": True,
    }
    tags = {STACK_TAG: stack.name, ENGINE_TAG: engine_id}
    # Batch adds defaults to what it stores, so that a revision is recognised by a digest of what was sent.
    return definition | {"tags": tags | {DIGEST_TAG: _digest(definition | {"tags": tags})}}


def register(
    clients: Clients, definition: Mapping[str, Any], tell: Tell | None = None, *, as_newest: bool = False
) -> str:
    """Return the ARN, with its revision, of a job definition; an equal one that is active is used again.

    Older revisions are left alone: runs that were submitted with them go on.

    Args:
        clients: clients of AWS.
        definition: what `job_definition` returned.
        tell: is told if it is registered anew.
        as_newest: register it anew also where an equal one is there, but another came after it.

    Raises:
        AccessError: a right is missing, which is named.
    """
    name = str(definition["jobDefinitionName"])
    equal: dict[int, str] = {}
    newest = 0
    with explained(f"Looking up the job definition {name}"):
        pages = clients.batch.get_paginator("describe_job_definitions")
        for page in pages.paginate(jobDefinitionName=name, status="ACTIVE"):
            for found in page["jobDefinitions"]:
                newest = max(newest, found["revision"])
                if found.get("tags", {}).get(DIGEST_TAG) == definition["tags"][DIGEST_TAG]:
                    equal[found["revision"]] = found["jobDefinitionArn"]
    if equal and (
        not as_newest or newest in equal
    ):  # several, where an acknowledgement was lost: the newest is the one that was recorded
        return equal[max(equal)]
    parameters: dict[str, Any] = dict(definition)
    if tell is not None:
        tell(f"Registering the job definition {name}")
    with explained(f"Registering the job definition {name}"):
        return clients.batch.register_job_definition(**parameters)["jobDefinitionArn"]


def register_all(
    clients: Clients, stack: Stack, image: str, engine_id: str, tell: Tell | None = None
) -> dict[Step, str]:
    """Return the ARN of each step's job definition of an image, registering what is missing.

    Raises:
        UsageError: ``image`` is not pinned to a digest.
        AccessError: a right is missing, which is named.
    """
    if "@sha256:" not in image:
        raise UsageError(f"The image {image!r} is a tag, which may change below a run. Name it by digest.")
    return {step: register(clients, job_definition(step, stack, image, engine_id), tell) for step in STEPS}


def register_planner(clients: Clients, stack: Stack, image: str, engine_id: str, tell: Tell | None = None) -> str:
    """Make an image the one that plans for the state machines of a stack, also one that did so before another.

    Raises:
        AccessError: a right is missing, which is named.
    """
    return register(clients, job_definition("plan", stack, image, engine_id), tell, as_newest=True)


def inactive(clients: Clients, arns: Mapping[Step, str]) -> list[str]:
    """Return those of some job definitions that are not active, or not there; costs one request."""
    with explained("Looking up job definitions"):
        found = clients.batch.describe_job_definitions(jobDefinitions=sorted(arns.values()))["jobDefinitions"]
    active = {entry["jobDefinitionArn"] for entry in found if entry.get("status") == "ACTIVE"}
    return sorted(set(arns.values()) - active)


def _container(step: Step, stack: Stack, image: str, role: str) -> dict[str, Any]:
    return {
        "image": image,
        "command": list(_COMMANDS[step]),
        "jobRoleArn": role,
        "executionRoleArn": stack.execution_role_arn,
        "user": CONTAINER_USER,
        "readonlyRootFilesystem": True,
        "privileged": False,
        "resourceRequirements": [
            {"type": "VCPU", "value": str(_DEFAULT_VCPUS)},
            {"type": "MEMORY", "value": str(_DEFAULT_MEMORY_MIB)},
        ],
        "environment": [{"name": name, "value": value} for name, value in sorted(_environment(stack).items())],
        "volumes": [{"name": "foldfleet", "host": {"sourcePath": HOST_FOLDER}}],
        "mountPoints": [{"sourceVolume": "foldfleet", "containerPath": HOST_FOLDER, "readOnly": False}],
        "linuxParameters": {
            # Without it nobody reaps what workers leave behind, and signals end at a shell.
            "initProcessEnabled": True,
            "tmpfs": [{"containerPath": "/tmp", "size": _TMP_MIB}],  # noqa: S108 - the container's own
        },
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": stack.log_group_name,
                "awslogs-region": stack.region,
                "awslogs-stream-prefix": step,
            },
        },
    }


def _environment(stack: Stack) -> dict[str, str]:
    return {
        **numeric_environment("portable"),
        protocol.CACHE: CACHE_FOLDER,
        "TMPDIR": TEMPORARY_FOLDER,
        # Nothing else tells a container on EC2 its region, and a bucket of another one redirects.
        "AWS_REGION": stack.region,
        "AWS_DEFAULT_REGION": stack.region,
    }


def _digest(definition: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]
