"""A stage for seeded races: threads of which one acts at a time, over the operations of a store.

Before and after every operation, and between the two halves of a creation in a folder, the next to act is drawn from
the seed. Some die at such a moment.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from jobspec.runs.rounds import RoundPlan, commit_round, draft_round
from jobspec.runs.rows import Row, make_lost_row
from jobspec.search.planning import Task
from jobspec.stores import folder
from jobspec.stores.base import Store
from submitter.search import Search
from tests.unit.pretend import make_pretended_search

NUM_CANDIDATES = 7

Act = Callable[[], None]


class Killed(BaseException):
    """What kill -9 is to a racer: nothing catches it."""


class Stage:
    """Lets one of several threads act at a time; `step` draws who goes on, and kills whose time has come.

    ``watch`` is called at each step, while nobody else acts.
    """

    def __init__(self, chance: random.Random, watch: Act = lambda: None) -> None:
        self.chance = chance
        self.killed: list[int] = []
        self._watch = watch
        self._me = threading.local()
        self._gates: list[threading.Lock] = []
        self._left: dict[int, int] = {}
        self._alive: list[int] = []
        self._errors: list[BaseException] = []

    def play(self, acts: Sequence[Act], deaths: Mapping[int, int]) -> None:
        """Run all acts to their ends; ``deaths`` says at which of its steps an act dies."""
        self._gates = [threading.Lock() for _ in acts]
        self._left, self._alive = dict(deaths), list(range(len(acts)))
        threads = [threading.Thread(target=self._perform, args=item) for item in enumerate(acts)]
        for gate, thread in zip(self._gates, threads, strict=True):
            gate.acquire()
            thread.start()
        self._gates[self.chance.choice(self._alive)].release()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def step(self) -> None:
        """Let the next one act; the test itself, which is no racer, passes."""
        number: int | None = getattr(self._me, "number", None)
        if number is None:
            return
        self._watch()
        if number in self._left:
            self._left[number] -= 1
            if not self._left[number]:
                raise Killed
        after = self.chance.choice(self._alive)
        if after != number:
            self._gates[after].release()
            self._gates[number].acquire()

    def _perform(self, number: int, act: Act) -> None:
        self._gates[number].acquire()
        self._me.number = number
        try:
            act()
        except Killed:
            self.killed.append(number)
        except BaseException as error:  # noqa: BLE001  # told by the thread that plays
            self._errors.append(error)
        finally:
            self._alive.remove(number)
            if self._alive:
                self._gates[self.chance.choice(self._alive)].release()


class Stepped:
    """A store in which others act before and after every operation."""

    def __init__(self, store: Store, stage: Stage) -> None:
        self._store = store
        self._stage = stage

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found) or name in {"local_path", "staging", "ranges"}:
            return found

        def stepped(*arguments: Any) -> Any:
            self._stage.step()
            answer = found(*arguments)
            self._stage.step()
            return answer

        return stepped


def interleaved(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """Return where the stage that plays is held: others act within a creation, nothing waits for the disk."""
    playing: list[Stage] = []
    publish = folder._publish

    def publish_after_others(temporary: Path, path: Path) -> bool:
        for stage in playing:
            stage.step()
        return publish(temporary, path)

    monkeypatch.setattr(folder, "_publish", publish_after_others)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return playing


@functools.cache
def pretended() -> Search:
    return make_pretended_search(grid=str(list(range(1, NUM_CANDIDATES + 1))), num_splits=2)


def make_row(candidate: int, split: int, score: float, attempt: str) -> Row:
    row = make_lost_row(candidate, split, f"k{candidate}", "", attempt, attempt, "kernel")
    facts = {"state": "ok", "scores": {"test_score": score}, "score_digest": repr(score), "error": None}
    times = {"fit_s": 0.25, "score_s": 0.5, "cpu_s": 0.75}
    return cast(Row, row | times | facts)


def commit(
    store: Store, run_id: str, tasks: Sequence[Task], num_splits: int, round_index: int = 0
) -> RoundPlan:
    search = pretended()
    fields = search.fields | {
        "run_id": run_id,
        "num_splits": num_splits,
        "round": round_index,
        "num_known": 0,
        "space_digest": search.space.frozen.digest(),
        "workers": 2,
    }
    return commit_round(store, draft_round(fields, tasks, None))


@contextlib.contextmanager
def told(seed: int) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
