"""A store, AWS in this process, and any number of desks at it, with a clock that only waiting moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jobspec.grammar.spec import Spec
from jobspec.runs.rounds import require_round
from jobspec.settings import load_settings
from jobspec.stores.base import Store
from submitter.backends.aws import world
from submitter.backends.aws.backend import AwsBackend
from submitter.backends.base import ArrayRequest, BackendContext, Presence
from submitter.backends.stepfunctions.backend import StepFunctionsBackend
from submitter.cli.run_commands import cancel_run
from submitter.cloud.record import save_record
from submitter.liveness import Liveness
from submitter.preparation import Desk
from submitter.runner import Runner
from submitter.standing import RunState, read_standing
from tests.unit.fakebatch import FakeBatch, FakeClients, make_record, make_stack
from tests.unit.pretend import PretendBackend, make_pretended_search
from tests.unit.test_runner import first_only


class CloudScene:
    """What desks see and do; ``sleeps`` are called one after the other, whenever somebody waits."""

    on: ClassVar[str]

    def __init__(self, store: Store, cache: Path, clients: FakeClients) -> None:
        self.store, self.clients = store, clients
        self.search = make_pretended_search()
        self.settings = replace(load_settings(), cache=cache)
        self.said: list[str] = []
        self.sleeps: Iterator[Callable[[], None]] = iter(())
        self.clock = 0.0

    @property
    def batch(self) -> FakeBatch:
        return self.clients.batch

    @property
    def run_id(self) -> str:
        return self.search.run_id

    @property
    def desk(self) -> Desk:
        return Desk(self.settings, self.store)

    def live(self, cache: Path | None = None) -> Liveness:
        settings = self.settings if cache is None else replace(self.settings, cache=cache)
        return Liveness(settings, self.store, self.run_id, lambda: self.clock)

    def backend(self, on: str | None = None) -> AwsBackend:
        return self.open_backend(self.desk, self.search.spec, on=on or self.on, workers=None, label="pretended")

    def open_backend(self, desk: Desk, spec: Spec, *, on: str, **options: Any) -> AwsBackend:
        """Make a backend as `submitter.preparation.open_backend` does, with this scene's clock."""
        made = {made.name: made for made in (AwsBackend, StepFunctionsBackend)}[on]
        return made(BackendContext(desk.settings, desk.store, spec, **options), world.open_world, sleep=self.sleep)

    def runner(self, on: str | None = None, *, fresh: bool = False, cache: Path | None = None) -> Runner:
        return Runner(self.store, self.backend(on), self.live(cache), fresh, self.sleep, say=self.said.append)

    def state(self) -> RunState:
        plan = require_round(self.store, self.run_id)
        return read_standing(self.store, plan, None, alive=self.live().is_alive()).state

    def presence(self) -> Presence:
        return Presence(self.settings, self.store, self.run_id)

    def finish_some(self) -> None:
        """Have the array write the first rows of its newest round, and go on."""
        index = str(require_round(self.store, self.run_id).round)
        PretendBackend(self.store, first_only)._work(ArrayRequest("a", 0, 0, 1, (self.run_id, index), {}))

    def cancel(self) -> int:
        return cancel_run(self.desk, self.run_id, as_json=True, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        next(self.sleeps, lambda: None)()


@contextmanager
def at_the_stack(store: Store, clients: FakeClients, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every desk find a stack with this store, to which an image was pushed."""
    patch.setattr(world, "make_clients", lambda: clients.typed)
    patch.setattr(world, "find_stack", lambda _clients, _name: make_stack(store.url))
    save_record(store, make_record())
    remembered = (world.shared_clients, world.open_world)
    for one in remembered:
        one.cache_clear()
    yield
    for one in remembered:
        one.cache_clear()
