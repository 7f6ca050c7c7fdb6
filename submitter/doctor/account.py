"""Checks of an account: whose credentials these are, the clock, the roles and the quota that spot machines need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime

from jobspec.errors import ExitCode
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.preflight import LINKED_ROLES, ON_DEMAND_QUOTA, SPOT_QUOTA, has_role, read_quota
from submitter.doctor.findings import Finding, ok, warning, wrong

_SKEW_SECONDS, _MAX_SKEW_SECONDS = 60, 240
"""AWS refuses signatures that are more than five minutes off."""

_SMALLEST_HOST_VCPUS = 2


def check_identity(clients: Clients, now: Callable[[], float]) -> Iterator[Finding]:
    """Say whose credentials are used and in which region, and compare the clocks; one request.

    Raises:
        AccessError: there are no credentials or no region, or they are not valid.
    """
    region = clients.region
    with explained("Asking AWS whose credentials these are"):
        told = clients.sts.get_caller_identity()
    yield ok("credentials", f"{told['Arn']} in account {told['Account']}")
    if told["Arn"].endswith(":root"):
        text = "these are the credentials of the account's root user"
        yield warning("credentials", text, "Make a user or role of its own with the stack's policy for submitters.")
    yield ok("region", region)
    date = told["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    if date:
        yield _check_clock(now() - parsedate_to_datetime(date).timestamp())


def _check_clock(skew_s: float) -> Finding:
    text = f"this machine's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} AWS's"
    remedy = "Set it right, for example `timedatectl set-ntp true`."
    if abs(skew_s) > _MAX_SKEW_SECONDS:
        return wrong("clock", f"{text}, and requests are refused from 5 minutes on", remedy, ExitCode.ACCESS)
    return warning("clock", text, remedy) if abs(skew_s) > _SKEW_SECONDS else ok("clock", "as AWS's")


def check_linked_roles(clients: Clients) -> Iterator[Finding]:
    """Look for the service-linked roles; one request for each."""
    missing = [name for name in LINKED_ROLES if not has_role(clients, name)]
    for name in missing:
        remedy = f"`aws iam create-service-linked-role --aws-service-name {LINKED_ROLES[name]}`"
        yield wrong("roles", f"the account lacks {name}, so that hosts would not start", remedy, ExitCode.NOT_FOUND)
    if not missing:
        yield ok("roles", f"{', '.join(LINKED_ROLES)} are there")


def check_quota(clients: Clients, max_vcpus: int, *, on_demand: bool = False) -> Iterator[Finding]:
    """Compare the account's quotas with the vCPUs that the stack may start; a request for each."""
    yield _judge_quota(read_quota(clients, SPOT_QUOTA), SPOT_QUOTA, "spot", max_vcpus)
    if on_demand:
        yield _judge_quota(read_quota(clients, ON_DEMAND_QUOTA), ON_DEMAND_QUOTA, "on-demand", max_vcpus)


def _judge_quota(value: float | None, code: str, kind: str, max_vcpus: int) -> Finding:
    if value is None:
        text = f"how many {kind} vCPUs the account may use is not known: the region has no such quota"
        return warning("quota", text, "Look at EC2's page in the Service Quotas console.")
    text = f"{value:g} vCPUs of {kind} hosts are allowed, and the stack may start {max_vcpus}"
    remedy = (
        f"`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code} "
        f"--desired-value {max_vcpus}`"
    )
    if value < _SMALLEST_HOST_VCPUS:
        return wrong("quota", f"{text}: not a single one would come", remedy, ExitCode.LIMIT)
    return warning("quota", f"{text}: tasks beyond wait", remedy) if value < max_vcpus else ok("quota", text)
