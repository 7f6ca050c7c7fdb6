"""What is sent to Step Functions: pure, and with its size checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from jobspec.errors import LimitError
from jobspec.runs.answers import read_answer
from jobspec.runs.rounds import RoundPlan
from jobspec.stores.base import Store
from submitter.backends.aws.request import Target, request_name
from submitter.machines.orders import send_order

MAX_EXECUTION_NAME = 80
MAX_INPUT_CHARACTERS = 262_144
"""StartExecution's limits."""

Call = dict[str, Any]
"""The keywords of StartExecution."""


def execution_name(plan: RoundPlan) -> str:
    """Return the name of the execution that a desk starts for a round: the same from every desk, and of no other round.

    A name is taken for 90 days after its execution has ended, so that no round is ever started twice under it.
    """
    return request_name(plan.run_id, f"{plan.token[:8]}-r{plan.round}", MAX_EXECUTION_NAME)


def execution_arn(machine_arn: str, name: str) -> str:
    """Return what AWS calls the execution of a machine under a name."""
    return f"{machine_arn.replace(':stateMachine:', ':execution:', 1)}:{name}"


def name_of(execution: str) -> str:
    """Return the name of an execution."""
    return execution.rpartition(":")[2]


def answers_of(execution: str) -> str:
    """Return what the tokens begin with under which the steps of an execution answer, see `submitter.machines.search`.

    ``-p0``, ``-p1`` and so on are those of its planner, ``-r0`` of the reduce step before it plans again.
    """
    return hashlib.sha256(execution.encode()).hexdigest()


def orders_of(store: Store, execution: str) -> Iterator[dict[str, Any]]:
    """Yield what the planner of an execution has ordered, step by step; see `submitter.machines.messages.Order`.

    Raises:
        DataError: an answer was damaged, or is an older version's.
    """
    for step in count():
        if (answer := read_answer(store, f"{answers_of(execution)}-p{step}")) is None:
            return
        yield answer.answer or {}


def start_call(target: Target, machine_arn: str, plan: RoundPlan) -> Call:
    """Return the request that has a round worked on.

    Raises:
        LimitError: it, or one that the machine will send to AWS Batch, is too long.
    """
    name = execution_name(plan)
    order = send_order(target, plan, execution_arn(machine_arn, name))
    given = json.dumps({"round": order.model_dump(mode="json")})
    if len(given) > MAX_INPUT_CHARACTERS:
        raise LimitError(
            f"The input of the execution {name} has {len(given):,} characters, and Step Functions takes "
            f"{MAX_INPUT_CHARACTERS:,}. Use a shorter store prefix or run name."
        )
    return {"stateMachineArn": machine_arn, "name": name, "input": given}
