"""Which rights a request to an AWS API needs: IAM's actions, and the resources that they are about.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import functools
import json
import re
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from tests.aws.standin.iam import Asked
from tests.aws.standin.identity import ACCOUNT, PARTITION, REGION

_MODELS = {
    "batch": "batch",
    "cloudformation": "cloudformation",
    "ecr": "ecr",
    "ec2": "ec2",
    "iam": "iam",
    "sts": "sts",
    "servicequotas": "service-quotas",
    "events": "events",
    "states": "stepfunctions",
    "logs": "logs",
    "sqs": "sqs",
    "kms": "kms",
    "autoscaling": "autoscaling",
    "ssm": "ssm",
    "tagging": "resourcegroupstaggingapi",
    "scheduler": "scheduler",
    "sns": "sns",
    "monitoring": "cloudwatch",
}
"""botocore's models by the names with which requests are signed."""

_SPOKEN = {"monitoring": "json"}
"""The protocol of services that have several, where botocore does not take the first."""

_IAM_NAMES = {"monitoring": "cloudwatch"}
"""IAM's names of services where requests are signed with others."""

_FREE = {"sts:GetCallerIdentity"}
"""What IAM never refuses."""


@dataclass(frozen=True)
class ApiCall:
    """A request to an AWS API: its service as IAM names it, its operation and its parameters."""

    service: str
    operation: str
    protocol: str
    parameters: Mapping[str, Any]

    @property
    def action(self) -> str:
        return f"{_IAM_NAMES.get(self.service, self.service)}:{self.operation}"

    @property
    def rights(self) -> list[Asked]:
        """Return the rights that this call needs; the first is the call's own."""
        if self.action in _FREE:
            return []
        make = _RESOURCES.get(self.action, _everything)
        keys = _CONTEXT.get(self.action, _nothing)(self.parameters)
        own = [Asked(self.action, arn, {**tags_of(arn), **keys}) for arn in make(self.parameters)]
        return own + [right for more in _MORE.get(self.action, ()) for right in more(self.parameters)]


@functools.cache
def _model(service: str) -> Any:
    session: Any = boto3.Session()
    return session._session.get_service_model(_MODELS[service])


def read_call(service: str, method: str, path: str, target: str, body: bytes, query: str = "") -> ApiCall | None:
    """Return what a signed request asks; None for a service that nothing is known of."""
    if service not in _MODELS:
        return None
    protocol = _SPOKEN.get(service, _model(service).protocol)
    if protocol in {"query", "ec2"}:
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body.decode()).items()}
        return ApiCall(service, form.get("Action", "Unknown"), "sns" if service == "sns" else protocol, form)
    parameters = json.loads(body) if body.strip().startswith(b"{") else {}
    if protocol == "json":
        return ApiCall(service, target.rpartition(".")[2] or "Unknown", protocol, parameters)
    for pattern, verb, operation in _routes(service):
        if verb == method and (found := pattern.fullmatch(path)):
            named = {name: urllib.parse.unquote(value) for name, value in found.groupdict().items()}
            asked = dict(urllib.parse.parse_qsl(query))
            return ApiCall(service, operation, protocol, {**asked, **parameters, **named})
    return ApiCall(service, "Unknown", protocol, parameters)


@functools.cache
def _routes(service: str) -> list[tuple[re.Pattern[str], str, str]]:
    routes = []
    for name in _model(service).operation_names:
        http = _model(service).operation_model(name).http
        uri = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>.+)", http["requestUri"].partition("?")[0])
        routes.append((re.compile(uri), http["method"], name))
    return routes


# --- resources ---------------------------------------------------------------------------------------------------


def arn(service: str, rest: str) -> str:
    """Return the ARN of a regional resource of the account."""
    return f"arn:{PARTITION}:{service}:{REGION}:{ACCOUNT}:{rest}"


def _full(service: str, kind: str, name: str) -> str:
    return name if name.startswith("arn:") else arn(service, f"{kind}{name}")


def tags_of(resource: str) -> dict[str, list[str]]:
    """Return a Batch resource's tags as condition keys ``aws:ResourceTag/...``; other services' are not looked up."""
    from moto.batch.models import batch_backends

    if not resource.startswith(arn("batch", "")):
        return {}
    found = batch_backends[ACCOUNT][REGION].list_tags_for_resource(resource) or {}
    return {f"aws:resourcetag/{name.lower()}": [value] for name, value in found.items()}


def _nothing(_given: Mapping[str, Any]) -> dict[str, list[str]]:
    return {}


def _everything(_given: Mapping[str, Any]) -> list[str]:
    return ["*"]


def _queue(given: Mapping[str, Any]) -> str:
    return _full("batch", "job-queue/", given.get("jobQueue", "*"))


