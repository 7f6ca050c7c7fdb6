"""Fit the best candidate on all rows and store it with a card that says how to load it and what it trusts."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import is_classifier

from containers.data.dataset import Dataset, load_manifest, open_dataset, verify
from containers.scikit.build import make_estimator, weight_parameter
from containers.scikit.cell import describe_error, wants_to_write
from containers.scikit.meters import warning_log
from containers.scikit.seeding import make_seed, seed_generators
from jobspec.errors import FoldfleetError, NotFoundError
from jobspec.grammar.values import encode, plain
from jobspec.runs.rounds import RoundPlan, planned_space, require_round
from jobspec.runs.views import BEST, decode_best, encode_best
from jobspec.search.candidates import Candidate, CandidateSpace, describe
from jobspec.search.identity import make_cell_key
from jobspec.search.inspection import Manifest
from jobspec.stores.base import Store
from jobspec.stores.folder import explained
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)

CARD_VERSION = 1
"""Raise when a field of ``card.json`` changes its meaning."""

MODEL = "model/model.joblib"
CARD = "model/card.json"
README = "model/README.md"

OWN_PACKAGES = ("joblib", "numpy", "scipy", "sklearn")


@dataclass(frozen=True)
class Winner:
    """The candidate to refit, with the key that seeds it."""

    plan: RoundPlan
    space: CandidateSpace
    index: int
    summary: dict[str, Any]

    @property
    def candidate(self) -> Candidate:
        """Return the candidate itself."""
        return self.space.candidate(self.index)

    def seed(self) -> None:
        """Seed the global generators as before any of its cells, for a fold of its own."""
        salt = self.plan.run_id if self.candidate.entry_index in self.plan.unseeded_entries else None
        seed_generators(make_seed(make_cell_key(self.space, self.index, salt), "refit"))


def refit(store: Store, run_id: str) -> dict[str, Any]:
    """Fit the best candidate as GridSearchCV's ``refit`` does, and write ``views/model/``; idempotent.

    Returns:
        ``model``: where the fitted estimator lies, or None; ``reason``: why there is none; ``seconds`` of the fit.

    Raises:
        NotFoundError: the run has not been reduced yet.
        DataError: a stored block or the candidates are damaged; every digest is compared before the fit.
    """
    plan = require_round(store, run_id)
    body = store.get_or_none(Layout.view(run_id, BEST))
    summary = {} if body is None else decode_best(body)
    if not summary:
        raise NotFoundError(f"The run {run_id} has no results yet. Finish it first: `submit resume {run_id}`.")
    if (reason := _why_not(summary)) is not None:
        return {"model": None, "reason": reason, "seconds": 0.0}
    winner = Winner(plan, CandidateSpace(planned_space(store, plan)), int(summary["best"]["candidate"]), summary)
    if _is_done(store, winner):
        # A crash after the card, or another reduce, leaves a best.json that does not name the model.
        _note_model(store, winner)
        return {"model": _place(store, run_id), "reason": None, "seconds": 0.0}
    return _fit_and_write(store, winner)


def _why_not(summary: dict[str, Any]) -> str | None:
    """Say why a run has no model, or None if it gets one."""
    if not summary["complete"]:
        return "the table is incomplete: a missing cell could change the winner"
    if summary["best"] is None:
        return "every candidate failed"
    return None if summary["best"]["refit"] else "the spec says `refit: false`"


def _is_done(store: Store, winner: Winner) -> bool:
    run_id = winner.plan.run_id
    body = store.get_or_none(Layout.view(run_id, CARD))
    card = {} if body is None else json.loads(body)
    return card.get("candidate") == winner.index and store.size(Layout.view(run_id, MODEL)) == card["bytes"]


def _fit_and_write(store: Store, winner: Winner) -> dict[str, Any]:
    manifest = load_manifest(store, winner.plan.dataset_id)
    dataset = open_dataset(store, manifest)
    verify(dataset)
    start = time.perf_counter()
    with warning_log() as warned:
        try:
            estimator = _fit(winner, dataset)
        except BaseException as error:  # noqa: BLE001  # a refit that raises costs the model, not the run
            return _failed(winner, "fitted on all rows", error, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    card = make_card(winner, manifest, estimator) | {"refit_s": seconds, "num_warnings": warned.count}
    try:
        _write(store, winner.plan.run_id, estimator, card)
    except (FoldfleetError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  # what pickling raises depends on the estimator
        return _failed(winner, "stored", error, seconds)
    _note_model(store, winner)
    return {"model": _place(store, winner.plan.run_id), "reason": None, "seconds": seconds}


def _failed(winner: Winner, what: str, error: BaseException, seconds: float) -> dict[str, Any]:
    log.warning("refit_failed run=%s error=%s", winner.plan.run_id, describe_error(error))
    reason = f"the best candidate could not be {what}: {describe_error(error)}"
    return {"model": None, "reason": reason, "seconds": seconds}


def _fit(winner: Winner, dataset: Dataset) -> Any:
    """Fit on the read-only maps, and on a copy if the estimator wants to write into its input."""
    try:
        return _fit_on(winner, dataset.X, dataset.y, dataset.weights)
    except Exception as error:
        if not wants_to_write(describe_error(error)):
            raise
    weights = None if dataset.weights is None else dataset.weights.copy()
    return _fit_on(winner, dataset.X.copy(), dataset.y.copy(), weights)


def _fit_on(winner: Winner, X: Any, y: Any, weights: Any) -> Any:
    winner.seed()
    estimator = make_estimator(winner.candidate)
    return estimator.fit(X, y, **({} if weights is None else {weight_parameter(estimator): weights}))


# --- the card -----------------------------------------------------------------------------------------------


def make_card(winner: Winner, manifest: Manifest, estimator: Any) -> dict[str, Any]:
    """Return what a person needs to know before loading the model."""
    candidate, best, plan = winner.candidate, winner.summary["best"], winner.plan
    return {
        "format_version": CARD_VERSION,
        "run_id": plan.run_id,
        "candidate": winner.index,
        "estimator": describe(candidate),
        "params": {name: plain(value) for name, value in candidate.assignments.items()},
        "scores": {
            "ranked_by": best["ranked_by"],
            "mean_test_score": best["mean_test_score"],
            "std_test_score": best["std_test_score"],
            "folds": best["folds_used"],
            "candidates": plan.num_candidates,
        },
        "classes": _classes(estimator),
        "features": [column for block in manifest.blocks for column in block.columns],
        "dtype": manifest.blocks[0].dtype,
        "target": manifest.target,
        "num_rows": manifest.num_rows,
        "dataset_id": manifest.dataset_id,
        "versions": {"python": plan.engine.python, **plan.engine.packages, "joblib": joblib.__version__},
        "trusts": packages_of(estimator),
        "own_modules": plan.engine.modules,
    }


def packages_of(estimator: Any) -> list[str]:
    """Return the top-level packages whose code loading the model imports: those of every estimator inside it."""
    packages = set(OWN_PACKAGES)
    pending, seen = [estimator], set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, list | tuple):
            pending.extend(item)
        elif hasattr(item, "get_params") and not isinstance(item, type):
            packages.add(type(item).__module__.partition(".")[0])
            pending.extend(vars(item).values())
    return sorted(packages)


def _classes(estimator: Any) -> list[Any] | None:
    if not is_classifier(estimator) or not hasattr(estimator, "classes_"):
        return None
    return [encode(value) for value in np.asarray(estimator.classes_).tolist()]


def describe_model(card: dict[str, Any]) -> str:
    """Return the card as a page for people."""
    scores, modules = card["scores"], [name for name in card["trusts"] if name not in OWN_PACKAGES]
    own = f", and of your own {', '.join(modules)}" if modules else ""
    versions = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    classes = "" if card["classes"] is None else f"* classes: {', '.join(map(str, card['classes'][:20]))}\n"
    features = ", ".join(card["features"][:20]) + (", ..." if len(card["features"]) > 20 else "")
    return f"""# {card["estimator"]}

