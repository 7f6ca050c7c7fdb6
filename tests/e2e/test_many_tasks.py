"""More tasks than any queue in between holds: leave one out, where every cell is a task of its own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.naive_bayes import GaussianNB

from tests.conftest import Submit

SPEC = """
name: many
data: {builtin: iris}
cv: {kind: LeaveOneOut}
candidates:
- estimator: sklearn.naive_bayes.GaussianNB
  grid: {var_smoothing: {logspace: [-9, 0, 8]}}
scoring: accuracy
"""
NUM_CELLS = 8 * 150


@pytest.mark.slow
def test_a_thousand_tasks_and_more_end_with_exact_means(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(SPEC)
    done = submit("run", "many.yaml", "--json", "--workers", "2")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["cells"] == {"total": NUM_CELLS, "done": NUM_CELLS, "failed": 0, "lost": 0, "reused": 0}
    assert answer["fits"] == NUM_CELLS
    with Path(answer["files"]["cv_results_csv"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    iris = load_iris()
    reference = GridSearchCV(
        GaussianNB(), {"var_smoothing": np.logspace(-9, 0, 8)}, cv=LeaveOneOut(), scoring="accuracy", refit=False
    )
    reference.fit(np.ascontiguousarray(iris.data, dtype=np.float64), iris.target)
    for name in ("mean_test_score", "std_test_score", "split0_test_score", "split149_test_score"):
        assert [float(row[name]) for row in rows] == reference.cv_results_[name].tolist()
    assert [int(row["rank_test_score"]) for row in rows] == reference.cv_results_["rank_test_score"].tolist()
    again = json.loads(submit("run", "many.yaml", "--json", "--workers", "2").stdout)
    assert (again["fits"], again["cells"]["reused"], again["best"]) == (0, NUM_CELLS, answer["best"])
