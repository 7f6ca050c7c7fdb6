"""The work step: one task, or all tasks of an array on this host, as one process tree."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from containers.data.dataset import load_manifest
from containers.data.folds import FoldHolder
from containers.scikit.cell import CellRunner, Origin
from containers.scikit.scoring import make_scoring
from containers.tasks.board import Board
from containers.tasks.closer import Closer
from containers.tasks.metadata import InstanceMetadata
from containers.tasks.place import describe_place, is_on_batch
from containers.tasks.pool import Pool
from containers.tasks.session import TICK_SECONDS, Rules, Session
from containers.tasks.signals import Wakeup
from containers.tasks.spot import SpotWatch
from jobspec.engine import current_engine, numeric_environment
from jobspec.errors import ExitCode, NotFoundError, TryLaterError
from jobspec.grammar.load import parse
from jobspec.hostlock import HostLock
from jobspec.protocol import (
    ARRAY_INDEX,
    DEFAULT_FLUSH_SECONDS,
    FLUSH_SECONDS,
    NUM_TASKS,
    array_lock,
    usable_cpus,
)
from jobspec.runs.rounds import RoundPlan, load_round, load_tasks, planned_space, planned_spec
from jobspec.runs.rows import Row, make_lost_row
from jobspec.runs.tasklog import TaskLog
from jobspec.search.candidates import CandidateSpace
from jobspec.settings import load_settings
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
"""How often, about, a task looks for a request to stop in a store over the network: each look is a request."""

PATIENCE_SECONDS = 600.0
"""How long a task waits for such a store to take its parts again, while its workers go on."""

JITTER_SECONDS = 2.0
"""Children of an array start together; spread over this time, their first requests are no storm on one prefix."""


def work(
    store: Store, run_id: str, round_index: int, first_task: int, sleep: Callable[[float], None] = time.sleep
) -> ExitCode:
    """Work on the task(s) that the environment names; idempotent, safe to run twice at once.

    Returns:
        OK when every cell has a row (a failed or lost cell is a row), INTERRUPTED when it was asked to stop, TRY_LATER
        when the host was about to be taken back: what is left can be done elsewhere. On AWS Batch a signal is taken for
        that, too: a host that goes without a notice sends it at its shutdown, and what Batch itself ends it never
        starts again, whatever the exit code.

    Raises:
        TryLaterError: another process of this host serves the same run's arrays.
        NotFoundError: this machine's libraries are not those of the plan.
    """
    if is_on_batch(os.environ) and ARRAY_INDEX in os.environ:
        sleep(random.uniform(0.0, JITTER_SECONDS))  # noqa: S311 - jitter is no secret
    plan = load_round(store, run_id, round_index)
    first = first_task + int(os.environ.get(ARRAY_INDEX, "0"))
    count = int(os.environ.get(NUM_TASKS, "0"))
    lock = HostLock(array_lock(store, load_settings().cache, run_id), probed=True)
    if count and not lock.acquire():
        raise TryLaterError(
            f"Another process of this machine is working on {run_id}. `submit watch {run_id}` follows it."
        )
    with Wakeup(signal.SIGTERM, signal.SIGINT) as wakeup:
        session = _make_session(store, plan, first, max(count, 1))
        finished = session.run(wakeup.descriptor, lambda: bool(wakeup.caught()))
    if finished:
        return ExitCode.OK
    goes = session.was_reclaimed or (is_on_batch(os.environ) and bool(wakeup.caught()))
    return ExitCode.TRY_LATER if goes else ExitCode.INTERRUPTED


@dataclass(frozen=True)
class Workplace:
    """What a worker needs; it is built before the first fork, and shared by all workers of the host."""

    runner: CellRunner
    folds: FoldHolder

    def serve(self, message: tuple[int, tuple[int, ...]]) -> Iterator[tuple[str, Any]]:
        """Fit and score one family: answer when the fold is there, then with the rows."""
        split, family = message
        fold = self.folds.get(split)
        yield "started", None
        yield "rows", self.runner.run(fold, split, family, writable=self.folds.writable)


def _make_session(store: Store, plan: RoundPlan, first: int, count: int) -> Session:
    spec = parse(planned_spec(store, plan), "spec.yaml").spec
    _check_engine(plan, spec.identity())
    metadata = InstanceMetadata.find() if is_on_batch(os.environ) else None
    start = describe_place(os.environ, metadata) | {"kernel": plan.engine.kernel, "time": time.time()}
    attempt = uuid.uuid4().hex
    origin = Origin(attempt, str(start["host"]), plan.engine.kernel)
    space = CandidateSpace(planned_space(store, plan))
    manifest = load_manifest(store, plan.dataset_id)
    runner = CellRunner(
        space,
        make_scoring(spec.scoring),
        train_score=plan.train_score,
        use_weights=manifest.weights is not None,
        run_salt=plan.run_id,
        unseeded_entries=plan.unseeded_entries,
        origin=origin,
    )
    settings = load_settings()
    is_remote = store.streams > 1
    hasty = open_store(store.url, hasty=True) if is_remote else store  # the parent must answer signals meanwhile
    place = Workplace(runner, FoldHolder(settings.cache, store, manifest, plan.split_id))
    closer = Closer(store, plan)
    gc.collect()
    gc.freeze()  # keeps the pages that workers share from being written by the garbage collector

    def give_up(split: int, family: tuple[int, ...], reason: str) -> list[Row]:
        return [
            make_lost_row(c, split, runner.key(c), reason, origin.attempt, origin.host, origin.kernel) for c in family
        ]

    return Session(
        boards=_boards(hasty, plan, first, count, attempt, start),
        pool=Pool(place.serve),
        rules=Rules(
            workers=settings.workers or usable_cpus(),
            flush_seconds=float(os.environ.get(FLUSH_SECONDS, DEFAULT_FLUSH_SECONDS)),
            limits=plan.limits,
            stop_seconds=STOP_SECONDS * random.uniform(0.75, 1.25) if is_remote else TICK_SECONDS,  # noqa: S311 - jitter
            patience_seconds=PATIENCE_SECONDS if is_remote else 0.0,
        ),
        closer=closer,
        give_up=give_up,
        stop_asked=lambda: hasty.exists(Layout.stop(plan.run_id, plan.round)),
        now=time.monotonic,
        reclaim=SpotWatch(metadata).deadline,
    )


def _boards(
    store: Store, plan: RoundPlan, first: int, count: int, attempt: str, start: Mapping[str, Any]
) -> Iterator[Board]:
    for number, task in enumerate(load_tasks(store, plan, first, count), first):
        if not store.exists(Layout.done(plan.run_id, plan.round, number)):
            yield Board(number, task, TaskLog(store, plan.run_id, plan.round, number, attempt), start)


def _check_engine(plan: RoundPlan, identity: Mapping[str, Any]) -> None:
    pins = numeric_environment(plan.engine.numerics)
    if missing := [name for name, value in pins.items() if os.environ.get(name) != value]:
        raise NotFoundError(
            f"{plan.run_id} was planned with `numerics: {plan.engine.numerics}`, but this process was started without "
            f"{', '.join(missing)}. Start it through `submit`, which sets them."
        )
    engine = current_engine(plan.engine.numerics, identity)
    if engine != plan.engine:
        raise NotFoundError(
            f"This machine does not compute what {plan.run_id} was planned with ({engine.difference(plan.engine)}). "
            "Run the spec again here for a run of its own, or install the planned versions and resume."
        )
