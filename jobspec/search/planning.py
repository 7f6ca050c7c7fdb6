"""Pack the cells of a round into tasks and arrays: pure, and small however large the grid is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from jobspec.errors import LimitError
from jobspec.search.counting import CellCount

MAX_CELLS = 1_000_000
"""`submit run` refuses more cells than this without ``--max-cells``."""

MAX_ARRAY = 10_000
"""AWS Batch: array size 2..10,000 (SubmitJob, ArrayProperties); one task is sent as a plain request."""

TASKS_PER_WORKER = 4
"""Where a task costs nothing to start: enough that the last ones of a fold end at about the same time."""

Range = tuple[int, int]
"""Candidates from the first index up to, not including, the second."""


@dataclass(frozen=True)
class Task:
    """Families of one split: ranges of candidates that are fitted one by one, and groups that share a fit."""

    split: int
    ranges: tuple[Range, ...]
    groups: tuple[tuple[int, ...], ...] = ()

    @property
    def num_fits(self) -> int:
        """Return the number of families."""
        return sum(stop - start for start, stop in self.ranges) + len(self.groups)

    @property
    def num_cells(self) -> int:
        """Return the number of score rows."""
        return sum(stop - start for start, stop in self.ranges) + sum(map(len, self.groups))

    def families(self) -> Iterator[tuple[int, ...]]:
        """Yield the candidates of each family, in the order in which they are to be fitted."""
        for start, stop in self.ranges:
            yield from ((candidate,) for candidate in range(start, stop))
        yield from self.groups

    def to_json(self) -> list[object]:
        """Encode as ``[split, ranges, groups]``."""
        return [self.split, [list(r) for r in self.ranges], [list(group) for group in self.groups]]

    @staticmethod
    def from_json(document: Sequence[object]) -> Task:
        """Decode what `to_json` made."""
        split, ranges, groups = document
        return Task(
            split=int(split),  # type: ignore[call-overload]
            ranges=tuple((int(start), int(stop)) for start, stop in ranges),  # type: ignore[attr-defined]
            groups=tuple(tuple(map(int, group)) for group in groups),  # type: ignore[attr-defined]
        )


@dataclass(frozen=True)
class Work:
    """What is left to do on one split, before it is packed."""

    ranges: tuple[Range, ...]
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ArrayPlan:
    """An array of a round: tasks ``first_task`` up to ``first_task + size``."""

    first_task: int
    size: int


def plan_tasks(
    num_candidates: int,
    num_splits: int,
    tasks_per_fold: int,
    duplicates: Mapping[int, Sequence[int]] | None = None,
    known: Mapping[int, Sequence[int]] | None = None,
) -> list[Task]:
    """Pack the unfinished cells, fold after fold.

    Args:
        num_candidates: length of the candidate space.
        num_splits: number of rows of the split table.
        tasks_per_fold: into how many tasks a fold is cut at most.
        duplicates: candidates equal to an earlier one, by the index of that one: they share its fit.
        known: finished candidates by split.
    """
    groups = [(first, *others) for first, others in sorted((duplicates or {}).items())]
    tasks: list[Task] = []
    for split in range(num_splits):
        work = _left(num_candidates, groups, frozenset((known or {}).get(split, ())))
        tasks.extend(_pack(split, work, tasks_per_fold))
    return tasks


def plan_arrays(num_tasks: int) -> list[ArrayPlan]:
    """Cut contiguous task numbers into as few arrays as the limit allows, of nearly equal size."""
    count = ceil(num_tasks / MAX_ARRAY)
    bounds = [num_tasks * i // count for i in range(count + 1)] if count else []
    return [ArrayPlan(start, stop - start) for start, stop in pairwise(bounds)]


def check_cells(count: CellCount, max_cells: int) -> None:
    """Refuse a search that is larger than the user can have meant.

    Args:
        count: the cells, as a spec alone or with the data tells them.
        max_cells: how many are run.

    Raises:
        LimitError: more cells than ``max_cells``.
    """
    if count.num_cells > max_cells:
        raise LimitError(
            f"The search has {count}; at most {max_cells:,} are run without being asked. Make the grid smaller, use "
            f"`search: {{kind: random, n_iter: 500}}` or fewer folds, or add --max-cells {count.knob}."
        )


def _left(num_candidates: int, groups: Sequence[tuple[int, ...]], known: frozenset[int]) -> Work:
    grouped = {member for group in groups for member in group}
    rest = [tuple(member for member in group if member not in known) for group in groups]
    shared = tuple(group for group in rest if len(group) > 1)
    alone = {group[0] for group in rest if len(group) == 1}
    return Work(tuple(_gaps(num_candidates, sorted((known | grouped) - alone))), shared)


def _gaps(stop: int, excluded: Sequence[int]) -> Iterator[Range]:
    """Yield the ranges of 0..stop between the excluded indices, which are sorted."""
    start = 0
    for index in excluded:
        if start < index:
            yield start, index
        start = index + 1
    if start < stop:
        yield start, stop


def _pack(split: int, work: Work, target: int) -> Iterator[Task]:
    """Cut one fold's families into at most ``target`` tasks of nearly equal numbers of fits."""
    total = sum(stop - start for start, stop in work.ranges) + len(work.groups)
    count = min(target, total)
    bounds = [total * i // count for i in range(count + 1)] if count else []
    for first, last in pairwise(bounds):
        yield _slice(split, work, first, last)


def _slice(split: int, work: Work, first: int, last: int) -> Task:
    """Return the families ``first`` up to ``last`` of a fold: its ranges, then its groups."""
    ranges: list[Range] = []
    offset = 0
    for start, stop in work.ranges:
        low, high = max(first - offset, 0), min(last - offset, stop - start)
        if low < high:
            ranges.append((start + low, start + high))
        offset += stop - start
    groups = work.groups[max(first - offset, 0) : max(last - offset, 0)]
    return Task(split, tuple(ranges), groups)