def _definition(given: Mapping[str, Any]) -> str:
    return _full("batch", "job-definition/", given.get("jobDefinition", "*"))


def _job(given: Mapping[str, Any]) -> list[str]:
    return [_full("batch", "job/", given["jobId"])]


def _repository(given: Mapping[str, Any]) -> list[str]:
    names = [given["repositoryName"]] if "repositoryName" in given else given.get("repositoryNames", ["*"])
    return [arn("ecr", f"repository/{name}") for name in names]


def _group(given: Mapping[str, Any]) -> list[str]:
    """Return a log group as its actions are checked: with the colon of its streams behind it."""
    if "logGroupIdentifier" in given:
        return [f"{given['logGroupIdentifier'].removesuffix(':*')}:log-stream:"]
    return [arn("logs", f"log-group:{given.get('logGroupName', given.get('logGroupNamePrefix', ''))}:log-stream:")]


def _stream(given: Mapping[str, Any]) -> list[str]:
    return [_group(given)[0] + given.get("logStreamName", "*")]


def _schedule(given: Mapping[str, Any]) -> list[str]:
    group = given.get("GroupName") or given.get("groupName") or "default"
    return [arn("scheduler", f"schedule/{group}/{given.get('Name', '*')}")]


def _schedule_group(given: Mapping[str, Any]) -> list[str]:
    return [arn("scheduler", f"schedule-group/{given.get('Name', '*')}")]


def _buses(given: Mapping[str, Any]) -> list[str]:
    names = {entry.get("EventBusName") or "default" for entry in given.get("Entries", [])}
    return [_full("events", "event-bus/", name) for name in sorted(names)]


