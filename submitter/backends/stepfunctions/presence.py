"""What Step Functions and AWS Batch tell of runs from any terminal: executions, their arrays, and their logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobspec.errors import FoldfleetError
from jobspec.runs.rounds import RoundPlan, load_round
from submitter import claims
from submitter.backends.aws import presence as batch
from submitter.backends.aws.sending import find_beginning
from submitter.backends.aws.states import seen_of
from submitter.backends.aws.world import open_world, shared_clients
from submitter.backends.base import STEPFUNCTIONS, Presence, RequestSeen, RequestState, Sighting, Trouble
from submitter.backends.stepfunctions import sending, states
from submitter.backends.stepfunctions.request import execution_arn, execution_name, name_of, orders_of
from submitter.backends.stepfunctions.verdicts import REFUSED, verdict_of
from submitter.cloud.clients import Clients
from submitter.machines.orders import order_name
from submitter.standing import is_cancelled

ClientsMaker = Callable[[], Clients]


@dataclass(frozen=True)
class _Sent:
    """An execution that works on a round, and how it stands; ``detail`` is None of one that is not known."""

    execution: str
    handle: claims.Handle
    detail: Mapping[str, Any] | None

    @property
    def state(self) -> RequestState | None:
        return None if self.detail is None else states.state_of(self.detail)


def sighting(
    presence: Presence, make: ClientsMaker = shared_clients, *, now: Callable[[], float] = time.time
) -> Sighting:
    """Return how the execution of a run's newest round and its requests stand: three calls, one if it ended well.

    An execution that was stopped leaves arrays behind that take a while to end: they are alive until then.
    """
    clients, plan = make(), batch.plan_of(presence)
    seen: list[RequestSeen] = []
    notes: list[str] = []
    alive = _is_about_to_be_sent(presence, plan, now)
    for sent in _look(clients, presence, plan):
        if sent.detail is None:  # forgotten, 90 days after its end; or not to be seen yet
            on_its_way = now() - float(sent.handle.get("time", 0)) < batch.SETTLING_SECONDS
            alive = alive or on_its_way
            seen += [RequestSeen(name_of(sent.execution), RequestState.WAITING)] if on_its_way else []
            continue
        state = states.state_of(sent.detail)
        alive = alive or not state.is_over
        seen.append(RequestSeen(name_of(sent.execution), state))
        if (verdict := verdict_of(sent.detail, presence.run_id)) is not None and not _was_cancelled(presence, plan):
            notes.append(verdict.text if verdict.error is None else verdict.error.message)
        for request in _requests(clients, presence, sent):
            one = seen_of(request)
            seen.append(one)
            alive = alive or not one.state.is_over
            notes += batch.notes_on(clients, request, one, presence.run_id)
    return Sighting(alive, tuple(seen), tuple(dict.fromkeys(notes)))


def is_working(presence: Presence) -> bool:
    """Say whether an execution or a request of the run's newest round has not ended."""
    return sighting(presence).alive


def end_orphans(_presence: Presence) -> None:
    """Do nothing: what was sent is nobody's orphan, and is adopted."""


def terminate(presence: Presence, make: ClientsMaker = shared_clients) -> None:
    """Stop the execution, so that it sends nothing any more, then end what it has sent."""
    clients = make()
    for sent in _look(clients, presence, batch.plan_of(presence)):
        if sent.state is None or not sent.state.is_over:
            sending.stop(clients, sent.execution, batch.CANCELLED)
        batch.end_requests(clients, _requests(clients, presence, sent))


def explain(presence: Presence, make: ClientsMaker = shared_clients) -> Trouble | None:
    """Return why tasks of the run's newest round ended early, or why its execution did."""
    clients, plan = make(), batch.plan_of(presence)
    for sent in reversed(_look(clients, presence, plan)):
        verdict = None if sent.detail is None else verdict_of(sent.detail, presence.run_id)
        if verdict is not None and (refused := _refusal(presence, sent)) is not None:
            return Trouble(refused, verdict.text)
        group = partial(_log_group, presence, sent.handle)
        tasks = batch.trouble_in(clients, _requests(clients, presence, sent), presence.run_id, group)
        if verdict is None or (tasks is not None and (tasks.error is not None or verdict.error is None)):
            trouble = tasks
        else:
            trouble = verdict
        if trouble is not None:
            return trouble
    return None


