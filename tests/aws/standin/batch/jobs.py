"""Jobs as the stand-in keeps them, and the forms in which the service shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .rules import Retries

if TYPE_CHECKING:
    from .hosts import Host

SUBMITTED: Final = "SUBMITTED"
PENDING: Final = "PENDING"
RUNNABLE: Final = "RUNNABLE"
STARTING: Final = "STARTING"
RUNNING: Final = "RUNNING"
SUCCEEDED: Final = "SUCCEEDED"
FAILED: Final = "FAILED"
STATES: Final = (STARTING, FAILED, RUNNING, SUCCEEDED, RUNNABLE, SUBMITTED, PENDING)
BEFORE_STARTING: Final = frozenset({SUBMITTED, PENDING, RUNNABLE})
ENDED: Final = frozenset({SUCCEEDED, FAILED})


@dataclass(frozen=True, eq=False)
class Request:
    """What a job and all children of an array share: the submission, merged with its definition.

    Attributes:
        container: The definition's container properties with the overrides applied; ``command`` is substituted.
        environment: Variables of the definition and the overrides.
        propagated: Tags of the definition and the job that the task gets.
        doomed: Why the job will fail at its start, though the service took it.
    """

    name: str
    queue_arn: str
    definition_arn: str
    definition_name: str
    revision: int
    container: Mapping[str, Any]
    environment: Mapping[str, str]
    vcpus: int
    memory_mib: int
    parameters: Mapping[str, str]
    retries: Retries
    retry_strategy: Mapping[str, Any]
    timeout_s: int | None
    depends_on: tuple[Mapping[str, str], ...]
    tags: Mapping[str, str]
    propagate_tags: bool
    propagated: Mapping[str, str]
    platform_capabilities: tuple[str, ...]
    region: str
    account: str
    doomed: str | None = None


@dataclass(eq=False)
class Attempt:
    """One task on one host; ``number`` counts from 1."""

    number: int
    host: Host
    task_id: str
    task_arn: str
    log_stream: str
    running: bool = False
    stopping: str | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    exit_code: int | None = None
    reason: str | None = None
    status_reason: str | None = None

    def describe(self) -> dict[str, Any]:
        """Give the service's AttemptDetail."""
        container = without_nones(
            {
                "containerInstanceArn": self.host.arn,
                "taskArn": self.task_arn,
                "exitCode": self.exit_code,
                "reason": self.reason,
                "logStreamName": self.log_stream if self.started_at is not None else None,
            }
        ) | {"networkInterfaces": []}
        return {"container": container} | without_nones(
            {
                "startedAt": self.started_at,
                "stoppedAt": self.stopped_at,
                "statusReason": self.status_reason,
            }
        )


@dataclass(eq=False)
class Job:
    """A plain job, an array parent (``children`` is not None) or a child (``parent`` is not None)."""

    job_id: str
    request: Request
    created_at: int
    sequence: int
    status: str = SUBMITTED
    status_reason: str | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    current: Attempt | None = None
    parent: Job | None = None
    index: int | None = None
    children: list[Job] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    counted_at: int = 0
    waiting_for: set[str] = field(default_factory=set)
    dependency_failed: bool = False
    cancel_reason: str | None = None
    is_cancelled: bool = False
    is_terminated: bool = False

    @property
    def arn(self) -> str:
        """The job's ARN."""
        request = self.request
        return f"arn:aws:batch:{request.region}:{request.account}:job/{self.job_id}"

    @property
    def ended(self) -> bool:
        """Tell whether the job is in a terminal state."""
        return self.status in ENDED

    def array_detail(self) -> dict[str, Any] | None:
        """Give ArrayPropertiesDetail; None for a plain job."""
        if self.children is not None:
            summary = {state: self.counts[state] for state in STATES}
            return {
                "statusSummary": summary,
                "statusSummaryLastUpdatedAt": self.counted_at,
                "size": len(self.children),
            }
        if self.index is not None:
            return {"statusSummary": {}, "index": self.index}
        return None

    def summary(self) -> dict[str, Any]:
        """Give the service's JobSummary, as ListJobs shows it."""
        shown = self.common()
        shown.pop("jobQueue")
        array = self.array_detail()
        if array is not None:
            shown["arrayProperties"] = {key: array[key] for key in ("size", "index") if key in array}
        last = self.attempts[-1] if self.attempts else None
        if last is not None and last.exit_code is not None:
            shown["container"] = without_nones({"exitCode": last.exit_code, "reason": last.reason})
        return shown

    def common(self) -> dict[str, Any]:
        """Give what summaries and details share."""
        return {
            "jobArn": self.arn,
            "jobId": self.job_id,
            "jobName": self.request.name,
            "jobQueue": self.request.queue_arn,
            "status": self.status,
            "createdAt": self.created_at,
            "jobDefinition": self.request.definition_arn,
        } | without_nones(
            {
                "statusReason": self.status_reason,
                "startedAt": self.started_at,
                "stoppedAt": self.stopped_at,
                "isCancelled": self.is_cancelled or None,
                "isTerminated": self.is_terminated or None,
            }
        )

    def detail(self) -> dict[str, Any]:
        """Give the service's JobDetail: what DescribeJobs shows and events carry."""
        request = self.request
        shown = self.common() | {
            "attempts": [attempt.describe() for attempt in self.attempts if attempt is not self.current],
            "retryStrategy": request.retry_strategy,
            "dependsOn": [dict(dependency) for dependency in request.depends_on],
            "parameters": dict(request.parameters),
            "container": self.container(),
            "tags": {"resourceArn": self.arn, **request.tags},
            "propagateTags": request.propagate_tags,
            "platformCapabilities": list(request.platform_capabilities),
        }
        if request.timeout_s is not None:
            shown["timeout"] = {"attemptDurationSeconds": request.timeout_s}
        array = self.array_detail()
        if array is not None:
            shown["arrayProperties"] = array
        return shown

    def container(self) -> dict[str, Any]:
        """Give the service's ContainerDetail of the newest attempt."""
        shown = dict(self.request.container)
        last = self.attempts[-1] if self.attempts else None
        if last is None:
            return shown
        newest: dict[str, Any] = last.describe()["container"]
        return shown | newest


def batch_variables(job: Job, attempt: Attempt) -> dict[str, str]:
    """Give the variables that Batch itself sets in a container.

    An array's child is told its index and nobody is told the size.
    """
    variables = {
        "AWS_BATCH_JOB_ID": job.job_id,
        "AWS_BATCH_JQ_NAME": job.request.queue_arn.rpartition("/")[2],
        "AWS_BATCH_CE_NAME": attempt.host.environment,
        "AWS_BATCH_JOB_ATTEMPT": str(attempt.number),
    }
    if job.index is not None:
        variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(job.index)
    return variables


def pairs(variables: Mapping[str, str]) -> list[dict[str, str]]:
    """Give variables in the service's form."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def without_nones(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not known: the service has no nulls."""
    return {key: value for key, value in values.items() if value is not None}


def event_of(job: Job, event_id: str, time_text: str) -> dict[str, Any]:
    """Give the EventBridge event of a job's present state."""
    return {
        "version": "0",
        "id": event_id,
        "detail-type": "Batch Job State Change",
        "source": "aws.batch",
        "account": job.request.account,
        "time": time_text,
        "region": job.request.region,
        "resources": [job.arn],
        "detail": job.detail(),
    }
