"""The order to send a committed round, made alike by the planner and by a desk: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobspec.runs.rounds import RoundPlan
from jobspec.search.planning import ArrayPlan
from jobspec.stores.layout import Layout
from jobspec.stores.s3client import S3Address
from submitter.backends.aws.request import (
    DAY_SECONDS,
    MIN_TIMEOUT_SECONDS,
    Target,
    array_call,
    request_name,
    timeout_seconds,
)
from submitter.machines.messages import Order

NO_DEADLINE = -1.0
"""The deadline of what a person sent from a desk, on whom the ceilings of the stack are not imposed."""

LONGEST_SECONDS = 30 * DAY_SECONDS
"""How long arrays may take where nothing else ends them: also waiting for spot capacity must end some day."""


@dataclass(frozen=True)
class Allowance:
    """How long an execution may go on: until ``deadline`` (seconds since 1970), its arrays for ``work_seconds``.

    A step before or behind them may take ``step_seconds``.
    """

    deadline: float = NO_DEADLINE
    work_seconds: int = LONGEST_SECONDS
    step_seconds: int = DAY_SECONDS


UNLIMITED = Allowance()
"""What a desk allows."""


def send_order(target: Target, plan: RoundPlan, execution: str, allowance: Allowance = UNLIMITED) -> Order:
    """Return the order to send a committed round that has tasks.

    Args:
        target: where its requests go, in which image and shape.
        plan: the round.
        execution: the ARN of the execution that sends it.
        allowance: how long it may take.

    Raises:
        LimitError: a request would be too long for AWS Batch.
    """
    return _round_order(target, plan, execution, allowance).model_copy(update={"next": "send"})


def reduce_order(target: Target, plan: RoundPlan, execution: str, allowance: Allowance = UNLIMITED) -> Order:
    """Return the order to make the views of a round whose cells all have rows, and its model."""
    return _round_order(target, plan, execution, allowance).model_copy(update={"next": "reduce"})


def order_name(plan: RoundPlan) -> str:
    """Return what the names of a round's requests begin with; `round_name` gives the same and a part."""
    return request_name(plan.run_id, f"{plan.token[:8]}-r{plan.round}")


def plan_object(store_url: str, plan: RoundPlan) -> tuple[str, str]:
    """Return the bucket and the key of the object that commits a round."""
    address = S3Address.parse(store_url)
    return address.bucket, address.prefix + Layout.plan(plan.run_id, plan.round)


def pascal(document: Any) -> Any:
    """Spell keywords of SubmitJob as Step Functions does: `resourceRequirements` becomes `ResourceRequirements`."""
    if isinstance(document, Mapping):
        return {name[:1].upper() + name[1:]: pascal(value) for name, value in document.items()}
    return [pascal(item) for item in document] if isinstance(document, list | tuple) else document


def _round_order(target: Target, plan: RoundPlan, execution: str, allowance: Allowance) -> Order:
    # The last array's request is the longest; without its first task it is that of them all.
    array = next(reversed(plan.array_plans()), ArrayPlan(0, 1))
    call = array_call(target, plan, max(len(plan.arrays) - 1, 0), array, execution=execution)
    bucket, key = plan_object(target.store_url, plan)
    definitions = target.record.definitions
    return Order(
        next="reduce",
        run_id=plan.run_id,
        round=plan.round,
        bucket=bucket,
        plan=key,
        name=order_name(plan),
        definitions={"work": definitions["work"], "reduce": definitions["reduce"]},
        parameters={name: value for name, value in call["parameters"].items() if name != "first_task"},
        overrides=pascal(call["containerOverrides"]),
        tags=call["tags"],
        timeout={"AttemptDurationSeconds": _timeout(plan, allowance)},
        work_seconds=allowance.work_seconds,
        step_seconds=allowance.step_seconds,
        deadline=allowance.deadline,
        num_tasks=plan.num_tasks,
        num_cells=plan.num_cells,
    )


def _timeout(plan: RoundPlan, allowance: Allowance) -> int:
    """Return what ends a task: its spec's own limits, the job definition's, or what the execution may take."""
    limit = timeout_seconds(plan.limits) or DAY_SECONDS
    return max(min(limit, allowance.work_seconds), MIN_TIMEOUT_SECONDS)
