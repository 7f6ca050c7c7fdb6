"""`submit infra up`: look, propose, carry out. Any number of times; what is there already stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobspec.errors import TryLaterError, UsageError
from submitter.cloud.bucket import Home, find_home, protects_results
from submitter.cloud.changes import Change, ChangeSet, Sleep, carry_out, drop, propose
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.following import Follower, Tell, explain_failure
from submitter.cloud.network import Network, find_network
from submitter.cloud.preflight import look_for_traps, make_linked_role
from submitter.cloud.stack import READY, Stack, describe_stack, read_stack
from submitter.cloud.template import defaults, load_template, pack_template
from submitter.cloud.wishes import Wishes, make_parameters

FAILED_FIRST = frozenset({"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"})
"""A stack whose first making failed can only be removed and made again; nothing of it is in use."""


@dataclass(frozen=True)
class Proposal:
    """What `up` would do: ``changes`` is None if the stack is as it was asked for; linked roles may be missing yet."""

    name: str
    region: str
    account: str
    changes: ChangeSet | None
    warnings: tuple[str, ...]
    missing_roles: tuple[str, ...]
    home: Home
    network: Network
    parameters: Mapping[str, str]

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to do."""
        return not self.rows

    @property
    def rows(self) -> tuple[Change, ...]:
        """Return what would be done, beside the stack's parts also what an account needs once."""
        linked = [Change("Add", role, "service-linked role (once for an account)", "") for role in self.missing_roles]
        return (*(self.changes.changes if self.changes else ()), *linked)


def propose_stack(clients: Clients, wishes: Wishes, *, may_clear: bool, tell: Tell, sleep: Sleep) -> Proposal:
    """Look at the account and ask CloudFormation what would change; makes and changes nothing.

    Args:
        clients: clients of AWS.
        wishes: what was typed.
        may_clear: whether the rest of a first attempt that failed may be removed.
        tell: is told what is done.
        sleep: waits between two looks.

    Raises:
        UsageError: a wish cannot be granted, or the stack is in a state that nothing mends from here.
        TryLaterError: the stack is being changed.
        AccessError: a right is missing.
    """
    template = load_template()
    wishes.check(template)
    wishes.check_topic(clients.partition, clients.region, clients.account)
    described = describe_stack(clients, wishes.stack)
    if described is not None:
        check_ours(described, wishes.stack)
        if described["StackStatus"] in FAILED_FIRST:
            _clear(clients, described, wishes.stack, may_clear=may_clear, tell=tell, sleep=sleep)
            described = None
        else:
            _check_changeable(wishes.stack, described["StackStatus"])
    before = parameters_of(described)
    network = find_network(clients, wishes.stack, wishes.subnets, before, s3_endpoint=wishes.s3_endpoint)
    home = find_home(clients, wishes.stack, wishes.bucket, before)
    parameters = make_parameters(wishes, before, defaults(template), network, home)
    findings = look_for_traps(
        clients,
        max_vcpus=int(parameters["MaxVcpus"]),
        instance_types=parameters["InstanceTypes"].split(","),
        on_demand=parameters["OnDemand"] == "yes",
    )
    sent = pack_template()
    whole = {**parameters, **sent.parameters}
    changes = propose(clients, wishes.stack, sent.body, whole, is_first=described is None, sleep=sleep)
    return Proposal(
        name=wishes.stack,
        region=clients.region,
        account=clients.account,
        changes=changes,
        warnings=(*network.warnings, *findings.warnings, *_home_warnings(clients, wishes, home)),
        missing_roles=findings.missing_roles,
        home=home,
        network=network,
        parameters=parameters,
    )


def check_ours(described: Mapping[str, Any], name: str) -> None:
    """Refuse to touch a stack that is not foldfleet's.

    Raises:
        UsageError: it is another program's.
    """
    tags = {tag["Key"] for tag in described.get("Tags") or ()}
    if "foldfleet:stack" not in tags and not {"StorePrefix", "MakeBucket"} <= set(parameters_of(described)):
        raise UsageError(
            f"The stack {name!r} is not foldfleet's: it lacks foldfleet's parameters. It is left alone; choose another "
            "name with --stack."
        )


