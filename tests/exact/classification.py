"""Searches over one classifier each, said in the spec's words and in Python."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import (
    LogisticRegression,
    SGDClassifier,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from tests.exact.reference import Search
from tests.exact.tables import (
    BOOLS,
    CLASSES,
    FLOATS,
    HOLES,
    TEXT,
    one,
)

CLASSIFICATION: dict[str, Search] = {
    "svc": Search(
        CLASSES,
        [one("svm.SVC", {"kernel": "rbf"}, {"C": {"logspace": [-1, 2, 4]}, "gamma": ["scale", 0.01]})],
        [(SVC(kernel="rbf"), {"C": np.logspace(-1, 2, 4), "gamma": ["scale", 0.01]})],
        cv=5,
        splitter=5,
    ),
    "logistic": Search(
        TEXT,
        [one("linear_model.LogisticRegression", {"max_iter": 500}, {"C": {"geomspace": [0.01, 100, 5]}})],
        [(LogisticRegression(max_iter=500), {"C": np.geomspace(0.01, 100, 5)})],
        train_score=True,
    ),
    "logistic_saga_unconverged": Search(
        CLASSES,
        [one("linear_model.LogisticRegression", {"solver": "saga", "max_iter": 3, "random_state": 1}, {"C": [1, 1.0]})],
        [(LogisticRegression(solver="saga", max_iter=3, random_state=1), {"C": [1, 1.0]})],
    ),
    "neighbors_with_ties_20_splits": Search(
        CLASSES,
        [
            one(
                "neighbors.KNeighborsClassifier",
                None,
                {"n_neighbors": {"range": [1, 12]}, "weights": ["uniform", "distance"]},
            )
        ],
        [(KNeighborsClassifier(), {"n_neighbors": list(range(1, 12)), "weights": ["uniform", "distance"]})],
        cv=20,
        splitter=20,
    ),
    "tree": Search(
        FLOATS,
        [
            one(
                "tree.DecisionTreeClassifier",
                {"random_state": 0},
                {"max_depth": [1, 3, None], "min_samples_leaf": [1, 0.1]},
            )
        ],
        [(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3, None], "min_samples_leaf": [1, 0.1]})],
        train_score=True,
    ),
    "forest_two_scorers": Search(
        TEXT,
        [
            one(
                "ensemble.RandomForestClassifier",
                {"random_state": 0},
                {"n_estimators": [5, 10], "max_features": [2, 4]},
            )
        ],
        [(RandomForestClassifier(random_state=0), {"n_estimators": [5, 10], "max_features": [2, 4]})],
        scoring=["accuracy", "f1_macro", "neg_log_loss"],
        train_score=True,
    ),
    "extra_trees": Search(
        BOOLS,
        [
            one(
                "ensemble.ExtraTreesClassifier",
                {"n_estimators": 7},
                {"random_state": [0, 1], "criterion": ["gini", "entropy"]},
            ),
        ],
        [(ExtraTreesClassifier(n_estimators=7), {"random_state": [0, 1], "criterion": ["gini", "entropy"]})],
        scoring="roc_auc",
    ),
    "gradient_boosting": Search(
        CLASSES,
        [
            one(
                "ensemble.GradientBoostingClassifier",
                {"random_state": 0},
                {"n_estimators": [3, 6], "subsample": [0.7, 1.0]},
            )
        ],
        [(GradientBoostingClassifier(random_state=0), {"n_estimators": [3, 6], "subsample": [0.7, 1.0]})],
    ),
    "histogram_boosting": Search(
        HOLES,
        [
            one(
                "ensemble.HistGradientBoostingClassifier",
                {"random_state": 0, "max_leaf_nodes": 5},
                {"max_iter": [3, 6]},
            )
        ],
        [(HistGradientBoostingClassifier(random_state=0, max_leaf_nodes=5), {"max_iter": [3, 6]})],
    ),
    "perceptron_layers": Search(
        CLASSES,
        [
            one(
                "neural_network.MLPClassifier",
                {"random_state": 0, "max_iter": 5},
                {"hidden_layer_sizes": [[4], [3, 2], {"tuple": [5]}], "alpha": [0.0001, 1.0]},
            )
        ],
        [
            (
                MLPClassifier(random_state=0, max_iter=5),
                {"hidden_layer_sizes": [[4], [3, 2], (5,)], "alpha": [0.0001, 1.0]},
            )
        ],
    ),
    "sgd": Search(
        TEXT,
        [
            one(
                "linear_model.SGDClassifier",
                {"random_state": 0, "max_iter": 20},
                {"loss": ["hinge", "log_loss"], "alpha": [1e-4, 1e-2]},
            )
        ],
        [(SGDClassifier(random_state=0, max_iter=20), {"loss": ["hinge", "log_loss"], "alpha": [1e-4, 1e-2]})],
        scoring=["accuracy"],
    ),
    "integer_class_weights": Search(
        CLASSES,
        [one("svm.SVC", None, {"class_weight": [{0: 1, 1: 5, 2: 2.5}, None]})],
        [(SVC(), {"class_weight": [{0: 1, 1: 5, 2: 2.5}, None]})],
    ),
}
