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

from pydantic import ValidationError

from jobspec.engine import Engine
from jobspec.errors import ExitCode, FoldfleetError, UsageError
from jobspec.protocol import JOB_ID, NO_ANSWER
from jobspec.runs.answers import Answer, check_token, write_answer
from jobspec.runs.views import short
from jobspec.stores.base import open_store
from jobspec.stores.objects import is_object_url

log = logging.getLogger(__name__)

Ending = tuple[ExitCode, dict[str, Any] | None]
"""How a step ended, and its answer."""

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(arguments: list[str]) -> int:
    """Run one step; an error becomes ``{"error": ...}`` on stdout and the exit code.

    With ``--answer`` the same is left in the store, for whoever cannot hear this process. A crash leaves nothing there.
    """
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where each setting came from
    options = _parser().parse_args(arguments)
    if options.step is None:  # it answers by its own protocol
        return _host()
    with _answer_apart() as answers:
        exit_code, answer = _carry_out(options)
        if answer is not None:
            answers.write(json.dumps(answer) + "\n")
    return int(exit_code)


def _carry_out(options: argparse.Namespace) -> Ending:
    """Run a step and leave its answer where it was asked for."""
    try:
        token = check_token(options.answer) if "answer" in options else None
        exit_code, answer = _refusable(options)
        if token is not None:
            _leave_answer(options.store, token, exit_code, answer or {})
        return exit_code, answer
    except FoldfleetError as error:
        return _refuse(error)


def _refusable(options: argparse.Namespace) -> Ending:
    try:
        if os.environ.get(JOB_ID):
            from containers.localcache import settle_cache

            settle_cache(os.environ)
        ending: Ending = options.step(options)
    except FoldfleetError as error:
        return _refuse(error)
    return ending


def _refuse(error: FoldfleetError) -> Ending:
    log.error("step_refused %s", error.message)
    return error.exit_code, {"error": error.to_json()}


def _leave_answer(store: str, token: str, exit_code: ExitCode, answer: dict[str, Any]) -> None:
    """Write a step's answer; where even that fails, a refusal of the step itself is what counts."""
    told = Answer(int(exit_code), None if exit_code else answer, answer["error"] if exit_code else None)
    try:
        write_answer(open_store(store), token, told)
    except FoldfleetError as error:
        if not exit_code:
            raise
        log.warning("answer_not_written %s", error.message)


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
    prepare.add_argument("--spec", required=True, help="a file, or the s3:// URL of one")
    prepare.add_argument("--max-folds", type=int, default=1000)
    prepare.add_argument("--allow-small-classes", action="store_true")
    prepare.add_argument("--numerics", choices=["native", "portable"], default="native")
    prepare.add_argument("--engine", help="what the tasks will compute with, as JSON")
    _add_answer(prepare)
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
        if name == "reduce":
            command.add_argument("--refit", action="store_true", help="refit the best candidate, too, if it is known")
        _add_answer(command)
        command.set_defaults(step=step)
    steps.add_parser("describe", help="tell what this place computes with").set_defaults(step=_describe)
    steps.add_parser("host", help="serve the steps of a local run").set_defaults(step=None)
    return parser


def _add_answer(command: argparse.ArgumentParser) -> None:
    text = f"leave the answer under this token in the store, too; {NO_ANSWER}: nowhere"
    command.add_argument("--answer", default=NO_ANSWER, metavar="TOKEN", help=text)


def _prepare(options: argparse.Namespace) -> Ending:
    from containers.prepare import PrepareOptions, prepare
    from jobspec.grammar.load import load, load_object

    settings = PrepareOptions(
        allow_small_classes=options.allow_small_classes, max_folds=options.max_folds, numerics=options.numerics
    )
    engine = None if options.engine is None else _read_engine(options.engine)
    loaded = load_object(options.spec) if is_object_url(options.spec) else load(Path(options.spec))
    inspection = prepare(loaded, open_store(options.store), settings, engine)
    return ExitCode.OK, inspection.model_dump(mode="json")


def _read_engine(text: str) -> Engine:
    try:
        return Engine.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"--engine is no engine ({'.'.join(map(str, first['loc']))}: {first['msg']}). Give what a plan holds under "
            "`engine`, or leave it out for what computes here."
        ) from None


def _work(options: argparse.Namespace) -> Ending:
    from containers.tasks.work import work

    return work(open_store(options.store), options.run, options.round, options.first_task), None


def _reduce(options: argparse.Namespace) -> Ending:
    from containers.views.reduce import reduce_run

    store = open_store(options.store)
    summary = reduce_run(store, options.run)
    if options.refit:
        from containers.views.refit import refit

        made = refit(store, options.run)  # or why there is no model
        summary["refit"] = made
        if made["model"] is not None:
            summary["files"]["model"] = made["model"]
    if check_token(options.answer) is not None:  # who reads it there may hold little at once
        summary["best"] = short(summary["best"])
    return ExitCode.OK, summary


def _refit(options: argparse.Namespace) -> Ending:
    from containers.views.refit import refit

    return ExitCode.OK, refit(open_store(options.store), options.run)


def _describe(_options: argparse.Namespace) -> Ending:
    from containers.describe import describe

    return ExitCode.OK, describe()


def _host() -> int:
    from containers.host import serve

    return serve(main)
