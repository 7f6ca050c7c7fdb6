"""The files of a run beside scikit-learn's own search: every column of both tables, the best, the splits, the model."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, RandomizedSearchCV, check_cv
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from containers.data.splits import load_splits
from jobspec.runs.rounds import require_round
from jobspec.stores.base import open_store
from tests.conftest import Submit
from tests.exact.cases import SEARCHES
from tests.exact.reference import Search, write_yaml
from tests.exact.tables import CLASSES, NUMBERS, TEXT, one

GROUPS = np.random.default_rng(1).integers(0, 6, 120)
STEPS = np.round(NUMBERS.y / 50)
"""A target of few values, so that neighbours' scores tie."""


@dataclass(frozen=True)
class Case:
    """A search, the scorer that decides, and what the run says of it: exit code and number of fits."""

    search: Search
    refit: Any = True
    exit_code: int = 0
    fits: int | None = None


CASES = {
    "two_scorers_strings_train_scores": Case(
        Search(
            TEXT,
            [
                one(
                    "ensemble.RandomForestClassifier",
                    {"random_state": 0},
                    {"n_estimators": [3, 6], "max_features": [2, 0.5, None]},
                )
            ],
            [
                (
                    RandomForestClassifier(random_state=0),
                    {"n_estimators": [3, 6], "max_features": [2, 0.5, None]},
                )
            ],
            scoring=["accuracy", "f1_macro"],
            train_score=True,
        ),
        refit="f1_macro",
        fits=18,
    ),
    "pipeline_with_exchanged_steps": Case(SEARCHES["conditional_grid"]),
    "ten_splits_with_ties": Case(
        Search(
            replace(NUMBERS, y=STEPS),
            [
                one(
                    "neighbors.KNeighborsRegressor",
                    None,
                    {"n_neighbors": {"range": [1, 5]}, "p": [2, 2.0], "weights": ["uniform", "distance"]},
                )
            ],
            [(KNeighborsRegressor(), {"n_neighbors": range(1, 5), "p": [2, 2.0], "weights": ["uniform", "distance"]})],
            cv={"kind": "KFold", "n_splits": 10, "shuffle": True, "random_state": 3},
            splitter=KFold(10, shuffle=True, random_state=3),
        ),
        fits=160,
    ),
    "grouped": Case(
        Search(
            replace(CLASSES, groups=GROUPS),
            [one("tree.DecisionTreeClassifier", {"random_state": 0}, {"max_depth": [1, 3, None]})],
            [(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3, None]})],
            cv={"kind": "GroupKFold", "n_splits": 4},
            splitter=GroupKFold(4),
            scoring="balanced_accuracy",
        ),
        refit="balanced_accuracy",
    ),
    "weights": Case(SEARCHES["weights"]),
    "random_search": Case(
        Search(
            CLASSES,
            [
                {
                    "estimator": "sklearn.svm.SVC",
                    "distributions": {
                        "C": {"loguniform": [0.01, 100]},
                        "gamma": {"uniform": [0.001, 0.5]},
                        "kernel": {"choice": ["rbf", "poly"]},
                        "degree": {"randint": [1, 4]},
                    },
                }
            ],
            [
                (
                    SVC(),
                    {
                        "C": stats.loguniform(0.01, 100),
                        "gamma": stats.uniform(0.001, 0.5 - 0.001),
                        "kernel": ["rbf", "poly"],
                        "degree": stats.randint(1, 4),
                    },
                )
            ],
            random={"n_iter": 6, "random_state": 11},
        )
    ),
    "failing_candidates": Case(SEARCHES["failing_candidates"], refit="accuracy", exit_code=1),
    "a_candidate_twice": Case(
        Search(
            CLASSES,
            [
                one("naive_bayes.GaussianNB", None, {"var_smoothing": [0.1, 1e-9, 0.1]}),
                one("naive_bayes.GaussianNB", {"var_smoothing": 0.1}),
            ],
            [(GaussianNB(), {"var_smoothing": [0.1, 1e-9, 0.1]}), (GaussianNB(var_smoothing=0.1), {})],
            cv=5,
            splitter=5,
        ),
        fits=10,
    ),
}


