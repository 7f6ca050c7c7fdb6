"""Decide what a state machine does next for a run: the one flow of `submit run`, cut where something must be awaited.

Whatever attempt at a step comes to this, it finds in the store what an earlier one has done, and gives the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jobspec.engine import Engine
from jobspec.errors import ExitCode, FoldfleetError, InterruptedRun, LimitError, NotFoundError, TryLaterError
from jobspec.grammar.load import LoadedSpec
from jobspec.grammar.spec import Spec
from jobspec.runs.answers import read_answer
from jobspec.runs.progress import ProgressReader
from jobspec.runs.rounds import RoundPlan, commit_round, latest_round, load_round
from jobspec.runs.views import BEST, CSV, PARQUET, short
from jobspec.search.counting import CellCount, count_cells
from jobspec.search.inspection import Inspection
from jobspec.search.memo import PrepareOptions, recall
from jobspec.settings import load_settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.aws.request import request_name, step_call
from submitter.backends.aws.shape import Shape, check_numerics, make_shape
from submitter.backends.base import STEPFUNCTIONS
from submitter.cloud.record import ImageRecord, choose_record
from submitter.images.parts import check_modules
from submitter.machines.messages import Ask, Error, Order, Prepare, Site
from submitter.machines.orders import NO_DEADLINE, Allowance, order_name, pascal, reduce_order, send_order
from submitter.planner import ceilings
from submitter.planner.ownership import Claimant, Ownership, claim, look, sent_by, stopped_at
from submitter.planner.sources import SupersededError, keep_text, kept_url, read_source
from submitter.search import Search, check_data, check_engine, draft_next, keep, make_search, stored_search
from submitter.standing import cells_of_progress, is_current, lacks_model, poll_to_end, read_view

MOST_WORDS = 8_000
"""Characters of a message: an order becomes a part of an execution's state."""

ATTEMPTS = 20
"""Rounds that others may commit while this step looks on."""


class UnansweredError(FoldfleetError):
    """A step has not answered, and was tried as often as it is ever tried; a new execution can succeed."""

    exit_code = ExitCode.TRY_LATER


@dataclass(frozen=True)
class Station:
    """What a request tells of the stack; where it waits is the machine's business."""

    name: str
    queue_arn: str = ""


