"""Batch's API calls over the engine, in the place of moto's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend, JobDefinition
from moto.batch.responses import BatchResponse

from .control import Control, queue_for
from .listing import describe_jobs, list_jobs
from .requests import Definition, build_request, find_definition
from .rules import MAX_DESCRIBED, Refused, check_definition, check_reason, check_submission

Handler = Callable[[BatchResponse], str]


def body_of(response: BatchResponse) -> dict[str, Any]:
    """Give a call's JSON body."""
    text = response.body
    return dict(json.loads(text)) if text else {}


def explained(handler: Handler) -> Handler:
    """Answer a refusal as a ClientException."""

    def handle(response: BatchResponse) -> str:
        try:
            return handler(response)
        except Refused as error:
            raise ClientException(str(error)) from error

    return handle


def handlers(control: Control) -> dict[str, Handler]:
    """Give the calls about jobs, by the names under which moto finds them."""

    def submit(response: BatchResponse) -> str:
        backend, body = response.batch_backend, body_of(response)
        check_submission(body, len(str(response.body).encode()))
        queue = queue_for(backend, body.get("jobQueue"))
        if queue.state != "ENABLED":
            raise Refused(f"JobQueue {queue.name} is {queue.state}: it takes no jobs.")
        definition = find_definition(body.get("jobDefinition") or "", definitions_of(backend))
        request = build_request(
            body, definition, queue_arn=queue.arn, region=backend.region_name, account=backend.account_id
        )
        size = (body.get("arrayProperties") or {}).get("size")
        job = control.engine(backend).submit(request, None if size is None else int(size))
        if request.tags:
            backend.tag_resource(job.arn, dict(request.tags))
        return json.dumps({"jobId": job.job_id, "jobName": request.name, "jobArn": job.arn})

    def describe(response: BatchResponse) -> str:
        return json.dumps(
            {"jobs": describe_jobs(control.engine(response.batch_backend), body_of(response).get("jobs"))}
        )

    def listing(response: BatchResponse) -> str:
        backend, body = response.batch_backend, body_of(response)
        queue_arn = queue_for(backend, body["jobQueue"]).arn if body.get("jobQueue") else None
        return json.dumps(list_jobs(control.engine(backend), body, queue_arn))

    def cancel(response: BatchResponse) -> str:
        control.engine(response.batch_backend).cancel(*check_reason(body_of(response)))
        return "{}"

    def terminate(response: BatchResponse) -> str:
        control.engine(response.batch_backend).terminate(*check_reason(body_of(response)))
        return "{}"

    calls = {
        "submitjob": submit,
        "describejobs": describe,
        "listjobs": listing,
        "canceljob": cancel,
        "terminatejob": terminate,
        "registerjobdefinition": register,
        "describejobdefinitions": describe_definitions,
        "deregisterjobdefinition": deregister,
    }
    return {name: explained(handler) for name, handler in calls.items()}


def definitions_of(backend: BatchBackend) -> list[Definition]:
    """Give the active definitions."""
    return [
        Definition(
            name=entry.name,
            revision=int(entry.revision),
            arn=entry.arn,
            container=entry.container_properties or {},
            parameters=entry.parameters,
            retry_strategy=entry.retry_strategy,
            timeout=entry.timeout,
            tags=backend.tagger.get_tag_dict_for_resource(entry.arn),
            propagate_tags=bool(entry.propagate_tags),
            platform_capabilities=tuple(entry.platform_capabilities or ()),
        )
        for entry in backend._job_definitions.values()
        if entry.status == "ACTIVE"
    ]


def register(response: BatchResponse) -> str:
    """Register a revision: one more than the newest, though that be inactive; nothing of it is taken over."""
    backend, body = response.batch_backend, body_of(response)
    check_definition(body, len(str(response.body).encode()))
    name = body["jobDefinitionName"]
    newest = backend.get_job_definition_by_name(name)
    strategy = body.get("retryStrategy")
    if strategy:
        # The service gives actions back in small letters, however they were written.
        for rule in strategy.get("evaluateOnExit") or ():
            rule["action"] = rule["action"].lower()
    definition = JobDefinition(  # type: ignore[abstract] # moto makes it like this too
        name,
        body.get("parameters") or {},
        "container",
        body["containerProperties"],
        node_properties=None,
        eks_properties=None,
        tags=body.get("tags") or {},
        retry_strategy=strategy or {},
        timeout=body.get("timeout") or {},
        backend=backend,
        platform_capabilities=body.get("platformCapabilities") or ["EC2"],
        propagate_tags=bool(body.get("propagateTags")),
        revision=0 if newest is None else int(newest.revision),
    )
    backend._job_definitions[definition.arn] = definition
    shown = {"jobDefinitionName": name, "jobDefinitionArn": definition.arn, "revision": definition.revision}
    return json.dumps(shown)


def describe_definitions(response: BatchResponse) -> str:
    """Describe definitions by name, or by a list of ``name:revision`` and ARNs; of every status unless one is given."""
    backend, body = response.batch_backend, body_of(response)
    listed, name, status = body.get("jobDefinitions"), body.get("jobDefinitionName"), body.get("status")
    if listed and (name or status):
        raise Refused("jobDefinitions cannot be used with other parameters.")
    if listed and len(listed) > MAX_DESCRIBED:
        raise Refused(f"At most {MAX_DESCRIBED} job definitions can be described in one call.")
    chosen = [
        entry
        for entry in backend._job_definitions.values()
        if (not listed or entry.arn in listed or f"{entry.name}:{entry.revision}" in listed)
        and (not name or entry.name == name)
        and (not status or entry.status == status)
    ]
    size = min(int(body.get("maxResults") or 100), 100)
    start = int(body.get("nextToken") or 0)
    answer: dict[str, Any] = {"jobDefinitions": [entry.describe() for entry in chosen[start : start + size]]}
    if start + size < len(chosen):
        answer["nextToken"] = str(start + size)
    return json.dumps(answer)


def deregister(response: BatchResponse) -> str:
    """Make a revision INACTIVE; jobs that name it are refused from then on."""
    backend, wanted = response.batch_backend, body_of(response).get("jobDefinition") or ""
    short = wanted.rpartition("job-definition/")[2]
    for entry in backend._job_definitions.values():
        if short in {f"{entry.name}:{entry.revision}", entry.arn}:
            entry.deregister()
            return "{}"
    raise Refused(f"JobDefinition {wanted} does not exist.")
