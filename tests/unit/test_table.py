"""Means, deviations and ranks: scikit-learn's own, and honest ones of a partial table."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from containers.views.table import aggregate, aggregate_partial

scores = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 6), st.integers(1, 24)),
    elements=st.one_of(st.sampled_from([0.1, 0.2, 0.3, 1.0, -0.0, np.nan]), st.floats(-1, 1)),
)


@given(scores)
def test_the_formulas_are_those_of_a_search_class(matrix: np.ndarray) -> None:
    num_candidates, num_splits = matrix.shape
    out = [{"test_scores": float(score), "fit_time": 0.0, "score_time": 0.0} for score in matrix.reshape(-1)]
    search = GridSearchCV(DecisionTreeClassifier(), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.multimetric_ = False
        expected = search._format_results([{} for _ in range(num_candidates)], num_splits, out)
    ours = aggregate(np.asfortranarray(matrix))
    assert ours.mean.tobytes() == expected["mean_test_score"].tobytes()
    assert ours.std.tobytes() == expected["std_test_score"].tobytes()
    assert ours.rank is not None and ours.rank.tolist() == expected["rank_test_score"].tolist()


def test_nan_ranks_below_all_and_ties_share_the_smaller_rank() -> None:
    ranks = aggregate(np.array([[np.nan, 1.0], [0.5, 0.5], [0.5, 0.5], [0.1, 0.2]])).rank
    assert ranks is not None and ranks.tolist() == [4, 1, 1, 3]
    ranks = aggregate(np.full((2, 3), np.nan)).rank
    assert ranks is not None and ranks.tolist() == [1, 1]


def test_a_partial_table_uses_the_folds_that_all_candidates_have() -> None:
    matrix = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]])
    finished = np.array([[True, True, True], [False, True, True]])
    summary = aggregate_partial(matrix, finished)
    assert summary.folds_used == 2
    assert summary.mean.tolist() == aggregate(matrix[:, 1:]).mean.tolist()
    nothing = aggregate_partial(matrix, np.array([[True, False, True], [False, True, False]]))
    assert (nothing.folds_used, nothing.rank) == (0, None) and np.isnan(nothing.mean).all()
