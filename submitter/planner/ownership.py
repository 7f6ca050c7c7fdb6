"""Who works on a round, read from the store alone: claims and handles name executions and requests of AWS Batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from jobspec.runs.rounds import RoundPlan
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.aws.request import round_name
from submitter.backends.base import AWS, STEPFUNCTIONS
from submitter.backends.stepfunctions.request import execution_arn, execution_name
from submitter.claims import FORMAT_VERSION, FRESH_SECONDS, all_claims, all_handles, has_claim, read_document
from submitter.machines.messages import Ask, Owner, Site
from submitter.machines.orders import order_name
from submitter.standing import was_sent

Kind = Literal["ours", "free", "busy", "over"]
"""``ours``: this very step has claimed it. ``free``: nobody was about to send it. ``busy``: others work on it, as far
as the store tells. ``over``: it was sent, by this execution or by others who have ended."""


@dataclass(frozen=True)
class Ownership:
    """How a round stands; ``since`` is when this step claimed it, in seconds since 1970."""

    kind: Kind
    owners: tuple[Owner, ...] = ()
    since: float = 0.0


@dataclass(frozen=True)
class Claimant:
    """This step of an execution: ``token`` is that of its answer, the same for every attempt at the step."""

    site: Site
    ask: Ask
    token: str

    @property
    def execution(self) -> str:
        """Return the execution's ARN."""
        return self.ask.execution


def look(store: Store, plan: RoundPlan, claimant: Claimant, now: float) -> Ownership:
    """Say who works on a round.

    Tasks of a round of a single machine cannot be seen from here; if they live, a second array changes no result.
    """
    is_over = claimant.ask.over == plan.round
    if plan.backend == AWS:
        owners = () if is_over else tuple(_requests(store, plan, now))
        return Ownership("busy", owners) if owners else Ownership("over")
    if plan.backend != STEPFUNCTIONS:
        return Ownership("over")
    others: list[Owner] = []
    is_sent = False
    for claimed, handle in all_claims(store, plan.run_id, plan.round, 0):
        execution = _execution_of(claimed, handle, claimant.site, plan)
        if execution != claimant.execution:
            others.append(Owner(execution=execution))
        elif claimed.get("token") == claimant.token:
            return Ownership("ours", since=_time_of(claimed))
        # A desk that has claimed it starts an execution with it, so that its own one has had it in hand.
        is_sent = is_sent or handle is not None or "token" not in claimed
    if others and not is_over:
        return Ownership("busy", tuple(dict.fromkeys(others)))
    # Whoever was about to send it may have done so; of two that come after it one commits the next round.
    return Ownership("over" if others or is_sent or was_sent(store, plan) else "free")


def claim(store: Store, plan: RoundPlan, claimant: Claimant, now: float) -> bool:
    """Claim a round that nobody has sent, and record who sends it; say whether it is this step's to send.

    Repeated by another attempt at the step it says the same.
    """
    number = 0
    while True:
        key = Layout.claim(plan.run_id, plan.round, 0, number)
        # No host and no process: those of containers look alike on a machine that they share.
        told = {"execution": claimant.execution, "token": claimant.token, "time": now}
        store.create(key, _encode(told))
        claimed = read_document(store, key) or {}
        if claimed.get("execution") != claimant.execution:
            return False
        if claimed.get("token") == claimant.token:
            _record(store, plan, claimant, number, _time_of(claimed))
            return True
        number += 1  # an earlier step of this execution, which never sent it


def sent_by(store: Store, plan: RoundPlan, claimant: Claimant) -> float | None:
    """Return when an earlier step of this execution, or the desk that started it, sent a round; None if none did."""
    for claimed, handle in all_claims(store, plan.run_id, plan.round, 0) if plan.backend == STEPFUNCTIONS else ():
        is_own = _execution_of(claimed, handle, claimant.site, plan) == claimant.execution
        if is_own and claimed.get("token") != claimant.token:
            return _time_of(claimed)
    return None


def stopped_at(store: Store, plan: RoundPlan) -> float | None:
    """Return when a round was asked to stop, in seconds since 1970; None if it was not."""
    asked = read_document(store, Layout.stop(plan.run_id, plan.round))
    return None if asked is None else _time_of(asked)


def _requests(store: Store, plan: RoundPlan, now: float) -> Iterator[Owner]:
    """Yield the requests of AWS Batch of a round, and of the reduce step behind its arrays.

    A desk that has planned the round this moment claims its first array next.
    """
    if now - plan.created < FRESH_SECONDS and plan.arrays and not has_claim(store, plan, 0):
        yield Owner(name=round_name(plan, "a0"))
    for index in range(len(plan.arrays) + 1):
        handles = [handle for handle in all_handles(store, plan, index) if handle.get("job_id")]
        yield from (Owner(job=str(handle["job_id"]), name=str(handle.get("name", ""))) for handle in handles)
        if not handles and has_claim(store, plan, index):
            yield Owner(name=round_name(plan, f"a{index}" if index < len(plan.arrays) else "reduce"))


def _execution_of(claimed: dict[str, Any], handle: dict[str, Any] | None, site: Site, plan: RoundPlan) -> str:
    """Return the execution of a claim; a desk's claim names none, and it starts one under a name of the round's."""
    told = (handle or {}).get("execution") or claimed.get("execution")
    return str(told) if told else execution_arn(site.machine, execution_name(plan))


def _record(store: Store, plan: RoundPlan, claimant: Claimant, number: int, since: float) -> None:
    handle = {
        "name": order_name(plan),
        "backend": STEPFUNCTIONS,
        "execution": claimant.execution,
        "region": claimant.site.region,
        "time": since,
    }
    store.create(Layout.handle(plan.run_id, plan.round, 0, number), _encode(handle))


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps({"format_version": FORMAT_VERSION, **document}).encode()


def _time_of(document: dict[str, Any]) -> float:
    """Return the time in a document: seconds since 1970, or as a state machine writes it."""
    told = document.get("time", 0)
    try:
        return float(told) if not isinstance(told, str) else datetime.fromisoformat(told).timestamp()
    except (TypeError, ValueError):
        return 0.0
