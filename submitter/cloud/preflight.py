"""Look for the traps of a new account before anything is made there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jobspec.errors import AccessError, UsageError
from jobspec.stores.s3errors import code_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

SPOT_QUOTA = "L-34B43A08"
"""vCPUs of all running standard spot instances: families A, C, D, H, I, M, R, T, Z."""

ON_DEMAND_QUOTA = "L-1216C47A"

LINKED_ROLES = {
    "AWSServiceRoleForEC2Spot": "spot.amazonaws.com",
    "AWSServiceRoleForBatch": "batch.amazonaws.com",
    "AWSServiceRoleForECS": "ecs.amazonaws.com",
}
"""Roles that AWS makes once for an account, and without which no spot host starts."""


@dataclass(frozen=True)
class Findings:
    """What was found: what may go wrong, and which linked roles are to be made."""

    warnings: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()


def look_for_traps(clients: Clients, *, max_vcpus: int, instance_types: Sequence[str], on_demand: bool) -> Findings:
    """Return what may keep hosts from starting; costs about six requests.

    A right to look that is missing is a warning: the stack can be made without.

    Raises:
        UsageError: a type of host is not offered in the region.
    """
    check_offered(clients, instance_types)
    warnings = [*_quota_warnings(clients, max_vcpus, on_demand=on_demand)]
    missing: list[str] = []
    for role in LINKED_ROLES:
        try:
            if not has_role(clients, role):
                missing.append(role)
        except AccessError as error:
            warnings.append(f"Whether the role {role} exists is not known. {error.message}")
            break
    return Findings(tuple(warnings), tuple(missing))


def check_offered(clients: Clients, instance_types: Sequence[str]) -> None:
    """Make sure that each family or type of host is offered in the region: with one that is not, Batch makes none.

    Raises:
        UsageError: one is not offered.
    """
    offered: set[str] = set()
    with explained("Asking which hosts the region has"):
        for page in clients.ec2.get_paginator("describe_instance_type_offerings").paginate(LocationType="region"):
            offered |= {str(offering["InstanceType"]) for offering in page["InstanceTypeOfferings"]}
    families = {kind.partition(".")[0] for kind in offered}
    absent = [kind for kind in instance_types if kind not in (offered if "." in kind else families)]
    if absent:
        present = [kind for kind in instance_types if kind not in absent]
        raise UsageError(
            f"{clients.region} offers no hosts of {', '.join(absent)}. Type --instance-types "
            f"{','.join(present) or 'm6i,c6i,r6i'}, or choose another region with AWS_REGION."
        )


def read_quota(clients: Clients, code: str) -> float | None:
    """Return a quota of EC2 in vCPUs, None where the account's page of quotas has none.

    Raises:
        AccessError: the right to look is missing.
    """
    from botocore.exceptions import ClientError

    with explained("Reading the quota of vCPUs"):
        try:
            return clients.quotas.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        except ClientError as error:
            if code_of(error) == "NoSuchResourceException":
                return None
            raise


def _quota_warnings(clients: Clients, max_vcpus: int, *, on_demand: bool) -> Iterator[str]:
    wanted = {"spot": SPOT_QUOTA, **({"on-demand": ON_DEMAND_QUOTA} if on_demand else {})}
    for kind, code in wanted.items():
        try:
            quota = read_quota(clients, code)
        except AccessError as error:
            yield f"How many {kind} vCPUs this account may use is not known. {error.message}"
            continue
        if quota is not None and quota < max_vcpus:
            yield (
                f"This account may use {quota:g} {kind} vCPUs in {clients.region}, and --max-vcpus is {max_vcpus}: "
                f"tasks beyond that wait. Ask for more (it takes minutes to days): 'aws service-quotas "
                f"request-service-quota-increase --service-code ec2 --quota-code {code} --desired-value {max_vcpus}'."
            )


def has_role(clients: Clients, name: str) -> bool:
    """Say whether the account has a role; one request."""
    from botocore.exceptions import ClientError

    with explained(f"Looking for the role {name}"):
        try:
            clients.iam.get_role(RoleName=name)
        except ClientError as error:
            if code_of(error) == "NoSuchEntity":
                return False
            raise
    return True


def make_linked_role(clients: Clients, name: str) -> None:
    """Make a role that AWS otherwise makes by itself at some first use; one that is there is no error."""
    from botocore.exceptions import ClientError

    with explained(f"Making the service-linked role {name}"):
        try:
            clients.iam.create_service_linked_role(AWSServiceName=LINKED_ROLES[name])
        except ClientError as error:
            if "has been taken" not in message_of(error) and code_of(error) != "EntityAlreadyExists":
                raise
