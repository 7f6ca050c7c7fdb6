"""Rounds of a run: written aside, committed by one creation, adopted by whoever came second."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jobspec.engine import Engine
from jobspec.errors import DataError, NotFoundError
from jobspec.grammar.spec import Limits
from jobspec.search.candidates import FrozenSpace
from jobspec.search.inspection import Document
from jobspec.search.planning import ArrayPlan, Task, plan_arrays
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import seal, unseal_as

T = TypeVar("T")

SHARD_TASKS = 2_000
"""Tasks in one shard of a plan, so that a task reads little of a plan of 10^5 tasks."""


class Shard(Document):
    """Some tasks of a plan, stored beside it."""

    first_task: int
    num_tasks: int
    name: str
    digest: str


class RoundPlan(Document):
    """The document whose creation commits a round; small however large the grid is.

    Whatever a process needs to know about a round stands here or in the objects whose digests stand here.
    ``created`` is in seconds since 1970. ``backend`` starts its tasks, in ``image`` where that has images.
    """

    format_version: Literal[1] = 1
    run_id: str
    round: int
    token: str
    engine: Engine
    dataset_id: str
    split_id: str
    book_id: str
    num_candidates: int
    num_splits: int
    num_known: int
    num_fits: int
    num_tasks: int
    arrays: tuple[tuple[int, int], ...]
    shards: tuple[Shard, ...]
    known_digest: str | None
    space_digest: str
    limits: Limits
    created: float
    unseeded_entries: tuple[int, ...]
    scorers: tuple[str, ...]
    score_kind: Literal["single", "multi"]
    train_score: bool
    workers: int
    spec_digest: str | None = None
    backend: str = "local"
    image: str | None = None

    @property
    def num_cells(self) -> int:
        """Return the number of rows of the complete table."""
        return self.num_candidates * self.num_splits

    def array_plans(self) -> list[ArrayPlan]:
        """Return the arrays of the round."""
        return [ArrayPlan(first, size) for first, size in self.arrays]


class Entry(Document):
    """An entry of a book: a run that shares its cells with the others there."""

    format_version: Literal[1] = 1
    run_id: str


@dataclass(frozen=True)
class Draft:
    """A round that is ready to be committed."""

    plan: RoundPlan
    objects: dict[str, bytes]


def draft_round(plan: dict[str, Any], tasks: Sequence[Task], known: bytes | None) -> Draft:
    """Make the objects of a round without writing any.

    Args:
        plan: the fields of `RoundPlan` that are not derived from the tasks.
        tasks: all tasks, in the order of their numbers.
        known: the Parquet table of the rows that are final already.
    """
    objects = {f"tasks-{first:06d}.json": body for first, body in _shard_bodies(tasks)}
    shards = [
        Shard(
            first_task=first,
            num_tasks=len(tasks[first : first + SHARD_TASKS]),
            name=name,
            digest=digest_text(body),
        )
        for first, (name, body) in zip(range(0, len(tasks), SHARD_TASKS), objects.items(), strict=True)
    ]
    if known is not None:
        objects["known.parquet"] = known
    full = RoundPlan(
        **plan,
        token=uuid.uuid4().hex,
        created=time.time(),
        num_fits=sum(task.num_fits for task in tasks),
        num_tasks=len(tasks),
        arrays=tuple((array.first_task, array.size) for array in plan_arrays(len(tasks))),
        shards=tuple(shards),
        known_digest=None if known is None else digest_text(known),
    )
    return Draft(full, objects)


def commit_round(store: Store, draft: Draft) -> RoundPlan:
    """Commit a round; if another plan of the same round was first, return that one."""
    plan = draft.plan
    for name, body in draft.objects.items():
        store.create(Layout.draft(plan.run_id, plan.round, plan.token, name), body)
    store.create(Layout.plan(plan.run_id, plan.round), seal(plan.model_dump(mode="json")))
    return load_round(store, plan.run_id, plan.round)


def load_round(store: Store, run_id: str, round_index: int) -> RoundPlan:
    """Return the committed plan of a round.

    Raises:
        NotFoundError: it is not committed.
    """
    key = Layout.plan(run_id, round_index)
    return read_document(store, key, lambda body: unseal_as(RoundPlan, body, key))


def latest_round(store: Store, run_id: str) -> RoundPlan | None:
    """Return the newest committed round of a run, or None."""
    index = 0
    while store.exists(Layout.plan(run_id, index)):
        index += 1
    return load_round(store, run_id, index - 1) if index else None


def require_round(store: Store, run_id: str) -> RoundPlan:
    """Return the newest round of a run that must exist."""
    plan = latest_round(store, run_id)
    if plan is None:
        raise NotFoundError(f"The run {run_id!r} has no plan in {store.url}. `submit list` shows the runs.")
    return plan


def load_tasks(store: Store, plan: RoundPlan, first: int = 0, count: int | None = None) -> list[Task]:
    """Return ``count`` tasks of a round (default: all) from number ``first`` on."""
    stop = plan.num_tasks if count is None else first + count
    tasks: list[Task] = []
    for shard in plan.shards:
        if shard.first_task < stop and first < shard.first_task + shard.num_tasks:
            rows = json.loads(_checked(store, plan, shard.name, shard.digest))
            low, high = max(first - shard.first_task, 0), min(stop - shard.first_task, shard.num_tasks)
            tasks.extend(map(Task.from_json, rows[low:high]))
    return tasks


def load_known(store: Store, plan: RoundPlan) -> bytes | None:
    """Return the Parquet table of the rows that were final when the round was planned."""
    return None if plan.known_digest is None else _checked(store, plan, "known.parquet", plan.known_digest)


def keep_spec(store: Store, run_id: str, text: bytes) -> bytes:
    """Store a run's spec once; return the one that was stored first: names, comments and resources may differ."""
    store.create(Layout.spec(run_id), text)
    return store.get(Layout.spec(run_id))