class Files:
    """What a run left: both tables as columns of Python values, and the documents beside them."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        self.table: pa.Table = pq.read_table(answer["files"]["cv_results"])
        self.best: dict[str, Any] = json.loads(Path(answer["files"]["best"]).read_text())
        with Path(answer["files"]["cv_results_csv"]).open(newline="", encoding="utf-8") as file:
            self.csv = list(csv.DictReader(file))

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self.table[name].to_pylist()
        return values


def run_case(case: Case, submit: Submit, folder: Path) -> Files:
    case.search.table.write(folder / "table.parquet")
    (folder / "spec.yaml").write_bytes(write_yaml(case.search.spec() | {"refit": case.refit}))
    done = submit("run", "spec.yaml", "--json", "--workers", "2", "--store", "store")
    assert done.returncode == case.exit_code, done.stdout + done.stderr
    return Files(json.loads(done.stdout))


def fit_reference(case: Case) -> Any:
    """Run scikit-learn's own search, refit included, as a person would write it."""
    search = case.search
    options = {
        "cv": search.splitter,
        "scoring": search.scoring,
        "refit": case.refit if isinstance(search.scoring, list) else True,
        "n_jobs": 1,
        "return_train_score": search.train_score,
    }
    if search.random is not None:
        ((estimator, distributions),) = search.entries
        reference = RandomizedSearchCV(estimator, distributions, **search.random, **options)
    else:
        grids = [
            {"model": [estimator], **{f"model__{name}": values for name, values in grid.items()}}
            for estimator, spaces in search.entries
            for grid in ([spaces] if isinstance(spaces, Mapping) else spaces)
        ]
        reference = GridSearchCV(Pipeline([("model", search.entries[0][0])]), grids, **options)
    weights = {} if search.table.weights is None else {"model__sample_weight": search.table.weights}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.fit(rows_of(search), search.table.y, groups=search.table.groups, **weights)


