"""The commands of ``submit image``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submitter.cli.options import AsJson, StackName

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def image(context: typer.Context) -> None:
    """Make the images that tasks run in, and bring them to a stack."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command()
def build(
    tag: Annotated[str | None, typer.Option("--tag", metavar="NAME", help="[default: foldfleet:VERSION]")] = None,
    base: Annotated[
        str | None, typer.Option("--base", metavar="IMAGE", help="An image with Python 3.11 or later and venv.")
    ] = None,
    requirements: Annotated[
        Path | None, typer.Option("--requirements", metavar="FILE", help="Packages of your own, as pip reads them.")
    ] = None,
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="sklearn, or h2o with Java.")] = "sklearn",
    platform: Annotated[
        str, typer.Option("--platform", metavar="OS/ARCH", help="What machines it is for.")
    ] = "linux/amd64",
    as_json: AsJson = False,
) -> int:
    """Build the image that `submit run --on docker` uses.

    It holds foldfleet with the packages of its lock, your requirements, and the modules that your configuration allows.
    """
    from submitter.cli.image_commands import make_image
    from submitter.images.build import ImageOptions, default_tag

    return make_image(ImageOptions(tag or default_tag(), base, requirements, target, platform), as_json=as_json)


@app.command()
def push(
    image: Annotated[
        str | None, typer.Option("--image", metavar="TAG", help="[default: FOLDFLEET_IMAGE, else foldfleet:VERSION]")
    ] = None,
    stack: StackName = None,
    as_json: AsJson = False,
) -> int:
    """Push an image to the registry of a stack, for `submit run --on aws`.

    Runs that are planned from then on use it; older ones keep theirs. Typed again, it does what is left to do.
    """
    from submitter.cli.image_commands import send_image

    return send_image(image, stack, as_json=as_json)
