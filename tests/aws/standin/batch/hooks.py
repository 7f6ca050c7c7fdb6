"""What the Batch core asks of the rest of the stand-in: the edges, as plain functions that tests can replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LogLine = tuple[int, str]
"""When a line was written (milliseconds since 1970), and its text without the line end."""


def ignore_event(event: dict[str, Any]) -> None:
    """Drop an event."""


def no_credentials(role_arn: str, task_id: str) -> str | None:
    """Give no credentials to any task."""
    return None


def no_environment() -> dict[str, str]:
    """Add nothing to the environment of containers."""
    return {}


def ignore_log(group: str, stream: str, lines: Sequence[LogLine]) -> None:
    """Drop lines of a log."""


def pull_nothing(image: str) -> str | None:
    """Take every image as present in the engine."""
    return None


def same_name(image: str) -> str:
    """Know every image under the name in its job definition."""
    return image


@dataclass(frozen=True)
class Hooks:
    """The edges of the Batch core. Each may be called from any thread, never with a lock of the core held.

    Attributes:
        emit: Takes one EventBridge event, complete as a rule's target sees it (``version`` ... ``detail``). Events
            come in the order of the states, from one thread.
        credentials_uri: Given a role's ARN and a task's id, the address at which that container asks for credentials
            (``AWS_CONTAINER_CREDENTIALS_FULL_URI``; a loopback address, since the SDKs refuse others over HTTP);
            None leaves the variable out.
        container_environment: Endpoints and the region, merged below the job's own variables.
        put_log: Appends lines to a stream of a log group and makes the stream when it is new.
        pull: Makes an image present in the Docker engine before a task starts. None means it is there; any other
            text is the reason the task cannot start (``CannotPullContainerError: ...``).
        local_image: The name under which the Docker engine knows a definition's image, asked after ``pull``.
    """

    emit: Callable[[dict[str, Any]], None] = ignore_event
    credentials_uri: Callable[[str, str], str | None] = no_credentials
    container_environment: Callable[[], dict[str, str]] = no_environment
    put_log: Callable[[str, str, Sequence[LogLine]], None] = ignore_log
    pull: Callable[[str], str | None] = pull_nothing
    local_image: Callable[[str], str] = same_name
