"""Where an attempt runs, as its start row tells it: host, process, and on AWS Batch the attempt and its log stream."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

from containers.tasks.metadata import Ask, InstanceMetadata, ask
from jobspec.protocol import ATTEMPT, JOB_ID, LOG_STREAM, job_stream

log = logging.getLogger(__name__)

_ECS_METADATA = "ECS_CONTAINER_METADATA_URI_V4"


def describe_host() -> dict[str, str | int]:
    """Return what a start row says of the process anywhere."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_on_batch(environment: Mapping[str, str]) -> bool:
    """Say whether AWS Batch started this process."""
    return bool(environment.get(JOB_ID))


def describe_place(
    environment: Mapping[str, str], metadata: InstanceMetadata | None, asks: Ask = ask
) -> dict[str, Any]:
    """Return what a start row says of this place; on AWS Batch this asks the host, elsewhere nobody.

    Args:
        environment: of the process.
        metadata: the service that knows the host's id; None where there is none.
        asks: sends a request.
    """
    told: dict[str, Any] = {**describe_host(), "log": environment.get(LOG_STREAM)}
    if not is_on_batch(environment):
        return told
    attempt = _attempt(environment)
    stream = told["log"] or _find_stream(environment.get(_ECS_METADATA), asks)
    return told | {
        "log": stream or job_stream(environment[JOB_ID], attempt),
        "job": environment[JOB_ID],
        "attempt": attempt,
        "instance": None if metadata is None else _find_instance(metadata),
    }


def _attempt(environment: Mapping[str, str]) -> int:
    told = environment.get(ATTEMPT, "")
    return int(told) if told.isdecimal() else 1


def _find_stream(url: str | None, asks: Ask) -> str | None:
    """Return the container's log stream as the ECS agent tells it.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4-response.html
    """
    if not url:
        return None
    try:
        status, body = asks("GET", url, {})
        options = json.loads(body)["LogOptions"] if status == 200 else {}
        stream = options.get("awslogs-stream")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.info("log_stream_unknown reason=%s", error)
        return None
    return stream if isinstance(stream, str) and stream else None


def _find_instance(metadata: InstanceMetadata) -> str | None:
    try:
        return metadata.get("instance-id")
    except OSError as error:
        log.info("instance_unknown reason=%s", error)
        return None
