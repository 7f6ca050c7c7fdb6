"""The states of an execution in the words of all backends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from submitter.backends.base import RequestState

STATES: Mapping[str, RequestState] = {
    "RUNNING": RequestState.RUNNING,
    "PENDING_REDRIVE": RequestState.WAITING,
    "SUCCEEDED": RequestState.SUCCEEDED,
    "FAILED": RequestState.FAILED,
    "TIMED_OUT": RequestState.FAILED,
    "ABORTED": RequestState.FAILED,
}
"""Every state of an execution; a state that AWS adds is taken for one that goes on."""


def state_of(detail: Mapping[str, Any]) -> RequestState:
    """Return the state of what DescribeExecution tells."""
    return STATES.get(str(detail.get("status")), RequestState.RUNNING)
