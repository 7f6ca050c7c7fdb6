"""Searches over regressors, said in the spec's words and in Python."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import (
    AdaBoostRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Product
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    Ridge,
    SGDRegressor,
)
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeRegressor

from tests.exact.reference import Search
from tests.exact.tables import (
    COUNTS,
    NUMBERS,
    WEIGHTED_NUMBERS,
    node,
    one,
    steps,
)

REGRESSION: dict[str, Search] = {
    "ridge": Search(
        NUMBERS,
        [one("linear_model.Ridge", None, {"alpha": {"linspace": [0.1, 10, 7]}, "solver": ["auto", "svd", "lsqr"]})],
        [(Ridge(), {"alpha": np.linspace(0.1, 10, 7), "solver": ["auto", "svd", "lsqr"]})],
        cv=10,
        splitter=10,
    ),
    "lasso_and_elastic_net": Search(
        NUMBERS,
        [
            one("linear_model.Lasso", None, {"alpha": [0.01, 0.1, 1.0]}),
            one("linear_model.ElasticNet", {"l1_ratio": 0.3}, {"alpha": [0.01, 0.1]}),
            one("linear_model.LinearRegression"),
        ],
        [
            (Lasso(), {"alpha": [0.01, 0.1, 1.0]}),
            (ElasticNet(l1_ratio=0.3), {"alpha": [0.01, 0.1]}),
            (LinearRegression(), {}),
        ],
        scoring="neg_root_mean_squared_error",
    ),
    "neighbors_regression": Search(
        COUNTS,
        [one("neighbors.KNeighborsRegressor", None, {"n_neighbors": [1, 3, 5], "p": [1, 2]})],
        [(KNeighborsRegressor(), {"n_neighbors": [1, 3, 5], "p": [1, 2]})],
    ),
    "tree_regression": Search(
        NUMBERS,
        [
            one(
                "tree.DecisionTreeRegressor",
                {"random_state": 0},
                {"ccp_alpha": [0.0, 10.0], "max_features": ["sqrt", 1.0]},
            )
        ],
        [(DecisionTreeRegressor(random_state=0), {"ccp_alpha": [0.0, 10.0], "max_features": ["sqrt", 1.0]})],
        scoring=["r2", "neg_mean_absolute_error"],
        train_score=True,
    ),
    "forest_regression": Search(
        NUMBERS,
        [one("ensemble.RandomForestRegressor", {"random_state": 0, "n_estimators": 7}, {"max_depth": [2, None]})],
        [(RandomForestRegressor(random_state=0, n_estimators=7), {"max_depth": [2, None]})],
    ),
    "extra_trees_regression": Search(
        NUMBERS,
        [
            one(
                "ensemble.ExtraTreesRegressor",
                {"n_estimators": 5, "random_state": 3, "bootstrap": True},
                {"max_samples": [0.5, None]},
            )
        ],
        [(ExtraTreesRegressor(n_estimators=5, random_state=3, bootstrap=True), {"max_samples": [0.5, None]})],
    ),
    "gradient_boosting_regression": Search(
        NUMBERS,
        [
            one(
                "ensemble.GradientBoostingRegressor",
                {"random_state": 0, "n_estimators": 8},
                {"loss": ["huber", "squared_error"]},
            )
        ],
        [(GradientBoostingRegressor(random_state=0, n_estimators=8), {"loss": ["huber", "squared_error"]})],
    ),
    "histogram_boosting_regression": Search(
        NUMBERS,
        [
            one(
                "ensemble.HistGradientBoostingRegressor",
                {"random_state": 0, "max_iter": 5},
                {"learning_rate": [0.1, 0.5]},
            )
        ],
        [(HistGradientBoostingRegressor(random_state=0, max_iter=5), {"learning_rate": [0.1, 0.5]})],
    ),
    "adaboost_regression": Search(
        NUMBERS,
        [one("ensemble.AdaBoostRegressor", {"random_state": 0, "n_estimators": 4}, {"loss": ["linear", "square"]})],
        [(AdaBoostRegressor(random_state=0, n_estimators=4), {"loss": ["linear", "square"]})],
    ),
    "sgd_regression": Search(
        NUMBERS,
        [one("linear_model.SGDRegressor", {"random_state": 0}, {"alpha": [1e-4, 1e-2]})],
        [(SGDRegressor(random_state=0), {"alpha": [1e-4, 1e-2]})],
    ),
    "pipeline_select": Search(
        NUMBERS,
        [
            steps(
                {"select": node("feature_selection.SelectKBest", score_func={"function": "f_regression"})},
                {"svr": node("svm.SVR", kernel="linear")},
                grid={"select__k": [2, 5, "all"], "svr__C": [1.0, 10.0]},
            )
        ],
        [
            (
                Pipeline([("select", SelectKBest(score_func=f_regression)), ("svr", SVR(kernel="linear"))]),
                {"select__k": [2, 5, "all"], "svr__C": [1.0, 10.0]},
            )
        ],
    ),
    "kernels": Search(
        NUMBERS,
        [
            one(
                "gaussian_process.GaussianProcessRegressor",
                {"alpha": 1.0, "optimizer": None},
                {
                    "kernel": [
                        {"object": "sklearn.gaussian_process.kernels.RBF", "params": {"length_scale": 2.0}},
                        {
                            "object": "sklearn.gaussian_process.kernels.Product",
                            "args": [
                                {"object": "sklearn.gaussian_process.kernels.ConstantKernel", "args": [3.0]},
                                {"object": "sklearn.gaussian_process.kernels.RBF"},
                            ],
                        },
                    ]
                },
            )
        ],
        [
            (
                GaussianProcessRegressor(alpha=1.0, optimizer=None),
                {"kernel": [RBF(length_scale=2.0), Product(ConstantKernel(3.0), RBF())]},
            )
        ],
    ),
    "weights_reach_the_last_step": Search(
        WEIGHTED_NUMBERS,
        [
            steps(
                {"scale": "sklearn.preprocessing.StandardScaler"},
                {"model": "sklearn.linear_model.Ridge"},
                grid={"model__alpha": [0.1, 10.0]},
            )
        ],
        [(Pipeline([("scale", StandardScaler()), ("model", Ridge())]), {"model__alpha": [0.1, 10.0]})],
        cv={"kind": "KFold", "n_splits": 4, "shuffle": True, "random_state": 3},
        splitter=KFold(4, shuffle=True, random_state=3),
    ),
}
