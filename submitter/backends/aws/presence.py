"""What AWS Batch tells of runs from any terminal: how requests stand, why they wait or failed, and their logs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jobspec.errors import ExitCode, FoldfleetError, UsageError
from jobspec.protocol import parse_job_stream
from jobspec.runs.rounds import RoundPlan, latest_round
from submitter.backends.aws import reasons
from submitter.backends.aws.request import round_name
from submitter.backends.aws.sending import find
from submitter.backends.aws.states import seen_of, state_of
from submitter.backends.aws.world import open_world, shared_clients
from submitter.backends.base import Presence, RequestSeen, RequestState, Sighting, Trouble
from submitter.backends.local import read_refusal
from submitter.claims import all_handles, has_claim
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained

DESCRIBED_AT_ONCE = 100
"""Ids that DescribeJobs takes."""

SETTLING_SECONDS = 60.0
"""What was sent so recently and is not to be seen yet is believed to be on its way."""

CANCELLED = "cancelled by `submit cancel`"
"""The reason that AWS keeps with what was ended."""

_LISTED = 100
_TAIL_LINES = 40
_NAMED = 3

_OF_AN_EARLIER_TRY = frozenset({"reclaimed", "timeout", "terminated", "memory", "other"})
"""Reasons that a request which waits again may still carry, and which do not keep it waiting."""

_REFUSALS = frozenset({ExitCode.SPEC, ExitCode.DATA, ExitCode.ACCESS, ExitCode.NOT_FOUND, ExitCode.LIMIT})
"""Exit codes with which a task refuses, and leaves the reason as its last words."""

Handle = Mapping[str, Any]
ClientsMaker = Callable[[], Clients]


def sighting(
    presence: Presence, make: ClientsMaker = shared_clients, *, now: Callable[[], float] = time.time
) -> Sighting:
    """Return how the requests of a run's newest round stand: one call for all of them, one more for what is stuck."""
    clients, handles = make(), _handles(presence)
    check_region(clients, handles)
    details = describe(clients, [str(handle["job_id"]) for handle in handles])
    seen: list[RequestSeen] = []
    notes: list[str] = []
    alive = False
    for handle in handles:
        detail = details.get(str(handle["job_id"]))
        if detail is None:  # forgotten, a week after its end; or not to be seen yet
            on_its_way = now() - float(handle.get("time", 0)) < SETTLING_SECONDS
            alive = alive or on_its_way
            seen += [RequestSeen(str(handle["name"]), RequestState.WAITING)] if on_its_way else []
            continue
        one = seen_of(detail)
        seen.append(one)
        alive = alive or not one.state.is_over
        notes += notes_on(clients, detail, one, presence.run_id)
    return Sighting(alive, tuple(seen), tuple(dict.fromkeys(notes)))


def is_working(presence: Presence) -> bool:
    """Say whether a request of the run's newest round has not ended."""
    return sighting(presence).alive


def end_orphans(_presence: Presence) -> None:
    """Do nothing: what was sent is nobody's orphan, and is adopted."""


def terminate(presence: Presence, make: ClientsMaker = shared_clients) -> None:
    """End what was sent for a run: Batch asks each task to stop and kills it 30 s later.

    CancelJob would not do: it says yes and leaves alone what has been started.
    """
    clients, handles = make(), _handles(presence)
    check_region(clients, handles)
    details = describe(clients, [str(handle["job_id"]) for handle in handles])
    end_requests(clients, [details[job_id] for handle in handles if (job_id := str(handle["job_id"])) in details])


def end_requests(clients: Clients, details: Sequence[Mapping[str, Any]]) -> None:
    """End those of some requests that have not ended, the last first: a reduce step is not started by what ends now."""
    for detail in reversed(details):
        if not state_of(detail).is_over:
            with explained(f"Ending {detail.get('jobName', 'a request')}"):
                clients.batch.terminate_job(jobId=str(detail["jobId"]), reason=CANCELLED)


def explain(presence: Presence, make: ClientsMaker = shared_clients) -> Trouble | None:
    """Return why tasks of the run's newest round ended early: three calls for each failed array, and a log's end."""
    clients, handles = make(), _handles(presence)
    details = describe(clients, [str(handle["job_id"]) for handle in handles])
    return trouble_in(clients, details.values(), presence.run_id, _log_group(presence, handles))


def trouble_in(
    clients: Clients, details: Iterable[Mapping[str, Any]], run_id: str, group: Callable[[], str]
) -> Trouble | None:
    """Return why tasks in some requests of a round failed, None if none did."""
    ended = [one for one in details if state_of(one) is RequestState.FAILED and not is_reduce(one)]
    failed = [child for detail in ended for child in _failed(clients, detail)]
    if not failed:
        return None
    return Trouble(_refusal(clients, failed, run_id, group), "; ".join(_told(failed, run_id)))


