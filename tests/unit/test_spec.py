from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import SpecError
from jobspec.grammar.load import load, parse
from jobspec.grammar.reference import make_json_schema, render_reference
from jobspec.grammar.spec import ScorerSpec, Spec
from jobspec.grammar.tables import estimators, in_allowed_module, splitters
from jobspec.grammar.values import (
    Distribution,
    EstimatorNode,
    FunctionNode,
    Generator,
    NamedList,
    ObjectNode,
    PipelineNode,
    SplitterNode,
)
from jobspec.search.candidates import CandidateSpace

SPECS = Path(__file__).parents[1] / "specs"
ROOT = Path(__file__).parents[2]


def read(body: str, head: str = "name: a\ndata: {builtin: iris}\n") -> Spec:
    return parse((head + body).encode(), "s.yaml").spec


def candidates(body: str) -> Any:
    return read("candidates:\n" + body).candidates


@pytest.mark.parametrize("path", sorted((SPECS / "valid").glob("*.yaml")), ids=lambda path: path.stem)
def test_valid_specs_are_read(path: Path) -> None:
    loaded = load(path)
    assert loaded.folder == path.parent
    assert loaded.spec.identity() == load(path).spec.identity()


@pytest.mark.parametrize("path", sorted((SPECS / "invalid").glob("*.yaml")), ids=lambda path: path.stem)
def test_invalid_specs_are_refused_as_they_say(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(SpecError) as caught:
        load(path)
    assert expected in caught.value.message
    assert caught.value.message.startswith(f"{path}:")
    assert caught.value.exit_code == 2


def test_nodes_of_the_grammar() -> None:
    entries = load(SPECS / "valid" / "grammar.yaml").spec.candidates
    svc, boosting, stacking, pipeline, process, logistic = entries
    assert svc.spaces == ({"C": Generator("geomspace", (1, 100, 3)), "gamma": ["scale", 0.01]},)
    tree = EstimatorNode("sklearn.tree.DecisionTreeClassifier", {"max_depth": 1})
    assert isinstance(boosting.definition, EstimatorNode) and boosting.definition.params["estimator"] == tree
    assert isinstance(stacking.definition, EstimatorNode)
    assert isinstance(stacking.definition.params["estimators"], NamedList)
    assert stacking.definition.params["cv"] == SplitterNode("StratifiedKFold", {"n_splits": 3})
    assert isinstance(pipeline.definition, PipelineNode)
    assert dict(pipeline.definition.steps)["scale"] == "passthrough"
    assert pipeline.spaces[1]["clf__hidden_layer_sizes"] == [[100, 50], [64]]
    assert isinstance(process.definition, EstimatorNode)
    assert isinstance(process.definition.params["kernel"], ObjectNode)
    assert isinstance(logistic.definition, EstimatorNode)
    assert logistic.definition.params["class_weight"] == {0: 1, 1: 5}
    assert logistic.spaces == ({},)


def test_values_keep_their_types() -> None:
    loaded = load(SPECS / "valid" / "values.yaml").spec
    pipeline, ridge = loaded.candidates
    assert isinstance(pipeline.definition, PipelineNode)
    steps: dict[str, Any] = dict(pipeline.definition.steps)
    assert steps["scale"].params == {"feature_range": (0, 1)}
    assert steps["robust"].params == {"quantile_range": (25.0, 75.0)}
    assert steps["log"].params == {"func": FunctionNode("numpy.log1p")}
    axes = pipeline.spaces[0]
    assert axes["clf__C"] == Generator("logspace", (-1, 2, 4, True, 2), "float")
    assert axes["clf__class_weight"] == [None, "balanced", {0: 1, 1: 5}, {"estimator": 2}]
    assert isinstance(ridge.definition, EstimatorNode)
    assert ridge.definition.params["alphas"] == Generator("logspace", (-3, 3, 7))


def test_distributions() -> None:
    boosting, pipeline = load(SPECS / "valid" / "random.yaml").spec.candidates
    assert boosting.spaces == ()
    axes = boosting.distributions[0]
    assert axes["learning_rate"] == Distribution("loguniform", (0.001, 1))
    assert axes["max_features"] == ["sqrt", None, 0.5]
    assert axes["n_estimators"] == Generator("range", (10, 100, 10))
    assert len(pipeline.distributions) == 2


@pytest.mark.parametrize(
    ("scoring", "refit", "names", "decides"),
    [
        ("", "", ("score",), "score"),
        ("scoring: accuracy", "", ("score",), "score"),
        ("scoring: accuracy", "refit: accuracy", ("score",), "score"),
        ("scoring: accuracy", "refit: false", ("score",), None),
        ("scoring: [accuracy]", "", ("accuracy",), "accuracy"),
        ("scoring: [accuracy, f1_macro]", "refit: f1_macro", ("accuracy", "f1_macro"), "f1_macro"),
        ("scoring: {mine: accuracy}", "refit: true", ("mine",), "mine"),
        ("scoring: [accuracy, f1_macro]", "refit: false", ("accuracy", "f1_macro"), None),
    ],
)
def test_refit_is_resolved(scoring: str, refit: str, names: tuple[str, ...], decides: str | None) -> None:
    spec = read(f"candidates: [{{estimator: sklearn.svm.SVC}}]\n{scoring}\n{refit}\n")
    assert spec.scorer_names() == names
    assert spec.refit_scorer() == decides
    assert spec.identity()["refit"] == decides


def test_metrics_become_scorers() -> None:
    text = "scoring: {ll: {metric: log_loss, greater_is_better: false, response_method: predict_proba, labels: [a, b]}}"
    scorer = read(f"candidates: [{{estimator: sklearn.svm.SVC}}]\n{text}\n").scoring
    expected = ScorerSpec(
        metric="log_loss", greater_is_better=False, response_method="predict_proba", params={"labels": ["a", "b"]}
    )
    assert scorer == {"ll": expected}


def test_identity_ignores_what_decides_no_score() -> None:
    one = read("candidates: [{estimator: sklearn.svm.SVC}]\nscoring: [accuracy]\nrefit: accuracy\n")
    other = read(
        "candidates: [{estimator: sklearn.svm.SVC, params: {}}]\nscoring: {accuracy: accuracy}\nrefit: true\n"
        "cv: 5\nresources: {vcpus: 2}\nlimits: {cell_seconds: 9}\n",
        head="name: b\ndata: {path: x.csv, target: y}\n",
    )
    assert one.identity() == other.identity()
    assert read("candidates: [{estimator: sklearn.svm.SVC}]\ncv: 4\n").identity() != one.identity()


def test_reading_options_ignore_the_path_and_the_order_of_drops() -> None:
    body = "candidates: [{estimator: sklearn.svm.SVC}]\n"
    one = read(body, "name: a\ndata: {path: x.csv, target: y, drop: [b, a]}\n").data.reading_options()
    assert one == read(body, "name: a\ndata: {path: z/x.csv, target: y, drop: [a, b]}\n").data.reading_options()
    assert one != read(body, "name: a\ndata: {path: x.csv, target: y, rows: 5}\n").data.reading_options()


def test_several_problems_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        candidates("- {estimator: sklearn.svm.SCV}\n- {estimator: sklearn.svm.SVC, grid: {C: [], gamma: 1}}\ncv: x\n")
    lines = caught.value.message.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["s.yaml:4:15", "s.yaml:5:42", "s.yaml:5:53", "s.yaml:6:5"]


def test_at_most_ten_problems_are_told() -> None:
    with pytest.raises(SpecError, match=r"\.\.\. and 5 more\."):
        candidates("- {estimator: sklearn.svm.SCV}\n" * 15)


def test_own_modules_pass_only_by_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "- {estimator: lab.models.Mine, params: {anything: 1}}\n"
    with pytest.raises(SpecError, match=r"'lab\.models\.Mine' is no estimator"):
        candidates(entry)
    monkeypatch.setattr("jobspec.settings.allowed_modules", lambda: ("lab",))
    assert candidates(entry)[0].definition == EstimatorNode("lab.models.Mine", {"anything": 1})
    with pytest.raises(SpecError, match="n_jobs"):
        candidates("- {estimator: lab.models.Mine, params: {n_jobs: 4}}\n")


@pytest.mark.parametrize(("path", "inside"), [("lab.A", True), ("labs.A", False), ("lab", False), ("x.lab.A", False)])
def test_prefixes_end_at_a_dot(path: str, inside: bool) -> None:
    assert in_allowed_module(path, ("lab",)) is inside


@pytest.mark.parametrize(
    "axis",
    [
        "{linspace: [0, 1, 0]}",
        "{range: [5, 1]}",
        "{arange: [0, 1, 0]}",
        "{range: [0, 10000000000]}",
        "{arange: [0, 1, 1.0e-300]}",
        "{geomspace: [0, 1, 5]}",
        "{geomspace: [-1, 1, 5]}",
        "{linspace: [0, 1, 2.5]}",
        "{linspace: [a, 1]}",
        "{linspace: 3}",
        "{linspace: [0, 1], dtype: str}",
        "{linspace: [0, 1], base: 2}",
        "{logspace: [0, 1, 2], num: 3}",
        "{logspace: [0, .inf]}",
        "{range: [1.5]}",
    ],
)
def test_generators_that_give_no_axis_are_refused(axis: str) -> None:
    with pytest.raises(SpecError, match=r"s.yaml:4:\d+: "):
        candidates(f"- {{estimator: sklearn.svm.SVC, grid: {{C: {axis}}}}}\n")


def test_every_splitter_is_accepted() -> None:
    extra = {"PredefinedSplit": ", test_fold: fold", "LeavePOut": ", p: 2", "LeavePGroupsOut": ", n_groups: 2"}
    for kind in splitters():
        spec = read(
            f"candidates: [{{estimator: sklearn.svm.SVC}}]\ncv: {{kind: {kind}{extra.get(kind, '')}}}\n",
            "name: a\ndata: {path: x.csv, target: y, groups: g}\n",
        )
        assert not isinstance(spec.cv, int) and spec.cv.kind == kind


def test_every_predicting_estimator_is_accepted() -> None:
    for path, entry in estimators().items():
        if entry.predict and not entry.required and not path.startswith("sklearn.pipeline"):
            assert candidates(f"- {{estimator: {path}}}\n")


def test_one_cell_is_enough() -> None:
    from jobspec.search.candidates import FrozenEntry, FrozenSpace

    entry = candidates("- {estimator: sklearn.svm.SVC}\n")[0]
    assert len(CandidateSpace(FrozenSpace((FrozenEntry(None, entry.definition, ((),)),)))) == 1


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys; from jobspec.grammar.load import parse;"
        "assert 'ruamel' not in sys.modules;"
        "parse(b'name: a\\ndata: {builtin: iris}\\ncandidates: [{estimator: sklearn.svm.SVC}]', 's.yaml');"
        "heavy = {'numpy', 'sklearn', 'scipy', 'pyarrow', 'typer'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_tables_are_those_of_the_installed_scikit_learn() -> None:
    from containers.scikit.freeze_tables import FOLDER, format_table, freeze_tables

    for name, table in freeze_tables().items():
        assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == format_table(table), name


def test_the_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "spec.md").read_text(encoding="utf-8") == render_reference()


def test_the_schema_names_every_key() -> None:
    schema = make_json_schema()
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert schema["additionalProperties"] is False
