"""The refitted model: GridSearchCV's best estimator, with a card that says what it is and what it trusts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from containers.prepare import PrepareOptions, prepare
from containers.views import refit as module
from containers.views.refit import MODEL, README, refit
from jobspec.errors import DataError, NotFoundError
from jobspec.grammar.load import parse
from jobspec.runs.rounds import commit_round, draft_round, keep_space, keep_spec
from jobspec.search.candidates import FrozenSpace
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout

SPEC = b"""
name: iris
data: {builtin: iris}
candidates:
- estimator: sklearn.tree.DecisionTreeClassifier
  params: {random_state: 0}
  grid: {max_depth: [1, 2, 3]}
"""
RUN = "iris-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "store"))
    loaded = parse(SPEC, "spec.yaml")
    inspection = prepare(loaded, store, PrepareOptions())
    fields = inspection.model_dump(include={"engine", "dataset_id", "split_id", "unseeded_entries", "scorers"})
    fields |= {"run_id": RUN, "round": 0, "book_id": "b-1", "num_candidates": 3, "num_splits": 5, "num_known": 0}
    fields |= {"limits": loaded.spec.limits, "score_kind": "single", "train_score": False, "workers": 1}
    fields["engine"] = inspection.engine
    space = FrozenSpace.from_json(inspection.space)
    fields["space_digest"] = space.digest()
    commit_round(store, draft_round(fields, [], None))
    keep_spec(store, RUN, SPEC)
    keep_space(store, RUN, space)
    return store


def reduced(store: Store, candidate: int | None = 2, *, complete: bool = True, refit_scorer: Any = "score") -> None:
    best = {
        "candidate": candidate,
        "refit": refit_scorer,
        "ranked_by": "score",
        "mean_test_score": 0.96,
        "std_test_score": 0.01,
        "folds_used": 5,
    }
    summary = {"complete": complete, "best": None if candidate is None else best}
    store.put(Layout.view(RUN, "best.json"), json.dumps(summary).encode())


def test_the_model_is_that_of_grid_search(store: Store) -> None:
    reduced(store)
    answer = refit(store, RUN)
    X, y = load_iris(return_X_y=True)
    reference = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [3]}).fit(X, y).best_estimator_
    model = joblib.load(answer["model"])
    assert answer["reason"] is None
    assert model.get_params() == reference.get_params()
    assert model.predict_proba(X).tobytes() == reference.predict_proba(X).tobytes()
    assert model.tree_.threshold.tobytes() == reference.tree_.threshold.tobytes()
    assert json.loads(store.get(Layout.view(RUN, "best.json")))["model"] == MODEL


def test_the_card_says_what_loading_trusts(store: Store) -> None:
    reduced(store)
    model = Path(refit(store, RUN)["model"])
    card = json.loads(store.get(Layout.view(RUN, "model/card.json")))
    assert card["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert card["trusts"] == ["joblib", "numpy", "scipy", "sklearn"]
    assert card["classes"] == [0, 1, 2] and len(card["features"]) == 4 and card["versions"]["numpy"] == np.__version__
    page = store.get(Layout.view(RUN, README)).decode()
    assert "joblib.load" in page and "runs code from the file" in page


def test_a_second_refit_fits_nothing(store: Store) -> None:
    reduced(store)
    first = refit(store, RUN)
    assert refit(store, RUN) == {"model": first["model"], "reason": None, "seconds": 0.0}
    reduced(store, 0)
    assert refit(store, RUN)["seconds"] > 0
    assert joblib.load(first["model"]).max_depth == 1


@pytest.mark.parametrize(
    ("candidate", "options", "reason"),
    [
        (2, {"complete": False}, "incomplete"),
        (None, {}, "every candidate failed"),
        (2, {"refit_scorer": None}, "refit: false"),
    ],
)
def test_no_model_without_a_winner(candidate: int | None, options: dict[str, Any], reason: str, store: Store) -> None:
    reduced(store, candidate, **options)
    answer = refit(store, RUN)
    assert answer["model"] is None and reason in answer["reason"]
    assert not store.exists(Layout.view(RUN, MODEL))


def test_a_run_without_results_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError):
        refit(store, RUN)


def test_a_model_that_is_there_is_named_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced(store)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_note_model", lambda *_: None)  # killed between the card and best.json
        refit(store, RUN)
    assert "model" not in json.loads(store.get(Layout.view(RUN, "best.json")))
    assert refit(store, RUN)["seconds"] == 0.0
    assert json.loads(store.get(Layout.view(RUN, "best.json")))["model"] == MODEL


def test_damaged_data_are_not_learned(store: Store) -> None:
    reduced(store)
    (path,) = Path(store.url).glob("datasets/*/X.npy")
    body = bytearray(path.read_bytes())
    body[500] ^= 1
    path.write_bytes(body)
    with pytest.raises(DataError, match=r"X\.npy.*xxh3_128"):
        refit(store, RUN)
    assert not store.exists(Layout.view(RUN, MODEL))


@pytest.mark.parametrize("kind", [ValueError, TypeError, RuntimeError])
def test_an_estimator_that_writes_gets_a_copy(
    kind: type[Exception], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = DecisionTreeClassifier.fit

    def write(self: Any, X: Any, y: Any) -> Any:
        if not X.flags.writeable:
            raise kind("assignment destination is read-only")
        return fit(self, X, y)

    monkeypatch.setattr(DecisionTreeClassifier, "fit", write)
    reduced(store)
    assert refit(store, RUN)["reason"] is None


def test_a_model_that_cannot_be_stored_costs_no_results(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = DecisionTreeClassifier.fit

    def fit_and_hold_a_lambda(self: Any, X: Any, y: Any) -> Any:
        self.secret_ = lambda: 1
        return fit(self, X, y)

    monkeypatch.setattr(DecisionTreeClassifier, "fit", fit_and_hold_a_lambda)
    reduced(store)
    answer = refit(store, RUN)
    assert answer["model"] is None
    assert "could not be stored" in answer["reason"]