def read_log(presence: Presence, stream: str, num_lines: int, make: ClientsMaker = shared_clients) -> list[str]:
    """Return the last lines of a task's log from CloudWatch, or why there are none."""
    return read_stream(make(), _log_group(presence, _handles(presence))(), stream, num_lines)


def read_stream(clients: Clients, group: str, stream: str, num_lines: int) -> list[str]:
    """Return the last lines of a task's log; the name of its stream, or of its job and try, is in its start row."""
    if (named := parse_job_stream(stream)) is not None:
        stream = _stream_of_attempt(clients, *named) or stream
    return tail(clients, group, stream, num_lines)


def tail(clients: Clients, group: str, stream: str, num_lines: int) -> list[str]:
    """Return the last lines of a log stream; a missing one is told, not raised."""
    from botocore.exceptions import ClientError

    try:
        with explained(f"Reading the log {stream}"):
            try:
                events = clients.logs.get_log_events(
                    logGroupName=group, logStreamName=stream, limit=min(num_lines, 10_000), startFromHead=False
                )["events"]
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                    return [f"(no such stream in {group}: nothing was written yet, or the group has dropped it)"]
                raise
    except FoldfleetError as error:
        return [f"(cannot be read here: {error.message})"]
    return [str(event.get("message", "")) for event in events][-num_lines:] or ["(empty: nothing went wrong so far)"]


def is_reduce(detail: Mapping[str, Any]) -> bool:
    """Say whether a request of a round is its reduce step, by its name."""
    return str(detail.get("jobName", "")).endswith("-reduce")


