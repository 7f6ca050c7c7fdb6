"""Which entries draw from the global generators, by rule."""

from __future__ import annotations

from typing import Any

import pytest

from containers.scikit.seeds import RULES, is_unseeded
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
        (PipelineNode((("pca", node("decomposition.PCA")), ("svc", SVC))), {}, True),
        (PipelineNode((("pca", node("decomposition.PCA", svd_solver="full")), ("svc", SVC))), {}, False),
        (PipelineNode((("clf", SVC),)), {"clf": [SVC, FOREST]}, True),
        (PipelineNode((("clf", SVC),)), {"clf": [FOREST], "clf__random_state": [0]}, False),
    ],
)
def test_unseeded(definition: Any, grid: dict[str, list[Value]], expected: bool) -> None:
    space = tuple((name, tuple(values)) for name, values in grid.items())
    assert is_unseeded(FrozenEntry(None, definition, (space,))) is expected


def test_rules_name_classes_and_parameters_that_exist() -> None:
    params = {path.rpartition(".")[2]: entry.params for path, entry in estimators().items()}
    params |= {name: entry.params for name, entry in splitters().items()}
    for name, (parameter, _) in RULES.items():
        assert {parameter, "random_state"} <= set(params[name]), name
