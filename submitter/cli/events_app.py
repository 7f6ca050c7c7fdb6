"""The commands of ``submit events``."""

from __future__ import annotations

from typing import Annotated

import typer

from submitter.cli.infra_options import Yes
from submitter.cli.options import AsJson, SpecPath, StackName

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def events(context: typer.Context) -> None:
    """Searches that start by an upload to the stack's bucket, by new data, or by the clock."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def enable(
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="PREFIX/", help="Where specs are uploaded. [default: incoming/]")
    ] = None,
    data_prefix: Annotated[
        str | None,
        typer.Option("--data-prefix", metavar="PREFIX/", help="Where data for templates are; '' for nowhere."),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option("--notify", metavar="ARN", help="An SNS topic that hears of starts and ends; '' for none."),
    ] = None,
    max_cells: Annotated[
        int | None, typer.Option("--max-cells", metavar="N", help="Most cells of a search. [default: 100,000]")
    ] = None,
    max_hours: Annotated[
        int | None, typer.Option("--max-hours", metavar="H", help="Most hours of a search. [default: 24]")
    ] = None,
    max_vcpu_hours: Annotated[
        int | None, typer.Option("--max-vcpu-hours", metavar="V", help="Most vCPU-hours of a search. [default: 500]")
    ] = None,
    max_task_vcpus: Annotated[
        int | None, typer.Option("--max-task-vcpus", metavar="N", help="Most vCPUs of a task. [default: 16]")
    ] = None,
    max_task_memory_gib: Annotated[
        int | None, typer.Option("--max-task-memory-gib", metavar="G", help="Most GiB of a task. [default: 64]")
    ] = None,
    stack: StackName = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """Let uploads and schedules start searches; shows what would change in the stack, then asks.

    Typed again, it changes what its options name and keeps the rest. The ceilings (--max-...) bind what nobody starts
    from a desk.
    """
    from submitter.cli.events_commands import enable_events
    from submitter.cli.infra_commands import UpFlags

    return enable_events(
        stack,
        UpFlags(yes=yes, as_json=as_json),
        spec_prefix=prefix,
        data_prefix=data_prefix,
        notify_topic=notify,
        upload_max_cells=max_cells,
        upload_max_hours=max_hours,
        upload_max_vcpu_hours=max_vcpu_hours,
        upload_max_task_vcpus=max_task_vcpus,
        upload_max_task_memory_gib=max_task_memory_gib,
    )


@app.command()
def disable(stack: StackName = None, yes: Yes = False, as_json: AsJson = False) -> int:
    """Let nothing start searches but people; schedules are removed, what has read its upload goes on."""
    from submitter.cli.events_commands import disable_events
    from submitter.cli.infra_commands import UpFlags

    return disable_events(stack, UpFlags(yes=yes, as_json=as_json))


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, metavar="N", help="How many at most.")] = 20,
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Show recent uploads and scheduled starts, and what each became."""
    from submitter.cli.events_commands import list_arrivals

    return list_arrivals(stack, limit, as_json=as_json)


@app.command()
def template(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder below which its data are uploaded.")],
    spec: SpecPath,
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Store the spec that data uploaded below a folder of this name start; the next one takes its place."""
    from submitter.cli.events_commands import store_template

    return store_template(name, spec, stack, as_json=as_json)


@app.command()
def templates(stack: StackName = None, as_json: AsJson = False) -> int:
    """List the templates, and where data start each."""
    from submitter.cli.events_commands import show_templates

    return show_templates(stack, as_json=as_json)


@app.command()
def schedule(
    expression: Annotated[
        str, typer.Argument(metavar="WHEN", help="cron(0 3 * * ? *), rate(12 hours) or at(2030-01-31T03:00:00).")
    ],
    spec: SpecPath,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The schedule's. [default: the spec's]")
    ] = None,
    timezone: Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Where that time is meant, such as Europe/Berlin.")
    ] = "UTC",
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Start a search by the clock; another one under the same name takes its place."""
    from submitter.cli.events_commands import Planned, save_planned

    return save_planned(Planned(expression, spec, name, timezone), stack, as_json=as_json)


@app.command()
def schedules(stack: StackName = None, as_json: AsJson = False) -> int:
    """List the schedules."""
    from submitter.cli.events_commands import show_schedules

    return show_schedules(stack, as_json=as_json)


@app.command()
def unschedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")],
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Remove a schedule; what it has started goes on."""
    from submitter.cli.events_commands import drop_schedule

    return drop_schedule(name, stack, as_json=as_json)
