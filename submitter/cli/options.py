"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

SpecPath: TypeAlias = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file.", show_default=False)]
RunName: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or `latest`.", show_default=False)
]
ShownRun: TypeAlias = Annotated[str, typer.Argument(metavar="[RUN]", help="A run's id, or the beginning of one.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
StoreUrl: TypeAlias = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Where results lie. [default: FOLDFLEET_STORE, else ./foldfleet]"),
]
StackName: TypeAlias = Annotated[
    str | None, typer.Option("--stack", metavar="NAME", help="The stack. [default: FOLDFLEET_STACK, else foldfleet]")
]
On: TypeAlias = Annotated[
    str, typer.Option("--on", metavar="BACKEND", help="Where tasks run: local, docker, aws or stepfunctions.")
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Worker processes. [default: the spec's vcpus, else all CPUs]"),
]
MaxCells: TypeAlias = Annotated[int, typer.Option("--max-cells", min=1, metavar="N", help="Refuse a larger search.")]
MaxFolds: TypeAlias = Annotated[int, typer.Option("--max-folds", min=1, metavar="N", help="Refuse more folds.")]
AllowSmallClasses: TypeAlias = Annotated[
    bool, typer.Option("--allow-small-classes", help="Go on with classes that have fewer rows than there are folds.")
]
DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and start nothing.")]
Fresh: TypeAlias = Annotated[bool, typer.Option("--fresh", help="Compute every cell again, finished or not.")]
Detach: TypeAlias = Annotated[bool, typer.Option("--detach", help="Start in the background and print the run's id.")]
