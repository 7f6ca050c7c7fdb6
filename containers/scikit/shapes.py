"""The shapes an entry's estimators take: its axes space by space, and its estimators with steps exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from sklearn.base import clone

from containers.scikit.build import build
from jobspec.grammar.values import EstimatorNode, NamedList, NumpyScalar, PipelineNode, Value, canonical_json, encode
from jobspec.search.candidates import FrozenEntry

MAX_COMBINATIONS = 256
"""Exchanged steps are combined up to here: more combinations show no new mistake, and each costs a copy."""

MAX_VALUES = 1000
"""Of a longer axis the first values, the smallest and the largest stand for all: constraints are intervals or sets."""

_STRUCTURAL = (EstimatorNode, PipelineNode, NamedList)


@dataclass(frozen=True)
class View:
    """One space of an entry (of a random search: the draws with the same names): distinct values per axis.

    Of an axis longer than `MAX_VALUES` only some values are kept.
    """

    axes: Mapping[str, tuple[Value, ...]]

    def prefixes(self, axis: str) -> list[str]:
        """Return the axes that exchange an object on the way to another axis's parameter, outermost first."""
        return sorted(name for name in self.axes if axis.startswith(name + "__"))

    def combinations(self, names: list[str]) -> Iterator[dict[str, Value]]:
        """Yield combinations of some axes' values, at most `MAX_COMBINATIONS`."""
        values = product(*(self.axes[name] for name in names))
        yield from (dict(zip(names, combination, strict=True)) for combination in islice(values, MAX_COMBINATIONS))


def views(entry: FrozenEntry) -> list[View]:
    """Return an entry's spaces; an entry without a grid has one view without axes."""
    if entry.draws:
        return _views_of_draws(entry.draws)
    return [View({name: distinct(values) for name, values in space}) for space in entry.spaces]


def distinct(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return values without repetition; ``1``, ``1.0`` and ``True`` stay apart."""
    if len(values) > MAX_VALUES:
        numbers = [value for value in values if _number(value) is not None]
        extremes = (min(numbers, key=_number), max(numbers, key=_number)) if numbers else ()
        values = (*values[:MAX_VALUES], *extremes)
    return tuple({canonical_json(encode(value)): value for value in values}.values())


def variants(entry: FrozenEntry) -> list[Any]:
    """Return live estimators with every step that the entry exchanges, other parameters as in its definition."""
    base = build(entry.definition)
    found: list[Any] = []
    for view in views(entry):
        combinations = view.combinations(_structural_axes(base, view))
        found.extend(assign(base, combination) for combination in combinations)
    return found


def assign(base: Any, values: Mapping[str, Value]) -> Any:
    """Return a copy of an estimator with some parameters set."""
    return clone(base).set_params(**{name: build(value) for name, value in values.items()}) if values else base


def _number(value: Value) -> Any:
    plain = value.value if isinstance(value, NumpyScalar) else value
    return plain if isinstance(plain, int | float) else None


def _views_of_draws(draws: tuple[Mapping[str, Value], ...]) -> list[View]:
    grouped: dict[frozenset[str], list[Mapping[str, Value]]] = {}
    for draw in draws:
        grouped.setdefault(frozenset(draw), []).append(draw)
    return [
        View({name: distinct(tuple(draw[name] for draw in group)) for name in sorted(names)})
        for names, group in grouped.items()
    ]


def _structural_axes(base: Any, view: View) -> list[str]:
    """Return the axes whose values are objects, or which name an object of the definition."""
    objects = {name for name, value in base.get_params(deep=True).items() if hasattr(value, "get_params")}
    return sorted(
        name
        for name, values in view.axes.items()
        if name in objects or any(isinstance(value, _STRUCTURAL) for value in values)
    )
