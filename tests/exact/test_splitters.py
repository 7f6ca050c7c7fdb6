"""Every splitter class by name with its own parameters, and the integer: the splits are scikit-learn's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB

from jobspec.grammar.tables import splitters
from tests.exact.reference import Search, Table, assert_equal, run_ours, run_reference
from tests.exact.tables import CLASSES, NUMBERS

_FOLDS = np.random.default_rng(0).integers(-1, 4, 120)
_GROUPS = np.random.default_rng(1).integers(0, 6, 120)

KINDS: dict[str, dict[str, Any]] = {
    "KFold": {"n_splits": 4, "shuffle": True, "random_state": 5},
    "StratifiedKFold": {"n_splits": 10},
    "GroupKFold": {"n_splits": 3},
    "StratifiedGroupKFold": {"n_splits": 3, "shuffle": True, "random_state": 1},
    "ShuffleSplit": {"n_splits": 5, "test_size": 0.25, "random_state": 42},
    "StratifiedShuffleSplit": {"n_splits": 4, "test_size": 20, "train_size": 50, "random_state": 0},
    "GroupShuffleSplit": {"n_splits": 3, "test_size": 0.4, "random_state": 2},
    "RepeatedKFold": {"n_splits": 3, "n_repeats": 2, "random_state": 0},
    "RepeatedStratifiedKFold": {"n_splits": 2, "n_repeats": 3, "random_state": 0},
    "TimeSeriesSplit": {"n_splits": 4, "gap": 2, "max_train_size": 40},
    "LeaveOneGroupOut": {},
    "LeavePGroupsOut": {"n_groups": 2},
    "LeaveOneOut": {},
    "LeavePOut": {"p": 2},
}


def _search(table: Table, cv: Any, splitter: Any) -> Search:
    return Search(
        table,
        [{"estimator": "sklearn.naive_bayes.GaussianNB", "grid": {"var_smoothing": [1e-9, 0.1]}}],
        [(GaussianNB(), {"var_smoothing": [1e-9, 0.1]})],
        cv=cv,
        splitter=splitter,
        train_score=True,
    )


def test_every_splitter_of_the_table_is_tested() -> None:
    assert {*KINDS, "PredefinedSplit"} == set(splitters())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_splitter_by_name(kind: str, tmp_path: Path) -> None:
    table = replace(CLASSES, groups=_GROUPS)
    if kind.startswith("Leave") and kind.endswith("Out") and "Group" not in kind:
        keep = np.arange(0, 120, 9)
        table = Table(CLASSES.X[keep], CLASSES.y[keep])
    splitter = getattr(model_selection, kind)(**KINDS[kind])
    search = _search(table, {"kind": kind, **KINDS[kind]}, splitter)
    assert_equal(run_ours(search, tmp_path), run_reference(search))


def test_predefined_split_by_column(tmp_path: Path) -> None:
    table = replace(CLASSES, test_fold=_FOLDS)
    search = _search(table, {"kind": "PredefinedSplit", "test_fold": "fold"}, model_selection.PredefinedSplit(_FOLDS))
    ours = run_ours(search, tmp_path)
    assert_equal(ours, run_reference(search))
    assert ours.inspection is not None and ours.inspection.num_features == CLASSES.X.shape[1]


def test_an_integer_is_stratified_for_classifiers_only(tmp_path: Path) -> None:
    search = _search(CLASSES, 4, 4)
    ours = run_ours(search, tmp_path)
    assert_equal(ours, run_reference(search))
    assert ours.inspection is not None and "StratifiedKFold" in ours.inspection.cv_text


def test_an_integer_is_plain_for_regressors(tmp_path: Path) -> None:
    search = Search(
        NUMBERS,
        [{"estimator": "sklearn.linear_model.Ridge", "grid": {"alpha": [0.1, 1]}}],
        [(Ridge(), {"alpha": [0.1, 1]})],
        cv=4,
        splitter=4,
    )
    ours = run_ours(search, tmp_path)
    assert_equal(ours, run_reference(search))
    assert ours.inspection is not None and ours.inspection.cv_text.startswith("KFold")
