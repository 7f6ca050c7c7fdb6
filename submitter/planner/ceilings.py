"""What a run may ask for that no person started from a desk: refused with both numbers and the knob to turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jobspec.errors import LimitError
from jobspec.grammar.data_models import Resources
from jobspec.runs.rounds import RoundPlan
from jobspec.search.counting import CellCount
from submitter.backends.aws.request import DAY_SECONDS, MIN_TIMEOUT_SECONDS
from submitter.backends.aws.shape import Shape, default_resources
from submitter.machines.messages import Ask, Site
from submitter.machines.orders import NO_DEADLINE, UNLIMITED, Allowance

HOUR_SECONDS = 3600


@dataclass(frozen=True)
class Spent:
    """A round that the same execution has sent: it may have taken ``seconds`` of as many vCPUs as fit."""

    plan: RoundPlan
    seconds: float


def is_limited(ask: Ask) -> bool:
    """Say whether the ceilings count; what a person has sent from a desk goes on without them."""
    return ask.deadline != NO_DEADLINE


def started_at(site: Site, ask: Ask) -> float:
    """Return when an execution planned first, in seconds since 1970: endlessly late before it has."""
    if not is_limited(ask):
        return 0.0
    return ask.deadline - site.ceilings.max_hours * HOUR_SECONDS if ask.deadline else float("inf")


def deadline_of(site: Site, ask: Ask, now: float) -> float:
    """Return when an execution is over at the latest: so many hours after it has planned first."""
    return ask.deadline or now + site.ceilings.max_hours * HOUR_SECONDS


def step_seconds(deadline: float, now: float) -> int:
    """Return how long a step before or behind the arrays may take: what is left, but enough for one to end well."""
    return DAY_SECONDS if deadline == NO_DEADLINE else int(min(DAY_SECONDS, max(HOUR_SECONDS, deadline - now)))


def limit_resources(site: Site, ask: Ask, given: Resources) -> Resources:
    """Return what a task asks for; what a spec leaves open stays below the ceilings.

    Raises:
        LimitError: the spec asks for more.
    """
    if not is_limited(ask):
        return given
    ceilings = site.ceilings
    if given.vcpus is not None and given.vcpus > ceilings.max_task_vcpus:
        raise LimitError(
            f"The spec gives a task {given.vcpus} vCPUs (resources.vcpus), and what is started without a desk may have "
            f"{ceilings.max_task_vcpus}. Ask for fewer, or raise the ceiling: `submit events enable --max-task-vcpus "
            f"{given.vcpus}`."
        )
    if given.memory_gib is not None and given.memory_gib > ceilings.max_task_memory_gib:
        raise LimitError(
            f"The spec gives a task {given.memory_gib:g} GiB (resources.memory_gib), and what is started without a "
            f"desk may have {ceilings.max_task_memory_gib:g}. Ask for less, or raise the ceiling: `submit events "
            f"enable --max-task-memory-gib {math.ceil(given.memory_gib)}`."
        )
    usual = default_resources(min(site.max_vcpus, ceilings.max_task_vcpus), given)
    return Resources(vcpus=usual[0], memory_gib=min(usual[1], ceilings.max_task_memory_gib))


def check_cells(site: Site, ask: Ask, count: CellCount) -> None:
    """Refuse a search that is too large to be started without a desk.

    Args:
        site: the stack.
        ask: what the machine asks.
        count: the cells, as a spec alone or with the data tells them.

    Raises:
        LimitError: it has more cells than the ceiling.
    """
    if is_limited(ask) and count.num_cells > site.ceilings.max_cells:
        raise LimitError(
            f"The search has {count}, and what is started without a desk may have {site.ceilings.max_cells:,}. Make "
            "the grid smaller, use `search: {kind: random, n_iter: 500}` or fewer folds, start it from a desk (`submit "
            "run SPEC --on stepfunctions`), or raise the ceiling: `submit events enable --max-cells "
            f"{count.knob}`."
        )


def allowance_for(site: Site, ask: Ask, plan: RoundPlan, shape: Shape, spent: Sequence[Spent], now: float) -> Allowance:
    """Return how long the arrays of a round may take: until the deadline, and for what is left of the vCPU-hours.

    Raises:
        LimitError: less than a minute is left.
    """
    if not is_limited(ask):
        return UNLIMITED
    ceilings, deadline = site.ceilings, deadline_of(site, ask, now)
    used = sum(one.seconds * at_once(site, one.plan, shape) for one in spent)
    left = (ceilings.max_vcpu_hours * HOUR_SECONDS - used) / at_once(site, plan, shape)
    seconds = int(min(deadline - now, left))
    if seconds < MIN_TIMEOUT_SECONDS:
        hours = deadline - now < left
        what = f"{ceilings.max_hours:g} hours" if hours else f"{ceilings.max_vcpu_hours:g} vCPU-hours"
        knob = "--max-hours" if hours else "--max-vcpu-hours"
        raise LimitError(
            f"{plan.run_id} is not finished, and the {what} that are given to what is started without a desk are used "
            f"up. What is finished is kept: start it again, go on from a desk (`submit resume {plan.run_id}`), or "
            f"raise the ceiling: `submit events enable {knob} N`."
        )
    return Allowance(deadline, seconds, step_seconds(deadline, now))


def at_once(site: Site, plan: RoundPlan, shape: Shape) -> int:
    """Return how many vCPUs the tasks of a round take at once, at most: spot hosts and, where there are, others."""
    return max(1, min(plan.num_tasks * shape.vcpus, site.max_vcpus * site.environments))
