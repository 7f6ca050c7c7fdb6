"""Which entries draw from the global generators, by rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from containers.scikit.seeds import RULES, Shapes, find_draws
from jobspec.grammar.tables import estimators, splitters
from jobspec.grammar.values import EstimatorNode, FunctionNode, NamedList, PipelineNode, SplitterNode, Value
from jobspec.search.candidates import FrozenEntry


def node(path: str, **params: Value) -> EstimatorNode:
    return EstimatorNode(f"sklearn.{path}", params)


SVC = node("svm.SVC")
FOREST = node("ensemble.RandomForestClassifier")
TREE = node("tree.DecisionTreeClassifier")
STACK = node("ensemble.StackingClassifier", estimators=NamedList((("rf", FOREST), ("svc", SVC))))


def select(function: str) -> PipelineNode:
    score = FunctionNode(f"sklearn.feature_selection.{function}")
    return PipelineNode((("select", node("feature_selection.SelectKBest", score_func=score)), ("svc", SVC)))


def stack(**cv: Any) -> EstimatorNode:
    estimators = NamedList((("svc", SVC),))
    return node("ensemble.StackingClassifier", estimators=estimators, cv=SplitterNode("StratifiedKFold", cv))


@pytest.mark.parametrize(
    ("definition", "grid", "expected"),
    [
        (SVC, {}, False),
        (node("svm.SVC", probability=True), {}, True),
        (SVC, {"probability": [False, True]}, True),
        (node("linear_model.LogisticRegression"), {}, False),
        (node("linear_model.LogisticRegression"), {"solver": ["lbfgs", "saga"]}, True),
        (node("linear_model.LogisticRegression", random_state=0), {"solver": ["saga"]}, False),
        (node("linear_model.Ridge"), {"solver": ["svd"]}, False),
        (node("linear_model.Lasso", selection="random"), {}, True),
        (FOREST, {}, True),
        (FOREST, {"random_state": [0, 1]}, False),
        (FOREST, {"random_state": [0, None]}, True),
        (TREE, {}, True),
        (node("neighbors.KNeighborsClassifier"), {}, False),
        (node("ensemble.AdaBoostClassifier", estimator=TREE, random_state=0), {"estimator__max_depth": [1]}, False),
        (node("ensemble.AdaBoostClassifier", estimator=TREE), {}, True),
        (STACK, {}, True),
        (STACK, {"rf__random_state": [0]}, False),
        (STACK, {"rf": [SVC, "drop"]}, False),
        (stack(n_splits=3), {}, False),
        (stack(n_splits=3, shuffle=True), {}, True),
        (stack(n_splits=3, shuffle=True, random_state=0), {}, False),
        (select("f_classif"), {}, False),
        (select("mutual_info_classif"), {}, True),
        (PipelineNode((("pca", node("decomposition.PCA")), ("svc", SVC))), {}, False),
        (PipelineNode((("pca", node("decomposition.PCA", n_components=2)), ("svc", SVC))), {}, True),
        (PipelineNode((("pca", node("decomposition.PCA", svd_solver="full")), ("svc", SVC))), {}, False),
        (PipelineNode((("clf", SVC),)), {"clf": [SVC, FOREST]}, True),
        (PipelineNode((("clf", SVC),)), {"clf": [FOREST], "clf__random_state": [0]}, False),
    ],
)
def test_unseeded(definition: Any, grid: dict[str, list[Value]], expected: bool) -> None:
    space = tuple((name, tuple(values)) for name, values in grid.items())
    assert bool(find_draws(FrozenEntry(None, definition, (space,)))) is expected


def test_rules_name_classes_and_parameters_that_exist() -> None:
    params = {path.rpartition(".")[2]: entry.params for path, entry in estimators().items()}
    params |= {name: entry.params for name, entry in splitters().items()}
    for name, (parameter, _) in RULES.items():
        assert {parameter, "random_state"} <= set(params[name]), name


def pipeline(*steps: Value, **pca: Value) -> PipelineNode:
    named = tuple((f"s{i}", step) for i, step in enumerate(steps))
    return PipelineNode((*named, ("pca", node("decomposition.PCA", **pca)), ("svc", SVC)))


@pytest.mark.parametrize(
    ("definition", "text", "remedy"),
    [
        (FOREST, "RandomForestClassifier", "Set `random_state: 0` under its `params`"),
        (pipeline(n_components=2), "PCA in step pca", "`pca: {estimator: ..., params: {random_state: 0}}`"),
        (STACK, "RandomForestClassifier under rf", "inner estimator as `{estimator: ..., params: {random_state: 0}}`"),
        (stack(shuffle=True), "StratifiedKFold under cv", "`random_state: 0` beside the splitter's `kind`"),
        (select("mutual_info_classif"), "mutual_info_classif in step select", "takes no seed"),
    ],
)
def test_what_draws_is_named_with_where_to_seed_it(definition: Any, text: str, remedy: str) -> None:
    (draw,) = find_draws(FrozenEntry(None, definition, ((),)))
    assert draw.text() == text and remedy in draw.remedy()


SCALER, IMPUTER = node("preprocessing.StandardScaler"), node("impute.SimpleImputer")
TALL, WIDE = Shapes((1000, 900), 20, 5), Shapes((1000, 900), 200, 5)


@pytest.mark.parametrize(
    ("definition", "grid", "shapes", "expected"),
    [
        (pipeline(SCALER, "passthrough", IMPUTER, None, n_components=2), {}, TALL, False),
        (pipeline(SCALER, n_components=2), {}, WIDE, True),
        (pipeline(SCALER, n_components=190), {}, WIDE, False),
        (pipeline(SCALER), {"pca__n_components": [190, 10]}, WIDE, True),
        (pipeline(SCALER, n_components=2), {}, Shapes((450, 500), 400, 0), False),
        (pipeline(SCALER, n_components=2), {}, Shapes((450, 501), 400, 0), True),
        (pipeline(SCALER, n_components=2), {"s0": [SCALER, "passthrough"]}, TALL, False),
        (pipeline(SCALER, n_components=2, svd_solver="randomized"), {}, TALL, True),
        (pipeline(node("preprocessing.PolynomialFeatures"), n_components=2), {}, TALL, True),
        (pipeline(SCALER, n_components=2), {"s0": [node("preprocessing.PolynomialFeatures")]}, TALL, True),
        (pipeline(pipeline(SCALER), n_components=2), {}, TALL, True),
        (pipeline(node("impute.SimpleImputer", add_indicator=True), n_components=2), {}, TALL, True),
        (pipeline(IMPUTER, n_components=2), {"s0__add_indicator": [False, True]}, TALL, True),
        (pipeline(IMPUTER, n_components=2), {}, Shapes((900,), 20, 900), True),
        (
            pipeline(node("impute.SimpleImputer", keep_empty_features=True), n_components=2),
            {},
            Shapes((9,), 2, 9),
            False,
        ),
    ],
)
def test_a_pca_draws_by_the_shape_that_reaches_it(
    definition: Any, grid: dict[str, list[Value]], shapes: Shapes, expected: bool
) -> None:
    space = tuple((name, tuple(values)) for name, values in grid.items())
    assert bool(find_draws(FrozenEntry(None, definition, (space,)), shapes)) is expected


@pytest.mark.parametrize(
    ("rows", "columns"), [(501, 50), (499, 50), (500, 500), (501, 500), (10020, 1002), (40, 600), (501, 10)]
)
def test_the_rule_is_that_of_the_installed_pca(rows: int, columns: int) -> None:
    X = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    limit = 0.8 * min(rows, columns)
    for components in (1, int(np.ceil(limit)) - 1, int(np.ceil(limit))):
        if rows * columns > 10**6 and components > 1:
            continue
        solver = PCA(components, random_state=0).fit(X)._fit_svd_solver
        found = find_draws(FrozenEntry(None, pipeline(n_components=components), ((),)), Shapes((rows,), columns, 0))
        assert bool(found) is (solver == "randomized"), (components, solver)
