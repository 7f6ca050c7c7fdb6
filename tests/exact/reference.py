"""What "equal to GridSearchCV" means, as code: the reference, ours in one process, and the comparison of both."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from ruamel.yaml import YAML
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import Pipeline

from containers.data.dataset import load_manifest
from containers.data.foldcache import FoldCache, map_fold
from containers.prepare import PrepareOptions, prepare
from containers.scikit.build import make_estimator
from containers.scikit.cell import CellRunner
from containers.scikit.scoring import make_scoring
from containers.views.table import aggregate
from jobspec.grammar.load import parse
from jobspec.runs.rows import Row
from jobspec.search.candidates import CandidateSpace, FrozenSpace
from jobspec.search.inspection import Inspection
from jobspec.stores.base import open_store

Entry = tuple[Any, Mapping[str, Any] | Sequence[Mapping[str, Any]]]
"""An estimator and its grid (for a random search: its distributions), as a person would write them in Python."""


@dataclass(frozen=True)
class Table:
    """A small table: what the spec's data file holds, and what GridSearchCV gets."""

    X: NDArray[np.float64]
    y: NDArray[Any]
    weights: NDArray[np.float64] | None = None
    groups: NDArray[Any] | None = None
    test_fold: NDArray[np.int64] | None = None

    def columns(self) -> dict[str, NDArray[Any]]:
        sides = {"w": self.weights, "g": self.groups, "fold": self.test_fold}
        features = {f"x{i}": self.X[:, i] for i in range(self.X.shape[1])}
        return features | {"label": self.y} | {name: side for name, side in sides.items() if side is not None}

    def write(self, path: Path) -> None:
        pq.write_table(pa.table(self.columns()), path)


@dataclass(frozen=True)
class Search:
    """One search said twice: ``candidates`` and ``cv`` in the spec's words, ``entries`` and ``splitter`` in Python."""

    table: Table
    candidates: Sequence[Mapping[str, Any]]
    entries: Sequence[Entry]
    cv: Any = 3
    splitter: Any = 3
    scoring: Any = None
    scorers: Any = None
    train_score: bool = False
    random: Mapping[str, Any] | None = None

    def spec(self) -> dict[str, Any]:
        data = {"path": "table.parquet", "target": "label"}
        if self.table.weights is not None:
            data["weights"] = "w"
        if self.table.groups is not None:
            data["groups"] = "g"
        spec: dict[str, Any] = {
            "name": "exact",
            "data": data,
            "cv": self.cv,
            "candidates": list(self.candidates),
            "refit": False,
            "train_score": self.train_score,
        }
        if self.scoring is not None:
            spec["scoring"] = self.scoring
        if self.random is not None:
            spec["search"] = {"kind": "random", **self.random}
        return spec


@dataclass
class Results:
    """Columns of `cv_results_` (scores only) and the unfitted estimator of every candidate."""

    columns: dict[str, NDArray[Any]]
    estimators: list[Any]
    rows: list[Row] = field(default_factory=list)
    inspection: Inspection | None = None


def run_reference(search: Search) -> Results:
    """Run scikit-learn's own search over a one-step pipeline, so that one call holds all entries."""
    parts = [_search_entries(search)] if search.random is None else [_search_random(search, e) for e in search.entries]
    estimators = [estimator for part in parts for estimator in part.estimators]
    if len(parts) == 1:
        return parts[0]
    names = [name for name in parts[0].columns if name.startswith("split")]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in names}
    return Results(columns, estimators)


def _search_entries(search: Search) -> Results:
    grids = [
        {"model": [estimator], **{f"model__{name}": values for name, values in space.items()}}
        for estimator, spaces in search.entries
        for space in ([spaces] if isinstance(spaces, Mapping) else spaces)
    ]
    base = Pipeline([("model", search.entries[0][0])])
    return _fit(search, base, GridSearchCV(base, grids, **_options(search)), "model__")


def _search_random(search: Search, entry: Entry) -> Results:
    estimator, distributions = entry
    random: Mapping[str, Any] = search.random or {}
    return _fit(search, estimator, RandomizedSearchCV(estimator, distributions, **random, **_options(search)), "")


def _options(search: Search) -> dict[str, Any]:
    scorers = search.scoring if search.scorers is None else search.scorers
    return {
        "cv": search.splitter,
        "scoring": scorers,
        "refit": False,
        "n_jobs": 1,
        "return_train_score": search.train_score,
        "error_score": np.nan,
    }


