"""The command line: each command parses, calls one function, and returns its exit code.

Nothing heavier than typer is imported before a command runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from submitter.cli.events_app import app as events_app
from submitter.cli.image_app import app as image_app
from submitter.cli.infra_app import app as infra_app
from submitter.cli.options import (
    AllowSmallClasses,
    AsJson,
    Detach,
    DryRun,
    Fresh,
    MaxCells,
    MaxFolds,
    On,
    RunName,
    ShownRun,
    SpecPath,
    StackName,
    StoreUrl,
    Workers,
)
from submitter.cli.stepfunctions_app import app as stepfunctions_app

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(events_app, name="events")
app.add_typer(image_app, name="image")
app.add_typer(infra_app, name="infra")
app.add_typer(stepfunctions_app, name="stepfunctions")

MAX_CELLS = 1_000_000
MAX_FOLDS = 1_000
LATEST = "latest"


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors (anywhere).")] = False,  # noqa: ARG001
) -> None:
    """Cross-validated model search as one array job, with scikit-learn's exact scores.

    Begin with `submit init`, then `submit run foldfleet.yaml`.

    Exit codes: 0 done, 1 finished but some cells failed, 2 usage or spec, 3 data, 4 permission, 5 not found,
    7 refused by a limit, 70 a bug, 75 try again later, 130 interrupted or cancelled.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to write it.")] = Path(),
    as_json: AsJson = False,
) -> int:
    """Write a commented spec that runs as it stands."""
    from submitter.cli.talk import answer, write
    from submitter.starter import write_starter

    path = write_starter(folder)
    if as_json:
        answer({"spec": str(path)})
    else:
        write(f"Wrote {path}. Run it with `submit run {path}`.")
    return 0


@app.command()
def validate(
    spec: SpecPath,
    store: StoreUrl = None,
    max_folds: MaxFolds = MAX_FOLDS,
    allow_small_classes: AllowSmallClasses = False,
    as_json: AsJson = False,
) -> int:
    """Check spec and data without fitting anything."""
    from submitter.cli.spec_commands import SpecFlags, validate_spec

    return validate_spec(spec, SpecFlags("local", store, None, max_folds, allow_small_classes, as_json))


@app.command()
def plan(
    spec: SpecPath,
    on: On = "local",
    store: StoreUrl = None,
    workers: Workers = None,
    max_folds: MaxFolds = MAX_FOLDS,
    allow_small_classes: AllowSmallClasses = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Count what a run would compute. Starts nothing.

    Candidates, folds, cells, fits, tasks, bytes; with --dry-run also the request that would be sent.
    """
    from submitter.cli.spec_commands import SpecFlags, plan_spec

    flags = SpecFlags(on, store, workers, max_folds, allow_small_classes, as_json)
    return plan_spec(spec, flags, dry_run=dry_run)


@app.command()
def run(
    spec: SpecPath,
    on: On = "local",
    store: StoreUrl = None,
    workers: Workers = None,
    fresh: Fresh = False,
    detach: Detach = False,
    max_cells: MaxCells = MAX_CELLS,
    max_folds: MaxFolds = MAX_FOLDS,
    allow_small_classes: AllowSmallClasses = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Run a spec, or resume or reuse its run.

    The same spec on the same data is the same run: what is finished is never computed again.
    """
    from submitter.cli.spec_commands import RunFlags, SpecFlags, run_spec

    flags = SpecFlags(on, store, workers, max_folds, allow_small_classes, as_json)
    return run_spec(spec, flags, RunFlags(fresh, detach, dry_run, max_cells))


@app.command()
def status(run: ShownRun = LATEST, store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Show how far a run is and where it runs."""
    from submitter.cli.run_commands import show_status
    from submitter.cli.spec_commands import open_desk

    return show_status(open_desk(store), run, as_json=as_json)


@app.command()
def watch(run: ShownRun = LATEST, store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Follow a run until it ends."""
    from submitter.cli.run_commands import watch_run
    from submitter.cli.spec_commands import open_desk

    return watch_run(open_desk(store), run, as_json=as_json)


@app.command()
def logs(
    run: ShownRun = LATEST,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines of each log.")] = 50,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> int:
    """Print the logs of a run's tasks."""
    from submitter.cli.run_commands import show_logs
    from submitter.cli.spec_commands import open_desk

    return show_logs(open_desk(store), run, num_lines=lines, as_json=as_json)


@app.command()
def cancel(run: RunName, store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Stop a run, keeping what is finished.

    A partial table is made of it; `submit resume` goes on.
    """
    from submitter.cli.run_commands import cancel_run
    from submitter.cli.spec_commands import open_desk

    return cancel_run(open_desk(store), run, as_json=as_json)


@app.command()
def resume(run: RunName, workers: Workers = None, store: StoreUrl = None, as_json: AsJson = False) -> int:
    """Compute what is missing or was lost.

    Needs neither the spec file nor the data file: the store has both.
    """
    from submitter.cli.run_commands import resume_run
    from submitter.cli.spec_commands import open_desk

    return resume_run(open_desk(store), run, workers=workers, as_json=as_json)


@app.command()
def results(
    run: ShownRun = LATEST,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="How many candidates.")] = 20,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> int:
    """Show the leaderboard of a run."""
    from submitter.cli.run_commands import show_results
    from submitter.cli.spec_commands import open_desk

    return show_results(open_desk(store), run, top=top, as_json=as_json)


@app.command("list")
def list_(store: StoreUrl = None, as_json: AsJson = False) -> int:
    """List the runs of the store, the newest first."""
    from submitter.cli.run_commands import list_runs
    from submitter.cli.spec_commands import open_desk

    return list_runs(open_desk(store), as_json=as_json)


@app.command()
def gc(
    older_than: Annotated[
        float, typer.Option("--older-than", min=0, metavar="HOURS", help="Leave alone what was written since.")
    ] = 24.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove what is shown.")] = False,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> int:
    """Show what the store no longer needs, and remove it with --yes.

    Drafts that were not committed, logs whose folded results are there, datasets of no run, uploads never completed.
    """
    from submitter.cli.gc_commands import collect_garbage
    from submitter.cli.spec_commands import open_desk

    return collect_garbage(open_desk(store), older_than_h=older_than, yes=yes, as_json=as_json)


@app.command()
def doctor(
    on: On = "local",
    store: StoreUrl = None,
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Look for what would keep runs from working, each with its remedy.

    The exit code is 0 if nothing is wrong, else the one with which a run would end.
    """
    from submitter.cli.doctor_commands import examine_place

    return examine_place(on, store, stack, as_json=as_json)


@app.command()
def schema(as_json: AsJson = False) -> int:  # noqa: ARG001 - it is JSON in any case
    """Print the spec's JSON schema, for editors."""
    from jobspec.grammar.reference import make_json_schema
    from submitter.cli.talk import write

    write(json.dumps(make_json_schema(), indent=2))
    return 0
