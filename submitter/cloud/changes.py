"""Change sets: what CloudFormation would do, shown before it does it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobspec.errors import FoldfleetError, TryLaterError
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.stack import describe_stack

_NOTHING = ("didn't contain changes", "no updates are to be performed")
_POLL_S = 2.0
_MAX_POLLS = 150

Sleep = Callable[[float], object]


@dataclass(frozen=True)
class Change:
    """One thing that CloudFormation would make, change or remove."""

    action: str
    resource: str
    type: str
    replacement: str
    """True, False or Conditional; "" for what is made or removed."""

    def to_json(self) -> dict[str, str]:
        """Encode for printing."""
        return asdict(self)


@dataclass(frozen=True)
class ChangeSet:
    """What would change, not carried out yet; ``is_first`` if the stack does not exist."""

    stack: str
    name: str
    changes: tuple[Change, ...]
    is_first: bool


def propose(
    clients: Clients, stack: str, template: str, parameters: Mapping[str, str], *, is_first: bool, sleep: Sleep
) -> ChangeSet | None:
    """Ask CloudFormation what would change; None if nothing would.

    Raises:
        FoldfleetError: the template or a parameter is refused.
        TryLaterError: it takes too long.
    """
    name = f"foldfleet-{uuid.uuid4().hex[:12]}"
    with explained(f"Asking what would change in the stack {stack!r}"):
        clients.cloudformation.create_change_set(
            StackName=stack,
            ChangeSetName=name,
            ChangeSetType="CREATE" if is_first else "UPDATE",
            Description="made by submit infra up",
            TemplateBody=template,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": "foldfleet:stack", "Value": stack}],
        )
    changes: list[Change] = []
    status, reason = _wait(clients, stack, name, changes, sleep)
    proposed = ChangeSet(stack, name, tuple(changes), is_first)
    if status == "FAILED":
        drop(clients, proposed)
        if any(words in reason.lower() for words in _NOTHING):
            return None
        raise FoldfleetError(f"CloudFormation refuses the change of the stack {stack!r}: {reason} Nothing was changed.")
    if not changes and not is_first:
        drop(clients, proposed)
        return None
    return proposed


def _wait(clients: Clients, stack: str, name: str, changes: list[Change], sleep: Sleep) -> tuple[str, str]:
    """Wait until a change set is worked out, and collect its changes; return its status and the reason of that."""
    for _ in range(_MAX_POLLS):
        with explained(f"Reading what would change in the stack {stack!r}"):
            told: Any = clients.cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
            if told["Status"] == "CREATE_COMPLETE":
                changes.extend(_read(told))
                while token := told.get("NextToken"):
                    told = clients.cloudformation.describe_change_set(
                        StackName=stack, ChangeSetName=name, NextToken=token
                    )
                    changes.extend(_read(told))
        if told["Status"] in {"CREATE_COMPLETE", "FAILED"}:
            return str(told["Status"]), str(told.get("StatusReason", ""))
        sleep(_POLL_S)
    raise TryLaterError(
        f"CloudFormation has not worked out what would change in the stack {stack!r}. Run the same command again."
    )


def _read(told: Mapping[str, Any]) -> list[Change]:
    found = [item["ResourceChange"] for item in told.get("Changes", []) if "ResourceChange" in item]
    return [
        Change(item["Action"], item["LogicalResourceId"], item["ResourceType"], str(item.get("Replacement") or ""))
        for item in found
    ]


def carry_out(clients: Clients, proposed: ChangeSet) -> None:
    """Begin to make the changes."""
    with explained(f"Changing the stack {proposed.stack!r}"):
        clients.cloudformation.execute_change_set(StackName=proposed.stack, ChangeSetName=proposed.name)


def drop(clients: Clients, proposed: ChangeSet) -> None:
    """Forget a change set, and the empty stack that a first one brings along."""
    with explained(f"Dropping the changes of the stack {proposed.stack!r}"):
        clients.cloudformation.delete_change_set(StackName=proposed.stack, ChangeSetName=proposed.name)
        # Only a stack that was never made may go: between two of our requests somebody else may have made it.
        if proposed.is_first and describe_stack(clients, proposed.stack) is None:
            clients.cloudformation.delete_stack(StackName=proposed.stack)