def _fit(search: Search, base: Any, reference: Any, prefix: str) -> Results:
    table = search.table
    weights = {}
    if table.weights is not None:
        weights = {_weight_name(search.entries[0][0], prefix): table.weights}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        X = np.ascontiguousarray(table.X, dtype=np.float64)
        reference.fit(X, table.y, groups=table.groups, **weights)
    results = reference.cv_results_
    columns = {name: results[name] for name in results if "_test_" in name or "_train_" in name}
    estimators = [clone(base).set_params(**clone(params, safe=False)) for params in results["params"]]
    return Results(columns, [each.named_steps["model"] if prefix else each for each in estimators])


def _weight_name(estimator: Any, prefix: str) -> str:
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    return prefix + "sample_weight"


def run_ours(search: Search, folder: Path) -> Results:
    """Run a search through prepare, fold cache, cell runner and table, in this process."""
    search.table.write(folder / "table.parquet")
    path = folder / "spec.yaml"
    text = write_yaml(search.spec())
    path.write_bytes(text)
    loaded = parse(text, "spec.yaml", path=path)
    store = open_store(str(folder / "store"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inspection = prepare(loaded, store, PrepareOptions(allow_small_classes=True))
    space = CandidateSpace(FrozenSpace.from_json(inspection.space))
    runner = CellRunner(
        space,
        make_scoring(loaded.spec.scoring),
        train_score=search.train_score,
        use_weights=search.table.weights is not None,
        run_salt="run",
        unseeded_entries=inspection.unseeded_entries,
    )
    manifest = load_manifest(store, inspection.dataset_id)
    cache = FoldCache(folder / "cache")
    rows: list[Row] = []
    for split in range(inspection.num_splits):
        with cache.fold(store, manifest, inspection.split_id, split) as paths:
            writable = partial(map_fold, paths, writable=True)
            for index in range(len(space)):
                rows += runner.run(map_fold(paths), split, [index], writable=writable)
    columns = _tabulate(rows, len(space), inspection.num_splits)
    return Results(columns, [make_estimator(candidate) for candidate in space], rows, inspection)


def write_yaml(spec: Mapping[str, Any]) -> bytes:
    """Return a spec as a person would have written it, with `.nan` and keys of any type."""
    stream = io.BytesIO()
    yaml = YAML(typ="safe")
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the first key of a mapping says what it makes
    yaml.dump(dict(spec), stream)
    return stream.getvalue()


def _tabulate(rows: Sequence[Row], num_candidates: int, num_splits: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in rows[0]["scores"]:
        matrix = np.full((num_candidates, num_splits), np.nan)
        for row in rows:
            matrix[row["candidate"], row["split"]] = row["scores"][name]
        summary = aggregate(matrix)
        columns |= {f"split{split}_{name}": matrix[:, split] for split in range(num_splits)}
        columns |= {f"mean_{name}": summary.mean, f"std_{name}": summary.std}
        if name.startswith("test_") and summary.rank is not None:
            columns[f"rank_{name}"] = summary.rank
    return columns


def assert_equal(ours: Results, reference: Results) -> None:
    """Compare candidates with all their parameters, and every number by its bits."""
    assert len(ours.estimators) == len(reference.estimators)
    for one, other in zip(ours.estimators, reference.estimators, strict=True):
        assert same(one, other), f"{one!r} is not {other!r}"
    whole = any(name.startswith("mean_") for name in reference.columns)
    assert {name for name in ours.columns if whole or name.startswith("split")} == set(reference.columns)
    for name, values in reference.columns.items():
        assert _bits(ours.columns[name]) == _bits(values), f"{name}: {ours.columns[name]} is not {values}"


def same(one: Any, other: Any) -> bool:
    """Compare two parameter values: types and bits, estimators by class and parameters."""
    if type(one) is not type(other):
        return False
    if hasattr(one, "get_n_splits"):
        one, other = vars(one), vars(other)
    if hasattr(one, "get_params") and not isinstance(one, type):
        return same(one.get_params(deep=False), other.get_params(deep=False))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float | np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=True) and np.array_equal(np.signbit(one), np.signbit(other)))
    return bool(one == other)


def _bits(values: NDArray[Any]) -> list[Any]:
    """Return floats as their bits, every NaN as one."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return list(array.tolist())
    return list(np.where(np.isnan(array), np.nan, array).astype(np.float64).view(np.int64).tolist())
