"""The steps that a backend can start: each a process that answers with JSON and an exit code."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from jobspec.errors import ExitCode, FoldfleetError
from jobspec.stores.base import open_store

log = logging.getLogger(__name__)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(arguments: list[str]) -> int:
    """Run one step; an error becomes ``{"error": ...}`` on stdout and the exit code."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        exit_code: int = options.step(options)
        return exit_code
    except FoldfleetError as error:
        log.error("step_refused %s", error.message)
        _answer({"error": error.to_json()})
        return int(error.exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m containers", description=__doc__)
    steps = parser.add_subparsers(required=True, metavar="STEP")
    prepare = steps.add_parser("prepare", help="read the data once, compute the splits, inspect the candidates")
    prepare.add_argument("--store", required=True)
    prepare.add_argument("--spec", required=True, type=Path)
    prepare.add_argument("--max-folds", type=int, default=1000)
    prepare.add_argument("--allow-small-classes", action="store_true")
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
    steps.add_parser("host", help="serve the steps of a local run").set_defaults(step=_host)
    return parser


def _prepare(options: argparse.Namespace) -> int:
    from containers.prepare import PrepareOptions, prepare
    from jobspec.grammar.load import load

    settings = PrepareOptions(allow_small_classes=options.allow_small_classes, max_folds=options.max_folds)
    inspection = prepare(load(options.spec), open_store(options.store), settings)
    _answer(inspection.model_dump(mode="json"))
    return ExitCode.OK


def _work(options: argparse.Namespace) -> int:
    from containers.tasks.work import work

    return int(work(open_store(options.store), options.run, options.round, options.first_task))


def _reduce(options: argparse.Namespace) -> int:
    from containers.views.reduce import reduce_run

    _answer(reduce_run(open_store(options.store), options.run))
    return ExitCode.OK


def _refit(options: argparse.Namespace) -> int:
    from containers.views.refit import refit

    _answer(refit(open_store(options.store), options.run))
    return ExitCode.OK


def _host(_: argparse.Namespace) -> int:
    from containers.host import serve

    return serve(main)


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