def _entries(given: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the condition keys of events that are put."""
    names = {"Source": "events:source", "DetailType": "events:detail-type"}
    entries = given.get("Entries", [])
    return {key: sorted({str(entry.get(name, "")) for entry in entries}) for name, key in names.items()}


def _topic(given: Mapping[str, Any]) -> list[str]:
    return [given.get("TopicArn") or given.get("TargetArn") or "*"]


def _stack(given: Mapping[str, Any]) -> list[str]:
    name = given.get("StackName", "*")
    return [name if name.startswith("arn:") else arn("cloudformation", f"stack/{name}/*")]


def _role(given: Mapping[str, Any]) -> list[str]:
    """Return the ARN of a role, with its path where there is such a role."""
    from moto.iam.models import iam_backends

    name = given.get("RoleName", "*")
    known = iam_backends[ACCOUNT][PARTITION].roles.values()
    return [next((role.arn for role in known if role.name == name), f"arn:{PARTITION}:iam::{ACCOUNT}:role/{name}")]


def _principal(kind: str) -> Callable[[Mapping[str, Any]], list[str]]:
    return lambda given: [f"arn:{PARTITION}:iam::{ACCOUNT}:{kind}/{given.get(f'{kind.title()}Name', '*')}"]


def _policy_arn(given: Mapping[str, Any]) -> dict[str, list[str]]:
    return {"iam:policyarn": [given.get("PolicyArn", "")]}


def _quota(given: Mapping[str, Any]) -> list[str]:
    return [arn("servicequotas", f"{given.get('ServiceCode', '*')}/{given.get('QuotaCode', '*')}")]


def _named(key: str) -> Callable[[Mapping[str, Any]], list[str]]:
    return lambda given: [given.get(key, "*")]


_ECR = (
    "BatchCheckLayerAvailability",
    "BatchDeleteImage",
    "BatchGetImage",
    "CompleteLayerUpload",
    "DeleteRepository",
    "DescribeImages",
    "DescribeRepositories",
    "GetDownloadUrlForLayer",
    "InitiateLayerUpload",
    "ListImages",
    "ListTagsForResource",
    "PutImage",
    "TagResource",
    "UploadLayerPart",
)
_CLOUDFORMATION = (
    "CreateChangeSet",
    "CreateStack",
    "DeleteChangeSet",
    "DeleteStack",
    "DescribeChangeSet",
    "DescribeStackEvents",
    "DescribeStackResources",
    "DescribeStacks",
    "ExecuteChangeSet",
    "GetTemplate",
    "ListStackResources",
    "UpdateStack",
)

_RESOURCES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "batch:SubmitJob": lambda given: [_queue(given), _definition(given)],
    "batch:TerminateJob": _job,
    "batch:CancelJob": _job,
    "batch:RegisterJobDefinition": lambda given: [arn("batch", f"job-definition/{given['jobDefinitionName']}")],
    "batch:DeregisterJobDefinition": lambda given: [_definition(given)],
    "batch:TagResource": _named("resourceArn"),
    "batch:UntagResource": _named("resourceArn"),
    "batch:ListTagsForResource": _named("resourceArn"),
    "batch:UpdateJobQueue": lambda given: [_queue(given)],
    "logs:GetLogEvents": _stream,
    "logs:FilterLogEvents": _group,
    "logs:DescribeLogStreams": _group,
    "logs:PutLogEvents": _stream,
    "logs:CreateLogStream": _group,
    "logs:CreateLogGroup": _group,
    "logs:DescribeLogGroups": lambda _given: [arn("logs", "log-group::log-stream:")],
    "states:StartExecution": _named("stateMachineArn"),
    "states:DescribeStateMachine": _named("stateMachineArn"),
    "states:ListExecutions": _named("stateMachineArn"),
    "states:DescribeExecution": _named("executionArn"),
    "states:GetExecutionHistory": _named("executionArn"),
    "states:StopExecution": _named("executionArn"),
    "events:DescribeRule": lambda given: [arn("events", f"rule/{given.get('Name', '*')}")],
    "events:ListTargetsByRule": lambda given: [arn("events", f"rule/{given.get('Rule', '*')}")],
    "events:PutEvents": _buses,
    "scheduler:CreateSchedule": _schedule,
    "scheduler:UpdateSchedule": _schedule,
    "scheduler:GetSchedule": _schedule,
    "scheduler:DeleteSchedule": _schedule,
    "scheduler:GetScheduleGroup": _schedule_group,
    "scheduler:CreateScheduleGroup": _schedule_group,
    "scheduler:DeleteScheduleGroup": _schedule_group,
    "sns:Publish": _topic,
    "sns:GetTopicAttributes": _topic,
    "iam:GetRole": _role,
    "iam:DetachUserPolicy": _principal("user"),
    "iam:DetachGroupPolicy": _principal("group"),
    "iam:DetachRolePolicy": _role,
    "iam:ListEntitiesForPolicy": _named("PolicyArn"),
    "iam:CreateServiceLinkedRole": lambda given: [
        f"arn:{PARTITION}:iam::{ACCOUNT}:role/aws-service-role/{given.get('AWSServiceName', '*')}/AWSServiceRoleFor*"
    ],
    "servicequotas:GetServiceQuota": _quota,
    "iam:SimulatePrincipalPolicy": _named("PolicySourceArn"),
    **{f"ecr:{name}": _repository for name in _ECR},
    **{f"cloudformation:{name}": _stack for name in _CLOUDFORMATION},
}


_CONTEXT: dict[str, Callable[[Mapping[str, Any]], dict[str, list[str]]]] = {
    "iam:DetachUserPolicy": _policy_arn,
    "iam:DetachGroupPolicy": _policy_arn,
    "iam:DetachRolePolicy": _policy_arn,
    "iam:CreateServiceLinkedRole": lambda given: {"iam:awsservicename": [given.get("AWSServiceName", "")]},
    "cloudwatch:PutMetricData": lambda given: {"cloudwatch:namespace": [str(given.get("Namespace", ""))]},
    "events:PutEvents": _entries,
}
"""Condition keys that a request's own parameters are."""


def _pass_roles(given: Mapping[str, Any]) -> list[Asked]:
    container = given.get("containerProperties", {})
    roles = [container[name] for name in ("jobRoleArn", "executionRoleArn") if container.get(name)]
    return [Asked("iam:PassRole", role, {"iam:passedtoservice": ["ecs-tasks.amazonaws.com"]}) for role in roles]


def _pass_to_scheduler(given: Mapping[str, Any]) -> list[Asked]:
    role = given.get("Target", {}).get("RoleArn")
    return [Asked("iam:PassRole", role, {"iam:passedtoservice": ["scheduler.amazonaws.com"]})] if role else []


def _tag(make: Callable[[Mapping[str, Any]], str]) -> Callable[[Mapping[str, Any]], list[Asked]]:
    """Ask for the right to tag when something is made with tags."""

    def rights(given: Mapping[str, Any]) -> list[Asked]:
        tags = given.get("tags") or {}
        context = {f"aws:requesttag/{name.lower()}": [value] for name, value in tags.items()}
        return [Asked("batch:TagResource", make(given), context)] if tags else []

    return rights


_MORE: dict[str, tuple[Callable[[Mapping[str, Any]], list[Asked]], ...]] = {
    "batch:RegisterJobDefinition": (
        _pass_roles,
        _tag(lambda given: arn("batch", f"job-definition/{given['jobDefinitionName']}")),
    ),
    "scheduler:CreateSchedule": (_pass_to_scheduler,),
    "scheduler:UpdateSchedule": (_pass_to_scheduler,),
    "batch:SubmitJob": (_tag(lambda _given: arn("batch", "job/*")),),
}
