"""An AWS Batch in this process: requests are kept, nothing runs, and a test says how each one stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from botocore.exceptions import ClientError, ConnectionClosedError

from jobspec.engine import current_engine, describe_engine
from submitter.backends.aws.request import Site
from submitter.backends.aws.shape import Shape
from submitter.backends.aws.world import World
from submitter.cloud.clients import Clients
from submitter.cloud.record import ImageRecord
from submitter.cloud.stack import Stack

ARN = "arn:aws:batch:us-east-1:123456789012"


def make_stack(store_url: str = "s3://bucket/foldfleet", **changes: Any) -> Stack:
    values: dict[str, Any] = {
        "name": "foldfleet",
        "region": "us-east-1",
        "account": "123456789012",
        "bucket_name": "bucket",
        "store_url": store_url,
        "store_prefix": "foldfleet",
        "repository_name": "foldfleet",
        "repository_uri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/foldfleet",
        "queue_arn": f"{ARN}:job-queue/foldfleet",
        "queue_name": "foldfleet",
        "spot_environment_arn": f"{ARN}:compute-environment/foldfleet-spot",
        "log_group_name": "/foldfleet",
        "max_vcpus": 64,
        "instance_types": ("m5", "c5", "r5"),
        "search_machine_arn": "arn:aws:states:us-east-1:123456789012:stateMachine:foldfleet-search",
        "dead_letters_arn": "arn:aws:sqs:us-east-1:123456789012:foldfleet-DeadLetters",
        "data_places": ("arn:aws:s3:::bucket/incoming/*",),
        "events": False,
        "spec_prefix": "incoming/",
    }
    roles = "task_role reducer_role planner_role execution_role instance_role"
    named = f"{roles} submitter_policy events_policy conclude_machine".split()
    values |= {f"{name}_arn": f"arn:aws:iam::123456789012:role/{name}" for name in named}
    return Stack(**(values | changes))


def make_record(**changes: Any) -> ImageRecord:
    digest = "sha256:" + "a" * 64
    values: dict[str, Any] = {
        "image": f"123456789012.dkr.ecr.us-east-1.amazonaws.com/foldfleet@{digest}",
        "tag": "foldfleet:0.1.0",
        "image_digest": digest,
        "platform": "linux/amd64",
        "pushed_at": 1.0,
        "stack": "foldfleet",
        "parts": describe_engine(),
        "definitions": {step: f"{ARN}:job-definition/foldfleet-{step}:3" for step in ("work", "reduce", "prepare")},
    }
    return ImageRecord(**(values | changes))


def make_site(store_url: str = "s3://bucket/foldfleet") -> Site:
    return Site(make_stack(store_url), make_record(), store_url, Shape(4, 7536, 16))


def refuse(code: str, status: int = 400, operation: str = "SubmitJob") -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}, "HostId": "", "RequestId": "", "RetryAttempts": 0}
    answer: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": metadata}
    return ClientError(answer, operation)


@dataclass
class FakeBatch:
    """Batch's client; ``faults`` come before requests (an exception) or after them (``"lost"``)."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    faults: list[Exception | str | None] = field(default_factory=list)
    children: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    on_describe: Callable[[], None] = lambda: None

    def submit_job(self, **call: Any) -> dict[str, Any]:
        self.calls.append("SubmitJob")
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        job_id = f"job-{len(self.sent)}"
        self.sent.append(call)
        size = call.get("arrayProperties", {}).get("size")
        array = {"arrayProperties": {"size": size, "statusSummary": {}}} if size else {}
        depends = {"dependsOn": call["dependsOn"]} if "dependsOn" in call else {}
        told = {"jobId": job_id, "jobName": call["jobName"], "status": "SUBMITTED", "createdAt": len(self.sent)}
        self.jobs[job_id] = {**told, **array, **depends, "parameters": call.get("parameters", {})}
        if fault == "lost":
            raise ConnectionClosedError(endpoint_url="https://batch")
        return {"jobId": job_id, "jobName": call["jobName"]}

    def describe_jobs(self, jobs: list[str]) -> dict[str, Any]:
        self.calls.append("DescribeJobs")
        assert len(jobs) <= 100
        self.on_describe()
        return {"jobs": [self.jobs[job_id] for job_id in jobs if job_id in self.jobs]}

    def list_jobs(self, **given: Any) -> dict[str, Any]:
        self.calls.append("ListJobs")
        return {"jobSummaryList": self.children.get((given["arrayJobId"], given["jobStatus"]), [])}

    def terminate_job(self, jobId: str, reason: str) -> dict[str, Any]:
        self.calls.append(f"TerminateJob {jobId}")
        self.jobs[jobId] |= {"status": "FAILED", "statusReason": reason}
        return {}

    def get_paginator(self, _operation: str) -> FakeBatch:
        return self

    def paginate(self, **given: Any) -> Iterator[dict[str, Any]]:
        self.calls.append("ListJobs")
        name = given["filters"][0]["values"][0].lower().rstrip("*")
        yield {"jobSummaryList": [job for job in self.jobs.values() if job["jobName"].lower().startswith(name)]}

    def describe_job_definitions(self, jobDefinitions: list[str]) -> dict[str, Any]:
        return {"jobDefinitions": [{"jobDefinitionArn": arn, "status": "ACTIVE"} for arn in jobDefinitions]}

    def batch_get_image(self, imageIds: list[dict[str, str]], **_: Any) -> dict[str, Any]:
        return {"images": [{"imageId": imageIds[0], "imageManifest": "{}"}]}


@dataclass
class FakeLogs:
    """CloudWatch Logs: lines by stream."""

    streams: dict[str, list[str]] = field(default_factory=dict)

    def get_log_events(self, *, logStreamName: str, **_: Any) -> dict[str, Any]:
        if logStreamName not in self.streams:
            raise refuse("ResourceNotFoundException", operation="GetLogEvents")
        return {"events": [{"message": line} for line in self.streams[logStreamName]]}


@dataclass
class FakeClients:
    """All clients; what no test needs is not there."""

    batch: FakeBatch = field(default_factory=FakeBatch)
    logs: FakeLogs = field(default_factory=FakeLogs)
    region: str = "us-east-1"
    account: str = "123456789012"

    @property
    def batch_once(self) -> FakeBatch:
        return self.batch

    @property
    def ecr(self) -> FakeBatch:
        return self.batch

    @property
    def typed(self) -> Clients:
        return cast("Clients", self)

    def world(self, stack: Stack | None = None) -> World:
        return World(self.typed, stack or make_stack())


def here() -> dict[str, str]:
    return current_engine("portable").packages
