"""Checks of a stack: its queue, its compute environments, its images, and what waits in vain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from jobspec.engine import current_engine
from jobspec.errors import ExitCode, NotFoundError, UsageError
from jobspec.stores.base import Store
from submitter.backends.aws.presence import waiting_reason
from submitter.backends.aws.reasons import DOCTOR, Reason
from submitter.cloud.ailments import ANEW, decode
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.record import ImageRecord, list_records
from submitter.cloud.registry import check_pushed
from submitter.cloud.stack import Stack, find_stack
from submitter.doctor.findings import Finding, ok, warning, wrong

DEFAULT_MAX_VCPUS = 64
"""The ceiling of a stack that is not made yet."""

_NUM_OLD_IMAGES = 10
_NUM_LISTED, _NUM_DESCRIBED = 100, 100
_SECONDS_PER_MINUTE = 60.0

PATIENCE_SECONDS = 1800
"""A host usually comes within minutes; a request that waits longer without a reason deserves a look."""

_SETTLED = ("VALID",)
_CHANGING = ("CREATING", "UPDATING", "DELETING")


def find(clients: Clients, name: str) -> Stack:
    """Return the stack, refusing one that is absent, broken or being changed."""
    return find_stack(clients, name)


def tell(stack: Stack) -> Finding:
    """Say which stack it is."""
    types = ", ".join(stack.instance_types)
    return ok("stack", f"{stack.name} in {stack.region} of {stack.account}: up to {stack.max_vcpus} vCPUs of {types}")


def check_queue(clients: Clients, stack: Stack) -> Iterator[Finding]:
    """Look whether the queue takes requests; one request."""
    with explained("Looking at the queue"):
        found = clients.batch.describe_job_queues(jobQueues=[stack.queue_arn])["jobQueues"]
    if not found:
        yield wrong("queue", f"the queue {stack.queue_name} is gone", ANEW, ExitCode.NOT_FOUND)
        return
    enable = f"`aws batch update-job-queue --job-queue {stack.queue_name} --state ENABLED`"
    yield _judge("queue", f"the queue {stack.queue_name}", found[0], enable)


def check_environments(clients: Clients, stack: Stack) -> Iterator[Finding]:
    """Look whether the compute environments start hosts, and decode why not; one request."""
    with explained("Looking at the compute environments"):
        answer = clients.batch.describe_compute_environments(computeEnvironments=list(stack.environments))
    found = {entry["computeEnvironmentArn"]: entry for entry in answer["computeEnvironments"]}
    for arn in stack.environments:
        name = arn.rpartition("/")[2]
        if arn not in found:
            text = f"the compute environment {name} is gone"
            yield wrong("environments", text, ANEW, ExitCode.NOT_FOUND)
            continue
        entry: Mapping[str, Any] = found[arn]
        resources = entry.get("computeResources", {})
        use = f" ({resources.get('desiredvCpus', 0)} of {resources.get('maxvCpus', 0)} vCPUs in use)"
        enable = f"`aws batch update-compute-environment --compute-environment {name} --state ENABLED`"
        yield _judge("environments", f"the compute environment {name}", entry, enable, use)


def check_images(clients: Clients, stack: Stack, store: Store) -> Iterator[Finding]:
    """Compare the records with the registry and the job definitions; two requests for each of the newest."""
    from importlib.metadata import version

    known = list_records(store, stack.name)
    current = [record for record in known if record.parts.foldfleet == version("foldfleet")]
    if not current:
        there = f"only of foldfleet {known[0].parts.foldfleet}" if known else "none yet"
        remedy = "`submit image push`, after `submit image build` if there is none of this version"
        yield wrong("images", f"images that were pushed: {there}", remedy, ExitCode.NOT_FOUND)
        return
    newest, *older = current
    try:
        check_pushed(clients, stack, newest)
    except (NotFoundError, UsageError) as error:
        text, _, remedy = error.message.partition(". ")
        yield wrong("images", text, remedy, error.exit_code)
    else:
        yield ok("images", f"{newest.tag} ({newest.engine_id}) is in the registry, with its job definitions")
        yield from _check_versions(newest)
    gone = sorted({record.tag for record in older[:_NUM_OLD_IMAGES] if _is_gone(clients, stack, record, newest)})
    if gone:
        text = f"older images are no longer there ({', '.join(gone)}): runs that began in them cannot be resumed"
        yield warning("images", text, "`submit run SPEC` begins anew in the newest image, and reuses what it can.")


def check_waiting(clients: Clients, stack: Stack, now: Callable[[], float]) -> Iterator[Finding]:
    """Say why requests of the queue wait; a few requests, whatever the number of tasks."""
    waiting = _waiting(clients, stack)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    reasons: dict[str, Reason] = {}
    quiet: list[Mapping[str, Any]] = []
    for detail in waiting:
        reason = waiting_reason(clients, detail)
        if reason is None:
            quiet.append(detail)
        else:
            groups.setdefault(reason.kind, []).append(detail)
            reasons[reason.kind] = reason
    for kind, details in groups.items():
        reason = reasons[kind]
        run_id = str(details[0].get("parameters", {}).get("run", "RUN"))
        remedy = reason.remedy.replace(DOCTOR, "See what else is wrong in this list.").replace("{run}", run_id)
        yield warning("waiting", f"{_count(details)}: {reason.text}", remedy)
    late = [one for one in quiet if now() - one.get("createdAt", 0) / 1000 > PATIENCE_SECONDS]
    if late:
        minutes = PATIENCE_SECONDS / _SECONDS_PER_MINUTE
        text = f"{_count(late)} for more than {minutes:.0f} minutes, and AWS Batch does not say why"
        yield warning("waiting", text, "`submit infra status` shows the vCPUs in use: other requests may come first.")
    if not groups and not late:
        yield ok("waiting", f"{_count(quiet)} for a host, as they do for some minutes" if quiet else "no request waits")


def decode_invalid(reason: str) -> tuple[str, str]:
    """Return what a compute environment's status reason means, and what to do."""
    found = decode(reason)
    if found is None:
        return reason or "AWS Batch does not say why", f"Wait some minutes. If it stays so: {ANEW}"
    text, remedy = found
    return f"{text} ({reason})", remedy


