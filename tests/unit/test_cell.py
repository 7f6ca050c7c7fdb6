"""One fit on one fold: what fails is a row, what is unseeded repeats, what writes gets a copy."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.data.foldcache import Fold
from containers.scikit.cell import CellRunner, digest_scores
from containers.scikit.scoring import make_scoring
from jobspec.grammar.values import EstimatorNode, PipelineNode, Value
from jobspec.runs.rows import Row
from jobspec.search.candidates import CandidateSpace, FrozenEntry, FrozenSpace

MODULE = """
import random, warnings
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Base(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self
    def predict(self, X):
        return np.full(len(X), self.classes_[0])

class Exits(Base):
    def fit(self, X, y):
        raise SystemExit(3)

class Panics(Base):
    def predict(self, X):
        class PanicException(BaseException):
            pass
        raise PanicException("index out of bounds")

class Interrupts(Base):
    def fit(self, X, y):
        raise KeyboardInterrupt

class Hungry(Base):
    def fit(self, X, y):
        raise MemoryError("8 EiB")

class HungryLater(Base):
    def predict(self, X):
        raise MemoryError("8 EiB")

class Speechless(Base):
    def fit(self, X, y):
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError
        raise Odd

class Warns(Base):
    def fit(self, X, y):
        for i in range(5):
            warnings.warn(f"warning {i}")
        return super().fit(X, y)

class Writes(Base):
    def fit(self, X, y):
        X -= X.mean(axis=0)
        self.mean_ = float(X[0, 0])
        return super().fit(X, y)
    def predict(self, X):
        X += 1
        return super().predict(X)

class Draws(Base):
    def fit(self, X, y):
        self.draw_ = np.random.random() + random.random()
        return self
    def score(self, X, y):
        return self.draw_
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_estimators.py").write_text(MODULE)
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "own_estimators")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_estimators", raising=False)


def make_fold(*, weights: bool = False, writeable: bool = False) -> Fold:
    rng = np.random.default_rng(0)
    arrays = [rng.random((30, 3)), rng.integers(0, 2, 30), rng.random((10, 3)), np.arange(10) % 2, rng.random(30)]
    for array in arrays:
        array.flags.writeable = writeable
    X_train, y_train, X_test, y_test, w_train = arrays
    return Fold(X_train, y_train, X_test, y_test, w_train if weights else None)


def make_runner(definition: Any, scoring: Any = None, grid: Sequence[Any] = (), **options: Any) -> CellRunner:
    space = tuple((name, tuple(values)) for name, values in grid)
    frozen = FrozenSpace((FrozenEntry(None, definition, (space,)),))
    settings: dict[str, Any] = {"train_score": False, "use_weights": False, "run_salt": "run"}
    return CellRunner(CandidateSpace(frozen), make_scoring(scoring), **(settings | options))


def run_own(name: str, scoring: Any = None, **options: Any) -> Row:
    (row,) = make_runner(EstimatorNode(f"own_estimators.{name}"), scoring, **options).run(make_fold(), 0, [0])
    return row


def node(path: str, **params: Value) -> EstimatorNode:
    return EstimatorNode(f"sklearn.{path}", params)


def test_a_fit_that_raises_is_a_row() -> None:
    runner = make_runner(node("svm.SVC", C=-1.0), ("accuracy", "f1"), train_score=True)
    (row,) = runner.run(make_fold(), 2, [0])
    assert (row["state"], row["split"], row["candidate"]) == ("fit_error", 2, 0)
    assert set(row["scores"]) == {"test_accuracy", "test_f1", "train_accuracy", "train_f1"}
    assert all(math.isnan(score) for score in row["scores"].values())
    assert (row["error"] or "").startswith("InvalidParameterError: The 'C' parameter of SVC must be a float")
    assert "\n" not in (row["error"] or "")


def test_one_scorer_that_fails_costs_its_own_score() -> None:
    runner = make_runner(node("svm.LinearSVC", random_state=0), ("accuracy", "neg_log_loss", "f1"))
    (row,) = runner.run(make_fold(), 0, [0])
    assert row["state"] == "fit_error"
    assert math.isnan(row["scores"]["test_neg_log_loss"])
    assert not math.isnan(row["scores"]["test_accuracy"]) and not math.isnan(row["scores"]["test_f1"])
    assert (row["error"] or "").startswith("test_neg_log_loss: AttributeError: LinearSVC has none of")


def test_a_scorers_own_nan_is_no_failure() -> None:
    fold = make_fold()
    short = Fold(fold.X_train, fold.y_train.astype(float), fold.X_test[:1], fold.y_test[:1].astype(float), None)
    (row,) = make_runner(node("linear_model.Ridge"), "r2").run(short, 0, [0])
    assert row["state"] == "ok" and math.isnan(row["scores"]["test_score"])
    assert row["num_warnings"] == 1 and "R^2 score is not well-defined" in (row["warning"] or "")


