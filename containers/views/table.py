"""Means, deviations and ranks exactly as scikit-learn's search classes compute them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Aggregate:
    """Summary of one scorer: one entry per candidate.

    ``rank`` is None where no fold is finished for all candidates; mean and std are NaN then.
    ``folds_used`` counts the splits that went into mean, std and rank.
    """

    mean: Floats
    std: Floats
    rank: NDArray[np.int32] | None
    folds_used: int


def aggregate(scores: Floats) -> Aggregate:
    """Summarise the scores of a complete table.

    The formulas are those of `BaseSearchCV._format_results`. The order of additions matters: a C-ordered array
    averaged along its rows differs in the last bit from a Python sum in a quarter of the rows from 8 splits on.

    Args:
        scores: candidates x splits.
    """
    array = np.ascontiguousarray(scores, dtype=np.float64)
    mean = np.average(array, axis=1)
    std = np.sqrt(np.average((array - mean[:, np.newaxis]) ** 2, axis=1))
    return Aggregate(mean, std, rank_means(mean), array.shape[1])


def aggregate_partial(scores: Floats, finished: NDArray[np.bool_]) -> Aggregate:
    """Summarise a table with missing cells by the folds that are finished for ALL candidates.

    Candidates with other folds than their rivals cannot be compared: an easy fold would win.

    Args:
        scores: candidates x splits.
        finished: the same shape; False where there is no result yet.
    """
    complete = finished.all(axis=0)
    if finished.size and complete.any():
        return aggregate(scores[:, complete])
    nothing = np.full(scores.shape[0], np.nan)
    return Aggregate(nothing, nothing.copy(), None, 0)


def rank_means(mean: Floats) -> NDArray[np.int32]:
    """Return ranks from 1, equal means sharing the smaller rank; NaN is below everything, all NaN is all 1."""
    if np.isnan(mean).all():
        return np.ones(mean.shape, dtype=np.int32)
    comparable = np.nan_to_num(mean, nan=np.nanmin(mean) - 1)
    ranks: NDArray[np.int32] = rankdata(-comparable, method="min").astype(np.int32)
    return ranks
