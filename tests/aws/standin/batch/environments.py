"""Compute environments and queues: what moto leaves out, and their life in CloudFormation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from moto.batch.models import BatchBackend, ComputeEnvironment, JobQueue, batch_backends
from moto.batch.responses import BatchResponse
from moto.batch.utils import lowercase_first_key
from moto.cloudformation.exceptions import UnformattedGetAttTemplateException
from moto.iam.exceptions import NotFoundException
from moto.iam.models import SERVICE_NAME_CONVERSION

from .control import Control, queue_for
from .rules import Refused

Template = dict[str, Any]
"""A resource of a CloudFormation template."""

SERVICE_ROLE = "AWSServiceRoleForBatch"
# moto knows the spelling of three services' roles only.
SERVICE_NAME_CONVERSION.update({"batch": "Batch", "ecs": "ECS", "spot": "EC2Spot", "spotfleet": "EC2SpotFleet"})
MAX_ENVIRONMENTS = 3
REASONS = {
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY",
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE",
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
    "MISCONFIGURATION:EC2_INSTANCE_CONFIGURATION_UNSUPPORTED",
}
"""What ``jobStateTimeLimitActions`` may name."""


def service_role_of(backend: BatchBackend, wanted: str | None) -> str:
    """Give the service role; without one the service uses its own, and makes it when it is new."""
    if wanted:
        return wanted
    iam = backend.iam_backend
    try:
        return iam.get_role(SERVICE_ROLE).arn
    except NotFoundException:
        return iam.create_service_linked_role("batch.amazonaws.com", "", "").arn


def create_environment(backend: BatchBackend, body: Mapping[str, Any]) -> ComputeEnvironment:
    """Create a compute environment."""
    resources = dict(body.get("computeResources") or {})
    check_resources(resources, body.get("type"))
    # moto asks for what the service defaults.
    resources.setdefault("minvCpus", 0)
    return backend.create_compute_environment(
        compute_environment_name=body.get("computeEnvironmentName") or "",
        _type=body.get("type") or "",
        state=body.get("state") or "ENABLED",
        compute_resources=resources,
        service_role=service_role_of(backend, body.get("serviceRole")),
        tags=body.get("tags"),
    )


def check_resources(resources: Mapping[str, Any], kind: str | None) -> None:
    """Check what moto does not look at."""
    if kind != "MANAGED":
        return
    price = resources.get("bidPercentage")
    if price is not None and (resources.get("type") != "SPOT" or not 0 < int(price) <= 100):
        raise Refused(f"bidPercentage {price} must be between 1 and 100, and the type SPOT.")
    strategy = resources.get("allocationStrategy", "BEST_FIT")
    known = {"BEST_FIT", "BEST_FIT_PROGRESSIVE", "SPOT_CAPACITY_OPTIMIZED", "SPOT_PRICE_CAPACITY_OPTIMIZED"}
    if strategy not in known:
        raise Refused(f"allocationStrategy {strategy} must be one of {', '.join(sorted(known))}.")
    if strategy.startswith("SPOT_") and resources.get("type") != "SPOT":
        raise Refused(f"allocationStrategy {strategy} is for the type SPOT only.")
    if strategy == "BEST_FIT" and resources.get("type") == "SPOT" and not resources.get("spotIamFleetRole"):
        raise Refused("spotIamFleetRole is required for the type SPOT with the allocationStrategy BEST_FIT.")


def update_environment(backend: BatchBackend, body: Mapping[str, Any]) -> ComputeEnvironment:
    """Update state and resources."""
    entry = backend.get_compute_environment(body.get("computeEnvironment") or "")
    if entry is None:
        raise Refused(f"ComputeEnvironment {body.get('computeEnvironment')} does not exist.")
    backend.update_compute_environment(entry.name, body.get("state"), None, body.get("serviceRole"))
    changes = dict(body.get("computeResources") or {})
    check_resources({**(entry.compute_resources or {}), **changes}, entry.env_type)
    entry.compute_resources = {**(entry.compute_resources or {}), **changes}
    return entry


def delete_environment(backend: BatchBackend, wanted: str) -> None:
    """Delete an environment that is DISABLED and belongs to no queue."""
    entry = backend.get_compute_environment(wanted)
    if entry is None:
        return
    users = [queue.name for queue in backend._job_queues.values() if entry in queue.environments]
    if users:
        raise Refused(f"Cannot delete, found existing JobQueue relationship: {', '.join(users)}.")
    if entry.state != "DISABLED":
        raise Refused("Cannot delete, compute environment must be disabled first.")
    backend.delete_compute_environment(entry.arn)


def check_limits(limits: Any) -> list[dict[str, Any]]:
    """Check ``jobStateTimeLimitActions``."""
    checked = [dict(limit) for limit in limits or ()]
    for limit in checked:
        if limit.get("reason") not in REASONS:
            raise Refused(f"jobStateTimeLimitActions reason {limit.get('reason')} is not supported.")
        if limit.get("state") != "RUNNABLE" or limit.get("action") not in {"CANCEL", "TERMINATE"}:
            raise Refused("jobStateTimeLimitActions takes the state RUNNABLE and the action CANCEL.")
        limit["maxTimeSeconds"] = int(limit.get("maxTimeSeconds") or 0)
        if not 600 <= limit["maxTimeSeconds"] <= 86_400:
            raise Refused("jobStateTimeLimitActions maxTimeSeconds must be between 600 and 86400.")
    return checked


def check_order(order: Any) -> None:
    """Check the number of environments of a queue."""
    if order is not None and not 1 <= len(order) <= MAX_ENVIRONMENTS:
        raise Refused(f"A job queue has 1 to {MAX_ENVIRONMENTS} compute environments, not {len(order)}.")


def create_queue(backend: BatchBackend, body: Mapping[str, Any]) -> JobQueue:
    """Create a queue."""
    limits = check_limits(body.get("jobStateTimeLimitActions"))
    check_order(body.get("computeEnvironmentOrder"))
    queue = backend.create_job_queue(
        queue_name=body.get("jobQueueName") or "",
        priority=body.get("priority"),  # type: ignore[arg-type]
        schedule_policy=body.get("schedulingPolicyArn"),
        state=body.get("state") or "ENABLED",
        compute_env_order=body.get("computeEnvironmentOrder") or [],
        tags=body.get("tags"),
    )
    queue.time_limits = limits  # type: ignore[attr-defined]
    return queue


def update_queue(backend: BatchBackend, body: Mapping[str, Any]) -> JobQueue:
    """Update a queue."""
    queue = queue_for(backend, body.get("jobQueue"))
    check_order(body.get("computeEnvironmentOrder"))
    backend.update_job_queue(
        queue.arn,
        body.get("priority"),
        body.get("state"),
        body.get("computeEnvironmentOrder"),
        body.get("schedulingPolicyArn"),
    )
    if body.get("jobStateTimeLimitActions") is not None:
        queue.time_limits = check_limits(body["jobStateTimeLimitActions"])  # type: ignore[attr-defined]
    return queue


def delete_queue(control: Control, backend: BatchBackend, wanted: str) -> None:
    """Delete a queue that is DISABLED; its jobs are terminated."""
    queue = backend.get_job_queue(wanted)
    if queue is None:
        return
    if queue.state != "DISABLED":
        raise Refused(f"Cannot delete, the job queue {queue.name} must be disabled first.")
    engine = control.engine(backend)
    for job in engine.by_queue.get(queue.arn, ()):
        engine.terminate(job.job_id, "Job queue deleted")
    backend.delete_job_queue(queue.arn)


def describe_environments(control: Control, backend: BatchBackend, wanted: Any) -> list[dict[str, Any]]:
    """Describe environments, with the vCPUs that are up."""
    fleet = control.engine(backend).fleet
    shown = backend.describe_compute_environments(wanted)
    for entry in shown:
        if "computeResources" in entry:
            used = fleet.used_vcpus(entry["computeEnvironmentName"])
            entry["computeResources"] = {**entry["computeResources"], "desiredvCpus": used}
            entry["containerOrchestrationType"] = "ECS"
    return shown


def describe_queues(backend: BatchBackend, wanted: Any) -> list[dict[str, Any]]:
    """Describe queues, with their time limits."""
    shown = backend.describe_job_queues(wanted)
    for entry in shown:
        entry["jobStateTimeLimitActions"] = getattr(queue_for(backend, entry["jobQueueArn"]), "time_limits", [])
        entry["statusReason"] = "JobQueue Healthy"
    return shown


def environment_handlers(control: Control) -> dict[str, Any]:
    """Give the calls about environments and queues, by the names under which moto finds them."""

    def body_of(response: BatchResponse) -> dict[str, Any]:
        return dict(json.loads(response.body or "{}"))

    def create(response: BatchResponse) -> str:
        entry = create_environment(response.batch_backend, body_of(response))
        return json.dumps({"computeEnvironmentName": entry.name, "computeEnvironmentArn": entry.arn})

    def update(response: BatchResponse) -> str:
        entry = update_environment(response.batch_backend, body_of(response))
        return json.dumps({"computeEnvironmentName": entry.name, "computeEnvironmentArn": entry.arn})

    def delete(response: BatchResponse) -> str:
        delete_environment(response.batch_backend, body_of(response).get("computeEnvironment") or "")
        return "{}"

    def describe(response: BatchResponse) -> str:
        wanted = body_of(response).get("computeEnvironments")
        return json.dumps({"computeEnvironments": describe_environments(control, response.batch_backend, wanted)})

    def create_jobs_queue(response: BatchResponse) -> str:
        queue = create_queue(response.batch_backend, body_of(response))
        return json.dumps({"jobQueueName": queue.name, "jobQueueArn": queue.arn})

    def update_jobs_queue(response: BatchResponse) -> str:
        queue = update_queue(response.batch_backend, body_of(response))
        return json.dumps({"jobQueueName": queue.name, "jobQueueArn": queue.arn})

    def delete_jobs_queue(response: BatchResponse) -> str:
        delete_queue(control, response.batch_backend, body_of(response).get("jobQueue") or "")
        return "{}"

    def describe_jobs_queues(response: BatchResponse) -> str:
        return json.dumps({"jobQueues": describe_queues(response.batch_backend, body_of(response).get("jobQueues"))})

    return {
        "createcomputeenvironment": create,
        "updatecomputeenvironment": update,
        "deletecomputeenvironment": delete,
        "describecomputeenvironments": describe,
        "createjobqueue": create_jobs_queue,
        "updatejobqueue": update_jobs_queue,
        "deletejobqueue": delete_jobs_queue,
        "describejobqueues": describe_jobs_queues,
    }


def lowered(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Give CloudFormation's properties under the names of the API; tags keep theirs."""
    shown = lowercase_first_key({key: value for key, value in properties.items() if key != "Tags"})
    resources = properties.get("ComputeResources")
    if resources and "Tags" in resources:
        shown["computeResources"]["tags"] = dict(resources["Tags"])
    if properties.get("Tags"):
        shown["tags"] = dict(properties["Tags"])
    return shown


