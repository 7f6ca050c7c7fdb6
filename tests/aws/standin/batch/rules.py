"""What AWS Batch refuses, and how it decides about retries: pure functions over requests as boto3 sends them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ARRAY_SIZE = 10_000
MAX_PAYLOAD_BYTES = 30 * 1024
MAX_DEFINITION_BYTES = 24 * 1024
MAX_OVERRIDES = 8192
MAX_DEPENDENCIES = 20
MAX_RULES = 5
MAX_ATTEMPTS = 10
MIN_TIMEOUT_S = 60
MAX_DESCRIBED = 100
MAX_REASON = 1024
MAX_TAGS = 50

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
TEXT_GLOB = re.compile(r"[A-Za-z0-9.:\s]*\*?")
CODE_GLOB = re.compile(r"[0-9]*\*?")
REFERENCE = re.compile(r"Ref::([A-Za-z0-9_-]+)")


class Refused(Exception):
    """A request that AWS answers with a ClientException of these words."""


@dataclass(frozen=True)
class Rule:
    """One entry of ``evaluateOnExit``: an action, and what has to match before it is taken."""

    action: str
    exit_code: str | None = None
    reason: str | None = None
    status_reason: str | None = None

    def matches(self, *, exit_code: int | None, reason: str | None, status_reason: str | None) -> bool:
        """Tell whether every condition that is given holds.

        A value that the attempt lacks matches the lone asterisk only.
        """
        pairs = (
            (self.exit_code, None if exit_code is None else str(exit_code)),
            (self.reason, reason),
            (self.status_reason, status_reason),
        )
        return all(pattern is None or glob_matches(pattern, value or "") for pattern, value in pairs)


@dataclass(frozen=True)
class Retries:
    """How often a job is tried, and after which ends."""

    attempts: int = 1
    rules: tuple[Rule, ...] = ()

    def again(self, attempt: int, *, exit_code: int | None, reason: str | None, status_reason: str | None) -> bool:
        """Tell whether a failed attempt (counted from 1) is followed by another: no matching rule means yes."""
        if attempt >= self.attempts:
            return False
        for rule in self.rules:
            if rule.matches(exit_code=exit_code, reason=reason, status_reason=status_reason):
                return rule.action == "retry"
        return True


def glob_matches(pattern: str, value: str) -> bool:
    """Match as Batch does: the whole text, or its beginning when the pattern ends with an asterisk."""
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


def check_retries(strategy: Mapping[str, Any] | None) -> Retries:
    """Check a ``retryStrategy``."""
    if not strategy:
        return Retries()
    attempts = strategy.get("attempts")
    entries: Sequence[Mapping[str, str]] = strategy.get("evaluateOnExit") or ()
    if attempts is None and entries:
        raise Refused("Attempts must be specified when evaluateOnExit is specified in retryStrategy.")
    if attempts is not None and not 1 <= int(attempts) <= MAX_ATTEMPTS:
        raise Refused(f"RetryStrategy attempts must be between 1 and {MAX_ATTEMPTS}.")
    if len(entries) > MAX_RULES:
        raise Refused(f"EvaluateOnExit can have at most {MAX_RULES} entries.")
    return Retries(int(attempts or 1), tuple(check_rule(entry) for entry in entries))


def check_rule(entry: Mapping[str, str]) -> Rule:
    """Check one entry of ``evaluateOnExit``."""
    action = str(entry.get("action", "")).lower()
    if action not in {"retry", "exit"}:
        raise Refused("EvaluateOnExit action must be one of RETRY, EXIT.")
    patterns = {key: entry.get(key) for key in ("onExitCode", "onReason", "onStatusReason")}
    if all(pattern is None for pattern in patterns.values()):
        raise Refused("EvaluateOnExit needs at least one of onExitCode, onReason, onStatusReason.")
    for key, pattern in patterns.items():
        if pattern is None:
            continue
        allowed = CODE_GLOB if key == "onExitCode" else TEXT_GLOB
        if not pattern or len(pattern) > 512 or not allowed.fullmatch(pattern):
            what = "numbers" if key == "onExitCode" else "letters, numbers, periods, colons and white space"
            raise Refused(f"{key} '{pattern}' may contain only {what}, with an optional asterisk (*) at its end.")
    return Rule(action, patterns["onExitCode"], patterns["onReason"], patterns["onStatusReason"])


def check_timeout(timeout: Mapping[str, Any] | None) -> int | None:
    """Check a ``timeout``; it holds for each attempt."""
    if not timeout:
        return None
    seconds = timeout.get("attemptDurationSeconds")
    if seconds is None or int(seconds) < MIN_TIMEOUT_S:
        raise Refused(f"attemptDurationSeconds must be at least {MIN_TIMEOUT_S} seconds.")
    return int(seconds)


def check_environment(environment: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Check variables for a container."""
    variables: dict[str, str] = {}
    for entry in environment:
        name = entry.get("name", "")
        if not name:
            raise Refused("Environment variables must have a name.")
        if name.startswith("AWS_BATCH"):
            raise Refused(f"Environment variable {name} is not allowed: names cannot start with AWS_BATCH.")
        variables[name] = entry.get("value", "")
    return variables


