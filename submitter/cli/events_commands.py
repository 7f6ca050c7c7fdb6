"""What the commands do that let uploads and schedules start searches."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobspec.errors import ExitCode, NotFoundError
from jobspec.grammar.load import check_no_file, load
from jobspec.stores.base import open_store
from submitter.backends.aws.shape import check_numerics
from submitter.cli.display import count
from submitter.cli.events_printing import arrivals_table, print_events, schedules_table, templates_table
from submitter.cli.infra_commands import UpFlags, change_stack, name_of, up_document
from submitter.cli.show import show_all
from submitter.cli.talk import answer, say, write
from submitter.cloud.bucket import other_notices, tells_events, turn_on_notices
from submitter.cloud.clients import Clients, make_clients
from submitter.cloud.infra import parameters_of
from submitter.cloud.stack import Stack, describe_stack, find_stack
from submitter.cloud.wishes import Wishes
from submitter.events.arrivals import list_recent
from submitter.events.expressions import check_expression, check_timezone
from submitter.events.schedules import (
    Schedule,
    check_name,
    check_places,
    list_schedules,
    remove_schedule,
    save_schedule,
    save_spec,
)
from submitter.events.switches import check_on, has_image, option
from submitter.events.templates import check_template, list_templates, save_template


@dataclass(frozen=True)
class Planned:
    """What was typed about a schedule."""

    expression: str
    spec: Path
    name: str | None
    timezone: str


def enable_events(stack: str | None, flags: UpFlags, *, spec_prefix: str | None, **others: Any) -> int:
    """Show what would change, ask, let uploads and schedules start searches, and tell how."""
    clients, name = make_clients(), name_of(stack)
    _tell_of_bucket(clients, _require(clients, name))
    others["data_prefix"] = _folder(others["data_prefix"])
    wishes = Wishes(name, events=True, spec_prefix=_folder(spec_prefix), **others)
    proposal, deployed = change_stack(clients, wishes, flags)
    if not proposal.home.is_new:
        turn_on_notices(clients, deployed.bucket_name)
    warnings = [] if has_image(clients, deployed) else [_no_image(deployed)]
    for warning in warnings:
        say(f"Warning: {warning}")
    if flags.as_json:
        document = up_document(proposal, deployed)
        answer({**document, "warnings": [*document["warnings"], *warnings]})
    else:
        print_events(deployed, proposal.parameters)
    return ExitCode.OK


def _require(clients: Clients, name: str) -> Mapping[str, str]:
    """Return a stack's parameters; a whole stack is not made by the way.

    Raises:
        NotFoundError: there is none.
    """
    described = describe_stack(clients, name)
    if described is None:
        raise NotFoundError(
            f"There is no stack {name!r} in {clients.region} of account {clients.account} in which "
            f"uploads could start searches. Make it with `submit infra up{option(name)}`, or choose another region "
            "(AWS_REGION), account (AWS_PROFILE) or stack (--stack, FOLDFLEET_STACK)."
        )
    return parameters_of(described)


def _tell_of_bucket(clients: Clients, parameters: Mapping[str, str]) -> None:
    """Say what no change set shows: what becomes of the notifications of the bucket."""
    bucket = parameters.get("BucketName")
    if not bucket or tells_events(clients, bucket):
        return
    if parameters.get("MakeBucket") != "yes":
        say(f"The bucket {bucket} is to tell EventBridge of new objects, beside what it tells already")
    elif other_notices(clients, bucket):  # CloudFormation's handler puts what the template says, and nothing else
        say(
            f"Warning: the bucket {bucket} has notifications that somebody added to it, and CloudFormation replaces "
            "them by EventBridge's. Make them rules of EventBridge first, or add them again afterwards."
        )


def _folder(prefix: str | None) -> str | None:
    """Return a prefix as the name of a folder: `jobs` is meant as `jobs/`, whoever types it."""
    return f"{prefix.rstrip('/')}/" if prefix else prefix


def _no_image(stack: Stack) -> str:
    return (
        f"no image was pushed to the stack {stack.name} that can plan searches, and every upload would fail. "
        f"`submit image build`, then `submit image push{option(stack.name)}`."
    )


def disable_events(stack: str | None, flags: UpFlags) -> int:
    """Tell what ends with it, ask, and let nothing but people start searches."""
    clients, name = make_clients(), name_of(stack)
    before = find_stack(clients, name)
    lost = list_schedules(clients, before)
    if lost:
        names = ", ".join(one.name for one in lost)
        say(f"With events go {count(len(lost), 'schedule')}: {names}. `submit events schedule` makes them again.")
    proposal, deployed = change_stack(clients, Wishes(name, events=False), flags)
    remains = _remains(deployed, has_own_bucket=proposal.home.is_new)
    if flags.as_json:
        document = up_document(proposal, deployed)
        answer({**document, "schedules_removed": [one.to_json() for one in lost], "remains": remains})
    else:
        write(f"Events are off in the stack {name}: uploads start nothing.")
        for sentence in remains:
            write(f"Remains: {sentence}.")
    return ExitCode.OK


def _remains(stack: Stack, *, has_own_bucket: bool) -> list[str]:
    told = f"the bucket {stack.bucket_name} tells EventBridge of new objects: other rules than ours may want that"
    shown = f"`submit events list{option(stack.name)}` shows what became of them"
    return [
        *([] if has_own_bucket else [told]),
        f"searches that have read what was uploaded go on, and {shown}",
        f"what was uploaded, templates and outcomes stay in s3://{stack.bucket_name}",
        f"`submit run --on stepfunctions` and StartExecution on {stack.search_machine_arn} work as before",
    ]


def list_arrivals(stack: str | None, limit: int, *, as_json: bool) -> int:
    """Show recent uploads and scheduled starts, and what each became."""
    clients = make_clients()
    deployed = find_stack(clients, name_of(stack))
    found = list_recent(clients, deployed, open_store(deployed.store_url), limit)
    if as_json:
        document = {"stack": deployed.name, "events": deployed.events}
        answer({**document, "arrivals": [one.to_json() for one in found]})
    elif found:
        show_all(arrivals_table(found, deployed.bucket_name))
    elif deployed.events:
        where = f"s3://{deployed.bucket_name}/{deployed.spec_prefix}"
        say(f"Nothing has arrived yet. `aws s3 cp foldfleet.yaml {where}` starts a search.")
    else:
        say(f"Nothing has arrived, and events are off: `submit events enable{option(deployed.name)}` enables them.")
    return ExitCode.OK


def store_template(name: str, path: Path, stack: str | None, *, as_json: bool) -> int:
    """Check a template spec, store it, and tell where data start it."""
    loaded = load(path)
    check_numerics(loaded.spec.numerics, "for a template")
    check_template(name, loaded)
    deployed = find_stack(make_clients(), name_of(stack))
    saved = save_template(open_store(deployed.store_url), deployed, name, loaded, time.time())
    if as_json:
        answer(saved.to_json())
        return ExitCode.OK
    write(f"Stored {path} as the template {name}: {saved.url}")
    if saved.watched is not None:
        write(f"Data start it: aws s3 cp FILE {saved.watched}")
    else:
        say(
            "Nothing starts it yet: no prefix for data is watched. `submit events enable --data-prefix "
            f"{deployed.data_prefix or 'retrain/'}{option(deployed.name)}` watches one."
        )
    return ExitCode.OK


def show_templates(stack: str | None, *, as_json: bool) -> int:
    """List the templates of a stack."""
    deployed = find_stack(make_clients(), name_of(stack))
    found = list_templates(open_store(deployed.store_url), deployed)
    if as_json:
        answer({"stack": deployed.name, "templates": [one.to_json() for one in found]})
    elif found:
        show_all(templates_table(found))
    else:
        say("There are no templates. `submit events template NAME SPEC` stores one.")
    return ExitCode.OK


def save_planned(planned: Planned, stack: str | None, *, as_json: bool) -> int:
    """Check a schedule and its spec, make or change it, and tell which."""
    timezone = check_timezone(planned.timezone)
    expression = check_expression(planned.expression, timezone, datetime.now(UTC))
    loaded = load(planned.spec)
    check_numerics(loaded.spec.numerics, "for a scheduled search")
    check_no_file(loaded, "a scheduled search")
    name = check_name(planned.name or loaded.spec.name)
    clients = make_clients()
    deployed = find_stack(clients, name_of(stack))
    check_on(deployed, "A schedule")
    check_places(deployed, loaded)
    wanted = Schedule(name, expression, timezone, save_spec(open_store(deployed.store_url), loaded))
    change = save_schedule(clients, deployed, wanted)
    if as_json:
        answer({"state": change, "schedule": wanted.to_json()})
    else:
        words = {"created": "Made the", "updated": "Changed the", "unchanged": "There is already this"}
        write(f"{words[change]} schedule {name}: {expression} in {timezone} starts {wanted.spec}")
    return ExitCode.OK


def show_schedules(stack: str | None, *, as_json: bool) -> int:
    """List the schedules of a stack."""
    clients = make_clients()
    deployed = find_stack(clients, name_of(stack))
    found = list_schedules(clients, deployed)
    if as_json:
        answer({"stack": deployed.name, "schedules": [one.to_json() for one in found]})
    elif found:
        show_all(schedules_table(found))
    else:
        say("There are no schedules. `submit events schedule 'cron(0 3 * * ? *)' SPEC` makes one.")
    return ExitCode.OK


def drop_schedule(name: str, stack: str | None, *, as_json: bool) -> int:
    """Remove a schedule."""
    clients = make_clients()
    deployed = find_stack(clients, name_of(stack))
    remove_schedule(clients, deployed, check_name(name))
    if as_json:
        answer({"state": "removed", "name": name})
    else:
        write(f"Removed the schedule {name}. What it has started goes on.")
    return ExitCode.OK