@pytest.mark.parametrize(
    ("name", "error"),
    [("Exits", "SystemExit: 3"), ("Speechless", "Odd"), ("Panics", "PanicException: index out of bounds")],
)
def test_what_user_code_raises_does_not_end_the_worker(name: str, error: str) -> None:
    row = run_own(name)
    assert (row["state"], row["error"]) == ("fit_error", error)


def test_an_interrupt_is_a_result_only_where_ctrl_c_is_ignored() -> None:
    import signal

    with pytest.raises(KeyboardInterrupt):
        run_own("Interrupts")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_own("Interrupts")["state"] == "fit_error"
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["Hungry", "HungryLater"])
@pytest.mark.parametrize("scoring", [None, ("accuracy", "f1_macro")])
def test_out_of_memory_is_lost_and_so_tried_again(name: str, scoring: Any) -> None:
    row = run_own(name, scoring)
    assert row["state"] == "lost" and "MemoryError: 8 EiB" in (row["error"] or "")


def test_warnings_are_counted_and_the_first_is_kept() -> None:
    row = run_own("Warns")
    assert (row["num_warnings"], row["warning"]) == (5, "UserWarning: warning 0")


def test_an_estimator_that_writes_gets_a_copy_once() -> None:
    runner = make_runner(EstimatorNode("own_estimators.Writes"), "accuracy")
    asked: list[Fold] = []

    def writable() -> Fold:
        asked.append(make_fold(writeable=True))
        return asked[-1]

    fold = make_fold()
    (row,) = runner.run(fold, 0, [0], writable)
    assert row["state"] == "ok" and len(asked) == 1
    assert fold.X_train.tobytes() == make_fold().X_train.tobytes()
    (row,) = runner.run(make_fold(), 0, [0])
    assert row["state"] == "fit_error" and "read-only" in (row["error"] or "")


def test_unseeded_scores_repeat_and_depend_on_candidate_split_and_run() -> None:
    def draw(split: int, salt: str) -> float:
        random.seed()
        np.random.seed(None)  # noqa: NPY002  # the generator that estimators draw from
        runner = make_runner(EstimatorNode("own_estimators.Draws"), run_salt=salt, unseeded_entries=(0,))
        return runner.run(make_fold(), split, [0])[0]["scores"]["test_score"]

    assert draw(0, "run") == draw(0, "run")
    assert len({draw(0, "run"), draw(1, "run"), draw(0, "other")}) == 3


def test_keys_of_seeded_candidates_know_no_run() -> None:
    first, second = (make_runner(node("svm.SVC"), run_salt=salt) for salt in ("one", "two"))
    assert first.key(0) == second.key(0)
    salted = make_runner(node("svm.SVC"), run_salt="one", unseeded_entries=(0,))
    assert salted.key(0) != first.key(0)


def test_members_of_a_family_share_one_fit() -> None:
    runner = make_runner(node("tree.DecisionTreeClassifier", random_state=0), grid=[("max_depth", (2, 2))])
    first, second = runner.run(make_fold(), 0, [0, 1])
    assert (first["candidate"], first["shared_fit"]) == (0, False)
    assert (second["candidate"], second["shared_fit"]) == (1, True)
    assert first["score_digest"] == second["score_digest"]


def test_weights_reach_the_last_step_of_nested_pipelines() -> None:
    inner = PipelineNode((("scale", node("preprocessing.StandardScaler")), ("nb", node("naive_bayes.GaussianNB"))))
    outer = PipelineNode((("first", "passthrough"), ("inner", inner)))
    fold = make_fold(weights=True)
    (weighted,) = make_runner(outer, "neg_log_loss", use_weights=True).run(fold, 0, [0])
    (plain,) = make_runner(outer, "neg_log_loss", use_weights=False).run(fold, 0, [0])
    assert weighted["state"] == plain["state"] == "ok"
    assert weighted["scores"] != plain["scores"]


def test_what_a_cell_costs_is_measured() -> None:
    (row,) = make_runner(node("svm.SVC")).run(make_fold(), 0, [0])
    assert row["fit_s"] > 0 and row["score_s"] > 0 and row["cpu_s"] > 0
    assert 10 * 2**20 < row["peak_memory_bytes"] < 2**40


def test_score_digest_is_over_bits_and_names() -> None:
    assert digest_scores({"a": 0.1 + 0.2}) != digest_scores({"a": 0.3})
    assert digest_scores({"a": math.nan}) == digest_scores({"a": -math.nan})
    assert digest_scores({"a": 0.0}) != digest_scores({"a": -0.0})
    assert digest_scores({"a": 1.0, "b": 2.0}) == digest_scores({"b": 2.0, "a": 1.0})