def planned_spec(store: Store, plan: RoundPlan) -> bytes:
    """Return the text of the spec that a round was planned with.

    Raises:
        DataError: it is another one by now: the object was damaged.
    """
    text = store.get(Layout.spec(plan.run_id))
    if plan.spec_digest is not None and digest_text(text) != plan.spec_digest:
        raise DataError(
            f"The object {Layout.spec(plan.run_id)!r} in {store.url} was damaged: it is not the spec of the plan. "
            "Delete that run's folder and run the spec again; cells that other runs have are reused."
        )
    return text


def keep_space(store: Store, run_id: str, space: FrozenSpace) -> FrozenSpace:
    """Store a run's frozen candidates once; return those that were stored first.

    Another CPU's numpy may have drawn last bits differently: the first space is the run's.
    """
    store.create(Layout.space(run_id), json.dumps(space.to_json()).encode())
    return load_space(store, run_id)


def load_space(store: Store, run_id: str) -> FrozenSpace:
    """Return the frozen candidates of a run that may have no plan yet."""
    return read_document(store, Layout.space(run_id), lambda body: FrozenSpace.from_json(json.loads(body)))


def planned_space(store: Store, plan: RoundPlan) -> FrozenSpace:
    """Return the frozen candidates that a round was planned with.

    Raises:
        DataError: they are others by now: the object was damaged.
    """
    space = load_space(store, plan.run_id)
    if space.digest() != plan.space_digest:
        raise DataError(
            f"The object {Layout.space(plan.run_id)!r} in {store.url} was damaged: its candidates are not those of the "
            "plan. Delete that run's folder and run the spec again; cells that other runs have are reused."
        )
    return space


def read_document(store: Store, key: str, parse: Callable[[bytes], T]) -> T:
    """Read a stored document.

    Raises:
        NotFoundError: there is none.
        DataError: it was damaged, or is of a format that this foldfleet does not read.
    """
    body = store.get(key)
    try:
        return parse(body)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"The object {key!r} in {store.url} cannot be read ({reason}): it was damaged, or another version of "
            "foldfleet wrote it. Use that version, or delete the run's folder and run the spec again."
        ) from None


def register(store: Store, book_id: str, run_id: str) -> None:
    """Add a run to its book unless it is in it."""
    number = 0
    while True:
        if store.exists(Layout.book(book_id, number)):
            if _read_entry(store, book_id, number) == run_id:
                return
            number += 1
        elif store.create(Layout.book(book_id, number), Entry(run_id=run_id).model_dump_json().encode()):
            return


def runs_of_book(store: Store, book_id: str) -> list[str]:
    """Return the runs of a book in the order of their registration."""
    runs: list[str] = []
    while store.exists(Layout.book(book_id, len(runs))):
        runs.append(_read_entry(store, book_id, len(runs)))
    return runs


def _read_entry(store: Store, book_id: str, number: int) -> str:
    return read_document(store, Layout.book(book_id, number), lambda body: Entry.model_validate_json(body).run_id)


def _shard_bodies(tasks: Sequence[Task]) -> Iterator[tuple[int, bytes]]:
    for first in range(0, len(tasks), SHARD_TASKS):
        yield first, json.dumps([task.to_json() for task in tasks[first : first + SHARD_TASKS]]).encode()


def _checked(store: Store, plan: RoundPlan, name: str, digest: str) -> bytes:
    key = Layout.draft(plan.run_id, plan.round, plan.token, name)
    body = store.get(key)
    if digest_text(body) != digest:
        raise DataError(
            f"The object {key!r} in {store.url} was damaged: its digest is {digest_text(body)}, planned was {digest}. "
            "Run the spec again with --fresh."
        )
    return body


def digest_text(body: bytes) -> str:
    """Return the digest by which a plan names what was written beside it."""
    return hashlib.sha256(body).hexdigest()[:32]