def _judge(check: str, what: str, entry: Mapping[str, Any], enable: str, use: str = "") -> Finding:
    status, state = str(entry.get("status")), str(entry.get("state"))
    if status in _CHANGING:
        return warning(check, f"{what} is being changed ({status})", "Wait a minute, then type the same command again.")
    if status not in _SETTLED:
        text, remedy = decode_invalid(str(entry.get("statusReason") or ""))
        return wrong(check, f"{what} is {status}: {text}", remedy, ExitCode.NOT_FOUND)
    if state != "ENABLED":
        return wrong(check, f"{what} is {state}: nothing is started", enable, ExitCode.NOT_FOUND)
    return ok(check, f"{what} is ENABLED and VALID{use}")


def _is_gone(clients: Clients, stack: Stack, record: ImageRecord, newest: ImageRecord) -> bool:
    if record.image == newest.image:
        return False
    try:
        check_pushed(clients, stack, record)
    except (NotFoundError, UsageError):
        return True
    return False


def _check_versions(newest: ImageRecord) -> Iterator[Finding]:
    here = current_engine("portable").packages
    others = [
        f"{name} {n} there, {here[name]} here" for name, n in newest.parts.packages.items() if here.get(name) != n
    ]
    if others:
        text = f"the image computes with other versions than this machine ({'; '.join(others)}), which therefore cannot"
        remedy = "`submit image build`, then `submit image push`; or keep the data in the stack's bucket."
        yield warning("versions", f"{text} prepare data that only it sees", remedy)


def _waiting(clients: Clients, stack: Stack) -> list[Mapping[str, Any]]:
    """Return the requests that wait for a host; an array's parent is PENDING until its children are done."""
    found: list[str] = []
    statuses: tuple[Literal["RUNNABLE", "PENDING"], ...] = ("RUNNABLE", "PENDING")
    for status in statuses:
        with explained("Asking AWS Batch for requests"):
            answer = clients.batch.list_jobs(
                jobQueue=stack.queue_arn,
                jobStatus=status,
                maxResults=_NUM_LISTED,
            )
        found += [summary["jobId"] for summary in answer["jobSummaryList"]]
    if not found:
        return []
    with explained("Asking AWS Batch for requests"):
        details = clients.batch.describe_jobs(jobs=found[:_NUM_DESCRIBED])["jobs"]
    return [detail for detail in details if _is_waiting(detail)]


def _is_waiting(detail: Mapping[str, Any]) -> bool:
    if detail.get("status") == "RUNNABLE":
        return True
    counts = detail.get("arrayProperties", {}).get("statusSummary") or {}
    return bool(counts.get("RUNNABLE")) and not counts.get("STARTING") and not counts.get("RUNNING")


def _count(details: list[Mapping[str, Any]]) -> str:
    return "1 request waits" if len(details) == 1 else f"{len(details)} requests wait"