def rows_of(search: Search) -> NDArray[np.float64]:
    return np.ascontiguousarray(search.table.X, dtype=np.float64)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_files_of_a_run_equal_scikit_learns_search(name: str, submit: Submit, tmp_path: Path) -> None:
    case = CASES[name]
    files = run_case(case, submit, tmp_path)
    reference = fit_reference(case)
    params = [plain_params(given) for given in reference.cv_results_["params"]]
    if case.fits is not None:
        assert files.answer["fits"] == case.fits
    check_params(files, params)
    check_scores(files, reference)
    check_splits(files, case.search, tmp_path / "store")
    check_errors(files, case.search, reference)
    check_best(files, reference, params)
    check_model(files, case.search, reference)


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Say a candidate's parameters without the reference's own step, as JSON can hold them."""
    return {name.removeprefix("model__"): plain(value) for name, value in params.items() if name != "model"}


def plain(value: Any) -> Any:
    if isinstance(value, BaseEstimator):
        return repr(value).removesuffix("()")
    if isinstance(value, np.generic):
        return value.item()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def check_params(files: Files, params: list[dict[str, Any]]) -> None:
    """Compare texts, since 1, 1.0 and true are three values."""
    assert files.column("params") == [json.dumps(each) for each in params]
    assert [row["params"] for row in files.csv] == files.column("params")
    axes = {name for each in params for name in each}
    assert {name for name in files.table.column_names if name.startswith("param_")} == {f"param_{a}" for a in axes}
    for axis in axes:
        values = [each.get(axis) for each in params]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
            values = [None if value is None else json.dumps(value) for value in values]
        written = files.column(f"param_{axis}")
        assert [(type(one), one) for one in written] == [(type(one), one) for one in values]
        for row, value in zip(files.csv, values, strict=True):
            check_text(row[f"param_{axis}"], value)


def check_text(text: str, value: Any) -> None:
    """Compare a field of the CSV file with the value it stands for."""
    if value is None:
        assert not text
    elif isinstance(value, float):
        assert bits([float(text)]) == bits([value])
    else:
        assert text == (str(value).lower() if isinstance(value, bool) else str(value))


def check_scores(files: Files, reference: Any) -> None:
    expected = {name: values for name, values in reference.cv_results_.items() if "_test_" in name or "_train_" in name}
    ours = {name for name in files.table.column_names if "_test_" in name or "_train_" in name}
    assert ours == set(expected)
    assert all(name in files.csv[0] for name in expected)
    for name, values in expected.items():
        if name.startswith("rank_"):
            assert files.column(name) == values.tolist(), name
            assert [int(row[name]) for row in files.csv] == values.tolist(), name
        else:
            assert files.table[name].null_count == 0, name
            assert bits(files.column(name)) == bits(values), name
            assert bits([float(row[name]) for row in files.csv]) == bits(values), name


def bits(values: Any) -> list[int]:
    """Return floats as their bits, every NaN as one."""
    array = np.asarray(values, dtype=np.float64)
    found: list[int] = np.where(np.isnan(array), np.nan, array).view(np.int64).tolist()
    return found


def splits_of(search: Search) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    estimator = search.entries[0][0]
    splitter = check_cv(search.splitter, search.table.y, classifier=is_classifier(estimator))
    return list(splitter.split(rows_of(search), search.table.y, search.table.groups))


def check_splits(files: Files, search: Search, folder: Path) -> None:
    store = open_store(str(folder))
    plan = require_round(store, files.answer["run_id"])
    stored = load_splits(store, plan.dataset_id, plan.split_id)
    expected = splits_of(search)
    assert stored.num_splits == len(expected)
    for split, (train, test) in enumerate(expected):
        assert stored.train(split).tolist() == train.tolist()
        assert stored.test(split).tolist() == test.tolist()


def check_errors(files: Files, search: Search, reference: Any) -> None:
    """Compare every message with that of the fit itself, made here once more; what did not fail has none."""
    splits = splits_of(search)
    scorer = next(name for name in reference.cv_results_ if name.startswith("split0_test_"))[len("split0") :]
    first: list[str | None] = [None] * len(files.csv)
    for split, (train, _) in reversed(list(enumerate(splits))):
        failed = np.isnan(reference.cv_results_[f"split{split}{scorer}"])
        column = f"split{split}_error"
        assert (column in files.table.column_names) == bool(failed.any()), column
        if not failed.any():
            continue
        messages = [error_of(search, reference, i, train) if bad else None for i, bad in enumerate(failed)]
        assert files.column(column) == messages
        first = [new or old for new, old in zip(messages, first, strict=True)]
    assert files.column("error") == first
    assert [row["error"] or None for row in files.csv] == first
    assert files.answer["cells"]["failed"] == sum(
        int(np.isnan(reference.cv_results_[f"split{split}{scorer}"]).sum()) for split in range(len(splits))
    )


def error_of(search: Search, reference: Any, candidate: int, train: NDArray[np.int64]) -> str:
    estimator = clone(reference.estimator).set_params(**clone(reference.cv_results_["params"][candidate], safe=False))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is what is asked for
        estimator.fit(rows_of(search)[train], search.table.y[train])
    return " ".join(f"ValueError: {caught.value}".split())


def check_best(files: Files, reference: Any, params: list[dict[str, Any]]) -> None:
    best = files.best["best"]
    assert files.best["complete"] is True
    assert best["candidate"] == reference.best_index_
    assert json.dumps(best["params"]) == json.dumps(plain_params(reference.best_params_))
    assert best["params"] == params[reference.best_index_]
    assert bits([best["mean_test_score"]]) == bits([reference.best_score_])
    assert files.answer["best"] == best


def check_model(files: Files, search: Search, reference: Any) -> None:
    model = joblib.load(files.answer["files"]["model"])
    X = rows_of(search)
    predicted, expected = model.predict(X), reference.best_estimator_.predict(X)
    assert predicted.dtype == expected.dtype
    assert predicted.tobytes() == expected.tobytes()
    if hasattr(model, "predict_proba"):
        assert model.predict_proba(X).tobytes() == reference.best_estimator_.predict_proba(X).tobytes()
