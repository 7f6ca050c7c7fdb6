"""``python -P -m submitter.planner``: plan a run for a state machine, and leave the order in the store."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from typing import Any

from pydantic import ValidationError

from jobspec.errors import ExitCode, FoldfleetError, UsageError
from jobspec.runs.answers import Answer, check_token, read_answer, write_answer
from jobspec.stores.base import Store, open_store
from submitter.machines.messages import ONE_VERSION, Ask, Order, Site
from submitter.planner.planner import make_order, refusal

log = logging.getLogger(__name__)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(arguments: list[str]) -> int:
    """Answer one question; exit code 0 also for a refusal, which is an order. 75 asks for another attempt."""
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("botocore").setLevel(logging.WARNING)  # it tells where each setting came from
    options = _parser().parse_args(arguments)
    try:
        order = _answer(options)
    except FoldfleetError as error:
        log.error("not_planned %s", error.message)
        return int(error.exit_code)
    log.info("planned next=%s run=%s round=%d %s", order.next, order.run_id, order.round, order.message)
    return int(ExitCode.OK)


def _answer(options: argparse.Namespace) -> Order:
    token = check_token(options.answer)
    if token is None:
        raise UsageError("A plan is made for whoever reads it: give a token, such as `--answer 3f9a0c`.")
    store = open_store(_store_of(options.site))
    earlier = read_answer(store, token)
    if earlier is not None and earlier.answer is not None:  # the machine may have read it by now
        return _earlier(earlier.answer)
    order = _make(options, token, store)
    write_answer(store, token, Answer(int(ExitCode.OK), order.model_dump(mode="json"), None))
    return order


def _earlier(answer: dict[str, Any]) -> Order:
    """Return what an earlier attempt at this step has answered; the image may have been replaced between the two."""
    try:
        return Order.model_validate(answer)
    except ValidationError:
        return refusal(UsageError(f"An image of another version has answered. To make them one, {ONE_VERSION}."))


def _make(options: argparse.Namespace, token: str, store: Store) -> Order:
    try:
        site, ask = Site.model_validate_json(options.site), Ask.model_validate_json(options.ask)
    except ValidationError as error:
        first = error.errors()[0]
        return refusal(
            UsageError(
                "The state machine of the stack and the image that plans for it do not understand each other "
                f"({'.'.join(map(str, first['loc']))}: {first['msg']}). To make them one, {ONE_VERSION}."
            )
        )
    return make_order(site, ask, token, store, time.time)


def _store_of(site: str) -> str:
    """Return the store, also of a site that this version does not know in full."""
    try:
        return str(json.loads(site)["store"])
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"--site is {site[:200]!r}; it is JSON with the constants of a stack.") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -P -m submitter.planner", description=__doc__)
    parser.add_argument("--site", required=True, metavar="JSON", help="the constants of the stack")
    parser.add_argument("--ask", required=True, metavar="JSON", help="what the machine asks")
    parser.add_argument("--answer", required=True, metavar="TOKEN", help="under which the order is left in the store")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
