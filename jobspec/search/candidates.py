"""Candidates as an indexable sequence: the i-th one is computed from i, in ParameterGrid's order.

`containers prepare` freezes every axis and every draw (`FrozenSpace`); from then on nothing about a
candidate depends on numpy, so that counting, packing and naming candidates needs neither.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, combinations
from math import prod
from typing import Any, TypeAlias

from jobspec.grammar.values import (
    EstimatorNode,
    PipelineNode,
    Value,
    decode,
    digest,
    encode,
    show,
)
from jobspec.search.folding import fold_assignments
from jobspec.search.keys import KeyMaker, is_nested, make_key

FORMAT_VERSION = 1  # raise it when `to_json` changes shape, and keep reading the old one

Definition: TypeAlias = EstimatorNode | PipelineNode
Axis: TypeAlias = tuple[str, tuple[Value, ...]]
Space: TypeAlias = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class FrozenEntry:
    """One entry with its axes evaluated (grid search), or with its draws made (random search).

    ``spaces`` hold (parameter, values) pairs sorted by parameter; an entry has either spaces or draws.
    """

    name: str | None
    definition: Definition
    spaces: tuple[Space, ...] = ()
    draws: tuple[dict[str, Value], ...] = ()

    def __post_init__(self) -> None:
        in_order = tuple(tuple(sorted(space, key=lambda axis: axis[0])) for space in self.spaces)
        object.__setattr__(self, "spaces", in_order)

    def to_json(self) -> dict[str, Any]:
        """Encode with the tagged encoding of values."""
        return {
            "name": self.name,
            "definition": encode(self.definition),
            "spaces": [[[key, [encode(value) for value in values]] for key, values in space] for space in self.spaces],
            "draws": [[[key, encode(value)] for key, value in draw.items()] for draw in self.draws],
        }

    @staticmethod
    def from_json(document: dict[str, Any]) -> FrozenEntry:
        """Rebuild what `to_json` wrote."""
        definition = decode(document["definition"])
        if not isinstance(definition, EstimatorNode | PipelineNode):
            raise TypeError("an entry's definition is an estimator or a pipeline")
        return FrozenEntry(
            document["name"],
            definition,
            tuple(
                tuple((key, tuple(decode(value) for value in values)) for key, values in space)
                for space in document["spaces"]
            ),
            tuple({key: decode(value) for key, value in draw} for draw in document["draws"]),
        )


@dataclass(frozen=True, slots=True)
class FrozenSpace:
    """Everything that decides the candidates of a run."""

    entries: tuple[FrozenEntry, ...]

    def to_json(self) -> dict[str, Any]:
        """Encode as JSON-able data."""
        return {"format_version": FORMAT_VERSION, "entries": [entry.to_json() for entry in self.entries]}

    @staticmethod
    def from_json(document: dict[str, Any]) -> FrozenSpace:
        """Rebuild what `to_json` wrote.

        Raises:
            ValueError: another version of foldfleet wrote the document.
        """
        if document.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"the candidates are stored in format {document.get('format_version')!r}; "
                f"this foldfleet reads format {FORMAT_VERSION}"
            )
        return FrozenSpace(tuple(FrozenEntry.from_json(entry) for entry in document["entries"]))

    def digest(self) -> str:
        """Return 32 hexadecimal characters that name exactly this space."""
        return digest(self.to_json())


@dataclass(frozen=True, slots=True)
class Candidate:
    """One definition with one parameter setting; ``assignments`` are ordered as ParameterGrid orders them."""

    index: int
    entry_index: int
    definition: Definition
    assignments: dict[str, Value]
    entry_name: str | None = None

    def folded(self) -> tuple[Definition, dict[str, Value]]:
        """Return the definition with the assignments written into it, and those that cannot be."""
        return fold_assignments(self.definition, self.assignments)

    def key(self) -> str:
        """Return 32 hexadecimal characters: equal for candidates that are the same by plain rewriting."""
        return make_key(*self.folded())


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A run of consecutive candidates: one space of an entry, or all of its draws."""

    entry_index: int
    space: Space | None
    size: int


