"""The searches that every place must score alike: each for something that a place could get wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    """A spec, the exit code of its run, and the table beside it, if it reads one."""

    spec: str
    exit_code: int = 0
    table: bool = False


CASES = {
    "two_scores_and_train_scores": Case(
        """
name: two-scores
data: {builtin: wine}
cv: {kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 1}
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {random_state: 0, n_estimators: 5}
  grid: {max_features: [2, 0.5, null]}
- pipeline: [{scale: sklearn.preprocessing.StandardScaler}, {model: sklearn.svm.SVC}]
  grid: {model__C: {logspace: [-1, 1, 3]}}
scoring: [accuracy, f1_macro]
refit: f1_macro
train_score: true
"""
    ),
    "groups_in_a_table": Case(
        """
name: grouped
data: {path: table.csv, target: kind, groups: person, drop: [weight]}
cv: {kind: GroupKFold, n_splits: 3}
candidates:
- estimator: sklearn.neighbors.KNeighborsClassifier
  grid: {n_neighbors: [1, 3, 5]}
scoring: balanced_accuracy
""",
        table=True,
    ),
    "weights_and_float32": Case(
        """
name: weighted
data: {path: table.csv, target: a, weights: weight, drop: [kind, person], dtype: float32}
cv: {kind: ShuffleSplit, n_splits: 3, random_state: 2}
candidates:
- estimator: sklearn.linear_model.Ridge
  grid: {alpha: {logspace: [-3, 3, 4]}}
scoring: neg_root_mean_squared_error
""",
        table=True,
    ),
    "fits_that_fail": Case(
        """
name: failing
data: {builtin: iris}
cv: 3
candidates:
- pipeline: [{pca: sklearn.decomposition.PCA}, {model: sklearn.linear_model.LogisticRegression}]
  grid: {pca__n_components: [2, 100, 3], model__max_iter: [200]}
scoring: accuracy
""",
        exit_code=1,
    ),
    "a_random_search": Case(
        """
name: drawn
data: {builtin: breast_cancer}
cv: {kind: KFold, n_splits: 3, shuffle: true, random_state: 0}
candidates:
- estimator: sklearn.tree.DecisionTreeClassifier
  params: {random_state: 0}
  distributions: {max_depth: {randint: [2, 9]}, ccp_alpha: {loguniform: [0.0001, 0.1]}}
search: {kind: random, n_iter: 4, random_state: 7}
scoring: [roc_auc, accuracy]
refit: roc_auc
"""
    ),
}

LONG = """
name: long
data: {builtin: digits}
cv: {kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 0}
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {random_state: 0, n_estimators: 60}
  grid: {max_features: [2, 4, 6, 8], min_samples_leaf: [1, 2, 3]}
scoring: accuracy
"""
"""About ten seconds of fits: long enough to be stopped on the way."""


def write_table(path: Path) -> None:
    """Write 90 rows of two features, a class, a person and a weight."""
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.normal():.6f},{rng.normal():.6f},{'abc'[i * 5 % 3]},{i % 9},{rng.random() + 0.1:.4f}" for i in range(90)
    ]
    path.write_text("\n".join(["a,b,kind,person,weight", *rows]) + "\n")