def resource_methods(control: Control) -> dict[type, dict[str, Any]]:
    """Give the methods through which moto's CloudFormation makes, changes and deletes these resources.

    They take moto's own arguments: a name or a resource, the template's JSON, account, region.
    """

    def create_ce(name: str, template: Template, account: str, region: str) -> ComputeEnvironment:
        body = {"computeEnvironmentName": name, **lowered(template["Properties"])}
        return create_environment(batch_backends[account][region], body)

    def update_ce(known: Any, template: Template, account: str, region: str) -> ComputeEnvironment:
        body = {**lowered(template["Properties"]), "computeEnvironment": known.arn}
        return update_environment(batch_backends[account][region], body)

    def delete_ce(name: str, template: Template, account: str, region: str) -> None:
        entry = batch_backends[account][region].get_compute_environment(name)
        if entry is not None:
            # CloudFormation disables what it deletes.
            entry.state = "DISABLED"
            delete_environment(batch_backends[account][region], entry.arn)

    def create_jq(name: str, template: Template, account: str, region: str) -> JobQueue:
        return create_queue(batch_backends[account][region], {"jobQueueName": name, **lowered(template["Properties"])})

    def update_jq(known: Any, template: Template, account: str, region: str) -> JobQueue:
        return update_queue(batch_backends[account][region], {**lowered(template["Properties"]), "jobQueue": known.arn})

    def delete_jq(name: str, template: Template, account: str, region: str) -> None:
        queue = batch_backends[account][region].get_job_queue(name)
        if queue is not None:
            queue.state = "DISABLED"
            delete_queue(control, batch_backends[account][region], queue.arn)

    return {
        ComputeEnvironment: methods_of("ComputeEnvironmentArn", create_ce, update_ce, delete_ce),
        JobQueue: methods_of("JobQueueArn", create_jq, update_jq, delete_jq),
    }