def describe(clients: Clients, job_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Return what DescribeJobs tells, by id; one call for each hundred, and unknown ids are left out."""
    found: dict[str, Mapping[str, Any]] = {}
    for first in range(0, len(job_ids), DESCRIBED_AT_ONCE):
        with explained("Asking AWS Batch how a run stands"):
            answer = clients.batch.describe_jobs(jobs=list(job_ids[first : first + DESCRIBED_AT_ONCE]))
        found |= {detail["jobId"]: detail for detail in answer["jobs"]}
    return found


def failure_of(detail: Mapping[str, Any], run_id: str) -> str:
    """Return in one sentence why a request failed."""
    reason = reasons.reason_of(detail)
    return "it gives no reason" if reason is None else reasons.advise(reason, run_id)


def stream_of(detail: Mapping[str, Any]) -> str | None:
    """Return the log stream of a job's newest try that had one."""
    tries = [detail.get("container") or {}, *[a.get("container") or {} for a in reversed(detail.get("attempts") or [])]]
    return next((str(one["logStreamName"]) for one in tries if one.get("logStreamName")), None)


def _stream_of_attempt(clients: Clients, job_id: str, attempt: int) -> str | None:
    """Return the log stream of a try, numbered from 1, that could not find it out by itself."""
    detail = describe(clients, [job_id]).get(job_id, {})
    tries = [one.get("container") or {} for one in detail.get("attempts") or []]
    one = tries[attempt - 1] if attempt <= len(tries) else detail.get("container") or {}
    return str(one["logStreamName"]) if one.get("logStreamName") else None


def refusal_in(lines: Iterable[str]) -> FoldfleetError | None:
    """Return the error that a step left as its last words."""
    for line in reversed(list(lines)):
        if line.startswith("{") and (refusal := read_refusal(line)) is not None:
            return refusal
    return None


def plan_of(presence: Presence) -> RoundPlan | None:
    """Return the newest round of a run, None where there is none, or none that can be read."""
    if presence.handles is not None:
        return None
    return presence.plan or latest_round(presence.store, presence.run_id)


def _log_group(presence: Presence, handles: Sequence[Handle]) -> Callable[[], str]:
    """Return what tells where logs lie; only where no handle says so, the stack is asked."""
    told = next((str(handle["log_group"]) for handle in handles if handle.get("log_group")), None)
    return lambda: told or open_world(presence.settings.stack).stack.log_group_name


def _handles(presence: Presence) -> list[Handle]:
    """Return the handles of a round's arrays and of the reduce step behind them.

    A claim without a handle may have been sent by somebody who was killed, or whose answer was lost: the name tells.
    """
    if presence.handles is not None:
        return [handle for handle in presence.handles if handle.get("job_id")]
    if (plan := plan_of(presence)) is None:
        return []
    handles: list[Handle] = []
    for index in range(len(plan.arrays) + 1):
        recorded: list[Handle] = [*all_handles(presence.store, plan, index)]
        if not recorded and has_claim(presence.store, plan, index):
            recorded = list(_sent_unrecorded(presence, plan, index))
        handles += [handle for handle in recorded if handle.get("job_id")]
    return handles


def check_region(clients: Clients, handles: Iterable[Handle]) -> None:
    """Refuse to look for requests where they are not: they would seem to have ended.

    Raises:
        UsageError: they were sent to another region.
    """
    there = next((str(handle["region"]) for handle in handles if handle.get("region")), clients.region)
    if there != clients.region:
        raise UsageError(
            f"The run was sent to {there}, and your AWS settings say {clients.region}. Type "
            f"`export AWS_REGION={there}`, then the same command."
        )


def _sent_unrecorded(presence: Presence, plan: RoundPlan, index: int) -> Iterator[Handle]:
    world = open_world(presence.settings.stack)
    name = round_name(plan, f"a{index}" if index < len(plan.arrays) else "reduce")
    if (job_id := find(world.clients, world.stack.queue_arn, name)) is not None:
        yield {"name": name, "job_id": job_id, "log_group": world.stack.log_group_name}


def notes_on(clients: Clients, detail: Mapping[str, Any], seen: RequestSeen, run_id: str) -> Iterator[str]:
    """Yield what a person should know of a request: that it is stuck, or that tasks of it failed."""
    if seen.state is RequestState.WAITING:
        reason = waiting_reason(clients, detail)
        if reason is not None and reason.kind not in _OF_AN_EARLIER_TRY:
            yield f"{seen.name} waits: {reasons.advise(reason, run_id)}"
    failed = seen.counts.get(RequestState.FAILED, 0)
    if failed and not (detail.get("dependsOn") and _reason_kind(detail) == "dependency"):
        of = sum(seen.counts.values())
        told = "; ".join(_told(_failed(clients, detail), run_id))
        yield f"{failed:,} of {of:,} in {seen.name} failed: {told}" if of > 1 else f"{seen.name} failed: {told}"


def waiting_reason(clients: Clients, detail: Mapping[str, Any]) -> reasons.Reason | None:
    """Return why a request waits; where an array's parent does not say, its first waiting child may."""
    if (own := reasons.decode(str(detail.get("statusReason") or ""))) is not None:
        return own
    if not detail.get("arrayProperties", {}).get("statusSummary", {}).get("RUNNABLE"):
        return None
    waiting = _children(clients, str(detail["jobId"]), "RUNNABLE", limit=1)
    return reasons.decode(str(waiting[0].get("statusReason") or "")) if waiting else None


def _reason_kind(detail: Mapping[str, Any]) -> str | None:
    reason = reasons.reason_of(detail)
    return None if reason is None else reason.kind


def _failed(clients: Clients, detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the failed tasks of a request, a hundred at most: the request itself if it is no array."""
    if not detail.get("arrayProperties", {}).get("size"):
        return [detail]
    listed = {str(one["jobId"]): one for one in _children(clients, str(detail["jobId"]), "FAILED", limit=_LISTED)}
    return list((listed | describe(clients, list(listed))).values())  # only the details tell why a try never started


def _children(clients: Clients, parent: str, status: str, limit: int) -> list[Mapping[str, Any]]:
    with explained("Asking AWS Batch for tasks"):
        answer = clients.batch.list_jobs(arrayJobId=parent, jobStatus=status, maxResults=limit)  # type: ignore[arg-type]
    return list(answer["jobSummaryList"])


def _told(failed: Sequence[Mapping[str, Any]], run_id: str) -> list[str]:
    """Return each kind of failure once, with the number of tasks and an example."""
    found = [reasons.reason_of(child) for child in failed]
    known = [reason for reason in found if reason is not None]
    counts = Counter(reason.kind for reason in known)
    examples = {reason.kind: reason for reason in reversed(known)}
    told = [
        (f"{_tasks(number)}: " if len(failed) > 1 else "") + reasons.advise(examples[kind], run_id).rstrip(".")
        for kind, number in counts.most_common(_NAMED)
    ]
    return told or ["AWS Batch gives no reason"]


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number:,} tasks"


def _refusal(
    clients: Clients, failed: Sequence[Mapping[str, Any]], run_id: str, group: Callable[[], str]
) -> FoldfleetError | None:
    """Return what a task refused with, read from the end of its log."""
    child = next((c for c in failed if (c.get("container") or {}).get("exitCode") in _REFUSALS), None)
    if child is None:
        return None
    detail = describe(clients, [str(child["jobId"])]).get(str(child["jobId"]), {})
    stream = stream_of(detail)
    lines = [] if stream is None else read_stream(clients, group(), stream, _TAIL_LINES)
    if (refusal := refusal_in(lines)) is not None:
        return refusal
    code = int((child.get("container") or {})["exitCode"])
    said = f"; its log {stream} ends with: {lines[-1]}" if lines else ""
    return FoldfleetError.from_json(
        {"exit": code, "message": f"A task of {run_id} refused to work (exit code {code}){said}"}
    )