def check_resources(requirements: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Check ``resourceRequirements``: whole VCPUs, MEMORY in MiB, each at most once."""
    found: dict[str, float] = {}
    for entry in requirements:
        kind, value = entry.get("type", ""), str(entry.get("value", ""))
        if kind not in {"VCPU", "MEMORY", "GPU"}:
            raise Refused("resourceRequirements type must be one of GPU, MEMORY, VCPU.")
        if kind in found:
            raise Refused(f"resourceRequirements contains {kind} more than once.")
        # Fractions of a vCPU exist on Fargate only.
        if not value.isdigit() or int(value) < {"VCPU": 1, "MEMORY": 4, "GPU": 1}[kind]:
            raise Refused(f"resourceRequirements {kind} has the invalid value '{value}'.")
        found[kind] = int(value)
    return found


def check_definition(request: Mapping[str, Any], payload_bytes: int) -> None:
    """Check a RegisterJobDefinition request of a single-container job on EC2."""
    if payload_bytes > MAX_DEFINITION_BYTES:
        raise Refused(f"Job definition of {payload_bytes} bytes exceeds the maximum of {MAX_DEFINITION_BYTES} bytes.")
    name = request.get("jobDefinitionName") or ""
    if not NAME.fullmatch(name):
        raise Refused(
            f"jobDefinitionName '{name}' must be up to 128 letters, numbers, hyphens and underscores,"
            " the first a letter or a number."
        )
    if request.get("type") != "container":
        raise Refused(f"type '{request.get('type')}' is not in reach of this stand-in: only container.")
    check_parameters(request.get("parameters"))
    check_tags(request.get("tags") or {})
    check_retries(request.get("retryStrategy"))
    check_timeout(request.get("timeout"))
    container = request.get("containerProperties")
    if not container:
        raise Refused("containerProperties must not be empty for a job of type container.")
    if not container.get("image"):
        raise Refused("containerProperties.image must not be empty.")
    check_environment(container.get("environment") or ())
    found = check_resources(container.get("resourceRequirements") or ())
    if "VCPU" not in found and not container.get("vcpus"):
        raise Refused("Container resourceRequirements must contain VCPU.")
    if "MEMORY" not in found and not container.get("memory"):
        raise Refused("Container resourceRequirements must contain MEMORY.")
    check_volumes(container)


def check_volumes(container: Mapping[str, Any]) -> None:
    """Check that every mount point has its volume."""
    volumes = {volume.get("name") for volume in container.get("volumes") or ()}
    for mount in container.get("mountPoints") or ():
        if mount.get("sourceVolume") not in volumes:
            raise Refused(f"Unknown volume '{mount.get('sourceVolume')}' in mountPoints.")


def check_parameters(parameters: Any) -> dict[str, str]:
    """Check that parameters map strings to strings."""
    if parameters is None:
        return {}
    if not isinstance(parameters, dict) or not all(isinstance(value, str) for value in parameters.values()):
        raise Refused("parameters must be a map of strings to strings.")
    return dict(parameters)


def check_submission(request: Mapping[str, Any], payload_bytes: int) -> None:
    """Check what can be told from a SubmitJob request alone."""
    if payload_bytes > MAX_PAYLOAD_BYTES:
        raise Refused(f"Request payload of {payload_bytes} bytes exceeds the maximum of {MAX_PAYLOAD_BYTES} bytes.")
    name = request.get("jobName") or ""
    if not NAME.fullmatch(name):
        raise Refused(f"Job name '{name}' should match valid pattern: {NAME.pattern}")
    size = (request.get("arrayProperties") or {}).get("size")
    if size is not None and not 2 <= int(size) <= MAX_ARRAY_SIZE:
        raise Refused(f"Array size {size} is invalid: it must be between 2 and {MAX_ARRAY_SIZE}.")
    overrides = request.get("containerOverrides") or {}
    if "image" in overrides:
        raise Refused("containerOverrides has no member image: an image belongs to its job definition.")
    check_environment(overrides.get("environment") or ())
    check_resources(overrides.get("resourceRequirements") or ())
    check_parameters(request.get("parameters"))
    check_tags(request.get("tags") or {})
    check_retries(request.get("retryStrategy"))
    check_timeout(request.get("timeout"))
    check_dependency_kinds(request.get("dependsOn") or (), is_array=size is not None)


def check_dependency_kinds(dependencies: Sequence[Mapping[str, str]], *, is_array: bool) -> None:
    """Check number and types of dependencies."""
    if len(dependencies) > MAX_DEPENDENCIES:
        raise Refused(f"A job can depend upon a maximum of {MAX_DEPENDENCIES} jobs.")
    for dependency in dependencies:
        kind = dependency.get("type")
        if kind not in {None, "N_TO_N", "SEQUENTIAL"}:
            raise Refused(f"Dependency type '{kind}' must be one of N_TO_N, SEQUENTIAL.")
        if kind and not is_array:
            raise Refused(f"Dependency type {kind} is for array jobs only.")
        if kind == "SEQUENTIAL" and dependency.get("jobId"):
            raise Refused("A SEQUENTIAL dependency has no jobId.")
        if kind != "SEQUENTIAL" and not dependency.get("jobId"):
            raise Refused("A dependency needs a jobId.")


def check_tags(tags: Mapping[str, str]) -> None:
    """Check a job's tags."""
    if len(tags) > MAX_TAGS:
        raise Refused(f"A job can have at most {MAX_TAGS} tags.")
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:") or len(value) > 256:
            raise Refused(f"Tag '{key}' is not valid: keys have 1 to 128 letters, not 'aws:' first, values up to 256.")


def substitute(command: Iterable[str], parameters: Mapping[str, str]) -> list[str]:
    """Replace ``Ref::name`` by the parameter of that name; one that is missing refuses the request."""

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in parameters:
            raise Refused(f"Unable to substitute value. No parameter found for reference {found[1]}")
        return parameters[found[1]]

    return [REFERENCE.sub(value_of, argument) for argument in command]


def check_listing(request: Mapping[str, Any]) -> None:
    """Check a ListJobs request."""
    given = [key for key in ("jobQueue", "arrayJobId", "multiNodeJobId") if request.get(key)]
    if len(given) != 1:
        raise Refused("Exactly one of jobQueue, arrayJobId, multiNodeJobId must be specified.")
    filters = request.get("filters") or ()
    if len(filters) > 1:
        raise Refused("Only one filter can be used at a time.")
    if filters and given != ["jobQueue"]:
        raise Refused("Filters do not apply to child jobs: they need a jobQueue.")
    for entry in filters:
        if entry.get("name") not in {"JOB_NAME", "JOB_DEFINITION", "BEFORE_CREATED_AT", "AFTER_CREATED_AT"}:
            raise Refused(f"Filter name '{entry.get('name')}' is not valid.")
        if len(entry.get("values") or ()) != 1:
            raise Refused("A filter has exactly one value.")


def check_reason(request: Mapping[str, Any]) -> tuple[str, str]:
    """Check a CancelJob or TerminateJob request; return the job's id and the reason."""
    job_id, reason = request.get("jobId"), request.get("reason")
    if not job_id:
        raise Refused("jobId must not be empty.")
    if not reason:
        raise Refused("reason must not be empty.")
    if len(reason) > MAX_REASON:
        raise Refused(f"reason must have at most {MAX_REASON} characters.")
    return job_id, reason