def parameters_of(described: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the parameters of a deployed stack, none for None."""
    found = (described or {}).get("Parameters") or ()
    return {parameter["ParameterKey"]: parameter.get("ParameterValue", "") for parameter in found}


def _check_changeable(name: str, status: str) -> None:
    if status in READY:
        return
    if status.endswith("_IN_PROGRESS"):
        raise TryLaterError(
            f"The stack {name!r} is being changed already ({status}). `submit infra status --stack {name}` shows how "
            "far it is; run the same command again when it is done."
        )
    if status == "UPDATE_ROLLBACK_FAILED":
        raise UsageError(
            f"The stack {name!r} could not be brought back after a change that failed ({status}). Run 'aws "
            f"cloudformation continue-update-rollback --stack-name {name}', then run the same command again."
        )
    raise UsageError(
        f"The stack {name!r} cannot be changed: its state is {status}. Remove it with `submit infra down --stack "
        f"{name}` (the data stay), then run the same command again."
    )


def _clear(
    clients: Clients, described: Mapping[str, Any], name: str, *, may_clear: bool, tell: Tell, sleep: Sleep
) -> None:
    """Remove what a first attempt left behind, so that there can be a second one."""
    status = described["StackStatus"]
    if not may_clear:
        raise UsageError(
            f"The first making of the stack {name!r} failed ({status}), and its rest must be removed before it can be "
            "made again. Type the same command with --yes to do both."
        )
    tell(f"The first making of the stack {name} failed ({status}); its rest is removed, then it is made again")
    follower = Follower(clients, described["StackId"], name, tell, sleep)
    follower.begin()
    with explained(f"Removing the rest of the stack {name!r}"):
        clients.cloudformation.delete_stack(StackName=name)
    if (ended := follower.wait()) != "DELETE_COMPLETE":
        raise explain_failure(name, ended, follower.failures, "run the same command again")


def _home_warnings(clients: Clients, wishes: Wishes, home: Home) -> list[str]:
    if home.is_new or home.has_own_policy:
        return []
    warnings = []
    if not protects_results(clients, home.bucket):
        warnings.append(
            f"The bucket {home.bucket!r} has a policy of its own, which stays as it is. Results are still created and "
            "never overwritten by foldfleet, but nothing keeps other programs from it: docs/aws.md has the statements "
            "to add."
        )
    if wishes.kms_key:
        warnings.append(
            f"The bucket {home.bucket!r} was there before: its own setting decides how objects are encrypted. "
            "--kms-key gives foldfleet's roles the use of the key, no more."
        )
    return warnings


def withdraw(clients: Clients, proposal: Proposal) -> None:
    """Forget a proposal that was not wanted."""
    if proposal.changes is not None:
        drop(clients, proposal.changes)


def deploy(clients: Clients, proposal: Proposal, *, tell: Tell, sleep: Sleep) -> Stack:
    """Carry a proposal out, wait for its end, and return the stack.

    Raises:
        InterruptedRun: Ctrl-C; AWS goes on.
        FoldfleetError: a part could not be made; CloudFormation has taken back what it did.
    """
    name = proposal.name
    for role in proposal.missing_roles:
        make_linked_role(clients, role)
    if proposal.changes is not None:
        follower = Follower(clients, name, name, tell, sleep)
        follower.begin()
        carry_out(clients, proposal.changes)
        status = follower.wait()
        if status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            raise explain_failure(name, status, follower.failures, "run the same command again")
    described = describe_stack(clients, name)
    if described is None:
        raise TryLaterError(f"The stack {name!r} was removed meanwhile. Run the same command again to make it.")
    return read_stack(described, clients.region)
