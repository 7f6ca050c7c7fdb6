"""The commands of ``submit stepfunctions``."""

from __future__ import annotations

from typing import Annotated

import typer

from submitter.cli.options import StackName

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def stepfunctions(context: typer.Context) -> None:
    """Look at the state machine that carries out a search on AWS; `submit run --on stepfunctions` starts it."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def template(
    stack: StackName = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="As CloudFormation gets it: ${...} where stacks differ; asks nobody.")
    ] = False,
) -> int:
    """Print the definition of the search machine, in the Amazon States Language, and how to nest it in your own.

    A workflow of yours starts it with `arn:aws:states:::states:startExecution.sync:2`, as in
    examples/nested-workflow.json.
    """
    from submitter.cli.stepfunctions_commands import print_definition

    return print_definition(stack, offline=offline)
