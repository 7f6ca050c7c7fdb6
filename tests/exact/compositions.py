"""Searches over pipelines, nested estimators, conditional grids, weights, failures and draws."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LogisticRegression,
    Ridge,
    SGDClassifier,
)
from sklearn.metrics import fbeta_score, log_loss, make_scorer, top_k_accuracy_score
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from tests.exact.reference import Search
from tests.exact.tables import (
    BINARY,
    BOOLS,
    CLASSES,
    HOLES,
    NUMBERS,
    WEIGHTED,
    node,
    one,
    steps,
)

COMPOSITIONS: dict[str, Search] = {
    "adaboost_nested": Search(
        CLASSES,
        [
            one(
                "ensemble.AdaBoostClassifier",
                {"estimator": node("tree.DecisionTreeClassifier", max_depth=1), "random_state": 0, "n_estimators": 6},
                {"estimator__max_depth": [1, 2], "learning_rate": [0.5, 1.0]},
            )
        ],
        [
            (
                AdaBoostClassifier(estimator=DecisionTreeClassifier(max_depth=1), random_state=0, n_estimators=6),
                {"estimator__max_depth": [1, 2], "learning_rate": [0.5, 1.0]},
            )
        ],
    ),
    "bagging_exchanged_estimators": Search(
        CLASSES,
        [
            one(
                "ensemble.BaggingClassifier",
                {"random_state": 0, "n_estimators": 3},
                {"estimator": [node("naive_bayes.GaussianNB"), node("tree.DecisionTreeClassifier", max_depth=2), None]},
            )
        ],
        [
            (
                BaggingClassifier(random_state=0, n_estimators=3),
                {"estimator": [GaussianNB(), DecisionTreeClassifier(max_depth=2), None]},
            )
        ],
    ),
    "naive_bayes_mapping_of_scorers": Search(
        BINARY,
        [one("naive_bayes.GaussianNB", None, {"var_smoothing": {"logspace": [-9, 0, 4]}})],
        [(GaussianNB(), {"var_smoothing": np.logspace(-9, 0, 4)})],
        scoring={
            "f2": {"metric": "fbeta_score", "beta": 2, "pos_label": "spam"},
            "ll": {"metric": "log_loss", "greater_is_better": False, "response_method": "predict_proba"},
            "acc": "accuracy",
        },
        scorers={
            "f2": make_scorer(fbeta_score, beta=2, pos_label="spam"),
            "ll": make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
            "acc": "accuracy",
        },
    ),
    "pipeline_pca": Search(
        CLASSES,
        [
            steps(
                {"scale": "sklearn.preprocessing.StandardScaler"},
                {"pca": node("decomposition.PCA", svd_solver="full")},
                {"clf": "sklearn.svm.LinearSVC"},
                grid={"pca__n_components": [2, 4], "clf__C": [0.1, 1.0], "clf__random_state": [0]},
            )
        ],
        [
            (
                Pipeline([("scale", StandardScaler()), ("pca", PCA(svd_solver="full")), ("clf", LinearSVC())]),
                {"pca__n_components": [2, 4], "clf__C": [0.1, 1.0], "clf__random_state": [0]},
            )
        ],
    ),
    "conditional_grid": Search(
        CLASSES,
        [
            steps(
                {"scale": "passthrough"},
                {"clf": "sklearn.svm.SVC"},
                grid=[
                    {"scale": [node("preprocessing.StandardScaler"), "passthrough"], "clf__C": [1, 10]},
                    {
                        "clf": [node("neural_network.MLPClassifier", max_iter=4, random_state=1)],
                        "clf__hidden_layer_sizes": [[4, 3], [5]],
                    },
                    {"clf": [node("discriminant_analysis.LinearDiscriminantAnalysis")]},
                ],
            )
        ],
        [
            (
                Pipeline([("scale", "passthrough"), ("clf", SVC())]),
                [
                    {"scale": [StandardScaler(), "passthrough"], "clf__C": [1, 10]},
                    {"clf": [MLPClassifier(max_iter=4, random_state=1)], "clf__hidden_layer_sizes": [[4, 3], [5]]},
                    {"clf": [LinearDiscriminantAnalysis()]},
                ],
            )
        ],
    ),
    "stacking_and_voting": Search(
        CLASSES,
        [
            one(
                "ensemble.StackingClassifier",
                {
                    "estimators": [
                        {"rf": node("ensemble.RandomForestClassifier", n_estimators=3)},
                        {"nb": "sklearn.naive_bayes.GaussianNB"},
                    ],
                    "cv": {"kind": "StratifiedKFold", "n_splits": 3},
                },
                {"rf__random_state": [0, 1]},
            ),
            one(
                "ensemble.VotingClassifier",
                {
                    "estimators": [{"a": "sklearn.naive_bayes.GaussianNB"}, {"b": node("svm.SVC", C=2)}],
                    "voting": "hard",
                },
                {"b": [node("neighbors.KNeighborsClassifier"), "drop"]},
            ),
        ],
        [
            (
                StackingClassifier(
                    [("rf", RandomForestClassifier(n_estimators=3)), ("nb", GaussianNB())],
                    cv=StratifiedKFold(n_splits=3),
                ),
                {"rf__random_state": [0, 1]},
            ),
            (
                VotingClassifier([("a", GaussianNB()), ("b", SVC(C=2))], voting="hard"),
                {"b": [KNeighborsClassifier(), "drop"]},
            ),
        ],
    ),
    "union_function_tuple_class_weight": Search(
        BOOLS,
        [
            steps(
                {"log": node("preprocessing.FunctionTransformer", func={"function": "square"})},
                {
                    "both": {
                        "union": [
                            {"scale": node("preprocessing.MinMaxScaler", feature_range={"tuple": [-1, 1]})},
                            {"pca": node("decomposition.PCA", n_components=2, svd_solver="full")},
                        ]
                    }
                },
                {"clf": node("linear_model.LogisticRegression", max_iter=300)},
                grid={"clf__class_weight": [None, "balanced"], "both__pca__n_components": [1, 3]},
            )
        ],
        [
            (
                Pipeline(
                    [
                        ("log", FunctionTransformer(func=np.square)),
                        (
                            "both",
                            FeatureUnion(
                                [
                                    ("scale", MinMaxScaler(feature_range=(-1, 1))),
                                    ("pca", PCA(n_components=2, svd_solver="full")),
                                ]
                            ),
                        ),
                        ("clf", LogisticRegression(max_iter=300)),
                    ]
                ),
                {"clf__class_weight": [None, "balanced"], "both__pca__n_components": [1, 3]},
            )
        ],
    ),
    "missing_values_imputed": Search(
        HOLES,
        [
            steps(
                {"fill": node("impute.SimpleImputer", missing_values=float("nan"))},
                {"clf": "sklearn.naive_bayes.GaussianNB"},
                grid={"fill__strategy": ["mean", "median"]},
            )
        ],
        [
            (
                Pipeline([("fill", SimpleImputer(missing_values=np.nan)), ("clf", GaussianNB())]),
                {"fill__strategy": ["mean", "median"]},
            )
        ],
    ),
    "weights": Search(
        WEIGHTED,
        [
            one("linear_model.LogisticRegression", {"max_iter": 300}, {"C": [0.1, 1.0]}),
            one("tree.DecisionTreeClassifier", {"random_state": 0}, {"max_depth": [2, 4]}),
        ],
        [
            (LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}),
            (DecisionTreeClassifier(random_state=0), {"max_depth": [2, 4]}),
        ],
        train_score=True,
    ),
    "failing_candidates": Search(
        HOLES,
        [
            one("svm.SVC", None, {"C": [1, 2]}),
            one("ensemble.HistGradientBoostingClassifier", {"max_iter": 2, "random_state": 0}),
            one("linear_model.LogisticRegression", {"solver": "lbfgs", "l1_ratio": 1.0}),
        ],
        [
            (SVC(), {"C": [1, 2]}),
            (HistGradientBoostingClassifier(max_iter=2, random_state=0), {}),
            (LogisticRegression(solver="lbfgs", l1_ratio=1.0), {}),
        ],
        scoring=["accuracy", "f1_macro"],
        train_score=True,
    ),
    "one_scorer_fails": Search(
        CLASSES,
        [one("linear_model.SGDClassifier", {"random_state": 0}, {"loss": ["log_loss", "modified_huber"]})],
        [(SGDClassifier(random_state=0), {"loss": ["log_loss", "modified_huber"]})],
        scoring={
            "low": {"metric": "top_k_accuracy_score", "k": 1, "response_method": "decision_function"},
            "acc": "accuracy",
        },
        scorers={"low": make_scorer(top_k_accuracy_score, k=1, response_method="decision_function"), "acc": "accuracy"},
    ),
    "random_search": Search(
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
            },
            {
                "estimator": "sklearn.naive_bayes.GaussianNB",
                "distributions": {"var_smoothing": {"logspace": [-9, 0, 12]}},
            },
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
            ),
            (GaussianNB(), {"var_smoothing": np.logspace(-9, 0, 12)}),
        ],
        random={"n_iter": 6, "random_state": 11},
    ),
    "random_search_of_one_entry": Search(
        NUMBERS,
        [{"estimator": "sklearn.linear_model.Ridge", "distributions": {"alpha": {"loguniform": [0.01, 100]}}}],
        [(Ridge(), {"alpha": stats.loguniform(0.01, 100)})],
        scoring=["r2", "neg_mean_absolute_error"],
        train_score=True,
        random={"n_iter": 5, "random_state": 2},
    ),
}
