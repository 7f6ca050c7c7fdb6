"""Batch's states in the words of all backends, and how a request and its tasks stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from submitter.backends.base import RequestSeen, RequestState

STATES: Mapping[str, RequestState] = {
    "SUBMITTED": RequestState.WAITING,
    "PENDING": RequestState.WAITING,
    "RUNNABLE": RequestState.WAITING,
    "STARTING": RequestState.STARTING,
    "RUNNING": RequestState.RUNNING,
    "SUCCEEDED": RequestState.SUCCEEDED,
    "FAILED": RequestState.FAILED,
}
"""Every state of a job; a state that AWS adds is taken for one that is still on its way."""


def state_of(detail: Mapping[str, Any]) -> RequestState:
    """Return the state of what DescribeJobs or ListJobs tells of one job."""
    return STATES.get(str(detail.get("status")), RequestState.WAITING)


def seen_of(detail: Mapping[str, Any]) -> RequestSeen:
    """Return how a request stands; an array's children are counted by state in the same answer."""
    counts: dict[RequestState, int] = {}
    for native, number in (detail.get("arrayProperties", {}).get("statusSummary") or {}).items():
        state = STATES.get(native, RequestState.WAITING)
        if number:
            counts[state] = counts.get(state, 0) + int(number)
    state = state_of(detail)
    if not counts:
        counts = {state: 1}
    elif not state.is_over and counts.keys() & {RequestState.RUNNING, RequestState.STARTING}:
        state = RequestState.RUNNING  # an array's parent is PENDING while its children run
    return RequestSeen(str(detail.get("jobName", "")), state, counts)
