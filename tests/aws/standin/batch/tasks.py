"""From a job's next attempt to the task a runner starts."""

from __future__ import annotations

import uuid
from typing import Any

from .hosts import Host
from .jobs import Attempt, Job, batch_variables
from .runner import Task

LOG_GROUP = "/aws/batch/job"


def task_of(job: Job, host: Host) -> tuple[Attempt, Task]:
    """Make the next attempt of a job on a host, and its task."""
    request = job.request
    task_id = uuid.uuid4().hex
    cluster = host.arn.rpartition(":container-instance/")[2].partition("/")[0]
    task_arn = f"arn:aws:ecs:{request.region}:{request.account}:task/{cluster}/{task_id}"
    options = log_options(request.container)
    prefix = options.get("awslogs-stream-prefix") or request.definition_name
    stream = f"{prefix}/default/{task_id}"
    attempt = Attempt(len(job.attempts) + 1, host, task_id, task_arn, stream)
    task = Task(
        job_id=job.job_id,
        attempt=attempt.number,
        task_id=task_id,
        task_arn=task_arn,
        host=host,
        image=request.container["image"],
        container=request.container,
        environment={**request.environment, **batch_variables(job, attempt)},
        command=tuple(request.container.get("command") or ()),
        vcpus=request.vcpus,
        memory_mib=request.memory_mib,
        family=request.definition_name,
        revision=request.revision,
        region=request.region,
        account=request.account,
        log_group=options.get("awslogs-group") or LOG_GROUP,
        log_stream=stream,
        role_arn=request.container.get("jobRoleArn"),
        tags=request.propagated,
    )
    return attempt, task


def log_options(container: Any) -> dict[str, str]:
    """Give the options of the ``awslogs`` driver, Batch's default."""
    configuration = container.get("logConfiguration") or {}
    if configuration.get("logDriver", "awslogs") != "awslogs":
        return {}
    return dict(configuration.get("options") or {})
