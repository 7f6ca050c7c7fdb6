"""From API requests to the scheduler's own: definitions found, overrides merged, parameters put in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .jobs import Request, pairs
from .rules import (
    MAX_OVERRIDES,
    Refused,
    check_environment,
    check_parameters,
    check_resources,
    check_retries,
    check_timeout,
    substitute,
)

TOO_LONG = f"Container Overrides length must be at most {MAX_OVERRIDES}"


@dataclass(frozen=True)
class Definition:
    """An active job definition, as registered."""

    name: str
    revision: int
    arn: str
    container: Mapping[str, Any]
    parameters: Mapping[str, str]
    retry_strategy: Mapping[str, Any] | None
    timeout: Mapping[str, Any] | None
    tags: Mapping[str, str]
    propagate_tags: bool
    platform_capabilities: tuple[str, ...]


def find_definition(wanted: str, definitions: Iterable[Definition]) -> Definition:
    """Find by name or ARN, with or without a revision: the newest active one if none is given."""
    short = wanted.rpartition("job-definition/")[2]
    name, _, revision = short.partition(":")
    found = [entry for entry in definitions if entry.name == name and (not revision or str(entry.revision) == revision)]
    if not found:
        raise Refused(f"JobDefinition {wanted} does not exist or is not ACTIVE.")
    return max(found, key=lambda entry: entry.revision)


def build_request(
    body: Mapping[str, Any], definition: Definition, *, queue_arn: str, region: str, account: str
) -> Request:
    """Merge a checked SubmitJob request with its definition.

    Raises:
        Refused: A ``Ref::`` has no parameter.
    """
    overrides = body.get("containerOverrides") or {}
    parameters = {**definition.parameters, **check_parameters(body.get("parameters"))}
    container = dict(definition.container)
    for key in ("command", "instanceType"):
        if overrides.get(key):
            container[key] = overrides[key]
    container["command"] = substitute(container.get("command") or (), parameters)
    environment = {
        **check_environment(container.get("environment") or ()),
        **check_environment(overrides.get("environment") or ()),
    }
    container["environment"] = pairs(environment)
    resources = merged_resources(container, overrides)
    container["resourceRequirements"] = [{"type": kind, "value": str(value)} for kind, value in resources.items()]
    strategy = body.get("retryStrategy") or definition.retry_strategy or {}
    timeout = body.get("timeout") or definition.timeout
    propagate = bool(body.get("propagateTags", definition.propagate_tags))
    return Request(
        name=body["jobName"],
        queue_arn=queue_arn,
        definition_arn=definition.arn,
        definition_name=definition.name,
        revision=definition.revision,
        container=container,
        environment=environment,
        vcpus=resources["VCPU"],
        memory_mib=resources["MEMORY"],
        parameters=parameters,
        retries=check_retries(strategy),
        retry_strategy={"attempts": strategy.get("attempts", 1), "evaluateOnExit": strategy.get("evaluateOnExit", [])},
        timeout_s=check_timeout(timeout),
        depends_on=tuple(body.get("dependsOn") or ()),
        tags=dict(body.get("tags") or {}),
        propagate_tags=propagate,
        propagated={**definition.tags, **(body.get("tags") or {})} if propagate else {},
        platform_capabilities=definition.platform_capabilities,
        region=region,
        account=account,
        doomed=TOO_LONG if is_too_long(container) else None,
    )


def merged_resources(container: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, int]:
    """Give vCPUs and MiB: overrides before the definition, ``resourceRequirements`` before the old members."""
    found: dict[str, float] = {}
    for source in (container, overrides):
        for kind, old in (("VCPU", "vcpus"), ("MEMORY", "memory")):
            if source.get(old):
                found[kind] = source[old]
        found.update(check_resources(source.get("resourceRequirements") or ()))
    return {kind: int(value) for kind, value in found.items()}


def is_too_long(container: Mapping[str, Any]) -> bool:
    """Tell whether ECS will refuse the task: Batch hands it command, environment and resources as overrides."""
    handed = {key: container.get(key) for key in ("command", "environment", "resourceRequirements")}
    return len(json.dumps(handed, separators=(",", ":"))) > MAX_OVERRIDES
