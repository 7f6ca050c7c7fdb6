"""What AWS Batch says of queues and compute environments that start no hosts: what it means, and what to do."""

from __future__ import annotations

import re

ANEW = "`submit infra down`, then `submit infra up`: the data stay"
"""CloudFormation does not look for what was removed behind its back: `up` alone would find nothing to change."""

_AILMENTS: tuple[tuple[str, str, str], ...] = (
    (
        r"service-linked|servicelinked|fleet role|AWSServiceRoleFor",
        "the account lacks a service-linked role",
        "`submit infra up` makes it, or `aws iam create-service-linked-role --aws-service-name spot.amazonaws.com`",
    ),
    (r"sts:AssumeRole|instance ?profile|service ?role", "a role of the stack was changed or removed", ANEW),
    (
        r"not authorized to perform: ([\w-]+:\w+)",
        "a role lacks {0}",
        "Ask whoever runs the account which boundary or policy of the organisation denies {0}; then `submit infra up`.",
    ),
    (r"subnet", "a subnet is gone", "name subnets that exist with `submit infra up --subnets ...`"),
    (r"security ?group|InvalidGroup", "its security group is gone", ANEW),
    (r"vpc", "the network is gone", "name subnets of another one with `submit infra up --subnets ...`"),
    (r"launch ?template", "its launch template was removed or cannot be used", ANEW),
    (
        r"limit ?exceeded|MaxSpotInstanceCount|quota|limit",
        "the account's quota is used up",
        "ask for more vCPUs (Service Quotas, EC2, All Standard Spot Instance Requests)",
    ),
    (
        r"capacity",
        "AWS has no such spot hosts now",
        "wait, or allow more families or on-demand hosts: `submit infra up --instance-types ... --on-demand`",
    ),
    (
        r"instance ?type",
        "an instance type is not offered here",
        "name others with `submit infra up --instance-types ...`",
    ),
    (r"cluster.*(?:inactive|not found)", "its ECS cluster was deleted", ANEW),
)
"""A pattern, what it means, what to do; the first that matches counts."""


def decode(reason: str) -> tuple[str, str] | None:
    """Return what the status reason of a queue or a compute environment means and what to do, None if that is unknown.

    Nothing is wrong with one that says that it is healthy.
    """
    if "healthy" in reason.lower():
        return None
    for pattern, text, remedy in _AILMENTS:
        if found := re.search(pattern, reason, flags=re.IGNORECASE | re.DOTALL):
            return text.format(*found.groups()), remedy.format(*found.groups())
    return None
