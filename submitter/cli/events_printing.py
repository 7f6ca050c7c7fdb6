"""How uploads, templates and schedules look on stdout; their names are anybody's, and are shown safely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from submitter.cli.infra_printing import Fact
from submitter.cli.show import facts_table, format_time, show_all
from submitter.cli.talk import write
from submitter.cloud.stack import Stack
from submitter.events.arrivals import Arrival
from submitter.events.schedules import Schedule
from submitter.events.switches import option
from submitter.events.templates import Template
from submitter.machines.places import places_to_read

if TYPE_CHECKING:
    from rich.table import Table


def plain(text: str) -> str:
    """Return a text without what a terminal obeys: control characters and changes of direction become escapes.

    A key of S3 may hold any character, and whoever may upload chooses it.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def arrivals_table(found: Sequence[Arrival], bucket: str) -> Table:
    """Return what arrived, and what each became; objects of the stack's own bucket by their keys."""
    table = _table("when", "what", "state", "run", "message")
    for one in found:
        what = f"schedule {one.name}" if one.kind == "schedule" else one.name.removeprefix(f"s3://{bucket}/")
        table.add_row(format_time(one.time), plain(what), one.state, plain(one.run_id or "-"), plain(one.message))
    return table


def templates_table(found: Sequence[Template]) -> Table:
    """Return the templates."""
    table = _table("template", "stored", "data start it below")
    for one in found:
        table.add_row(plain(one.name), format_time(one.written), one.watched or "(no prefix for data is watched)")
    return table


def schedules_table(found: Sequence[Schedule]) -> Table:
    """Return the schedules."""
    table = _table("schedule", "when", "zone", "spec")
    for one in found:
        when = one.expression if one.is_enabled else f"{one.expression} (disabled)"
        table.add_row(plain(one.name), plain(when), plain(one.timezone), plain(one.spec or "(not foldfleet's)"))
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("when", "state", "stored"))
    return table


def print_events(stack: Stack, parameters: Mapping[str, str]) -> None:
    """Print what starts searches now, what bounds them, and what to type next."""
    show_all(facts_table([*_facts(stack, parameters)]))
    where = f"s3://{stack.bucket_name}/{stack.spec_prefix}"
    write("")
    write("Next:")
    write(f"  aws s3 cp foldfleet.yaml {where}")
    write(f"  submit events list{option(stack.name)}")


def _facts(stack: Stack, parameters: Mapping[str, str]) -> Iterator[Fact]:
    yield "specs", f"s3://{stack.bucket_name}/{stack.spec_prefix}*.yaml: each upload starts its search"
    if stack.data_prefix:
        yield "data", f"s3://{stack.bucket_name}/{stack.data_prefix}NAME/*: each upload starts the template NAME on it"
    places = places_to_read(stack.store_url, stack.data_places, (stack.spec_prefix, stack.data_prefix))
    yield "may read", ", ".join(f"s3://{pattern}" for pattern in places.patterns)
    yield "ceilings", _ceilings(parameters)
    if stack.notify_topic_arn:
        yield "tells", stack.notify_topic_arn
    if stack.events_policy_arn:
        yield "policy", f"{stack.events_policy_arn} (attach it to whoever stores templates and schedules)"
    yield "outcomes", f"{stack.store_url}/outcomes/"


def _ceilings(parameters: Mapping[str, str]) -> str:
    task = f"{parameters['UploadMaxTaskVcpus']} vCPUs and {parameters['UploadMaxTaskMemoryGib']} GiB a task"
    search = f"{parameters['UploadMaxHours']} hours, {parameters['UploadMaxVcpuHours']} vCPU-hours"
    return f"{int(parameters['UploadMaxCells']):,} cells, {task}, {search}"
