"""Answers as JSON documents: what ``--json`` prints and the printed tables are made from."""

from __future__ import annotations

import time
from typing import Any

from jobspec.errors import ExitCode
from jobspec.runs.rounds import RoundPlan
from jobspec.search.candidates import describe
from jobspec.search.inspection import Inspection
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.base import Sighting
from submitter.cli.printing import print_outcome
from submitter.cli.talk import answer
from submitter.runner import Outcome, Runner
from submitter.search import Search
from submitter.standing import RunState, Standing

PLANNED = (
    *("run_id", "candidates", "folds", "cells", "fits", "reused"),
    *("tasks", "arrays", "workers", "bytes", "fold_bytes"),
)
"""What `submit plan` tells."""


def finish(runner: Runner, search: Search, started: float, *, as_json: bool) -> int:
    """Run to the end and print the answer; exit code 1 says that some cells have no score.

    Args:
        runner: drives the run.
        search: what to compute.
        started: when the command began, on the monotonic clock.
        as_json: print one JSON object instead of tables.
    """
    outcome = runner.run(search)
    document = run_answer(runner.store, outcome, wall_s=time.monotonic() - started)
    if as_json:
        answer(document)
    else:
        print_outcome(runner.store, outcome, document)
    cells = document["cells"]
    incomplete = cells["failed"] or cells["lost"] or document["state"] != RunState.FINISHED
    return ExitCode.CELLS_FAILED if incomplete else ExitCode.OK


def run_answer(store: Store, outcome: Outcome, *, wall_s: float) -> dict[str, Any]:
    """Return the answer of `submit run` and `submit resume`; ``fits`` and ``seconds`` are this call's."""
    cells = outcome.summary["cells"]
    state = RunState.INTERRUPTED if outcome.missing_because is not None and cells.get("missing") else RunState.FINISHED
    return {
        "run_id": outcome.plan.run_id,
        "state": state.value,
        "cells": {
            "total": cells["total"],
            "done": cells["done"],
            "failed": cells["failed"],
            "lost": cells["lost"],
            "reused": outcome.reused,
            **({"missing": cells["missing"]} if cells.get("missing") else {}),
        },
        "fits": outcome.fits,
        "best": outcome.summary["best"],
        "files": files_answer(store, outcome.plan.run_id),
        "seconds": {"wall": wall_s, "fit": outcome.fit_s},
        "first_error": outcome.summary["first_error"],
        "warnings": outcome.summary["num_warnings"],
        "no_model_because": outcome.no_model_because,
        "missing": outcome.summary.get("missing", []),
        "missing_because": outcome.missing_because,
    }


def files_answer(store: Store, run_id: str) -> dict[str, str | None]:
    """Return where a run's views lie; None for those that are not there."""
    names = {
        "cv_results": "cv_results.parquet",
        "cv_results_csv": "cv_results.csv",
        "best": "best.json",
        "report": "report.html",
        "model": "model/model.joblib",
    }
    return {name: _place(store, Layout.view(run_id, file)) for name, file in names.items()}


def plan_answer(search: Search, inspection: Inspection, plan: RoundPlan, warnings: list[str]) -> dict[str, Any]:
    """Return the answer of `submit plan`; ``bytes`` are those of all rows, ``fold_bytes`` of the largest fold."""
    folds = [train + test for train, test in zip(inspection.train_rows, inspection.test_rows, strict=True)]
    return {
        "run_id": search.run_id,
        "candidates": search.num_candidates,
        "folds": search.num_splits,
        "cells": search.num_cells,
        "fits": plan.num_fits,
        "reused": plan.num_known,
        "tasks": plan.num_tasks,
        "arrays": len(plan.arrays),
        "workers": plan.workers,
        "bytes": inspection.row_bytes * inspection.num_rows,
        "fold_bytes": inspection.row_bytes * max(folds),
        "warnings": warnings,
    }


def status_answer(store: Store, standing: Standing, search: Search, sighting: Sighting | None = None) -> dict[str, Any]:
    """Return the answer of `submit status`; ``sent`` is what a backend that survives says of its requests."""
    cells = standing.cells
    hosts = {(start.get("host"), start.get("pid")): start for start in standing.starts}
    return {
        "run_id": standing.plan.run_id,
        "state": standing.state.value,
        "round": standing.plan.round,
        "cells": {"total": cells.total, "done": cells.done, "failed": cells.failed, "lost": cells.lost},
        "in_flight": 0 if standing.progress is None else standing.progress.in_flight,
        "best": best_answer(standing, search),
        "where": [{name: start.get(name) for name in ("host", "pid", "log")} for start in hosts.values()],
        "files": files_answer(store, standing.plan.run_id),
        **({} if sighting is None else {"sent": sighting.to_json()}),
    }


def best_answer(standing: Standing, search: Search) -> dict[str, Any] | None:
    """Return the winner of a finished run, or the best candidate so far."""
    if standing.progress is None:
        best: dict[str, Any] | None = (standing.view or {}).get("best")
        return best
    found = standing.progress.best
    if found is None:
        return None
    return {
        "candidate": found.candidate,
        "estimator": describe(search.space.candidate(found.candidate)),
        "mean_test_score": found.mean,
        "folds_used": found.num_folds,
    }


def _place(store: Store, key: str) -> str | None:
    if not store.exists(key):
        return None
    path = store.local_path(key)
    return str(path) if path is not None else f"{store.url}/{key}"
