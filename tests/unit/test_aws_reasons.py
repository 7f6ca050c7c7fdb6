"""Batch's states and reasons: every state in one table, and each reason with what helps."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest

from submitter.backends.aws.reasons import advise, decode, reason_of
from submitter.backends.aws.states import STATES, seen_of
from submitter.backends.base import RequestSeen, RequestState

W, S, R, OK, F = RequestState


def test_every_state_of_batch_is_known() -> None:
    model = botocore.session.get_session().get_service_model("batch")
    assert STATES.keys() == set(model.shape_for("JobStatus").enum)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("detail", "seen"),
    [
        ({"status": "SUBMITTED"}, RequestSeen("n", W, {W: 1})),
        ({"status": "PENDING"}, RequestSeen("n", W, {W: 1})),
        ({"status": "RUNNABLE"}, RequestSeen("n", W, {W: 1})),
        ({"status": "STARTING"}, RequestSeen("n", S, {S: 1})),
        ({"status": "RUNNING"}, RequestSeen("n", R, {R: 1})),
        ({"status": "SUCCEEDED"}, RequestSeen("n", OK, {OK: 1})),
        ({"status": "FAILED"}, RequestSeen("n", F, {F: 1})),
        ({"status": "SOMETHING_NEW"}, RequestSeen("n", W, {W: 1})),
        (
            {"status": "PENDING", "arrayProperties": {"size": 9, "statusSummary": {"RUNNABLE": 3, "PENDING": 1}}},
            RequestSeen("n", W, {W: 4}),
        ),
        (
            {"status": "PENDING", "arrayProperties": {"statusSummary": {"RUNNING": 3, "RUNNABLE": 1, "FAILED": 0}}},
            RequestSeen("n", R, {R: 3, W: 1}),
        ),
        (
            {"status": "FAILED", "arrayProperties": {"statusSummary": {"SUCCEEDED": 3, "FAILED": 1}}},
            RequestSeen("n", F, {OK: 3, F: 1}),
        ),
    ],
)
def test_how_a_request_stands(detail: dict[str, Any], seen: RequestSeen) -> None:
    assert seen_of({"jobName": "n", **detail}) == seen


HOST = "Host EC2 (instance i-0123456789abcdef0) terminated."
ESSENTIAL = "Essential container in task exited"


@pytest.mark.parametrize(
    ("status_reason", "container_reason", "exit_code", "kind", "remedy"),
    [
        ("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill", "", None, "no_capacity", "--on-demand"),
        ("MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job", "", None, "too_large", "resources.vcpus"),
        ("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - x", "", None, "ceiling", "--max-vcpus"),
        ("MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED", "", None, "instance_configuration", "--subnets"),
        ("MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - x", "", None, "service_role", "submit doctor"),
        ("ACTION_REQUIRED - the compute environment", "", None, "environment_invalid", "submit infra status"),
        ("UNDETERMINED - no reason", "", None, "undetermined", "submit doctor"),
        (
            "Canceled by JobStateTimeLimit action due to reason: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
            "",
            None,
            "time_limit_action",
            "submit resume",
        ),
        ("Dependent Job failed", "", None, "dependency", "submit resume"),
        (HOST, "", None, "reclaimed", "submit resume"),
        (ESSENTIAL, "OutOfMemoryError: Container killed due to memory usage", 137, "memory", "resources.memory_gib"),
        (ESSENTIAL, "", 137, "killed", "resources.memory_gib"),
        ("Task failed to start", "CannotPullContainerError: manifest for x not found", None, "image_manifest", "push"),
        ("Task failed to start", "CannotPullContainerError: i/o timeout", None, "image_pull", "submit doctor"),
        ("Task failed to start", "CannotPullContainerError: no space left on device", None, "disk", "root-volume"),
        (ESSENTIAL, "exec /usr/bin/x: exec format error", 1, "image_manifest", "linux/amd64"),
        ("Task failed to start", "CannotStartContainerError: awslogs: x", None, "log_driver", "submit doctor"),
        ("Task failed to start", "CannotStartContainerError: runc", None, "start", "submit doctor"),
        ("Job attempt duration exceeded timeout", "", 137, "timeout", "limits.cell_seconds"),
        ("cancelled by `submit cancel`", "", None, "terminated", "submit resume"),
        (ESSENTIAL, "", 130, "stopped", "submit resume"),
        (ESSENTIAL, "", 75, "try_later", "submit resume"),
        (ESSENTIAL, "", 3, "exit", "submit logs"),
        ("A sentence that AWS has not written yet", "", None, "other", "submit doctor"),
    ],
)
def test_reasons_are_decoded(
    status_reason: str, container_reason: str, exit_code: int | None, kind: str, remedy: str
) -> None:
    reason = decode(status_reason, container_reason, exit_code)
    assert reason is not None
    assert reason.kind == kind
    told = advise(reason, "letters-1")
    assert remedy in told
    assert "{run}" not in told


def test_nothing_said_is_no_reason() -> None:
    assert decode("", "", None) is None
    assert decode("", "", 0) is None


def test_a_summary_of_a_child_is_enough() -> None:
    summary = {"statusReason": ESSENTIAL, "container": {"exitCode": 137, "reason": "OutOfMemoryError: x"}}
    reason = reason_of(summary)
    assert reason is not None and reason.kind == "memory"
