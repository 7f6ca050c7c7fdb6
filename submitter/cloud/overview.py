"""`submit infra status`: what there is, what runs on it, and what its states mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from jobspec.errors import NotFoundError
from jobspec.stores.s3errors import code_of
from submitter.cloud.ailments import ANEW, decode
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.infra import check_ours
from submitter.cloud.stack import READY, Stack, check_stack_name, describe_stack, read_stack
from submitter.cloud.teardown import ACTIVE, Request, active_requests, definitions_of

if TYPE_CHECKING:
    from mypy_boto3_batch.type_defs import ComputeEnvironmentDetailTypeDef, JobDetailTypeDef

_DESCRIBED_A_CALL = 100
_RUNNING = ("STARTING", "RUNNING")


@dataclass(frozen=True)
class Environment:
    """A compute environment: ``desired`` vCPUs are those of hosts that Batch wants or has."""

    arn: str
    kind: str
    state: str
    status: str
    reason: str
    remedy: str
    desired: int
    maximum: int


@dataclass(frozen=True)
class Image:
    """An image of the repository; ``engine_ids`` are those whose job definitions start it."""

    digest: str
    tags: tuple[str, ...]
    pushed_at: str
    size_bytes: int
    engine_ids: tuple[str, ...]


@dataclass(frozen=True)
class Overview:
    """What a stack is made of and what it does."""

    name: str
    region: str
    account: str
    state: str
    reason: str
    stack: Stack | None
    queue: Mapping[str, str]
    environments: tuple[Environment, ...]
    images: tuple[Image, ...]
    active: Mapping[str, int]
    vcpus_in_use: int
    requests: tuple[Request, ...]

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


def look(clients: Clients, name: str) -> Overview:
    """Return what there is of a stack; costs about ten requests.

    Raises:
        NotFoundError: there is no such stack.
    """
    described = describe_stack(clients, check_stack_name(name))
    if described is None:
        raise NotFoundError(
            f"There is no stack {name!r} in {clients.region} of account {clients.account}. Make it with `submit infra "
            f"up{'' if name == 'foldfleet' else f' --stack {name}'}`."
        )
    check_ours(described, name)
    status = str(described["StackStatus"])
    stack = read_stack(described, clients.region) if status in READY else None
    requests = tuple(active_requests(clients, stack.queue_arn)) if stack else ()
    counts, vcpus = count_tasks(clients, requests)
    return Overview(
        name=name,
        region=clients.region,
        account=clients.account,
        state=status,
        reason=str(described.get("StackStatusReason", "")),
        stack=stack,
        queue=_queue(clients, stack) if stack else {},
        environments=tuple(_environments(clients, stack)) if stack else (),
        images=tuple(_images(clients, stack)) if stack else (),
        active=counts,
        vcpus_in_use=vcpus,
        requests=requests,
    )


def explain_reason(reason: str) -> str:
    """Return what to do about the reason that Batch gives for a compute environment's state, "" if nothing."""
    found = decode(reason)
    return "" if found is None else ": ".join(found)


def _queue(clients: Clients, stack: Stack) -> dict[str, str]:
    with explained("Reading the queue"):
        found = clients.batch.describe_job_queues(jobQueues=[stack.queue_arn])["jobQueues"]
    if not found:
        return {"name": stack.queue_name, "state": "MISSING", "status": "", "reason": "", "remedy": _MEND}
    queue = found[0]
    reason = queue.get("statusReason", "") or ""
    return {
        "name": queue["jobQueueName"],
        "state": queue["state"],
        "status": queue.get("status", ""),
        "reason": reason,
        "remedy": explain_reason(reason),
    }


_MEND = f"it was removed by hand: {ANEW}"


def _environments(clients: Clients, stack: Stack) -> Iterator[Environment]:
    with explained("Reading the compute environments"):
        answer = clients.batch.describe_compute_environments(computeEnvironments=list(stack.environments))
    found = {environment["computeEnvironmentArn"]: environment for environment in answer["computeEnvironments"]}
    for arn in stack.environments:
        kind = "spot" if arn == stack.spot_environment_arn else "on demand"
        if arn in found:
            yield _environment(found[arn], kind)
        else:
            yield Environment(arn, kind, "MISSING", "", "", _MEND, 0, 0)


def _environment(told: ComputeEnvironmentDetailTypeDef, kind: str) -> Environment:
    hosts: Mapping[str, Any] = told.get("computeResources", {})
    reason = told.get("statusReason", "") or ""
    return Environment(
        arn=told["computeEnvironmentArn"],
        kind=kind,
        state=told.get("state", ""),
        status=told.get("status", ""),
        reason=reason,
        remedy=explain_reason(reason),
        desired=int(hosts.get("desiredvCpus") or 0),
        maximum=int(hosts.get("maxvCpus") or 0),
    )


def _images(clients: Clients, stack: Stack) -> Iterator[Image]:
    from botocore.exceptions import ClientError

    engines: dict[str, list[str]] = {}
    for definition in definitions_of(clients, stack.name):
        engines.setdefault(definition.image.rpartition("@")[2], []).append(definition.engine_id)
    with explained("Listing the images"):
        try:
            for page in clients.ecr.get_paginator("describe_images").paginate(repositoryName=stack.repository_name):
                for image in page["imageDetails"]:
                    digest = image["imageDigest"]
                    yield Image(
                        digest=digest,
                        tags=tuple(image.get("imageTags", ())),
                        pushed_at=image["imagePushedAt"].isoformat() if "imagePushedAt" in image else "",
                        size_bytes=int(image.get("imageSizeInBytes") or 0),
                        engine_ids=tuple(sorted(set(engines.get(digest, ())))),
                    )
        except ClientError as error:
            if code_of(error) != "RepositoryNotFoundException":
                raise


def count_tasks(clients: Clients, requests: Sequence[Request]) -> tuple[dict[str, int], int]:
    """Return how many tasks are in each state, and how many vCPUs those have that run.

    An array's parent counts its children; it is one of them itself no more than its folder is a file.
    """
    counts: dict[str, int] = {state: 0 for state in ACTIVE}  # noqa: C420 - the keys are wider than the literals
    vcpus = 0
    for start in range(0, len(requests), _DESCRIBED_A_CALL):
        names = [request.request_id for request in requests[start : start + _DESCRIBED_A_CALL]]
        with explained("Reading what runs"):
            details = clients.batch.describe_jobs(jobs=names)["jobs"]
        for detail in details:
            found = _states(detail)
            for state in ACTIVE:
                counts[state] += found.get(state, 0)
            vcpus += _vcpus(detail) * sum(found.get(state, 0) for state in _RUNNING)
    return counts, vcpus


def _states(detail: JobDetailTypeDef) -> Mapping[str, int]:
    array = detail.get("arrayProperties", {})
    return array.get("statusSummary", {}) if array.get("size") else {detail["status"]: 1}


def _vcpus(detail: JobDetailTypeDef) -> int:
    needs = detail.get("container", {}).get("resourceRequirements", [])
    return next((int(float(need["value"])) for need in needs if need["type"] == "VCPU"), 0)
