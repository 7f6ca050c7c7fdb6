"""A stack's store in a folder, and what a state machine asks a planner about it: no AWS, no container, no fit."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from containers.prepare import prepare
from jobspec.grammar.load import parse
from jobspec.runs.answers import Answer, write_answer
from jobspec.runs.rounds import RoundPlan, latest_round
from jobspec.search.memo import PrepareOptions
from jobspec.stores.base import Store
from jobspec.stores.folder import FolderStore
from jobspec.stores.layout import Layout
from submitter.cloud.record import save_record
from submitter.machines.messages import Ask, Ceilings, Order, Site
from submitter.planner.planner import make_order
from tests.unit.fakebatch import make_record
from tests.unit.pretend import Judge, PretendBackend, everything

STORE = "s3://fleet/foldfleet"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:foldfleet-search"
NOW = 2_000_000_000.0
HOUR = 3600.0

SPEC = """\
name: flowers
data: {builtin: iris}
cv: 3
candidates: [{estimator: sklearn.svm.SVC, grid: {C: [1, 2, 3, 4]}}]
scoring: accuracy
refit: REFIT
"""


class Killed(BaseException):
    """What kill -9 is to the planner."""


class S3Folder:
    """A folder under the URL of a store in S3; ``deaths`` counts down to the write at which its process dies.

    ``late`` dies behind that write instead of before it.
    """

    streams = 4

    def __init__(self, path: Path, url: str = STORE) -> None:
        self.folder = FolderStore(path)
        self.url = url
        self.deaths: int | None = None
        self.late = False
        self.num_writes = 0
        self.before: Callable[[str], None] = lambda _key: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.folder, name)

    def local_path(self, _key: str) -> None:
        return None

    def create(self, key: str, body: bytes) -> bool:
        return bool(self._write(key, lambda: self.folder.create(key, body)))

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        return bool(self._write(key, lambda: self.folder.swap(key, body, tag)))

    def put(self, key: str, body: bytes) -> None:
        self._write(key, lambda: self.folder.put(key, body))

    def _write(self, key: str, write: Callable[[], object]) -> object:
        self.before(key)
        is_last = self.deaths == self.num_writes
        self.num_writes += 1
        if is_last and not self.late:
            raise Killed
        done = write()
        if is_last:
            raise Killed
        return done


def make_site(**changes: Any) -> Site:
    ceilings = {
        "max_cells": 100,
        "max_task_vcpus": 16,
        "max_task_memory_gib": 64.0,
        "max_hours": 24.0,
        "max_vcpu_hours": 500.0,
    }
    values: dict[str, Any] = {
        "stack": "foldfleet",
        "region": "us-east-1",
        "account": "123456789012",
        "bucket": "fleet",
        "store": STORE,
        "max_vcpus": 8,
        "environments": 1,
        "instance_types": "m5, c5",
        "machine": MACHINE,
        "data_places": "arn:aws:s3:::fleet/incoming/*,arn:aws:s3:::other/tables/*",
        "spec_prefix": "incoming/",
        "data_prefix": "nightly/",
        "ceilings": Ceilings(**(ceilings | changes.pop("ceilings", {}))),
    }
    return Site(**(values | changes))


def arn(name: str) -> str:
    return f"arn:aws:states:us-east-1:123456789012:execution:foldfleet-search:{name}"


@dataclass
class Execution:
    """One execution: each `ask` is a step of planning; ``deadline`` is learnt from the first answer."""

    stack: Stack
    name: str
    deadline: float = 0.0
    step: int = 0
    started: dict[str, Any] = field(default_factory=dict)

    def ask(self, **given: Any) -> Order:
        self.step += 1
        order = self.again(**given)
        self.deadline = order.deadline
        return order

    def again(self, **given: Any) -> Order:
        """Ask what was asked last: another attempt at the same step."""
        ask = Ask(**{"execution": arn(self.name), "deadline": self.deadline, **self.started, **given})
        return make_order(self.stack.site, ask, f"{self.name}-p{self.step}", self.stack.store, lambda: self.stack.now)


@dataclass
class Stack:
    """The stack: its store with an image, and its clock."""

    store: S3Folder
    site: Site
    now: float = NOW
    _names: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def execution(self, name: str | None = None, **given: Any) -> Execution:
        """Begin an execution, by default of the spec."""
        name = name or f"x{next(self._names)}"
        return Execution(self, name, started=given or {"spec": self.keep_spec()})

    def keep_spec(self, text: str = SPEC, refit: str = "false") -> str:
        body = text.replace("REFIT", refit).encode()
        key = Layout.scheduled(hashlib.sha256(body).hexdigest())
        self.store.folder.put(key, body)
        return f"{STORE}/{key}"

    def newest(self, order: Order) -> RoundPlan:
        plan = latest_round(self.store.folder, order.run_id)
        assert plan is not None
        return plan

    def prepare(self, order: Order) -> None:
        """Do what the prepare step does, and leave its answer."""
        assert order.prepare is not None
        key = order.prepare.spec.removeprefix(f"{STORE}/")
        loaded = parse(self.store.folder.get(key), order.prepare.spec)
        inspection = prepare(loaded, self.store.folder, PrepareOptions(numerics="portable"))
        write_answer(self.store.folder, order.prepare.token, Answer(0, inspection.model_dump(mode="json"), None))

    def work(self, order: Order, judge: Judge = everything, *, reduce: bool = True) -> None:
        """Do what the arrays of a round do, and the reduce step behind them."""
        plan = self.newest(order)
        backend = PretendBackend(self.store.folder, judge)
        for array in backend.build_request(plan).arrays:
            backend.submit(array)
        backend.wait(0)
        if reduce:
            backend.step(["reduce", "--run", plan.run_id])

    def prepared(self, name: str | None = None, **given: Any) -> tuple[Execution, Order]:
        """Begin an execution and bring it over its prepare step, if there is one."""
        execution = self.execution(name, **given)
        order = execution.ask()
        if order.next == "prepare":
            assert order.prepare is not None
            self.prepare(order)
            order = execution.ask(prepared=order.prepare.token)
        return execution, order


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Return a stack whose store is a folder; objects of its bucket are read from there, too."""
    store = S3Folder(tmp_path / "store")

    def open_object(url: str) -> tuple[Store, str]:
        bucket, _, key = url.removeprefix("s3://").partition("/")
        if f"s3://{bucket}/{key}".startswith(STORE):
            return store.folder, key.removeprefix("foldfleet/")
        return FolderStore(tmp_path / bucket), key

    for module in ("submitter.planner.sources", "jobspec.search.memo"):
        monkeypatch.setattr(f"{module}.open_object", open_object)
    save_record(store.folder, make_record())
    return Stack(store, make_site())
