"""The prepare step: check a spec, store its data and splits, and tell what planning needs to know."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from containers.data.dataset import Dataset, ensure_dataset, open_dataset
from containers.data.splits import Splits, ensure_splits
from containers.scikit.checks import Problem, check_entries
from containers.scikit.freeze import FreezeError, freeze
from containers.scikit.scoring import Scoring, make_scoring
from containers.scikit.seeds import Draw, Shapes, find_draws
from containers.scikit.shapes import variants
from containers.scikit.targets import (
    Roster,
    check_kinds,
    check_methods,
    check_pairwise,
    check_score_method,
    check_scorers,
    check_target,
    check_weights,
    missing_value_warnings,
)
from jobspec.engine import Engine, current_engine
from jobspec.errors import NotFoundError, SpecError
from jobspec.grammar import problems
from jobspec.grammar.load import LoadedSpec
from jobspec.grammar.spec import CvSpec, RandomSearch, Spec
from jobspec.grammar.values import digest, encode
from jobspec.search.candidates import FrozenSpace
from jobspec.search.inspection import Inspection, Manifest
from jobspec.search.memo import PrepareOptions, is_settled, memo_key, recall, remember, source_path
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

__all__ = ["PrepareOptions", "prepare"]

MAX_CLASSES = 1000
"""Classes and their counts are told up to here; a target with more is hardly a class."""


@dataclass(frozen=True)
class Checked:
    """A spec that has passed the checks which need no data.

    ``space`` is final, unless the spec is a random search without a seed.
    """

    space: FrozenSpace
    roster: Roster
    scoring: Scoring


def prepare(loaded: LoadedSpec, store: Store, options: PrepareOptions, engine: Engine | None = None) -> Inspection:
    """Check a spec against its data and store what its cells will read; idempotent.

    The second call on the same spec, file, engine and options answers from a memo. Nothing is written to the store
    before all checks that need no data have passed.

    Args:
        loaded: the spec.
        store: where data, splits and the memo go.
        options: what the command line adds.
        engine: what the tasks will compute with, where that is not what computes here.

    Raises:
        SpecError: something in the spec cannot be run as it is written; with places in the file.
        DataError: the data cannot be read exactly, or do not fit the candidates.
        LimitError: more folds than ``options.max_folds``.
        NotFoundError: the libraries here are not those of ``engine``.
    """
    own = current_engine(loaded.spec.numerics or options.numerics, loaded.spec.identity())
    if engine is not None:
        _refuse_other_libraries(own, engine)
    engine = engine or own
    known = recall(loaded, store, engine, options)
    if known is not None:
        return known
    key = memo_key(loaded, engine, options)
    checked = check_without_data(loaded)
    inspection = _inspect(loaded, store, options, engine, checked)
    path = source_path(loaded.spec.data, loaded.folder)
    if key is not None and (path is None or is_settled(path)) and key == memo_key(loaded, engine, options):
        remember(key, store, inspection)
    return inspection


def _refuse_other_libraries(own: Engine, planned: Engine) -> None:
    """Refuse to draw splits, parameters and checks for tasks whose libraries could give others.

    Python, the C library and the CPU may differ: they change last bits of scores, and nothing that is decided here.
    """
    if own.packages != planned.packages:
        names = [name for name in planned.packages if own.packages.get(name) != planned.packages[name]]
        here = ", ".join(f"{name} {own.packages.get(name, 'is missing')}" for name in names)
        there = ", ".join(f"{name} {planned.packages[name]}" for name in names)
        install = " ".join(f"{name}=={planned.packages[name]}" for name in names)
        raise NotFoundError(
            f"The spec is prepared with {here} here, its tasks would compute with {there}. Install the same here (`pip "
            f"install {install}`), make an image of the versions here (`submit image build`, `submit image push`), or "
            "name data by an s3:// URL, which are then prepared in the image."
        )


def check_without_data(loaded: LoadedSpec) -> Checked:
    """Find every mistake that can be found without data: names, ranges, weights, kinds.

    Raises:
        SpecError: with one line for each mistake.
    """
    spec = loaded.spec
    space = _freeze(loaded, seed=0)  # without a seed of its own, any draws show the same mistakes
    _refuse(loaded, check_entries(space.entries, isinstance(spec.search, RandomSearch)))
    roster = Roster(tuple(tuple(variants(entry)) for entry in space.entries))
    scoring = make_scoring(spec.scoring)
    found = [*check_kinds(roster, spec.cv), *check_pairwise(roster), *check_score_method(roster, scoring)]
    _refuse(loaded, [*found, *(check_weights(roster) if spec.data.weights else [])])
    return Checked(space, roster, scoring)


def _freeze(loaded: LoadedSpec, seed: int | None) -> FrozenSpace:
    try:
        return freeze(loaded.spec, seed).space
    except FreezeError as error:
        _refuse(loaded, [Problem(error.where, error.message)])
        raise


def _refuse(loaded: LoadedSpec, found: Sequence[Problem]) -> None:
    collected = problems.Problems(loaded.locations)
    for problem in found:
        collected.add(problems.Problem(problem.where, problem.text))
    collected.raise_any()


def _inspect(loaded: LoadedSpec, store: Store, options: PrepareOptions, engine: Engine, checked: Checked) -> Inspection:
    spec, roster = loaded.spec, checked.roster
    manifest = ensure_dataset(store, spec.data, loaded.folder, extra_columns(spec))
    dataset = open_dataset(store, manifest)
    check_target(roster, dataset.y, manifest.target)
    _refuse(loaded, check_scorers(roster, checked.scoring, dataset.y))
    lacking, notes = check_methods(roster, checked.scoring, dataset.y)
    _refuse(loaded, lacking)
    splits = _ensure_splits(loaded, store, dataset, roster, options)
    seed = _seed(spec, store, manifest)
    space = checked.space if seed is None else _freeze(loaded, seed)
    draws = _find_draws(space, dataset, splits)
    missing = missing_value_warnings(roster, _count_missing(dataset) > 0)
    warnings = [*manifest.warnings, *splits.warnings, *notes, *missing, *_unseeded_notes(draws)]
    return _describe(engine, dataset, splits, replace(checked, space=space), draws, warnings)


def extra_columns(spec: Spec) -> tuple[str, ...]:
    """Return the columns that only the splitter reads: the one of a PredefinedSplit."""
    if isinstance(spec.cv, CvSpec) and spec.cv.kind == "PredefinedSplit":
        return (str(spec.cv.params["test_fold"]),)
    return ()


def _ensure_splits(
    loaded: LoadedSpec, store: Store, dataset: Dataset, roster: Roster, options: PrepareOptions
) -> Splits:
    kinds = roster.classifiers()
    try:
        return ensure_splits(
            store,
            dataset.manifest,
            dataset,
            loaded.spec.cv,
            next(iter(kinds)) if len(kinds) == 1 else None,
            allow_small_classes=options.allow_small_classes,
            max_folds=options.max_folds,
        )
    except SpecError as error:
        raise SpecError(f"{loaded.locations.of(('cv',))}: {error.message}") from None


def _seed(spec: Spec, store: Store, manifest: Manifest) -> int | None:
    """Return the seed of an unseeded random search: drawn once for this spec and dataset, then kept."""
    if not isinstance(spec.search, RandomSearch) or spec.search.random_state is not None:
        return None
    key = Layout.source("seed-" + digest({"spec": spec.identity(), "dataset": manifest.dataset_id}))
    store.create(key, json.dumps({"format_version": 1, "seed": secrets.randbits(32)}).encode())
    return int(json.loads(store.get(key))["seed"])


def _count_missing(dataset: Dataset) -> int:
    """Return the number of NaN in X; an old manifest does not hold it, so that X must be read."""
    known = dataset.manifest.num_missing
    return int(np.isnan(dataset.X).sum()) if known is None else known


def _find_draws(space: FrozenSpace, dataset: Dataset, splits: Splits) -> dict[int, list[Draw]]:
    """Return what draws from the global generators, by entry, on any fold or on all rows (as `refit` does)."""
    rows = {*map(splits.train_rows, range(splits.num_splits)), dataset.manifest.num_rows}
    shapes = Shapes(tuple(rows), dataset.num_features, _count_missing(dataset))
    found = {index: find_draws(entry, shapes) for index, entry in enumerate(space.entries)}
    return {index: draws for index, draws in found.items() if draws}


def _unseeded_notes(draws: Mapping[int, list[Draw]]) -> Iterator[str]:
    for index, found in draws.items():
        what = ", ".join(dict.fromkeys(draw.text() for draw in found))
        remedies = ". ".join(dict.fromkeys(draw.remedy() for draw in found))
        yield (
            f"candidates[{index}]: {what}: random_state is not set, so the scores are not those that GridSearchCV "
            f"would give, and no other run can use them. A resumed run does give the same. {remedies}."
        )


def _describe(
    engine: Engine,
    dataset: Dataset,
    splits: Splits,
    checked: Checked,
    draws: Mapping[int, list[Draw]],
    warnings: Sequence[str],
) -> Inspection:
    is_classification = True in checked.roster.classifiers()
    classes, counts = _count_classes(dataset) if is_classification else (None, None)
    manifest = dataset.manifest
    return Inspection(
        dataset_id=manifest.dataset_id,
        split_id=splits.split_id,
        engine=engine,
        num_rows=manifest.num_rows,
        num_features=dataset.num_features,
        num_splits=splits.num_splits,
        train_rows=tuple(map(splits.train_rows, range(splits.num_splits))),
        test_rows=tuple(map(splits.test_rows, range(splits.num_splits))),
        row_bytes=dataset.row_bytes,
        cv_text=splits.text,
        is_classifier=is_classification,
        classes=classes,
        class_counts=counts,
        space=checked.space.to_json(),
        unseeded_entries=tuple(draws),
        scorers=checked.scoring.names,
        score_kind="single" if checked.scoring.is_single else "multi",
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _count_classes(dataset: Dataset) -> tuple[tuple[Any, ...] | None, tuple[int, ...] | None]:
    classes, counts = np.unique(dataset.y, return_counts=True)
    if len(classes) > MAX_CLASSES:
        return None, None
    return tuple(encode(value) for value in classes.tolist()), tuple(counts.tolist())
