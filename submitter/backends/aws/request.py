"""What is sent to AWS Batch: pure, and with its sizes checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jobspec import protocol
from jobspec.errors import LimitError
from jobspec.grammar.spec import Limits
from jobspec.runs.rounds import RoundPlan
from jobspec.search.planning import ArrayPlan
from submitter.backends.aws.shape import Shape
from submitter.cloud.record import ImageRecord, Step
from submitter.cloud.stack import Stack

MAX_NAME = 128
MAX_REQUEST_BYTES = 30 * 1024
MAX_OVERRIDE_CHARACTERS = 8192
MAX_DEPENDENCIES = 20
"""SubmitJob's limits; longer overrides are accepted and fail later, as does a reduce step that waits for too few."""

ARRAY_OF_ONE = 1
"""Batch takes arrays from 2 children on: one task is a plain request, and its index is 0."""

DAY_SECONDS = 24 * 3600
"""The timeout of the job definitions; see `submitter.cloud.definitions`."""

MIN_TIMEOUT_SECONDS = 60
"""Batch takes no shorter timeout."""

NO_EXECUTION = "-"
"""Stands for an execution where there is none: parameters of a job definition have values."""

SLACK_SECONDS = 1800
"""What a task may take beside its cells: pulling the image, fetching the fold, writing down what is finished."""

Call = dict[str, Any]
"""The keywords of SubmitJob."""

_OUTSIDE_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class Queue(Protocol):
    """What a request tells of the stack: its name, and where it waits."""

    @property
    def name(self) -> str:
        """Return the stack's name."""

    @property
    def queue_arn(self) -> str:
        """Return the queue."""


class Target(Protocol):
    """What requests are made from: `Site` at a desk, less of a stack where only the store can be reached."""

    @property
    def stack(self) -> Queue:
        """Return the stack."""

    @property
    def record(self) -> ImageRecord:
        """Return the image."""

    @property
    def store_url(self) -> str:
        """Return the store."""

    @property
    def shape(self) -> Shape:
        """Return what one task gets."""


@dataclass(frozen=True)
class Site:
    """Where a run's requests go: the stack, the image, the store, and what one task gets."""

    stack: Stack
    record: ImageRecord
    store_url: str
    shape: Shape


def round_name(plan: RoundPlan, part: str) -> str:
    """Return the name of a request of a round: the same from every desk, and of no other round of any store.

    The plan's token tells apart what the run's id does not: the same run in another store, or deleted and begun anew.
    """
    return request_name(plan.run_id, f"{plan.token[:8]}-r{plan.round}-{part}")


def request_name(label: str, rest: str, longest: int = MAX_NAME) -> str:
    """Return a name that Batch takes; of a long label the end is kept, which is a run's hash."""
    rest = _OUTSIDE_NAMES.sub("-", rest)
    room = longest - len(rest) - 1
    kept = _OUTSIDE_NAMES.sub("-", label)[-room:].lstrip("-_")
    return f"{kept}-{rest}" if kept else rest


def answer_token(plan: RoundPlan) -> str:
    """Return the token under which the reduce step of a round answers."""
    digest = hashlib.sha256(plan.run_id.encode()).hexdigest()[:16]
    return f"{digest}-{plan.token[:16]}-r{plan.round}"


def array_call(site: Target, plan: RoundPlan, index: int, array: ArrayPlan, *, execution: str = NO_EXECUTION) -> Call:
    """Return the request of one array; ``execution`` is the ARN of the one that sends it."""
    parameters = {
        "store": site.store_url,
        "run": plan.run_id,
        "round": str(plan.round),
        "first_task": str(array.first_task),
        # For the stack's rule, which starts the reduce step where the one that waits for the arrays never will; as
        # large as a task, since the refit loads all rows.
        "reduce": site.record.definitions["reduce"],
        "vcpus": str(site.shape.vcpus),
        "memory_mib": str(site.shape.memory_mib),
        "arrays": str(len(plan.arrays)),
        # The rule leaves the reduce step to an execution that goes on.
        "execution": execution,
    }
    call = _call(site, round_name(plan, f"a{index}"), "work", parameters, run_id=plan.run_id)
    if array.size > ARRAY_OF_ONE:
        call["arrayProperties"] = {"size": array.size}
    if (timeout := timeout_seconds(plan.limits)) is not None:
        call["timeout"] = {"attemptDurationSeconds": timeout}
    return checked(call)