def methods_of(
    attribute: str,
    create: Callable[[str, Template, str, str], Any],
    update: Callable[[Any, Template, str, str], Any],
    delete: Callable[[str, Template, str, str], None],
) -> dict[str, Any]:
    """Give the five methods moto's CloudFormation looks for, with its names for their arguments."""

    def made(
        cls: Any, /, resource_name: str, cloudformation_json: Template, account_id: str, region_name: str, **_: Any
    ) -> Any:
        return create(resource_name, cloudformation_json, account_id, region_name)

    def changed(
        cls: Any,
        /,
        original_resource: Any,
        new_resource_name: str,
        cloudformation_json: Template,
        account_id: str,
        region_name: str,
    ) -> Any:
        return update(original_resource, cloudformation_json, account_id, region_name)

    def deleted(
        cls: Any, /, resource_name: str, cloudformation_json: Template, account_id: str, region_name: str
    ) -> None:
        delete(resource_name, cloudformation_json, account_id, region_name)

    def has(cls: Any, /, name: str) -> bool:
        return name == attribute

    def get(self: Any, name: str) -> str:
        if name != attribute:
            raise UnformattedGetAttTemplateException
        return str(self.arn)

    return {
        "create_from_cloudformation_json": classmethod(made),
        "update_from_cloudformation_json": classmethod(changed),
        "delete_from_cloudformation_json": classmethod(deleted),
        "has_cfn_attr": classmethod(has),
        "get_cfn_attribute": get,
    }
