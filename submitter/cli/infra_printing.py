"""How the cloud side looks on stdout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from submitter.cli.show import facts_table, format_bytes, show_all
from submitter.cli.talk import write
from submitter.cloud.changes import Change
from submitter.cloud.overview import Overview
from submitter.cloud.stack import Stack

if TYPE_CHECKING:
    from rich.table import Table

_REPLACED = {"True": "replaced", "Conditional": "perhaps replaced", "False": "in place", "": ""}
_VERBS = {"Add": "make", "Modify": "change", "Remove": "remove", "Import": "import", "Dynamic": "decide later"}
Fact = tuple[str, str]


def changes_table(changes: Sequence[Change]) -> Table:
    """Return what would be made, changed and removed."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("change", "part", "type", "how"):
        table.add_column(column, overflow="fold")
    for change in changes:
        verb = _VERBS.get(change.action, change.action.lower())
        table.add_row(verb, change.resource, change.type.removeprefix("AWS::"), _REPLACED.get(change.replacement, ""))
    return table


def print_stack(stack: Stack) -> None:
    """Print what exists now, and what to type next."""
    hosts = f"up to {stack.max_vcpus} vCPUs of {', '.join(stack.instance_types)}"
    facts: list[Fact] = [
        ("stack", f"{stack.name} in {stack.region} of account {stack.account}"),
        ("store", stack.store_url),
        ("repository", stack.repository_uri),
        ("queue", f"{stack.queue_name}: spot{' and on-demand' if stack.on_demand_environment_arn else ''}, {hosts}"),
        ("policy", f"{stack.submitter_policy_arn} (attach it to whoever submits)"),
        ("", f"{stack.events_policy_arn} (beside it, to whoever types `submit events`)"),
        ("events", describe_events(stack)),
        ("costs", "nothing but what S3, ECR and the logs hold, until a run starts hosts"),
    ]
    show_all(facts_table(facts))
    write("")
    write("Next:")
    option = "" if stack.name == "foldfleet" else f" --stack {stack.name}"
    write(f"  submit image push{option}")
    write(f"  export FOLDFLEET_STORE={stack.store_url}")
    write("  submit run foldfleet.yaml --on aws")


def describe_events(stack: Stack) -> str:
    """Say which uploads start searches."""
    if not stack.events:
        return "off (`submit events enable` has uploads and schedules start searches)"
    bucket = f"s3://{stack.bucket_name}"
    data = f", data below {bucket}/{stack.data_prefix}" if stack.data_prefix else ""
    topic = f"; told to {stack.notify_topic_arn}" if stack.notify_topic_arn else ""
    return f"on: specs below {bucket}/{stack.spec_prefix}{data}, schedules{topic}"


def print_overview(overview: Overview) -> None:
    """Print a stack's state, what runs, and what to do about what is wrong."""
    show_all(facts_table([*_facts(overview)]))


def _facts(overview: Overview) -> Iterator[Fact]:
    reason = f" ({overview.reason})" if overview.reason else ""
    yield "stack", f"{overview.name} in {overview.region} of account {overview.account}: {overview.state}{reason}"
    if overview.stack is None:
        busy = overview.state.endswith("_IN_PROGRESS")
        yield "next", "wait, and ask again" if busy else f"submit infra up --stack {overview.name}"
        return
    yield "store", overview.stack.store_url
    yield "events", describe_events(overview.stack)
    queue = overview.queue
    yield "queue", _with_remedy(f"{queue['name']} {queue['state']} {queue['status']}".strip(), queue)
    for environment in overview.environments:
        told = {"reason": environment.reason, "remedy": environment.remedy}
        state = f"{environment.state} {environment.status}".strip()
        vcpus = f"{environment.desired} of at most {environment.maximum} vCPUs in hosts"
        yield environment.kind, _with_remedy(f"{state}, {vcpus}", told)
    active = ", ".join(f"{number} {state.lower()}" for state, number in overview.active.items() if number)
    yield "tasks", f"{active or 'none'}; {overview.vcpus_in_use} vCPUs in use"
    for request in overview.requests[:5]:
        yield "", f"{request.name} {request.status.lower()}"
    if len(overview.requests) > 5:
        yield "", f"and {len(overview.requests) - 5} more"
    for image in overview.images:
        engines = f", engine {', '.join(image.engine_ids)}" if image.engine_ids else ", no job definitions"
        yield "image", f"{' '.join(image.tags) or image.digest[:19]}  {format_bytes(image.size_bytes)}{engines}"
    if not overview.images:
        yield "image", "none: submit image push"


def _with_remedy(text: str, told: Mapping[str, str]) -> str:
    reason, remedy = told.get("reason", ""), told.get("remedy", "")
    return f"{text}{f': {reason}' if reason else ''}{f' -> {remedy}' if remedy else ''}"
