"""`submit` as a person meets it: real processes, a real store, small data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Submit
from tests.e2e.gate import Gate

PLAN_KEYS = {"run_id", "candidates", "folds", "cells", "fits", "tasks", "arrays", "bytes", "reused"}
RUN_KEYS = {"run_id", "state", "cells", "fits", "best", "files", "seconds"}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_the_starter_spec_runs_as_it_stands(submit: Submit, tmp_path: Path) -> None:
    assert submit("init").returncode == 0
    validated = submit("validate", "foldfleet.yaml")
    assert validated.returncode == 0, validated.stderr
    assert "13 candidates on 5 folds, 65 cells" in validated.stdout
    done = submit("run", "foldfleet.yaml")
    assert done.returncode == 0, done.stderr
    first_row = done.stdout.splitlines()[1].split()
    assert first_row[0] == "1"
    assert "StandardScaler > SVC" in done.stdout.splitlines()[1]
    for name in ("cv_results.parquet", "cv_results.csv", "best.json", "model/model.joblib"):
        assert list((tmp_path / "foldfleet" / "runs").glob(f"*/views/{name}"))
    assert "\x1b" not in done.stdout + done.stderr  # neither colour nor animation off a terminal


def test_the_second_run_reuses_everything_without_a_helper(gate: Gate) -> None:
    first = gate.json("run", gate.spec)
    assert first.keys() >= RUN_KEYS
    assert first["cells"] == {"total": 9, "done": 9, "failed": 0, "lost": 0, "reused": 0}
    assert first["fits"] == 9
    assert all(path is None or Path(path).exists() for path in first["files"].values())
    assert first["files"]["report"] is None
    logs = sorted((Path(os.environ["FOLDFLEET_CACHE"]) / "logs").iterdir())
    second = gate.json("run", gate.spec)
    assert (second["fits"], second["cells"]["reused"], second["best"]) == (0, 9, first["best"])
    assert sorted((Path(os.environ["FOLDFLEET_CACHE"]) / "logs").iterdir()) == logs


def test_a_widened_grid_computes_only_the_new_cells(gate: Gate) -> None:
    gate.json("run", gate.spec)
    gate.write_spec(free="[0, 1, 3]")
    planned = gate.json("plan", gate.spec)
    assert (planned["cells"], planned["reused"], planned["fits"]) == (12, 9, 3)
    answer = gate.json("run", gate.spec)
    assert (answer["fits"], answer["cells"]["reused"], answer["cells"]["done"]) == (3, 9, 12)


def test_a_plan_starts_nothing_and_a_dry_run_prints_the_request(gate: Gate) -> None:
    planned = gate.json("plan", gate.spec)
    assert planned.keys() >= PLAN_KEYS
    assert (planned["candidates"], planned["folds"], planned["cells"], planned["arrays"]) == (3, 3, 9, 1)
    dry = gate.json("run", gate.spec, "--dry-run")
    assert dry["request"]["arrays"][0]["command"][-2:] == ["--first-task", "0"]
    assert dry["run_id"] == planned["run_id"]
    assert not (gate.store / "runs").exists()


def test_fresh_computes_again_and_gives_the_same_table(gate: Gate) -> None:
    first = gate.json("run", gate.spec)
    before = gate.table(first["run_id"])
    again = gate.json("run", gate.spec, "--fresh")
    assert (again["run_id"], again["fits"], again["cells"]["reused"]) == (first["run_id"], 9, 0)
    assert gate.table(first["run_id"]) == before


def test_failing_candidates_exit_1_and_everything_else_is_written(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "name: failing\ndata: {builtin: iris}\ncv: 3\n"
        "candidates:\n"
        "- {estimator: sklearn.svm.SVC, grid: {C: [1, 10]}}\n"
        "- {estimator: sklearn.neighbors.KNeighborsClassifier, grid: {n_neighbors: [1000]}}\n"
    )
    done = submit("run", "spec.yaml", "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["state"], answer["cells"]["failed"], answer["cells"]["done"]) == ("finished", 3, 9)
    assert "ValueError" in answer["first_error"]
    assert answer["best"]["candidate"] in (0, 1)
    shown = submit("run", "spec.yaml")
    assert shown.returncode == 1
    assert "3 cells; the first: ValueError" in shown.stdout
    assert submit("watch", "latest").returncode == 1


def test_results_list_and_logs_of_a_finished_run(gate: Gate) -> None:
    answer = gate.json("run", gate.spec)
    results = gate.json("results", "gated", "--top", "2")
    assert results["rows"][0]["rank"] == 1
    assert len(results["rows"]) == 2
    listed = gate.json("list")["runs"]
    assert [(run["run_id"], run["state"], run["cells"]["done"]) for run in listed] == [
        (answer["run_id"], "finished", 9)
    ]
    logs = gate.json("logs", "latest")
    assert len(logs["streams"]) == 1
    assert "parameters" in gate.call("results", "latest").stdout


def test_workers_flag_beats_environment(gate: Gate) -> None:
    assert gate.json("plan", gate.spec)["workers"] == 1  # FOLDFLEET_WORKERS
    assert gate.json("plan", gate.spec, "--workers", "5")["workers"] == 5


def test_what_estimators_print_does_not_reach_the_answer(submit: Submit, tmp_path: Path) -> None:
    spec = tmp_path / "loud.yaml"
    spec.write_text(
        "name: loud\ndata: {builtin: iris}\ncv: 2\ncandidates:\n- estimator: sklearn.neural_network.MLPClassifier\n"
        "  params: {verbose: true, max_iter: 3, random_state: 0}\n"
    )
    done = submit("run", spec, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["cells"]["done"] == 2
    assert done.stdout.count("\n") == 1


def test_a_deleted_view_is_made_again(gate: Gate) -> None:
    first = gate.json("run", gate.spec)
    for name in ("cv_results.parquet", "cv_results.csv", "best.json", "model/model.joblib"):
        (view,) = Path(gate.store).glob(f"runs/*/views/{name}")
        view.unlink()
        again = gate.json("run", gate.spec)
        assert view.exists()
        assert (again["fits"], again["best"], again["files"]) == (0, first["best"], first["files"])
