"""Why a request waits, or ended as it did: AWS's reasons in words, each with what helps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DOCTOR = "`submit doctor --on aws` looks for what is wrong."
AGAIN = "`submit resume {run}` computes what is missing."


@dataclass(frozen=True)
class Reason:
    """What happened, what to do about it, and whether a task by itself cannot be blamed for it."""

    kind: str
    text: str
    remedy: str


@dataclass(frozen=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    text: str
    remedy: str


def _rule(kind: str, pattern: str, text: str, remedy: str) -> _Rule:
    return _Rule(kind, re.compile(pattern, re.IGNORECASE), text, remedy)


_RULES = (
    _rule(
        "time_limit_action",
        r"Canceled by JobStateTimeLimit action",
        "it waited so long at the head of the queue that the queue gave it up",
        f"{DOCTOR} Then {AGAIN}",
    ),
    _rule(
        "no_capacity",
        r"CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
        "EC2 has no spot instances of the stack's types at this moment",
        "It goes on by itself when there are some. More families give more chances (`submit infra up --instance-types "
        "m5,m6i,m7i,c5,c6i,r5,r6i`), as does an on-demand environment behind the spot one (`submit infra up "
        "--on-demand`).",
    ),
    _rule(
        "too_large",
        r"MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
        "no instance of the stack's types is large enough for one task",
        "Ask for less in the spec (resources.vcpus, resources.memory_gib) after `submit cancel {run}`, or let the "
        "stack start larger ones: `submit infra up --instance-types r6i`.",
    ),
    _rule(
        "ceiling",
        r"MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "one task asks for more vCPUs than the stack may start",
        "Raise the ceiling: `submit infra up --max-vcpus N`, or lower resources.vcpus in the spec.",
    ),
    _rule(
        "instance_configuration",
        r"MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED",
        "EC2 refuses the stack's instance types in this region or subnet",
        "Choose others: `submit infra up --instance-types ...` or `--subnets ...`.",
    ),
    _rule(
        "service_role",
        r"MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS",
        "the service role of AWS Batch lacks a right",
        f"{DOCTOR}",
    ),
    _rule(
        "environment_invalid",
        r"ACTION_REQUIRED|COMPUTE_ENVIRONMENT.*INVALID",
        "the compute environment is invalid or disabled",
        f"`submit infra status` shows why. {DOCTOR}",
    ),
    _rule("undetermined", r"UNDETERMINED", "AWS Batch does not know why it waits", DOCTOR),
    _rule(
        "dependency",
        r"Depend[ae]n[tc](y|\b).*(fail|terminat)|Dependent Job failed",
        "what it waited for failed, so it was never started",
        AGAIN,
    ),
    _rule(
        "reclaimed",
        r"Host EC2.*terminated",
        "its host was reclaimed at every try (spot)",
        f"{AGAIN} An on-demand environment behind the spot one ends this: `submit infra up --on-demand`.",
    ),
    _rule(
        "memory",
        r"OutOfMemory",
        "it needed more memory than it had",
        "Give a task more: resources.memory_gib in the spec (it is no part of the run's id), then `submit run SPEC`.",
    ),
    _rule(
        "image_manifest",
        r"CannotPull.*(manifest|no match for platform|not found|does not exist)|exec format error",
        "its image is not in the registry, or is made for another architecture",
        "`submit image push` pushes it again, built for linux/amd64.",
    ),
    _rule(
        "disk",
        r"no space left on device",
        "the disk of its host was full",
        "Give hosts a larger one: `submit infra up --root-volume-gib 200`.",
    ),
    _rule(
        "image_pull",
        r"CannotPull(Image|Container|ECRContainer|.*)Error|CannotPull",
        "its host could not pull the image: no way to the registry, no right, or a full disk",
        f"{DOCTOR}",
    ),
    _rule(
        "log_driver",
        r"(CannotStartContainer|CannotCreateContainer|ResourceInitialization).*(log|awslogs)",
        "its host could not reach the logs",
        f"{DOCTOR}",
    ),
    _rule(
        "start",
        r"Cannot(Start|Create|Inspect)Container|ResourceInitializationError|Task failed to start|DockerTimeout",
        "its container could not be started at any try",
        f"{DOCTOR} Then {AGAIN}",
    ),
    _rule(
        "timeout",
        r"attempt duration exceeded timeout|timed? ?out",
        "it ran longer than its timeout and was ended",
        f"Set limits.cell_seconds in the spec, so that single cells are given up in time. {AGAIN}",
    ),
    _rule("terminated", r"terminated|cancel|execution was stopped", "somebody ended it", AGAIN),
)
"""Tried in this order on status reason and container reason together; the first that matches counts."""

_EXITS: Mapping[int, Reason] = {
    130: Reason("stopped", "it was asked to stop", AGAIN),
    137: Reason(
        "killed",
        "it was killed, mostly for lack of memory",
        "Give a task more: resources.memory_gib in the spec, then `submit run SPEC`.",
    ),
    75: Reason("try_later", "it asked to be tried later at every try", AGAIN),
}


def decode(status_reason: str, container_reason: str = "", exit_code: int | None = None) -> Reason | None:
    """Return what AWS's words mean, None where there are none.

    Args:
        status_reason: of the job: what Batch says.
        container_reason: of its container, often empty: what ECS says.
        exit_code: of the container, None if it never ended by itself.
    """
    words = " ".join(part for part in (status_reason, container_reason) if part)
    for rule in _RULES:
        if rule.pattern.search(words):
            return Reason(rule.kind, f"{rule.text} ({words.strip()})", rule.remedy)
    if exit_code is not None and exit_code in _EXITS:
        return _EXITS[exit_code]
    if exit_code:
        return Reason("exit", f"it ended with exit code {exit_code}", "`submit logs {run}` shows its last words.")
    return Reason("other", words, DOCTOR) if words else None


def reason_of(detail: Mapping[str, Any]) -> Reason | None:
    """Return the reason in what DescribeJobs or ListJobs tells of one job."""
    container = detail.get("container") or {}
    last = next((one.get("container") or {} for one in reversed(detail.get("attempts") or [])), {})
    words = str(container.get("reason") or last.get("reason") or "")
    return decode(str(detail.get("statusReason") or ""), words, container.get("exitCode"))


def advise(reason: Reason, run_id: str) -> str:
    """Return a reason with its remedy as a sentence."""
    return f"{reason.text}. {reason.remedy.replace('{run}', run_id)}"