class CandidateSpace:
    """The candidates of a frozen space as a sequence with O(1) access, whatever its length."""

    def __init__(self, frozen: FrozenSpace) -> None:
        self.frozen = frozen
        self._stretches = tuple(_stretches(frozen))
        self._starts = tuple(accumulate((stretch.size for stretch in self._stretches), initial=0))
        self._keys = tuple(KeyMaker(entry.definition) for entry in frozen.entries)
        self._duplicates: dict[int, dict[int, list[int]]] = {}

    @property
    def num_candidates(self) -> int:
        """Return the number of candidates; unlike ``len`` also above 2**63."""
        return self._starts[-1]

    def __len__(self) -> int:
        return self.num_candidates

    def __iter__(self) -> Iterator[Candidate]:
        return (self.candidate(index) for index in range(self.num_candidates))

    def candidate(self, index: int) -> Candidate:
        """Return the candidate with this index.

        Raises:
            IndexError: the index is negative or not below the number of candidates.
        """
        if not 0 <= index < self.num_candidates:
            raise IndexError(f"candidate {index} of {self.num_candidates}")
        at = bisect_right(self._starts, index) - 1
        stretch = self._stretches[at]
        entry = self.frozen.entries[stretch.entry_index]
        offset = index - self._starts[at]
        assignments = dict(entry.draws[offset]) if stretch.space is None else _digits(stretch.space, offset)
        return Candidate(index, stretch.entry_index, entry.definition, assignments, entry.name)

    def key(self, index: int) -> str:
        """Return what `Candidate.key` returns, in microseconds."""
        candidate = self.candidate(index)
        return self._keys[candidate.entry_index].key(candidate.assignments)

    def entry_range(self, entry_index: int) -> range:
        """Return the indices of an entry's candidates."""
        mine = [at for at, stretch in enumerate(self._stretches) if stretch.entry_index == entry_index]
        return range(self._starts[mine[0]], self._starts[mine[-1] + 1]) if mine else range(0)

    def axes(self, entry_index: int) -> tuple[dict[str, tuple[Value, ...]], ...]:
        """Return the distinct values of each parameter, one dict for each space (draws are one space)."""
        entry = self.frozen.entries[entry_index]
        if not entry.draws:
            return tuple({key: _distinct(values) for key, values in space} for space in entry.spaces)
        drawn: dict[str, list[Value]] = {}
        for draw in entry.draws:
            for key, value in draw.items():
                drawn.setdefault(key, []).append(value)
        return ({key: _distinct(tuple(values)) for key, values in drawn.items()},)

    def has_duplicates_possible(self) -> bool:
        """Tell, without walking the candidates, whether two of them might be the same."""
        return self._may_repeat

    def duplicates(self, limit: int = 1_000_000) -> dict[int, list[int]]:
        """Map the first index of a repeated candidate to the later ones, among the first ``limit``; found once."""
        if not self._may_repeat:
            return {}
        if limit not in self._duplicates:
            self._duplicates[limit] = self._find_duplicates(limit)
        return self._duplicates[limit]

    def _find_duplicates(self, limit: int) -> dict[int, list[int]]:
        first: dict[str, int] = {}
        found: dict[int, list[int]] = {}
        for index in range(min(self.num_candidates, limit)):
            original = first.setdefault(self.key(index), index)
            if original != index:
                found.setdefault(original, []).append(index)
        return found

    @cached_property
    def _may_repeat(self) -> bool:
        stretches = self._stretches
        if any(stretch.space is None and stretch.size > 1 for stretch in stretches):
            return True
        if any(_repeats_itself(stretch.space or ()) for stretch in stretches):
            return True
        if len(stretches) > 100:  # comparing pairs would no longer be cheap
            return True
        return any(not self._apart(one, other) for one, other in combinations(stretches, 2))

    def _apart(self, one: _Stretch, other: _Stretch) -> bool:
        """Tell whether two stretches surely share no candidate."""
        entries = self.frozen.entries
        if _skeleton(entries[one.entry_index].definition) != _skeleton(entries[other.entry_index].definition):
            return True
        if one.space is None or other.space is None:
            return False
        return _axes_apart(dict(one.space), dict(other.space))


def describe(candidate: Candidate) -> str:
    """Name a candidate for a leaderboard, such as ``StandardScaler > SVC(C=10)``."""
    definition, rest = candidate.folded()
    text = show(definition)
    if rest:
        text += " with " + ", ".join(f"{key}={show(value)}" for key, value in rest.items())
    return f"{candidate.entry_name}: {text}" if candidate.entry_name else text


def _stretches(frozen: FrozenSpace) -> Iterator[_Stretch]:
    for entry_index, entry in enumerate(frozen.entries):
        if entry.draws:
            yield _Stretch(entry_index, None, len(entry.draws))
        for space in entry.spaces:
            yield _Stretch(entry_index, space, prod(len(values) for _, values in space))


def _digits(space: Space, offset: int) -> dict[str, Value]:
    """Read the offset as a mixed-radix number whose last digit belongs to the last parameter."""
    chosen: list[tuple[str, Value]] = []
    for key, values in reversed(space):
        offset, digit = divmod(offset, len(values))
        chosen.append((key, values[digit]))
    return dict(reversed(chosen))


def _distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple({digest(encode(value)): value for value in reversed(values)}.values())[::-1]


def _digests(values: tuple[Value, ...]) -> frozenset[str]:
    return frozenset(digest(encode(value)) for value in values)


def _repeats_itself(space: Space) -> bool:
    keys = [key for key, _ in space]
    if any(is_nested(other, key) for key in keys for other in keys):
        return True
    return any(len(_digests(values)) < len(values) for _, values in space)


def _axes_apart(one: dict[str, tuple[Value, ...]], other: dict[str, tuple[Value, ...]]) -> bool:
    """Tell whether a parameter that both set has no value in common and nothing below it is set."""
    every = one.keys() | other.keys()
    return any(
        not any(is_nested(inner, key) for inner in every) and not _digests(one[key]) & _digests(other[key])
        for key in one.keys() & other.keys()
    )


def _skeleton(definition: Definition) -> Any:
    """Return what no assignment can change: the class, or the names of the steps."""
    if isinstance(definition, EstimatorNode):
        return definition.path
    return tuple(name for name, _ in definition.steps)
