"""A backend whose steps are pretended in this process: real logs in a real store, no fit, no process, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobspec.engine import Engine, Numerics, current_engine
from jobspec.errors import FoldfleetError, InterruptedRun
from jobspec.grammar.load import parse
from jobspec.runs.results import read_rows
from jobspec.runs.rounds import RoundPlan, load_round, load_space, load_tasks, require_round
from jobspec.runs.rows import Row
from jobspec.runs.tasklog import TaskLog
from jobspec.search.candidates import CandidateSpace
from jobspec.search.identity import make_cell_key
from jobspec.search.inspection import Inspection
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.backends.base import ArrayRequest, Ending, Request
from submitter.search import Search, make_search

Judge = Callable[[int, int], str | None]
"""(candidate, split) -> the state its row gets, or None: no row, as if the work ended before."""


def everything(_candidate: int, _split: int) -> str | None:
    return "ok"


def make_pretended_search(grid: str = "[1, 2, 3]", scoring: str = "accuracy", num_splits: int = 2) -> Search:
    text = f"""
name: pretended
data: {{builtin: iris}}
cv: {num_splits}
candidates: [{{estimator: sklearn.svm.SVC, grid: {{C: {grid}}}}}]
scoring: {scoring}
"""
    loaded = parse(text.encode(), "spec.yaml")
    values = json.loads(grid)
    space = {
        "format_version": 1,
        "entries": [
            {
                "name": None,
                "definition": {"$estimator": "sklearn.svm.SVC", "params": {}},
                "spaces": [[["C", values]]],
                "draws": [],
            }
        ],
    }
    inspection = Inspection(
        dataset_id="d-1",
        split_id="s-1",
        engine=current_engine("native", loaded.spec.identity()),
        num_rows=150,
        num_features=4,
        num_splits=num_splits,
        train_rows=(100,) * num_splits,
        test_rows=(50,) * num_splits,
        row_bytes=40,
        cv_text=str(num_splits),
        is_classifier=True,
        space=space,
        scorers=("score",),
        score_kind="single",
    )
    return make_search(loaded, inspection)


@dataclass
class PretendBackend:
    """Writes rows as ``judge`` says when it is waited for; ``calls`` tells what was asked of it, in order.

    ``during_work`` runs before the rows are written; an exception from it comes out of `wait`.
    """

    store: Store
    judge: Judge = everything
    during_work: Callable[[], None] = lambda: None
    name: str = "local"
    workers: int = 1
    survives: bool = False
    default_numerics: Numerics = "native"
    image: str | None = None
    calls: list[str] = field(default_factory=list)
    _sent: list[ArrayRequest] = field(default_factory=list)

    def tasks_per_fold(self, num_splits: int) -> int:
        return 4

    def prepares_here(self) -> bool:
        return True

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        return None

    def bind(self, after: ArrayRequest, handles: Sequence[dict[str, Any]]) -> ArrayRequest:
        return after

    def engine(self, identity: object) -> Engine:
        return current_engine("native", identity)

    def build_request(self, plan: RoundPlan) -> Request:
        arrays = tuple(
            ArrayRequest(f"a{j}", j, array.first_task, array.size, (plan.run_id, str(plan.round)), {})
            for j, array in enumerate(plan.array_plans())
        )
        return Request(self.name, plan.run_id, plan.round, arrays)

    def warm(self) -> None:
        self.calls.append("warm")

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        self.calls.append(arguments[0])
        run_id = arguments[arguments.index("--run") + 1]
        return self._reduce(run_id) if arguments[0] == "reduce" else self._refit(run_id)

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        self.calls.append("submit")
        self._sent.append(array)
        return {"backend": self.name}

    def wait(self, seconds: float) -> list[Ending] | None:
        self.during_work()
        endings = [Ending(array.name, self._work(array)) for array in self._sent]
        self._sent.clear()
        return endings

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")

    def _work(self, array: ArrayRequest) -> FoldfleetError | None:
        run_id, number = array.command
        plan = load_round(self.store, run_id, int(number))
        space = CandidateSpace(load_space(self.store, run_id))
        complete = True
        for task_number, task in enumerate(load_tasks(self.store, plan)):
            log = TaskLog(self.store, run_id, plan.round, task_number, "attempt")
            rows = []
            for family in task.families():
                for candidate in family:
                    state = self.judge(candidate, task.split)
                    complete = complete and state is not None
                    if state is not None:
                        rows.append(_row(candidate, task.split, make_cell_key(space, candidate, None), state))
            log.append(rows, (), {"host": "here", "pid": 1, "log": None})
        return None if complete else InterruptedRun("asked to stop")

    def _reduce(self, run_id: str) -> dict[str, Any]:
        plan = require_round(self.store, run_id)
        states = read_rows(self.store, plan).table["state"].to_pylist()
        lost = states.count("lost")
        done = len(states) - lost
        best = {"candidate": 0, "estimator": "SVC(C=1)", "params": {"C": 1}, "mean_test_score": 0.5}
        best["ranked_by"] = "score"
        view = {
            "run_id": run_id,
            "round": plan.round,
            "complete": done == plan.num_cells,
            "cells": {
                "total": plan.num_cells,
                "done": done,
                "failed": states.count("fit_error"),
                "lost": lost,
                "missing": plan.num_cells - done - lost,
            },
            "best": best if states.count("ok") else None,
            "first_error": None,
            "num_warnings": 0,
        }
        for name in ("cv_results.parquet", "cv_results.csv"):
            self.store.put(Layout.view(run_id, name), b"")
        self.store.put(Layout.view(run_id, "best.json"), json.dumps(view).encode())
        return view

    def _refit(self, run_id: str) -> dict[str, Any]:
        key = Layout.view(run_id, "best.json")
        self.store.put(Layout.view(run_id, "model/model.joblib"), b"")
        self.store.put(key, json.dumps(json.loads(self.store.get(key)) | {"model": "model/model.joblib"}).encode())
        return {"model": "model/model.joblib", "reason": None, "seconds": 0.0}


def _row(candidate: int, split: int, key: str, state: str) -> Row:
    return Row(
        candidate=candidate,
        split=split,
        key=key,
        state=state,  # type: ignore[typeddict-item]
        scores={"test_score": candidate / 10},
        fit_s=0.5,
        score_s=0.25,
        cpu_s=0.75,
        peak_memory_bytes=1,
        attempt="attempt",
        host="here",
        kernel="k",
        shared_fit=False,
        score_digest=f"{candidate}",
        error=None,
        num_warnings=0,
        warning=None,
    )
