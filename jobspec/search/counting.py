"""Count the cells of a spec from its text alone: before any data are read, and without making a single candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10, prod
from typing import Any

from jobspec.grammar.generators import axis_length
from jobspec.grammar.spec import CandidateEntry, CvSpec, RandomSearch, Spec
from jobspec.grammar.values import Generator

LARGEST_SHOWN = 10**18
"""Above, a number is told as a power of ten: nobody reads more digits, and Python refuses to write some thousands."""

_FACTORS: Mapping[str, Mapping[str, int]] = {
    "GroupKFold": {"n_splits": 5},
    "GroupShuffleSplit": {"n_splits": 5},
    "KFold": {"n_splits": 5},
    "RepeatedKFold": {"n_splits": 5, "n_repeats": 10},
    "RepeatedStratifiedKFold": {"n_splits": 5, "n_repeats": 10},
    "ShuffleSplit": {"n_splits": 10},
    "StratifiedGroupKFold": {"n_splits": 5},
    "StratifiedKFold": {"n_splits": 5},
    "StratifiedShuffleSplit": {"n_splits": 10},
    "TimeSeriesSplit": {"n_splits": 5},
}
"""The parameters whose product is the number of splits, with scikit-learn's defaults; other kinds ask the rows."""


@dataclass(frozen=True)
class CellCount:
    """Candidates x splits; where the data decide how many splits there are, no more than the candidates."""

    num_cells: int
    is_exact: bool = True

    def __str__(self) -> str:
        return f"{'' if self.is_exact else 'at least '}{show_number(self.num_cells)} cells (candidates x folds)"

    @property
    def knob(self) -> str:
        """Return what to write behind ``--max-cells``."""
        return str(self.num_cells) if self.is_exact and self.num_cells < LARGEST_SHOWN else "N"


def count_cells(spec: Spec) -> CellCount:
    """Count the cells of a spec whose data nobody has seen."""
    num_splits = _count_splits(spec.cv)
    return CellCount(count_candidates(spec) * (num_splits or 1), num_splits is not None)


def count_candidates(spec: Spec) -> int:
    """Count the candidates: as many as `containers prepare` will freeze."""
    if isinstance(spec.search, RandomSearch):
        return sum(_count_draws(entry, spec.search.n_iter) for entry in spec.candidates)
    return sum(_count_grid(entry.spaces) for entry in spec.candidates)


def show_number(number: int) -> str:
    """Return a number as a person reads it."""
    return f"{number:,}" if number < LARGEST_SHOWN else f"about 10^{round(log10(number))}"


def _count_splits(cv: int | CvSpec) -> int | None:
    if isinstance(cv, int):
        return cv
    factors = [cv.params.get(name, default) for name, default in _FACTORS.get(cv.kind, {}).items()]
    # What is no such number is refused by scikit-learn itself, in the prepare step.
    known = factors and all(type(factor) is int and factor >= 1 for factor in factors)
    return prod(factors) if known else None


def _count_grid(spaces: tuple[dict[str, Any], ...]) -> int:
    return sum(prod(_length(axis) for axis in space.values()) for space in spaces or ({},))


def _count_draws(entry: CandidateEntry, n_iter: int) -> int:
    """Count as ParameterSampler does: lists alone are drawn from without replacement."""
    spaces = entry.distributions
    if not any(spaces):
        return 1
    listed = all(isinstance(axis, list | Generator) for space in spaces for axis in space.values())
    return min(n_iter, _count_grid(spaces)) if listed else n_iter


def _length(axis: list[Any] | Generator) -> int:
    return axis_length(axis.kind, list(axis.args)) if isinstance(axis, Generator) else len(axis)
