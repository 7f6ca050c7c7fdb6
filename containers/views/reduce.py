"""The reduce step: results in, views out. It may run early and twice; views never lose a cell."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from containers.views.cv_table import Grid, make_cv_results, make_grid
from containers.views.table import Aggregate
from jobspec.errors import TryLaterError
from jobspec.grammar.load import parse
from jobspec.grammar.spec import Spec
from jobspec.grammar.values import plain
from jobspec.runs.results import RoundRows, read_rows
from jobspec.runs.rounds import RoundPlan, load_round, planned_space, planned_spec, require_round
from jobspec.runs.rows import table_to_parquet
from jobspec.runs.views import BEST, CSV, PARQUET, TABLES, Views, describe_table, encode_best, read_views
from jobspec.search.candidates import CandidateSpace, describe
from jobspec.stores.base import Store
from jobspec.stores.folder import explained
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
FILES = {"cv_results": PARQUET, "cv_results_csv": CSV, "best": BEST}

ATTEMPTS = 20
"""A reducer that loses this many races has company that does its work."""


def reduce_run(store: Store, run_id: str) -> dict[str, Any]:
    """Make the views of a run from its newest round and return a summary.

    Cells without a row are counted and named all at once, never passed over: a partial table says
    ``complete: false`` and ranks by the folds that are finished for all candidates.

    Safe to run twice at once: each view is replaced only if it still is the version that was there before the rows
    were read, else everything is read again.

    Raises:
        TryLaterError: other reducers were quicker, again and again.
    """
    for _ in range(ATTEMPTS):
        before = read_views(store, run_id)  # before any row: what another reducer writes from now on is noticed
        plan = require_round(store, run_id)
        made = _reduce_round(store, plan)
        if before.whole and before.num_done > made.summary["cells"]["done"]:
            log.info("views_kept run=%s reason=they hold more cells", run_id)
            return made.summary | _files(store, run_id)
        if not before.whole and before.is_any:
            made = _fullest(store, before, plan, made)
        if _swap_views(store, run_id, before, made):
            return made.summary | _files(store, run_id)
        log.info("views_changed run=%s: another reducer was quicker, reading again", run_id)
    raise TryLaterError(f"Other processes write the tables of {run_id} at this moment. Type the same command again.")


def _fullest(store: Store, before: Views, newest: RoundPlan, made: Made) -> Made:
    """Return the fullest table of the rounds since the one that best.json tells of.

    The tables there may be those of a reducer that died, or is not through yet, of any of these rounds. Rows only grow
    within a round, so that the fullest round holds at least what they hold.
    """
    for index in reversed(range(before.best.get("round", 0), newest.round)):
        other = _reduce_round(store, load_round(store, newest.run_id, index))
        if other.summary["cells"]["done"] > made.summary["cells"]["done"]:
            made = other
    return made


@dataclass(frozen=True)
class Made:
    """A table that is ready to be written, and what best.json will say of it."""

    table: pa.Table
    summary: dict[str, Any]


def _reduce_round(store: Store, plan: RoundPlan) -> Made:
    spec = parse(planned_spec(store, plan), "spec.yaml", allowed=plan.engine.modules).spec
    space = CandidateSpace(planned_space(store, plan))
    rows = read_rows(store, plan)
    grid = make_grid(rows.table, plan.num_candidates, plan.num_splits)
    _fold_round(store, plan, rows)
    table, summaries = make_cv_results(grid, space, plan.scorers, train_score=plan.train_score)
    return Made(table, _summary(plan, grid) | {"best": _best(spec, plan, space, summaries)})


def _fold_round(store: Store, plan: RoundPlan, rows: RoundRows) -> None:
    """Keep a complete round as one object, so that later readers need one read."""
    key = Layout.all(plan.run_id, plan.round)
    if not rows.open_tasks and plan.num_tasks > 1 and not store.exists(key):
        store.create(key, table_to_parquet(rows.table))


def _summary(plan: RoundPlan, grid: Grid) -> dict[str, Any]:
    states = np.asarray(grid.table["state"].to_pylist(), dtype=object)
    used = np.unique(grid.position[grid.finished])
    cpu_s = grid.matrix("cpu_s")
    shared = np.append(grid.table["shared_fit"].to_numpy(zero_copy_only=False).astype(bool), False)[grid.position]
    return {
        "format_version": FORMAT_VERSION,
        "run_id": plan.run_id,
        "round": plan.round,
        "complete": grid.complete,
        "cells": {
            "total": plan.num_cells,
            "done": int(grid.finished.sum()),
            "failed": int((states[used] == "fit_error").sum()),
            "lost": int(grid.lost.sum()),
            "missing": int((~grid.finished).sum() - grid.lost.sum()),
            "nan": _count_nan(plan, grid),
        },
        "missing": [
            {"split": split, "candidates": _ranges(np.flatnonzero(~grid.finished[:, split]))}
            for split in np.flatnonzero(~grid.finished.all(axis=0)).tolist()
        ],
        "divergent": int(np.sum(grid.table["divergent"].to_numpy(zero_copy_only=False))),
        "seconds": {"fit": float(np.nansum(np.where(shared, 0.0, cpu_s)))},
        "first_error": next((text for text in grid.table["error"].to_pylist() if text), None),
        "num_warnings": int(np.sum(grid.table["num_warnings"].to_numpy(zero_copy_only=False))),
    }


def _count_nan(plan: RoundPlan, grid: Grid) -> int:
    """Count the cells in which nothing raised, but a scorer itself gave NaN."""
    nan = np.zeros(grid.position.shape, dtype=bool)
    for scorer in plan.scorers:
        nan |= np.isnan(grid.matrix(f"test_{scorer}"))
    failed = np.append(np.asarray(grid.table["error"].is_valid()), True)
    return int((nan & grid.finished & ~failed[grid.position]).sum())


def _ranges(indices: NDArray[np.int64]) -> list[list[int]]:
    """Return sorted indices as ranges [first, stop), so that a million missing candidates stay readable."""
    if not len(indices):
        return []
    runs = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs]


def _best(spec: Spec, plan: RoundPlan, space: CandidateSpace, summaries: dict[str, Aggregate]) -> dict[str, Any] | None:
    """Return the first candidate of rank 1, or None where every candidate failed or none can be compared."""
    scorer = spec.refit_scorer() or plan.scorers[0]
    summary = summaries[scorer]
    if summary.rank is None or not len(summary.rank):
        return None
    index = int(np.flatnonzero(summary.rank == 1)[0])
    if np.isnan(summary.mean[index]):
        return None
    candidate = space.candidate(index)
    return {
        "candidate": index,
        "estimator": describe(candidate),
        "params": {name: plain(value) for name, value in candidate.assignments.items()},
        "refit": spec.refit_scorer(),
        "ranked_by": scorer,
        "mean_test_score": float(summary.mean[index]),
        "std_test_score": float(summary.std[index]),
        "scores": {name: float(one.mean[index]) for name, one in summaries.items()},
        "folds_used": summary.folds_used,
    }


def _swap_views(store: Store, run_id: str, before: Views, made: Made) -> bool:
    """Write the tables first and best.json last: it says what the others hold. Return False if another came between."""
    told = {}
    with store.staging() as folder:
        with explained(folder, made.table.nbytes):
            _write_parquet(made.table, folder / PARQUET)
            pyarrow.csv.write_csv(made.table, folder / CSV)
        for name in TABLES:
            told[name] = describe_table(folder / name)
            if not store.swap_file(Layout.view(run_id, name), folder / name, before.tags[name]):
                return False
    best = made.summary | {"tables": told} | _kept_model(before.best, made.summary)
    return store.swap(Layout.view(run_id, BEST), encode_best(best), before.tags[BEST])


def _kept_model(before: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    same_best = (before.get("best") or {}).get("candidate") == (summary["best"] or {}).get("candidate")
    return {"model": before["model"]} if same_best and before.get("complete") and "model" in before else {}


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _files(store: Store, run_id: str) -> dict[str, Any]:
    return {"files": {name: _place(store, run_id, file) for name, file in FILES.items()}}


def _place(store: Store, run_id: str, name: str) -> str:
    key = Layout.view(run_id, name)
    path = store.local_path(key)
    return str(path) if path is not None else f"{store.url}/{key}"
