"""What the commands do that make, show and remove the cloud side."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import typer

from jobspec.errors import AccessError, ExitCode, InterruptedRun, UsageError
from jobspec.settings import load_settings
from submitter.cli.display import count
from submitter.cli.infra_printing import changes_table, print_overview, print_stack
from submitter.cli.show import show_all
from submitter.cli.talk import answer, say, write
from submitter.cloud.clients import Clients, make_clients
from submitter.cloud.infra import Proposal, deploy, propose_stack, withdraw
from submitter.cloud.overview import look
from submitter.cloud.permissions import make_policies
from submitter.cloud.stack import Stack, check_stack_name
from submitter.cloud.teardown import Doomed, check_name_typed, remove, survey
from submitter.cloud.wishes import Wishes


@dataclass(frozen=True)
class UpFlags:
    """How `up` talks."""

    yes: bool
    as_json: bool


@dataclass(frozen=True)
class DownFlags:
    """What `down` may remove, and how it talks."""

    delete_data: bool
    yes: bool
    as_json: bool


def make_wishes(
    stack: str | None, *, instance_types: str | None, subnets: str | None, data: list[str] | None, **others: Any
) -> Wishes:
    """Return what was typed, lists taken apart."""
    return Wishes(
        stack=name_of(stack),
        instance_types=_split(instance_types, "--instance-types"),
        subnets=_split(subnets, "--subnets"),
        data=tuple(data) if data else None,
        **others,
    )


def name_of(stack: str | None) -> str:
    """Return the stack's name: the flag's, else the setting's."""
    return check_stack_name(stack or load_settings().stack)


def _split(text: str | None, flag: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise UsageError(f"{flag} names nothing. Name one or several, with commas between, or leave it out.")
    return parts


def print_permissions(stack: str | None) -> int:
    """Print the policies that `infra up` and `down` need, by their names; asks nobody."""
    policies = make_policies(name_of(stack), partition=_partition())
    say(f"{len(policies)} policies, since IAM takes 6,144 characters each; whoever builds needs all of them")
    write(json.dumps(policies, indent=2))
    return ExitCode.OK


def _partition() -> str:
    """Return the part of AWS in which the region lies; sends nothing."""
    try:
        return make_clients().partition
    except AccessError:  # no region is set: most people's
        return "aws"


def raise_stack(wishes: Wishes, flags: UpFlags) -> int:
    """Show what would change, ask, carry it out, and tell what to type next."""
    proposal, stack = change_stack(make_clients(), wishes, flags)
    if flags.as_json:
        answer(up_document(proposal, stack))
    else:
        print_stack(stack)
    return ExitCode.OK


def change_stack(clients: Clients, wishes: Wishes, flags: UpFlags) -> tuple[Proposal, Stack]:
    """Show what would change, ask, and carry it out."""
    may_ask = _is_terminal() and not flags.as_json
    say(f"Looking at {clients.region} of account {clients.account} (rights: `submit infra up --show-permissions`)")
    proposal = propose_stack(clients, wishes, may_clear=flags.yes or may_ask, tell=say, sleep=time.sleep)
    for warning in proposal.warnings:
        say(f"Warning: {warning}")
    if proposal.is_empty:
        say(f"The stack {proposal.name} is as it was asked for; nothing to change.")
    else:
        _show(proposal, as_json=flags.as_json)
        _agree(lambda: withdraw(clients, proposal), "Make these changes?", yes=flags.yes, may_ask=may_ask)
    return proposal, deploy(clients, proposal, tell=say, sleep=time.sleep)


def _show(proposal: Proposal, *, as_json: bool) -> None:
    home = proposal.home
    words = {"made": "to be made", "found": "found, with what is in it", "kept": "the stack's"}[home.origin]
    say(f"Bucket {home.bucket} ({words}); network {proposal.network.vpc}, {len(proposal.network.subnets)} subnets")
    if not as_json:
        show_all(changes_table(proposal.rows))


def _agree(take_back: Any, question: str, *, yes: bool, may_ask: bool) -> None:
    """Go on if that is wanted.

    Raises:
        UsageError: nobody can be asked.
        InterruptedRun: the answer is no.
    """
    if yes:
        return
    try:
        agreed = may_ask and typer.confirm(question, default=False, err=True)
    except (KeyboardInterrupt, typer.Abort):
        take_back()
        raise
    if agreed:
        return
    take_back()
    if not may_ask:
        raise UsageError("Nothing was changed: there is no terminal to ask. Type the same command with --yes.")
    raise InterruptedRun("Nothing was changed.")


def up_document(proposal: Proposal, stack: Stack) -> dict[str, Any]:
    """Return what was changed, and the stack, as the answer of ``--json``."""
    changes = proposal.changes
    return {
        "state": "unchanged" if changes is None else "created" if changes.is_first else "updated",
        "stack": asdict(stack),
        "changes": [change.to_json() for change in proposal.rows],
        "warnings": list(proposal.warnings),
        "parameters": dict(proposal.parameters),
    }


def show_stack(stack: str | None, *, as_json: bool) -> int:
    """Show what there is of a stack."""
    overview = look(make_clients(), name_of(stack))
    if as_json:
        answer(overview.to_json())
    else:
        print_overview(overview)
    return ExitCode.OK


def lower_stack(stack: str | None, flags: DownFlags) -> int:
    """Show what would be removed, ask, remove it, and list what remains."""
    clients = make_clients()
    may_ask = _is_terminal() and not flags.as_json
    doomed = survey(clients, name_of(stack))
    for line in _doom(doomed, flags):
        say(line)
    if doomed.stack_id or doomed.definitions or doomed.num_images or flags.delete_data:
        if flags.delete_data and may_ask and not flags.yes:
            check_name_typed(doomed, typer.prompt(f"Type {doomed.bucket} to delete all data", err=True))
        else:
            _agree(lambda: None, "Remove this?", yes=flags.yes, may_ask=may_ask)
    remains = remove(clients, doomed, delete_data=flags.delete_data, tell=say, sleep=time.sleep)
    if flags.as_json:
        answer({"stack": doomed.name, "removed": doomed.stack_id is not None, "remains": remains})
    else:
        write(f"Removed the stack {doomed.name}." if doomed.stack_id else f"There is no stack {doomed.name}.")
        for sentence in remains:
            write(f"Remains: {sentence}.")
    return ExitCode.OK


def _doom(doomed: Doomed, flags: DownFlags) -> list[str]:
    place = f"in {doomed.region} of account {doomed.account}"
    lines = [f"The stack {doomed.name} {place} ({doomed.status})"] if doomed.stack_id else []
    lines += [f"Its {count(doomed.num_images, 'image')} and {count(len(doomed.definitions), 'job definition')}"] * bool(
        doomed.num_images or doomed.definitions
    )
    if doomed.requests:
        names = ", ".join(request.name for request in doomed.requests[:5])
        more = f" and {len(doomed.requests) - 5} more" if len(doomed.requests) > 5 else ""
        lines.append(f"{len(doomed.requests)} requests that run or wait are terminated: {names}{more}")
    if doomed.holders:
        names = ", ".join(dict.fromkeys(f"{holder.kind} {holder.name}" for holder in doomed.holders))
        lines.append(f"Its policies for people, which are detached from {names}")
    if flags.delete_data and doomed.bucket_exists:
        lines.append(f"ALL DATA in {doomed.data}")
    return lines


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