def read_log(presence: Presence, stream: str, num_lines: int, make: ClientsMaker = shared_clients) -> list[str]:
    """Return the last lines of a task's log from CloudWatch, or why there are none."""
    plan = batch.plan_of(presence)
    handles = [] if plan is None else claims.all_handles(presence.store, plan, 0)
    return batch.read_stream(make(), _log_group(presence, handles[0] if handles else {}), stream, num_lines)


def _look(clients: Clients, presence: Presence, plan: RoundPlan | None) -> Sequence[_Sent]:
    """Return the executions that work on a round, mostly one.

    An execution that adds a round works on it before it says so there: until then the handles of the round before tell.
    """
    if presence.handles is not None:
        handles = [handle for handle in presence.handles if handle.get("execution")]
    else:
        handles = [] if plan is None else list(_handles(presence, plan))
        if not handles and plan is not None and plan.round > 0:
            before = load_round(presence.store, plan.run_id, plan.round - 1)
            handles = list(_handles(presence, before)) if before.backend == STEPFUNCTIONS else []
    batch.check_region(clients, handles)
    by_arn = {str(handle["execution"]): dict(handle) for handle in handles}
    return [_Sent(arn, handle, sending.describe(clients, arn)) for arn, handle in by_arn.items()]


def _handles(presence: Presence, plan: RoundPlan) -> Iterator[claims.Handle]:
    """Yield the handles of a round; of what was claimed without one, what it would be.

    The sender of a claim was killed, or its answer was lost: a planner's claim names its execution, and the name of a
    desk's is known.
    """
    name = order_name(plan)
    for handle in claims.all_handles(presence.store, plan, 0):
        if handle.get("execution"):
            yield {"name": name} | handle
    for claim in claims.unanswered(presence.store, plan.run_id, plan.round, 0):
        execution = claim.get("execution")
        if execution is None:
            machine = open_world(presence.settings.stack).stack.search_machine_arn
            execution = execution_arn(machine, execution_name(plan))
        # When nothing is known of it, only a fresh claim says that something is on its way.
        yield {"name": name, "execution": execution, "time": claim.get("time", 0)}


def _refusal(presence: Presence, sent: _Sent) -> FoldfleetError | None:
    """Return what the planner of an execution refused with at last: it knows the exit code, its machine the words."""
    if sent.detail is None or sent.detail.get("error") != REFUSED:
        return None
    orders = list(orders_of(presence.store, sent.execution))
    error = orders[-1].get("error") if orders else None
    return None if error is None else FoldfleetError.from_json(error)


def _was_cancelled(presence: Presence, plan: RoundPlan | None) -> bool:
    """Say whether a person ended a round, who needs no word on how its execution ended."""
    return plan is not None and is_cancelled(presence.store, plan)


def _is_about_to_be_sent(presence: Presence, plan: RoundPlan | None, now: Callable[[], float]) -> bool:
    """Say whether a round was planned a moment ago: who did so claims it next."""
    if plan is None or now() - plan.created >= batch.SETTLING_SECONDS:
        return False
    return not claims.has_claim(presence.store, plan, 0)


def _requests(clients: Clients, presence: Presence, sent: _Sent) -> list[Mapping[str, Any]]:
    """Return what AWS Batch tells of the arrays and the reduce step of a round; nothing where all ended well."""
    if sent.state is RequestState.SUCCEEDED or not sent.handle.get("name"):
        return []
    queue = sent.handle.get("queue") or open_world(presence.settings.stack).stack.queue_arn
    ids = find_beginning(clients, str(queue), f"{sent.handle['name']}-")
    return list(batch.describe(clients, ids).values())


def _log_group(presence: Presence, handle: claims.Handle) -> str:
    return str(handle.get("log_group") or open_world(presence.settings.stack).stack.log_group_name)
