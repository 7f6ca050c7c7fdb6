"""The prepare step: what it refuses, with the place in the file; what it tells; and that it remembers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from containers import prepare as module
from containers.data.dataset import load_manifest
from containers.data.readers import READER_VERSION
from containers.prepare import PrepareOptions, prepare
from jobspec.engine import current_engine
from jobspec.errors import DataError, LimitError, SpecError
from jobspec.grammar.load import LoadedSpec, parse
from jobspec.search.candidates import CandidateSpace, FrozenSpace
from jobspec.search.identity import make_run_id
from jobspec.search.inspection import Inspection
from jobspec.search.memo import MEMO_VERSION, memo_key, recall
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout

SVC = "candidates: [{estimator: sklearn.svm.SVC}]"
OPTIONS = PrepareOptions()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    X = rng.random((60, 3))
    table = {f"x{i}": X[:, i] for i in range(3)} | {
        "three": np.array(["a", "b", "c"] * 20),
        "two": np.array(["ham", "spam"] * 30),
        "number": rng.random(60),
        "one": ["same"] * 60,
        "w": rng.random(60),
    }
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(table), path)
    os.utime(path, (time.time() - 100, time.time() - 100))
    return tmp_path


def write(folder: Path, rest: str, target: str = "three", data: str = "") -> LoadedSpec:
    others = [name for name in ("three", "two", "number", "one", "w") if name != target and name not in data]
    head = f"name: t\ndata: {{path: table.parquet, target: {target}, drop: [{', '.join(others)}]{data}}}\n"
    return parse((head + rest).encode(), "spec.yaml", path=folder / "spec.yaml")


def run(
    folder: Path, rest: str, target: str = "three", data: str = "", options: PrepareOptions = OPTIONS
) -> Inspection:
    return prepare(write(folder, rest, target, data), open_store(str(folder / "store")), options)


REFUSED: dict[str, tuple[str, str]] = {
    "C: -1": (
        "candidates:\n- estimator: sklearn.svm.SVC\n  params: {C: -1}",
        "spec.yaml:5:15: The 'C' parameter of SVC must be",
    ),
    "C: nan": ("candidates:\n- estimator: sklearn.svm.SVC\n  grid: {C: [1, .nan]}", "Got nan instead"),
    "generated": (
        "candidates:\n- estimator: sklearn.svm.SVC\n  grid: {C: {linspace: [-1, 1, 3]}}",
        "spec.yaml:5:13: The 'C' parameter of SVC must be",
    ),
    "nested": (
        (
            "candidates:\n- estimator: sklearn.ensemble.BaggingClassifier\n  params:\n    estimator: "
            "{estimator: sklearn.tree.DecisionTreeClassifier, params: {max_depth: 0}}"
        ),
        "The 'max_depth' parameter of DecisionTreeClassifier must be",
    ),
    "conditional": (
        (
            "candidates:\n- pipeline: [{clf: sklearn.svm.SVC}]\n  grid:\n  - {clf__C: [1]}\n"
            "  - {clf: [{estimator: sklearn.neural_network.MLPClassifier}], clf__hidden_layer_sizes: [wide]}"
        ),
        "spec.yaml:7:89: The 'hidden_layer_sizes' parameter of MLPClassifier must be",
    ),
    "random": (
        (
            "search: {kind: random, n_iter: 4, random_state: 0}\ncandidates:\n- estimator: sklearn.svm.SVC\n"
            "  distributions: {C: {uniform: [-3, -1]}}"
        ),
        "The 'C' parameter of SVC must be",
    ),
    "not a transformer": (
        "candidates:\n- pipeline: [{a: sklearn.svm.SVC}, {b: sklearn.svm.SVC}]",
        "cannot transform",
    ),
    "mixed kinds": (
        "cv: 4\ncandidates: [{estimator: sklearn.svm.SVC}, {estimator: sklearn.linear_model.Ridge}]",
        "spec.yaml:3:5: `cv: 4` means StratifiedKFold for classifiers",
    ),
    "binary scorer on three classes": (
        f"scoring: f1\n{SVC}",
        "spec.yaml:3:10: The scorer 'f1' cannot score this target",
    ),
    "predict_proba": (
        "scoring: neg_log_loss\ncandidates: [{estimator: sklearn.svm.LinearSVC}]",
        "spec.yaml:4:14: The scorer 'neg_log_loss' needs class probabilities",
    ),
    "precomputed": ("candidates: [{estimator: sklearn.svm.SVC, params: {kernel: precomputed}}]", "square matrix"),
    "clusters without scorer": ("candidates: [{estimator: sklearn.cluster.DBSCAN}]", "neither"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_with_a_place(name: str, folder: Path) -> None:
    rest, message = REFUSED[name]
    with pytest.raises(SpecError) as error:
        run(folder, rest)
    assert message in error.value.message
    assert error.value.message.startswith("spec.yaml:")


def test_a_spec_that_is_refused_leaves_no_store(folder: Path) -> None:
    with pytest.raises(SpecError):
        run(folder, REFUSED["C: -1"][0])
    assert not (folder / "store").exists()


def test_every_mistake_is_told_at_once(folder: Path) -> None:
    svc = "- {estimator: sklearn.svm.SVC, "
    rest = f"candidates:\n{svc}params: {{C: -1}}}}\n{svc}grid: {{degree: [-2]}}}}"
    with pytest.raises(SpecError) as error:
        run(folder, rest)
    assert [line.partition(": ")[0] for line in error.value.message.splitlines()] == [
        "spec.yaml:4:44",
        "spec.yaml:5:47",
    ]


def test_f1_on_strings_says_how_to_name_the_class(folder: Path) -> None:
    with pytest.raises(SpecError) as error:
        run(folder, f"scoring: f1\n{SVC}", target="two")
    assert "f1_macro" in error.value.message
    assert "`scoring: {f1: {metric: f1_score, pos_label: spam}}`" in error.value.message
    assert (
        run(folder, f"scoring: {{f1: {{metric: f1_score, pos_label: spam}}}}\n{SVC}", target="two").score_kind
        == "multi"
    )


def test_weights_need_a_fit_that_takes_them(folder: Path) -> None:
    knn = "candidates: [{estimator: sklearn.neighbors.KNeighborsClassifier}]"
    with pytest.raises(SpecError, match="takes no sample_weight"):
        run(folder, knn, data=", weights: w")
    assert run(folder, SVC, data=", weights: w").num_features == 3


@pytest.mark.parametrize(
    ("target", "rest", "message"),
    [
        ("one", SVC, "has one class only, 'same'"),
        ("number", SVC, "holds continuous numbers, but SVC is a classifier"),
        ("three", "candidates: [{estimator: sklearn.linear_model.Ridge}]", "holds text, but Ridge is a regressor"),
    ],
)
def test_targets_that_nothing_can_learn(target: str, rest: str, message: str, folder: Path) -> None:
    with pytest.raises(DataError, match=message):
        run(folder, rest, target=target)


def test_too_many_folds_is_a_limit(folder: Path) -> None:
    with pytest.raises(LimitError):
        run(folder, f"cv: {{kind: LeaveOneOut}}\n{SVC}", options=PrepareOptions(max_folds=50))


def test_what_is_told(folder: Path) -> None:
    rest = (
        "cv: {kind: StratifiedKFold, n_splits: 4}\nscoring: [accuracy, f1_macro]\nrefit: false\n"
        "candidates:\n- {estimator: sklearn.svm.SVC, grid: {C: {logspace: [-1, 2, 4]}}}\n"
        "- {estimator: sklearn.ensemble.RandomForestClassifier}"
    )
    inspection = run(folder, rest)
    assert inspection.classes == ("a", "b", "c") and inspection.class_counts == (20, 20, 20)
    assert inspection.train_rows == (45,) * 4 and inspection.test_rows == (15,) * 4
    assert inspection.unseeded_entries == (1,)
    assert any("random_state is not set" in warning for warning in inspection.warnings)
    assert (inspection.scorers, inspection.score_kind) == (("accuracy", "f1_macro"), "multi")
    assert len(CandidateSpace(FrozenSpace.from_json(inspection.space))) == 5


def test_a_target_of_probabilities_only_warns_where_the_method_is_conditional(folder: Path) -> None:
    inspection = run(folder, f"scoring: neg_log_loss\n{SVC}")
    assert any("depends on its parameters" in warning for warning in inspection.warnings)


def test_the_second_call_answers_from_the_memo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(folder / "table.parquet", (0, 0))
    monkeypatch.setattr(module, "is_settled", lambda path: True)
    first = run(folder, SVC)
    loaded, store = write(folder, SVC), open_store(str(folder / "store"))
    engine = current_engine("native", loaded.spec.identity())
    assert recall(loaded, store, engine, OPTIONS) == first
    assert recall(loaded, store, engine, PrepareOptions(max_folds=5)) is None
    assert recall(loaded, store, engine.model_copy(update={"python": "4"}), OPTIONS) is None
    assert recall(write(folder, SVC + "\ncv: 3"), store, engine, OPTIONS) is None
    for path in (folder / "store" / "datasets").rglob("manifest.json"):
        path.unlink()
    assert recall(loaded, store, engine, OPTIONS) is None
    assert run(folder, SVC) == first


def test_changed_bytes_change_the_memo_even_under_old_times(folder: Path) -> None:
    loaded = write(folder, SVC)
    engine = current_engine("native", loaded.spec.identity())
    before = memo_key(loaded, engine, OPTIONS)
    path = folder / "table.parquet"
    status = path.stat()
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert memo_key(loaded, engine, OPTIONS) != before
    path.unlink()
    assert memo_key(loaded, engine, OPTIONS) is None


def test_a_file_that_was_just_written_is_not_remembered(folder: Path) -> None:
    path = folder / "table.parquet"
    path.write_bytes(path.read_bytes())
    run(folder, SVC)
    loaded = write(folder, SVC)
    engine = current_engine("native", loaded.spec.identity())
    assert recall(loaded, open_store(str(folder / "store")), engine, OPTIONS) is None


def test_unseeded_draws_are_made_once(folder: Path) -> None:
    rest = (
        "search: {kind: random, n_iter: 5}\ncandidates:\n- estimator: sklearn.svm.SVC\n"
        "  distributions: {C: {loguniform: [0.1, 10]}}"
    )
    first: Any = run(folder, rest).space
    assert run(folder, rest).space == first
    for path in (folder / "store" / "sources").glob("prepare-*"):
        path.unlink()
    assert run(folder, rest).space == first


def test_missing_values_are_counted_while_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).random((60, 2))
    X[[3, 4], [0, 1]] = np.nan
    np.savez(folder / "holes.npz", X=X, y=np.arange(60) % 2)
    loaded = parse(f"name: t\ndata: {{path: holes.npz}}\n{SVC}".encode(), "spec.yaml", path=folder / "spec.yaml")
    store = open_store(str(folder / "store"))
    with monkeypatch.context() as patch:
        patch.setattr("containers.prepare.np", SimpleNamespace(unique=np.unique))  # nothing that looks for NaN
        inspection = prepare(loaded, store, OPTIONS)
    manifest = load_manifest(store, inspection.dataset_id)
    assert manifest.num_missing == 2
    assert any("SVC does not say that it takes" in warning for warning in inspection.warnings)
    old = manifest.model_dump_json(exclude={"num_missing"})
    store.put(Layout.manifest(inspection.dataset_id), old.encode())
    assert prepare(loaded, store, PrepareOptions(max_folds=999)) == inspection


def test_a_pca_is_unseeded_only_where_it_draws(folder: Path) -> None:
    pca = "{estimator: sklearn.decomposition.PCA, params: {n_components: 2}}"
    steps = "{scale: sklearn.preprocessing.StandardScaler}, {pca: " + pca + "}, {svc: sklearn.svm.SVC}"
    poly = steps.replace("StandardScaler", "PolynomialFeatures")
    inspection = run(folder, f"candidates:\n- pipeline: [{steps}]\n- pipeline: [{poly}]")
    assert inspection.unseeded_entries == (1,)
    (note,) = [warning for warning in inspection.warnings if "random_state" in warning]
    assert note.startswith("candidates[1]: PCA in step pca: random_state is not set")
    assert note.endswith("Write the step as `pca: {estimator: ..., params: {random_state: 0}}`.")


def test_other_splits_are_another_run(folder: Path) -> None:
    loaded = write(folder, SVC)
    inspection = run(folder, SVC)
    other = inspection.model_copy(update={"split_id": "s-other"})
    assert make_run_id(loaded.spec, inspection) != make_run_id(loaded.spec, other)


def test_memos_know_the_readers() -> None:
    assert (MEMO_VERSION, READER_VERSION) == (2, 1), "raise MEMO_VERSION with READER_VERSION: memos name datasets"