def reduce_call(site: Target, plan: RoundPlan, job_ids: Sequence[str]) -> Call:
    """Return the request of the reduce step that waits for the arrays of a round.

    Raises:
        LimitError: it cannot wait for so many.
    """
    if len(job_ids) > MAX_DEPENDENCIES:
        raise LimitError(
            f"The round has {len(job_ids)} arrays, and AWS Batch lets a request wait for {MAX_DEPENDENCIES} at most. "
            "Give a task more vCPUs (resources.vcpus in the spec), so that there are fewer tasks."
        )
    parameters = {"store": site.store_url, "run": plan.run_id, "answer": answer_token(plan)}
    call = _call(site, round_name(plan, "reduce"), "reduce", parameters, run_id=plan.run_id)
    return checked({**call, "dependsOn": [{"jobId": job_id} for job_id in job_ids]})


def step_call(
    site: Target,
    step: Step,
    label: str,
    token: str,
    parameters: Mapping[str, str],
    command: Sequence[str] | None = None,
) -> Call:
    """Return the request of a step that a desk waits for.

    Args:
        site: where it goes.
        step: whose job definition it uses.
        label: the run's id, or the spec's name.
        token: under which it answers; it is in the name, too.
        parameters: of the definition's command.
        command: what is run instead, None for that.
    """
    call = _call(site, request_name(label, token), step, {**parameters, "answer": token}, run_id=None)
    if command is not None:
        call["containerOverrides"]["command"] = protocol.image_command(command)
        call["parameters"] = {}
    return checked(call)


def timeout_seconds(limits: Limits) -> int | None:
    """Return a timeout that lies above the spec's own limits, None where the job definition's does."""
    if limits.task_seconds is not None:
        return math.ceil(max(limits.task_seconds, limits.cell_seconds or 0)) + SLACK_SECONDS
    if limits.cell_seconds is not None and limits.cell_seconds + SLACK_SECONDS > DAY_SECONDS:
        return math.ceil(limits.cell_seconds) + SLACK_SECONDS
    return None


def checked(call: Call) -> Call:
    """Return a request that Batch will take, and whose tasks will start.

    Raises:
        LimitError: it is too long.
    """
    overrides = len(json.dumps(call.get("containerOverrides", {})))
    if overrides > MAX_OVERRIDE_CHARACTERS:
        raise LimitError(
            f"The request {call['jobName']} overrides its job definition in {overrides:,} characters, and AWS Batch "
            f"takes {MAX_OVERRIDE_CHARACTERS:,}: it would be accepted and fail later. Use a shorter store prefix or "
            "file name."
        )
    size = len(json.dumps(call).encode())
    if size > MAX_REQUEST_BYTES:
        raise LimitError(
            f"The request {call['jobName']} has {size:,} bytes, and AWS Batch takes {MAX_REQUEST_BYTES:,}. Use a "
            "shorter store prefix or run name."
        )
    return call


def _call(site: Target, name: str, step: Step, parameters: dict[str, str], *, run_id: str | None) -> Call:
    run = {} if run_id is None else {"foldfleet:run": run_id}
    return {
        "jobName": name,
        "jobQueue": site.stack.queue_arn,
        "jobDefinition": site.record.definitions[step],
        "parameters": parameters,
        "containerOverrides": {
            "resourceRequirements": [
                {"type": "VCPU", "value": str(site.shape.vcpus)},
                {"type": "MEMORY", "value": str(site.shape.memory_mib)},
            ],
            # vCPUs are shares on EC2: a container sees all cores of its host.
            "environment": [{"name": protocol.WORKERS, "value": str(site.shape.vcpus)}],
        },
        "tags": {"foldfleet:stack": site.stack.name, **run},
        "propagateTags": True,
    }