The best of {scores["candidates"]} candidates of run `{card["run_id"]}`, fitted on all {card["num_rows"]} rows.

* cross-validated {scores["ranked_by"]}: {scores["mean_test_score"]:.6g} +/- {scores["std_test_score"]:.2g}
  over {scores["folds"]} folds. The best of many candidates is a little optimistic: judge it on rows it has not seen.
* target: {card["target"]}
{classes}* features, in this order, as a C-ordered {card["dtype"]} array without names: {features}
* made with {versions}; load it with the same versions

```python
import joblib
model = joblib.load("model.joblib")
model.predict(X)
```

What loading trusts: joblib runs code from the file. Load it only if you trust whoever could write it. This file needs
the code of {", ".join(name for name in card["trusts"] if name in OWN_PACKAGES)}{own}; `card.json` holds its SHA-256.
"""


def _write(store: Store, run_id: str, estimator: Any, card: dict[str, Any]) -> None:
    """Write the model between two versions of its card: a note that it is being written, and the card itself.

    Each only if nobody has replaced it since it was looked at, else all is written again: so two refits at once, or a
    kill at any moment, never leave a card beside another one's model.
    """
    model, place = Layout.view(run_id, MODEL), Layout.view(run_id, CARD)
    while True:
        tags = {key: store.tag(key) for key in (model, place)}
        note = json.dumps({"writing": uuid.uuid4().hex}).encode()
        noted = store.tagged(place) if store.swap(place, note, tags[place]) else None
        if noted is None or noted[0] != note:
            continue
        with store.staging() as folder:
            path = folder / "model.joblib"
            with explained(path, 0):
                joblib.dump(estimator, path)
            told = card | {"sha256": _sha256(path), "bytes": path.stat().st_size}
            if not store.swap_file(model, path, tags[model]):
                continue
        store.put(Layout.view(run_id, README), describe_model(told).encode())
        if store.swap(place, json.dumps(told, indent=1).encode(), noted[1]):
            return


def _note_model(store: Store, winner: Winner) -> None:
    """Say in best.json where the model lies, unless it names another winner by now."""
    key = Layout.view(winner.plan.run_id, BEST)
    while (found := store.tagged(key)) is not None:
        summary = decode_best(found[0])
        is_winner = summary.get("complete") and (summary["best"] or {}).get("candidate") == winner.index
        if not is_winner or summary.get("model") == MODEL:
            return
        if store.swap(key, encode_best(summary | {"model": MODEL}), found[1]):
            return


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _place(store: Store, run_id: str) -> str:
    key = Layout.view(run_id, MODEL)
    path = store.local_path(key)
    return str(path) if path is not None else f"{store.url}/{key}"
