"""The steps that a backend can start: each a process that answers with JSON and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from jobspec.errors import ExitCode, FoldfleetError
from jobspec.stores.base import open_store

log = logging.getLogger(__name__)

Ending = tuple[ExitCode, dict[str, Any] | None]
"""How a step ended, and its answer."""

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(arguments: list[str]) -> int:
    """Run one step; an error becomes ``{"error": ...}`` on stdout and the exit code."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where each setting came from
    options = _parser().parse_args(arguments)
    if options.step is None:  # it answers by its own protocol
        return _host()
    with _answer_apart() as answers:
        try:
            exit_code, answer = options.step(options)
        except FoldfleetError as error:
            log.error("step_refused %s", error.message)
            exit_code, answer = error.exit_code, {"error": error.to_json()}
        if answer is not None:
            answers.write(json.dumps(answer) + "\n")
    return int(exit_code)


@contextlib.contextmanager
def _answer_apart() -> Iterator[TextIO]:
    """Keep stdout for the answer: what estimators and modules print goes to the log, also from compiled code."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        yield answers
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m containers", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="STEP")
    prepare = steps.add_parser("prepare", help="read the data once, compute the splits, inspect the candidates")
    prepare.add_argument("--store", required=True)
    prepare.add_argument("--spec", required=True, type=Path)
    prepare.add_argument("--max-folds", type=int, default=1000)
    prepare.add_argument("--allow-small-classes", action="store_true")
    prepare.add_argument("--numerics", choices=["native", "portable"], default="native")
    prepare.set_defaults(step=_prepare)
    work = steps.add_parser("work", help="fit and score the cells of one task")
    work.add_argument("--store", required=True)
    work.add_argument("--run", required=True)
    work.add_argument("--round", required=True, type=int)
    work.add_argument("--first-task", required=True, type=int)
    work.set_defaults(step=_work)
    for name, step, text in (
        ("reduce", _reduce, "turn the results of a run into tables"),
        ("refit", _refit, "fit the best candidate on all rows"),
    ):
        command = steps.add_parser(name, help=text)
        command.add_argument("--store", required=True)
        command.add_argument("--run", required=True)
        command.set_defaults(step=step)
    steps.add_parser("describe", help="tell what this place computes with").set_defaults(step=_describe)
    steps.add_parser("host", help="serve the steps of a local run").set_defaults(step=None)
    return parser


def _prepare(options: argparse.Namespace) -> Ending:
    from containers.prepare import PrepareOptions, prepare
    from jobspec.grammar.load import load

    settings = PrepareOptions(
        allow_small_classes=options.allow_small_classes, max_folds=options.max_folds, numerics=options.numerics
    )
    inspection = prepare(load(options.spec), open_store(options.store), settings)
    return ExitCode.OK, inspection.model_dump(mode="json")


def _work(options: argparse.Namespace) -> Ending:
    from containers.tasks.work import work

    return work(open_store(options.store), options.run, options.round, options.first_task), None


def _reduce(options: argparse.Namespace) -> Ending:
    from containers.views.reduce import reduce_run

    return ExitCode.OK, reduce_run(open_store(options.store), options.run)


def _refit(options: argparse.Namespace) -> Ending:
    from containers.views.refit import refit

    return ExitCode.OK, refit(open_store(options.store), options.run)


def _describe(_options: argparse.Namespace) -> Ending:
    from containers.describe import describe

    return ExitCode.OK, describe()


def _host() -> int:
    from containers.host import serve

    return serve(main)
