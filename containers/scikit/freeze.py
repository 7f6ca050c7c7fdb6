"""Freeze the candidates of a spec: axes evaluated once by numpy, draws made once by scikit-learn's sampler."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy import stats
from sklearn.model_selection import ParameterSampler

from containers.scikit.build import build, freeze_array, freeze_scalar, generate
from jobspec.errors import FoldfleetError, SpecError
from jobspec.grammar.spec import CandidateEntry, RandomSearch, Spec
from jobspec.grammar.values import Distribution, Generator, Value
from jobspec.search.candidates import FrozenEntry, FrozenSpace


@dataclass(frozen=True)
class Frozen:
    """A frozen space, with the seed that its draws were made from (None for a grid)."""

    space: FrozenSpace
    seed: int | None = None


class FreezeError(SpecError):
    """A value that cannot be evaluated, with the path of its place in the spec."""

    def __init__(self, message: str, where: tuple[str | int, ...]) -> None:
        super().__init__(message)
        self.where = where


def freeze(spec: Spec, seed: int | None = None) -> Frozen:
    """Return the spec's candidates without anything left to evaluate.

    Entry j of a random search draws ``ParameterSampler(space, n_iter, random_state)`` as RandomizedSearchCV does,
    every entry from the same seed.

    Args:
        spec: the spec.
        seed: for a random search without ``random_state``: a seed drawn earlier; None draws one.

    Raises:
        FreezeError: a generator or distribution cannot be evaluated.
    """
    if not isinstance(spec.search, RandomSearch):
        return Frozen(FrozenSpace(tuple(_freeze_grid(j, entry) for j, entry in enumerate(spec.candidates))))
    state = spec.search.random_state
    used = state if state is not None else secrets.randbits(32) if seed is None else seed
    n_iter = spec.search.n_iter
    entries = tuple(_freeze_draws(j, entry, n_iter, used) for j, entry in enumerate(spec.candidates))
    return Frozen(FrozenSpace(entries), used)


def _freeze_grid(index: int, entry: CandidateEntry) -> FrozenEntry:
    spaces = tuple(
        tuple((name, _freeze_axis(("candidates", index, "grid", name), axis)) for name, axis in sorted(space.items()))
        for space in entry.spaces or ({},)
    )
    return FrozenEntry(name=entry.name, definition=entry.definition, spaces=spaces)


def _freeze_axis(where: tuple[str | int, ...], axis: Any) -> tuple[Value, ...]:
    if not isinstance(axis, Generator):
        return tuple(axis)
    try:
        return freeze_array(generate(axis))
    except SpecError as error:
        raise FreezeError(error.message, where) from None


def _freeze_draws(index: int, entry: CandidateEntry, n_iter: int, seed: int) -> FrozenEntry:
    spaces = [
        {name: _make_axis(("candidates", index, "distributions", name), axis) for name, axis in space.items()}
        for space in entry.distributions
    ]
    draws = _draw(index, spaces, n_iter, seed) if any(spaces) else ({},)
    return FrozenEntry(name=entry.name, definition=entry.definition, draws=draws)


def _draw(index: int, spaces: Sequence[Mapping[str, Any]], n_iter: int, seed: int) -> tuple[dict[str, Value], ...]:
    """Draw an entry's settings; fewer than ``n_iter`` exist if all axes are lists with fewer combinations."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the plan tells the number of candidates
            sampler = ParameterSampler(list(spaces), n_iter, random_state=seed)
            return tuple({name: freeze_scalar(value) for name, value in draw.items()} for draw in sampler)
    except FoldfleetError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise FreezeError(f"The distributions cannot be drawn from: {error}.", ("candidates", index)) from None


def _make_axis(where: tuple[str | int, ...], axis: Any) -> Any:
    """Return what the sampler takes: a scipy distribution, or a list of values that stay frozen."""
    if not isinstance(axis, Distribution):
        return list(_freeze_axis(where, axis))
    if axis.kind == "choice":
        return list(axis.args)
    try:
        distribution = _DISTRIBUTIONS[axis.kind](*(build(argument) for argument in axis.args))
        distribution.rvs(random_state=0)  # scipy checks its arguments only when it draws
    except (TypeError, ValueError, OverflowError) as error:
        raise FreezeError(f"{axis.kind}: {list(axis.args)} cannot be drawn from: {error}.", where) from None
    return distribution


_DISTRIBUTIONS: dict[str, Callable[..., Any]] = {
    "uniform": lambda low, high: stats.uniform(low, high - low),
    "loguniform": stats.loguniform,
    "randint": stats.randint,
}