@dataclass(frozen=True)
class StackFleet:
    """The fleet of the stack, and the image of a run on it."""

    stack: Station
    record: ImageRecord
    store_url: str
    shape: Shape
    name: str = STEPFUNCTIONS

    @property
    def image(self) -> str:
        """Return the image as `repository@digest`, which a plan keeps."""
        return self.record.image

    @property
    def workers(self) -> int:
        """Return how many processes fit at once below the stack's ceiling."""
        return self.shape.workers

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut."""
        return self.shape.tasks_per_fold(num_splits)

    def engine(self, identity: object) -> Engine:
        """Return what the image computes with.

        Raises:
            NotFoundError: it lacks a module of the user's own that the spec names.
        """
        # The planner's own image is the newest; its copies of the modules say nothing of the image of the run.
        check_modules(self.record.parts, identity, replace(load_settings(), module_path=()), self.record.tag)
        return self.record.parts.engine("portable", identity)


def make_order(site: Site, ask: Ask, token: str, store: Store, now: Callable[[], float]) -> Order:
    """Return what the machine does next; a refusal is an order, too.

    Args:
        site: the stack.
        ask: what the machine wants to know.
        token: under which the answer is left: the same for every attempt at this step, of no other step.
        store: the store of the stack.
        now: the time, in seconds since 1970.

    Raises:
        TryLaterError: the next attempt may succeed.
    """
    try:
        return Planner(site, ask, token, store, now).order()
    except TryLaterError:
        raise
    except SupersededError as error:
        return Order(next="done", deadline=ask.deadline, message=cut(error.message))
    except FoldfleetError as error:
        return refusal(error)


def refusal(error: FoldfleetError) -> Order:
    """Return the order to start nothing."""
    message = cut(error.message)
    return Order(next="refuse", message=message, error=Error(exit=int(error.exit_code), message=message))


def cut(message: str) -> str:
    """Return a message that is not too long for a state."""
    return message if len(message) <= MOST_WORDS else f"{message[:MOST_WORDS]} ..."


@dataclass(frozen=True)
class Planner:
    """One step of planning."""

    site: Site
    ask: Ask
    token: str
    store: Store
    now: Callable[[], float]

    def order(self) -> Order:
        """Return the order of this step.

        Raises:
            FoldfleetError: the run is refused.
        """
        if self.ask.run is not None:
            search, fleet = self._stored(self.ask.run)
        else:
            loaded = read_source(self.site, self.ask, self.store)
            ceilings.check_cells(self.site, self.ask, count_cells(loaded.spec))  # before anything is prepared
            fleet = self._fleet(loaded.spec, None)
            found = self._inspect(loaded, fleet)
            if isinstance(found, Order):
                return found
            search = make_search(loaded, found)
        ceilings.check_cells(self.site, self.ask, CellCount(search.num_cells))
        for _ in range(ATTEMPTS):
            order = self._next(search, fleet)
            if order is not None:
                return order
        raise TryLaterError(f"Others commit rounds of {search.run_id} one after the other.")

    @cached_property
    def _claimant(self) -> Claimant:
        return Claimant(self.site, self.ask, self.token)

    @cached_property
    def _deadline(self) -> float:
        return ceilings.deadline_of(self.site, self.ask, self.now())

    # --- the run --------------------------------------------------------------------------------------------------

    def _stored(self, run_id: str) -> tuple[Search, StackFleet]:
        """Return a run as the store keeps it, to be gone on with in its own image."""
        plan = latest_round(self.store, run_id) if _is_run_id(run_id) else None
        if plan is None:
            raise NotFoundError(
                f"The run {run_id[:200]!r} has no plan in {self.store.url}. `submit list` shows the runs; a name is "
                "given in full here."
            )
        search = stored_search(self.store, plan)
        check_data(self.store, search)
        fleet = self._fleet(search.spec, plan.image)
        check_engine(search, fleet)
        return search, fleet

    def _fleet(self, spec: Spec, image: str | None) -> StackFleet:
        """Choose image and shape as `submit run --on aws` does, below the ceilings."""
        check_numerics(spec.numerics, "for a run on AWS")
        resources = ceilings.limit_resources(self.site, self.ask, spec.resources)
        settings = load_settings()
        wanted = settings.image or image
        record = choose_record(self.store, wanted, spec.identity(), settings, self.site.stack)
        types = [name.strip() for name in self.site.instance_types.split(",") if name.strip()]
        shape = make_shape(self.site.max_vcpus, types, resources, None)
        return StackFleet(Station(self.site.stack), record, self.store.url, shape)

    def _inspect(self, loaded: LoadedSpec, fleet: StackFleet) -> Inspection | Order:
        """Return what is known of the data, else the order to have them prepared.

        Raises:
            FoldfleetError: what the prepare step refused with, or that it gave no answer.
        """
        engine = fleet.engine(loaded.spec.identity())
        known = recall(loaded, self.store, engine, PrepareOptions(numerics="portable"))
        if known is not None:
            return known
        token = self._prepare_token(loaded, engine)
        if self.ask.prepared != token:  # also where the spec or the newest image has changed since
            return self._prepare(loaded, fleet, token)
        answer = read_answer(self.store, token)
        if answer is not None and answer.error is not None:
            raise _final(FoldfleetError.from_json(self._renamed(answer.error, loaded, token)))
        if answer is None or answer.answer is None:
            raise UnansweredError(
                f"The prepare step of {loaded.spec.name} ended without an answer: it was killed (too little memory? "
                "`resources: {memory_gib: ...}` in the spec gives it more) or could not be started. Its log tells; "
                "then start the same again."
            )
        return Inspection.model_validate(answer.answer)

    def _renamed(self, error: dict[str, Any], loaded: LoadedSpec, token: str) -> dict[str, Any]:
        """Call the spec what its author calls it; the prepare step read a copy."""
        message = str(error.get("message", ""))
        return error | {"message": message.replace(kept_url(self.store, token), loaded.locations.name)}

    def _prepare_token(self, loaded: LoadedSpec, engine: Engine) -> str:
        facts = "\0".join([self.ask.execution, hashlib.sha256(loaded.text).hexdigest(), engine.engine_id])
        return f"prepare-{hashlib.sha256(facts.encode()).hexdigest()[:24]}"

    def _prepare(self, loaded: LoadedSpec, fleet: StackFleet, token: str) -> Order:
        self._check_time(loaded.spec.name)
        url = keep_text(self.store, loaded.text, token)
        label = loaded.spec.name
        call = step_call(fleet, "prepare", label, token, {"store": self.store.url, "spec": url})
        name = request_name(label, token)
        return Order(
            next="prepare",
            overrides=pascal(call["containerOverrides"]),
            tags=call["tags"],
            deadline=self._deadline,
            step_seconds=ceilings.step_seconds(self._deadline, self.now()),
            prepare=Prepare(definition=call["jobDefinition"], name=name, spec=url, token=token),
            message=f"{label} is being prepared.",
        )

    def _check_time(self, label: str) -> None:
        if self._deadline != NO_DEADLINE and self.now() >= self._deadline:
            raise LimitError(
                f"{label} is not prepared, and the {self.site.ceilings.max_hours:g} hours that are given to what is "
                "started without a desk are over. Raise the ceiling: `submit events enable --max-hours N`."
            )

    # --- its rounds -----------------------------------------------------------------------------------------------

    def _next(self, search: Search, fleet: StackFleet) -> Order | None:
        """Return the order for the newest round, or None after another was committed or found."""
        newest = latest_round(self.store, search.run_id)
        if newest is None:
            self._plan(search, None, fleet)
            return None
        scorer = search.spec.refit_scorer()
        view = read_view(self.store, search.run_id)
        if view is not None and is_current(view, newest) and view["complete"] and not lacks_model(view, scorer):
            return self._done(newest, view)
        owned = look(self.store, newest, self._claimant, self.now())
        if owned.kind == "busy":
            return self._follow(newest, owned)
        if owned.kind != "ours":
            cells = cells_of_progress(poll_to_end(ProgressReader(self.store, newest, scorer)))
            if cells.over and not cells.lost:
                seconds = ceilings.step_seconds(self._deadline, self.now())
                allowance = Allowance(self._deadline, step_seconds=seconds)
                return reduce_order(fleet, newest, self.ask.execution, allowance)
        is_cancelled = self._refuse_cancelled(newest, owned)
        if owned.kind == "ours" or (owned.kind == "free" and not is_cancelled):
            return self._send(newest, fleet)
        self._plan(search, newest, fleet)
        return None

    def _plan(self, search: Search, newest: RoundPlan | None, fleet: StackFleet) -> None:
        """Commit the next round; who comes second adopts it, and the claim decides who sends it."""
        kept = keep(self.store, search)
        commit_round(self.store, draft_next(self.store, kept, newest, fleet, reuse=True))

    def _send(self, plan: RoundPlan, fleet: StackFleet) -> Order | None:
        now = self.now()
        spent = self._spent(plan, now)
        allowance = ceilings.allowance_for(self.site, self.ask, plan, fleet.shape, spent, now)
        # Made before the claim: what Batch would not take is refused while the round is still anybody's.
        order = send_order(fleet, plan, self.ask.execution, allowance)
        return order if claim(self.store, plan, self._claimant, now) else None

    def _spent(self, plan: RoundPlan, now: float) -> list[ceilings.Spent]:
        """Return what this execution has sent before, each round with the time until the next."""
        found: list[ceilings.Spent] = []
        until = now
        for index in reversed(range(plan.round)):
            earlier = load_round(self.store, plan.run_id, index)
            begun = sent_by(self.store, earlier, self._claimant)
            if begun is not None:  # else another's, as may lie between two of this execution
                found.append(ceilings.Spent(earlier, max(until - begun, 0.0)))
                until = begun
        return found

    def _refuse_cancelled(self, plan: RoundPlan, owned: Ownership) -> bool:
        """Say whether a round was cancelled before this execution began, which then means to go on.

        Raises:
            InterruptedRun: it was cancelled since.
        """
        stopped = stopped_at(self.store, plan)
        if stopped is None:
            return False
        begun = owned.since if owned.kind == "ours" else ceilings.started_at(self.site, self.ask)
        if stopped >= begun:
            raise InterruptedRun(
                f"{plan.run_id} was cancelled; what is finished is kept. `submit resume {plan.run_id}` computes only "
                "what is missing, as does starting it again."
            )
        return True

    # --- other orders ---------------------------------------------------------------------------------------------

    def _follow(self, plan: RoundPlan, owned: Ownership) -> Order:
        who = owned.owners[0]
        return Order(
            next="follow",
            run_id=plan.run_id,
            round=plan.round,
            name=order_name(plan),
            deadline=self._deadline,
            num_tasks=plan.num_tasks,
            num_cells=plan.num_cells,
            owners=owned.owners,
            message=f"{plan.run_id} is being worked on by {who.execution or who.name or who.job}; it is followed.",
        )

    def _done(self, plan: RoundPlan, view: dict[str, Any]) -> Order:
        """Return the order for a run that has ended: its summary is what the reduce step told."""
        files = {"cv_results": PARQUET, "cv_results_csv": CSV, "best": BEST}
        if "model" in view:
            files["model"] = view["model"]
        places = {name: f"{self.store.url}/{Layout.view(plan.run_id, file)}" for name, file in files.items()}
        return Order(
            next="done",
            run_id=plan.run_id,
            round=plan.round,
            name=order_name(plan),
            deadline=self._deadline,
            num_cells=plan.num_cells,
            summary={"cells": view["cells"], "best": short(view["best"]), "files": places},
            message=f"{plan.run_id} was finished already; nothing was computed.",
        )


def _is_run_id(text: str) -> bool:
    return text.replace("-", "").replace("_", "").isalnum() and text.isascii()


def _final(error: FoldfleetError) -> FoldfleetError:
    """Return an error that ends the execution: the prepare step was tried as often as it is ever tried."""
    return UnansweredError(error.message) if isinstance(error, TryLaterError) else error
