"""ListJobs and DescribeJobs: what they show, what they leave out, and their pages."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from .engine import Engine
from .jobs import RUNNING, STATES, Job
from .rules import MAX_DESCRIBED, Refused, check_listing

MAX_PAGE = 1000
MAX_FILTERED_PAGE = 100


def describe_jobs(engine: Engine, ids: Sequence[str] | None) -> list[dict[str, Any]]:
    """Describe jobs by id or ARN; those unknown are left out without a word."""
    if not ids:
        raise Refused("jobs must not be empty.")
    if len(ids) > MAX_DESCRIBED:
        raise Refused(f"At most {MAX_DESCRIBED} jobs can be described in one call, got {len(ids)}.")
    with engine.locked():
        wanted = [name.rpartition("job/")[2] for name in ids]
        return [engine.jobs[job_id].detail() for job_id in wanted if job_id in engine.jobs]


def list_jobs(engine: Engine, request: Mapping[str, Any], queue_arn: str | None) -> dict[str, Any]:
    """List the jobs of a queue, newest first, or the children of an array, by index.

    A filter (one at most) makes ``jobStatus`` ignored and leaves children out; without filter and status only
    RUNNING jobs are listed, so that an array parent, PENDING until its end, is not.
    """
    check_listing(request)
    filters = request.get("filters") or ()
    status = request.get("jobStatus") or RUNNING
    if status not in STATES:
        raise Refused(f"Job status {status} is not one of {', '.join(sorted(STATES))}.")
    largest = MAX_FILTERED_PAGE if filters else MAX_PAGE
    size = min(int(request.get("maxResults") or largest), largest)
    if size < 1:
        raise Refused("maxResults must be at least 1.")
    with engine.locked():
        jobs = candidates(engine, request, queue_arn)
        chosen = [job for job in jobs if (passes(job, filters[0]) if filters else job.status == status)]
        start = after(chosen, request.get("nextToken"), newest_first=queue_arn is not None)
        page = chosen[start : start + size]
        answer: dict[str, Any] = {"jobSummaryList": [job.summary() for job in page]}
        if start + size < len(chosen):
            answer["nextToken"] = base64.urlsafe_b64encode(str(page[-1].sequence).encode()).decode()
    return answer


def candidates(engine: Engine, request: Mapping[str, Any], queue_arn: str | None) -> Sequence[Job]:
    """Give the jobs a listing is about, before any filter."""
    if queue_arn is not None:
        return engine.by_queue.get(queue_arn, [])[::-1]
    parent = engine.jobs.get(str(request.get("arrayJobId") or request.get("multiNodeJobId")))
    return [] if parent is None or parent.children is None else parent.children


def passes(job: Job, entry: Mapping[str, Any]) -> bool:
    """Tell whether a job passes a filter."""
    value = str(entry["values"][0])
    kind = entry["name"]
    if kind == "BEFORE_CREATED_AT":
        return job.created_at < int(value)
    if kind == "AFTER_CREATED_AT":
        return job.created_at > int(value)
    if kind == "JOB_DEFINITION":
        request = job.request
        names = {request.definition_name.lower(), request.definition_arn.lower()}
        return any(matches(value, name) for name in names)
    return matches(value, job.request.name)


def matches(pattern: str, name: str) -> bool:
    """Compare regardless of case; a trailing asterisk stands for any rest."""
    pattern, name = pattern.lower(), name.lower()
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def after(jobs: Sequence[Job], token: str | None, *, newest_first: bool) -> int:
    """Give where the page after a token begins, though jobs were added since."""
    if not token:
        return 0
    try:
        last = int(base64.urlsafe_b64decode(token).decode())
    except ValueError as error:
        raise Refused(f"nextToken {token} is not valid.") from error
    for position, job in enumerate(jobs):
        if (job.sequence < last) if newest_first else (job.sequence > last):
            return position
    return len(jobs)
