"""Values become live objects: of the right types, shared by nobody, from trusted paths only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import ParameterSampler, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

from containers.scikit.build import build, freeze_array, generate, load_class, make_estimator, weight_parameter
from containers.scikit.freeze import FreezeError, freeze
from jobspec.errors import SpecError
from jobspec.grammar.load import parse
from jobspec.grammar.spec import Spec
from jobspec.grammar.tables import estimators, functions, objects
from jobspec.grammar.values import (
    EstimatorNode,
    FunctionNode,
    Generator,
    NamedList,
    NumpyScalar,
    PipelineNode,
    SplitterNode,
    Value,
)
from jobspec.search.candidates import Candidate, CandidateSpace

SVC_NODE = EstimatorNode("sklearn.svm.SVC")


def test_numpy_scalars_keep_their_type_and_bits() -> None:
    built = build(NumpyScalar("float64", 0.1))
    assert type(built) is np.float64 and built == 0.1
    assert type(build(NumpyScalar("int64", 3))) is np.int64


def test_what_is_built_is_shared_by_nobody() -> None:
    node: Value = {"a": [EstimatorNode("sklearn.svm.SVC", {"class_weight": {0: 1}})]}
    first: Any = build(node)
    second: Any = build(node)
    assert first["a"][0] is not second["a"][0]
    assert first["a"][0].class_weight == {0: 1}


def test_named_lists_splitters_functions_and_steps() -> None:
    built: Any = build(NamedList((("a", SVC_NODE), ("b", "drop"))))
    assert isinstance(built[0][1], SVC) and built[1] == ("b", "drop")
    assert isinstance(build(SplitterNode("StratifiedKFold", {"n_splits": 3})), StratifiedKFold)
    assert build(FunctionNode("numpy.log1p")) is np.log1p
    pipeline: Any = build(PipelineNode((("scale", "passthrough"), ("svc", SVC_NODE))))
    assert isinstance(pipeline, Pipeline) and pipeline.steps[0] == ("scale", "passthrough")


@pytest.mark.parametrize("path", sorted({*estimators(), *set(functions().values()), *objects()}))
def test_every_path_of_the_tables_can_be_imported(path: str) -> None:
    assert callable(load_class(path))


@pytest.mark.parametrize("path", ["os.system", "sklearn._config.os.system", "sklearn.utils.Bunch", "numpy.load"])
def test_paths_outside_the_tables_are_refused(path: str) -> None:
    with pytest.raises(SpecError, match="neither in foldfleet's table nor in a module that this machine allows"):
        load_class(path)


def test_an_allowed_module_gives_estimators_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_build.py").write_text(
        "from sklearn.base import BaseEstimator\nclass Good(BaseEstimator): pass\nclass Bad: pass\n"
    )
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "mine_of_build")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    assert load_class("mine_of_build.Good").__name__ == "Good"
    with pytest.raises(SpecError, match="is no estimator"):
        load_class("mine_of_build.Bad")
    with pytest.raises(SpecError, match="cannot be imported"):
        load_class("mine_of_build.Missing")


def test_objects_are_set_before_their_parameters() -> None:
    assignments: dict[str, Value] = {
        "clf": EstimatorNode("sklearn.ensemble.RandomForestClassifier"),
        "clf__n_estimators": NumpyScalar("int64", 7),
    }
    estimator = make_estimator(Candidate(0, 0, PipelineNode((("clf", SVC_NODE),)), assignments))
    assert isinstance(estimator.named_steps["clf"], RandomForestClassifier)
    assert estimator.named_steps["clf"].n_estimators == 7


def test_the_weight_parameter_leads_to_the_last_step() -> None:
    inner = Pipeline([("svc", SVC())])
    assert weight_parameter(SVC()) == "sample_weight"
    assert weight_parameter(Pipeline([("a", "passthrough"), ("inner", inner)])) == "inner__svc__sample_weight"


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (Generator("linspace", (0, 1, 5)), np.linspace(0, 1, 5)),
        (Generator("logspace", (-1, 2, 4)), np.logspace(-1, 2, 4)),
        (Generator("geomspace", (1, 100, 3)), np.geomspace(1, 100, 3)),
        (Generator("arange", (1, 10, 2)), np.arange(1, 10, 2)),
        (Generator("linspace", (1, 9, 3), "int"), np.linspace(1, 9, 3, dtype=int)),
    ],
)
def test_generators_are_evaluated_by_numpy(node: Generator, expected: Any) -> None:
    generated = generate(node)
    assert generated.dtype == expected.dtype and generated.tobytes() == expected.tobytes()
    assert freeze_array(generated)[0] == NumpyScalar(expected.dtype.name, expected[0].item())


def test_range_gives_pythons_integers() -> None:
    assert freeze_array(generate(Generator("range", (1, 4)))) == (1, 2, 3)


def spec(rest: str) -> Spec:
    return parse(f"name: t\ndata: {{builtin: iris}}\n{rest}".encode(), "spec.yaml").spec


def test_what_numpy_refuses_is_told_at_its_place() -> None:
    bad = spec("candidates: [{estimator: sklearn.svm.SVC, grid: {C: [1]}}]")
    entry = bad.candidates[0].model_copy(update={"spaces": ({"C": Generator("geomspace", (0, 1, 3))},)})
    with pytest.raises(FreezeError, match="cannot be evaluated") as error:
        freeze(bad.model_copy(update={"candidates": (entry,)}))
    assert error.value.where == ("candidates", 0, "grid", "C")


def test_lists_are_drawn_without_replacement_as_scikit_learn_does() -> None:
    frozen = freeze(
        spec(
            "search: {kind: random, n_iter: 100, random_state: 3}\ncandidates:\n"
            "- {estimator: sklearn.svm.SVC, distributions: {C: [1, 2, 3], kernel: {choice: [rbf, poly]}}}\n"
            "- {estimator: sklearn.svm.SVC}"
        )
    )
    space = CandidateSpace(frozen.space)
    expected = list(ParameterSampler({"C": [1, 2, 3], "kernel": ["rbf", "poly"]}, 6, random_state=3))
    assert [candidate.assignments for candidate in space] == [*expected, {}]


def test_a_search_without_a_seed_gets_one() -> None:
    unseeded = spec(
        "search: {kind: random, n_iter: 3}\ncandidates:\n"
        "- {estimator: sklearn.svm.SVC, distributions: {C: {uniform: [1, 2]}}}"
    )
    first = freeze(unseeded)
    assert first.seed is not None
    assert freeze(unseeded, first.seed).space == first.space
    assert freeze(unseeded, first.seed + 1).space != first.space
