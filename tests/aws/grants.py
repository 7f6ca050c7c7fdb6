"""What the policies of a deployed stack grant, piece by piece, and which pieces a record of calls has used."""

from __future__ import annotations

import ast
import fnmatch
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.aws.standin import iam
from tests.aws.standin.cloud import ACCOUNT, REGION, Cloud
from tests.aws.standin.recorder import Call

REASONS = Path(__file__).with_name("unused_grants.toml")


@dataclass(frozen=True)
class Grant:
    """One action on one resource pattern, from one statement of somebody's policies.

    Attributes:
        who: the logical name of a role in the template, ``SubmitterPolicy``, ``EventsPolicy``, or ``infra``.
        sid: of the statement; where it has none, nothing.
        resource: with names for what differs from stack to stack, as the table of reasons writes it.
        statement: this piece as a statement of its own.
    """

    who: str
    sid: str
    action: str
    resource: str
    statement: Mapping[str, Any] = field(compare=False, repr=False)

    def covers(self, call: Call) -> bool:
        """Say whether this piece alone allows what a call asked for."""
        context = {name: value.split(",") for name, value in call.context}
        return bool(list(iam._effects({"Statement": [self.statement]}, iam.Asked(call.action, call.resource, context))))

    def __str__(self) -> str:
        return f"{self.who}.{self.sid}: {self.action} on {self.resource}"


@dataclass(frozen=True)
class Reason:
    """Why grants are there that no story uses; ``types`` are the template's resources that need them."""

    who: str
    actions: tuple[str, ...]
    resource: str
    reason: str
    types: tuple[str, ...] = ()

    def covers(self, action: str, grant: Grant) -> bool:
        return grant.who == self.who and grant.action == action and fnmatch.fnmatchcase(grant.resource, self.resource)


def read_reasons() -> list[Reason]:
    """Read the table."""
    entries = tomllib.loads(REASONS.read_text(encoding="utf-8"))["unused"]
    return [
        Reason(e["who"], tuple(e["actions"]), e.get("resource", "*"), e["reason"], tuple(e.get("types", ())))
        for e in entries
    ]


def split(who: str, document: Mapping[str, Any], names: Mapping[str, str], *, by_resource: bool = True) -> list[Grant]:
    """Return the pieces of a policy; ``names`` are put in the place of what differs from stack to stack.

    A statement for many services names resources that most of its actions know nothing of: ``by_resource=False``
    leaves them together.
    """
    found = []
    for statement in _listed(document["Statement"]):
        assert statement["Effect"] == "Allow"
        for action in _listed(statement["Action"]):
            resources = _listed(statement["Resource"])
            for part in [[one] for one in resources] if by_resource else [resources]:
                piece = {**statement, "Action": action, "Resource": part}
                shown = " ".join(shorten(one, names) for one in part)
                found.append(Grant(who, statement.get("Sid", ""), action, shown, piece))
    return found


def shorten(resource: str, names: Mapping[str, str]) -> str:
    """Write a resource as the table does: without the account's own, and with names for the stack's parts."""
    text = resource.replace(f":{REGION}:{ACCOUNT}:", ":::").replace(f"::{ACCOUNT}:", "::")
    for value in sorted(names, key=len, reverse=True):
        text = text.replace(value, names[value])
    return text.removeprefix("arn:aws:")


def find_unused(grants: Iterable[Grant], calls: Iterable[Call]) -> list[Grant]:
    """Return the pieces that no call needed or could have used."""
    different = {(call.action, call.resource, call.context): call for call in calls}.values()
    return [grant for grant in grants if not any(grant.covers(call) for call in different)]


def compare(unused: Sequence[Grant], reasons: Sequence[Reason]) -> tuple[list[str], list[str]]:
    """Return the unused grants that have no reason, and the reasons that no unused grant needs."""
    told = [(reason, action) for reason in reasons for action in reason.actions]
    missing = [str(grant) for grant in unused if not any(reason.covers(action, grant) for reason, action in told)]
    stale = [
        f"{reason.who}: {action} on {reason.resource}"
        for reason, action in told
        if not any(reason.covers(action, grant) for grant in unused)
    ]
    return missing, stale


@dataclass(frozen=True)
class Deployment:
    """The roles of a stack as they are deployed, by their names in the template, and its policies for people."""

    roles: Mapping[str, str]
    grants: Sequence[Grant]


def read_deployment(cloud: Cloud, stack: str, outputs: Mapping[str, str]) -> Deployment:
    """Read the policies from IAM: what was deployed, not what the template says."""
    found = cloud.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    ids = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found}
    roles = {
        one["LogicalResourceId"]: one["PhysicalResourceId"] for one in found if one["ResourceType"] == "AWS::IAM::Role"
    }
    names = {physical: f"{{{logical}}}" for logical, physical in ids.items()}
    names |= {outputs["BucketName"]: "BUCKET", f"/{outputs['StorePrefix']}/": "/STORE/", stack: "STACK"}
    client = cloud.client("iam")
    grants = []
    for logical, name in roles.items():
        for policy in client.list_role_policies(RoleName=name)["PolicyNames"]:
            text = client.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
            # moto writes a document that CloudFormation deployed as Python does, not as JSON.
            document = ast.literal_eval(text) if isinstance(text, str) else text
            grants += split(logical, document, names)
    for policy in ("SubmitterPolicy", "EventsPolicy"):
        arn = outputs[f"{policy}Arn"]
        version = client.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = client.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        grants += split(policy, document, names)
    return Deployment(roles, tuple(grants))


def make_user(cloud: Cloud, name: str, policy: str | Mapping[str, Any] | None = None) -> dict[str, str]:
    """Make a user, with a policy by ARN or as a document, and return the environment in which one is that user."""
    client = cloud.client("iam")
    client.create_user(UserName=name)
    if isinstance(policy, str):
        client.attach_user_policy(UserName=name, PolicyArn=policy)
    elif policy is not None:
        client.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
    key = client.create_access_key(UserName=name)["AccessKey"]
    return {
        **cloud.environment,
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
