"""Every estimator, scorer and shape of a grid: the table equals GridSearchCV's bit for bit."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from sklearn.svm import SVC

from tests.exact.cases import SEARCHES
from tests.exact.reference import Search, assert_equal, run_ours, run_reference
from tests.exact.tables import CLASSES, HOLES


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_table_equals_scikit_learn(name: str, tmp_path: Path) -> None:
    search = SEARCHES[name]
    assert_equal(run_ours(search, tmp_path), run_reference(search))


def test_a_table_of_failures_is_written_though_scikit_learn_raises(tmp_path: Path) -> None:
    search = Search(HOLES, [{"estimator": "sklearn.svm.SVC", "grid": {"C": [1, 2]}}], [(SVC(), {"C": [1, 2]})])
    ours = run_ours(search, tmp_path)
    with pytest.raises(ValueError, match="All the 6 fits failed"):
        run_reference(search)
    assert np.isnan(ours.columns["mean_test_score"]).all()
    assert ours.columns["rank_test_score"].tolist() == [1, 1]
    assert {row["error"] for row in ours.rows} == {ours.rows[0]["error"]}
    assert (ours.rows[0]["error"] or "").startswith("ValueError: Input X contains NaN.")


def test_failures_are_rows_with_their_message(tmp_path: Path) -> None:
    ours = run_ours(SEARCHES["failing_candidates"], tmp_path)
    states = {row["candidate"]: row["state"] for row in ours.rows}
    assert states == {0: "fit_error", 1: "fit_error", 2: "ok", 3: "fit_error"}


WRITER = '''
from sklearn.naive_bayes import GaussianNB

class Writer(GaussianNB):
    """Spoils its input, which GridSearchCV hands out as a copy."""
    def fit(self, X, y):
        X -= X.mean(axis=0)
        return super().fit(X, y)
    def predict(self, X):
        X *= 2.0
        return super().predict(X)
'''


def test_an_estimator_that_spoils_its_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "writer_of_exact.py").write_text(WRITER)
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "writer_of_exact")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    writer = importlib.import_module("writer_of_exact").Writer()
    grid = {"var_smoothing": [1e-9, 0.1, 1.0]}
    search = Search(
        CLASSES, [{"estimator": "writer_of_exact.Writer", "grid": grid}], [(writer, grid)], train_score=True
    )
    ours = run_ours(search, tmp_path)
    assert_equal(ours, run_reference(search))
    assert {row["state"] for row in ours.rows} == {"ok"}
