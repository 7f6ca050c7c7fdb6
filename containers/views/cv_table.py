"""The table of a search in scikit-learn's own words: `cv_results_`, as Arrow columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.views.table import Aggregate, aggregate, aggregate_partial
from jobspec.grammar.values import class_name, plain
from jobspec.runs.rows import FINAL
from jobspec.search.candidates import CandidateSpace

Floats = NDArray[np.float64]
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class Grid:
    """Rows laid out as candidates x splits.

    ``finished`` marks the cells with a final row, ``position`` the row of each cell in the table (-1: none).
    """

    table: pa.Table
    position: NDArray[np.int64]
    finished: NDArray[np.bool_]
    lost: NDArray[np.bool_]

    @property
    def complete(self) -> bool:
        """Say whether every cell has a final row."""
        return bool(self.finished.all())

    def matrix(self, column: str) -> Floats:
        """Return a float column as candidates x splits, NaN where there is no row."""
        values = np.append(self.table[column].to_numpy(), np.nan)
        matrix: Floats = np.ascontiguousarray(values[self.position], dtype=np.float64)
        return matrix


def make_grid(table: pa.Table, num_candidates: int, num_splits: int) -> Grid:
    """Lay out the rows of a run; the first row of a cell counts."""
    candidates, splits = table["candidate"].to_numpy(), table["split"].to_numpy()
    final = np.isin(table["state"].to_numpy(zero_copy_only=False).astype(str), sorted(FINAL))
    position = np.full((num_candidates, num_splits), -1, dtype=np.int64)
    for wanted in (~final, final):  # a final row replaces a lost one
        rows = np.flatnonzero(wanted)[::-1]
        position[candidates[rows], splits[rows]] = rows
    states = np.append(final, False)
    finished = states[position]
    return Grid(table, position, finished, (position >= 0) & ~finished)


def summarize(grid: Grid, column: str) -> Aggregate:
    """Return mean, std and rank of a score column."""
    matrix = grid.matrix(column)
    return aggregate(matrix) if grid.complete else aggregate_partial(matrix, grid.finished)


def make_cv_results(
    grid: Grid, space: CandidateSpace, scorers: Sequence[str], *, train_score: bool
) -> tuple[pa.Table, dict[str, Aggregate]]:
    """Return the table of a search and the summary of each test score."""
    columns: Columns = _describe_candidates(space)
    columns |= _times(grid)
    summaries: dict[str, Aggregate] = {}
    for scorer in scorers:
        summaries[scorer] = summarize(grid, f"test_{scorer}")
        columns |= _score_columns(grid, f"test_{scorer}", summaries[scorer])
        if train_score:
            columns |= _score_columns(grid, f"train_{scorer}", summarize(grid, f"train_{scorer}"), ranked=False)
    first = summaries[scorers[0]]
    columns["folds_used"] = pa.array(np.full(len(space), first.folds_used, dtype=np.int32))
    columns |= _notes(grid)
    return pa.table(columns), summaries


def _score_columns(grid: Grid, name: str, summary: Aggregate, *, ranked: bool = True) -> Columns:
    matrix = grid.matrix(name)
    columns: Columns = {f"split{split}_{name}": _floats(matrix[:, split]) for split in range(matrix.shape[1])}
    known = summary.folds_used > 0
    columns[f"mean_{name}"] = _floats(summary.mean) if known else pa.nulls(len(matrix), pa.float64())
    columns[f"std_{name}"] = _floats(summary.std) if known else pa.nulls(len(matrix), pa.float64())
    if ranked:
        ranks = summary.rank
        columns[f"rank_{name}"] = pa.nulls(len(matrix), pa.int32()) if ranks is None else pa.array(ranks)
    return columns


def _floats(values: Floats) -> pa.Array:
    return pa.array(np.ascontiguousarray(values))


def _times(grid: Grid) -> Columns:
    """Return mean and std of the times; folds without a row do not count."""
    columns: Columns = {}
    for column, name in (("fit_s", "fit_time"), ("score_s", "score_time")):
        matrix = grid.matrix(column)
        counted = np.isfinite(matrix)
        number = np.maximum(counted.sum(axis=1), 1)
        mean = np.where(counted, matrix, 0.0).sum(axis=1) / number
        spread = np.where(counted, (matrix - mean[:, np.newaxis]) ** 2, 0.0).sum(axis=1) / number
        columns[f"mean_{name}"], columns[f"std_{name}"] = _floats(mean), _floats(np.sqrt(spread))
    return columns


def _notes(grid: Grid) -> Columns:
    """Return what a person must know of a candidate beside its scores."""
    table, position = grid.table, grid.position
    errors = [*table["error"].to_pylist(), None]
    warnings = [*table["warning"].to_pylist(), None]
    shared = np.append(table["shared_fit"].to_numpy(zero_copy_only=False).astype(bool), False)
    numbers = np.append(table["num_warnings"].to_numpy(zero_copy_only=False), 0)
    failed = sorted({split for split, row in zip(*_where_set(errors, position), strict=True)})
    columns: Columns = {
        "shared_fit": pa.array(shared[position].any(axis=1)),
        "num_warnings": pa.array(numbers[position].sum(axis=1).astype(np.int32)),
        "warning": pa.array(_first_text(warnings, position), pa.string()),
        "error": pa.array(_first_text(errors, position), pa.string()),
    }
    for split in failed:
        columns[f"split{split}_error"] = pa.array([errors[row] for row in position[:, split]], pa.string())
    return columns


def _where_set(texts: Sequence[str | None], position: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    present = np.array([text is not None for text in texts])[position]
    rows, splits = np.nonzero(present)
    return splits.tolist(), rows.tolist()


def _first_text(texts: Sequence[str | None], position: NDArray[np.int64]) -> list[str | None]:
    """Return for each candidate the first text over its splits."""
    found: list[str | None] = [None] * len(position)
    splits, candidates = _where_set(texts, position)
    for split, candidate in zip(reversed(splits), reversed(candidates), strict=True):
        found[candidate] = texts[position[candidate, split]]
    return found


def _describe_candidates(space: CandidateSpace) -> Columns:
    """Return ``estimator``, ``name`` if entries have one, ``params`` as JSON and a ``param_*`` column for each axis."""
    names: dict[int, str] = {}
    estimators: list[str] = []
    labels: list[str | None] = []
    texts: list[str] = []
    values: dict[str, list[Any]] = {}
    shown: dict[str, dict[int, Any]] = {}
    for index in range(len(space)):
        candidate = space.candidate(index)
        estimators.append(_entry_name(names, candidate.entry_index, candidate.definition))
        labels.append(candidate.entry_name)
        params = {name: _plain(shown, name, value) for name, value in candidate.assignments.items()}
        for name, value in params.items():
            values.setdefault(name, []).extend([None] * (index - len(values.get(name, []))))
            values[name].append(value)
        texts.append(json.dumps(params))
    columns: Columns = {"estimator": pa.array(estimators, pa.string())}
    if any(entry.name for entry in space.frozen.entries):
        columns["name"] = pa.array(labels, pa.string())
    for name in sorted(values):
        columns[f"param_{name}"] = param_column(values[name] + [None] * (len(space) - len(values[name])))
    return columns | {"params": pa.array(texts, pa.string())}


def _plain(shown: dict[str, dict[int, Any]], name: str, value: Any) -> Any:
    """Return a value as plain JSON; the few values of an axis are converted once each."""
    known = shown.setdefault(name, {})
    if id(value) not in known:
        known[id(value)] = (plain(value), value)  # the value is kept, so that its id stays taken
    return known[id(value)][0]


def _entry_name(names: dict[int, str], entry: int, definition: Any) -> str:
    if entry not in names:
        steps = getattr(definition, "steps", None)
        names[entry] = (
            " > ".join(class_name(getattr(step, "path", str(step))) for _, step in steps)
            if steps
            else class_name(definition.path)
        )
    return names[entry]


def param_column(values: Sequence[Any]) -> pa.Array:
    """Return a parameter's values in their own type, or as JSON text where they do not share one."""
    kinds = {type(value) for value in values if value is not None}
    arrow: Mapping[type, Callable[[], pa.DataType]] = {
        bool: pa.bool_,
        int: pa.int64,
        float: pa.float64,
        str: pa.string,
    }
    if len(kinds) == 1 and (kind := next(iter(kinds))) in arrow:
        try:
            return pa.array(values, arrow[kind]())
        except (OverflowError, pa.ArrowInvalid):
            pass  # an integer beyond 64 bits
    return pa.array(list(_as_json(values)), pa.string())


def _as_json(values: Sequence[Any]) -> Iterator[str | None]:
    for value in values:
        yield None if value is None else json.dumps(value)
