"""One suite over all backends and stores: the same spec gives the same candidates and the same scores, bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from jobspec.runs.rounds import require_round
from jobspec.stores.layout import Layout
from tests.conformance.cases import CASES, LONG, write_table
from tests.conformance.places import Place

_REFERENCE: dict[str, dict[str, str]] = {}


def write_spec(name: str, text: str, folder: Path) -> Path:
    write_table(folder / "table.csv")
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def reference(place: Place, name: str, text: str, exit_code: int, folder: Path) -> dict[str, str]:
    """Return the digest of an undisturbed run on this machine, a folder as its store, with the place's numerics."""
    key = f"{name}-{place.numerics}"
    if key not in _REFERENCE:
        (folder / "reference").mkdir()
        here = Place("local", str(folder / "reference" / "store"), place.submit)
        spec = write_spec(name, f"{text}numerics: {place.numerics}\n", folder / "reference")
        answer = here.run(spec, exit_code=exit_code)
        _REFERENCE[key] = here.digest(answer["run_id"], folder)
    return _REFERENCE[key]


@pytest.mark.parametrize("name", CASES)
def test_a_search_has_the_same_digest_everywhere(place: Place, name: str, tmp_path: Path) -> None:
    case = CASES[name]
    spec = write_spec(name, case.spec, tmp_path)
    answer = place.run(spec, exit_code=case.exit_code)
    assert answer["fits"] == answer["cells"]["total"] and answer["cells"]["reused"] == 0
    assert place.digest(answer["run_id"], tmp_path) == reference(place, name, case.spec, case.exit_code, tmp_path)
    again = place.run(spec, exit_code=case.exit_code)
    assert (again["run_id"], again["fits"]) == (answer["run_id"], 0)


def test_missing_tasks_are_named_and_resume_completes(place: Place, tmp_path: Path) -> None:
    name = "two_scores_and_train_scores"
    spec = write_spec(name, CASES[name].spec, tmp_path)
    run_id = place.run(spec)["run_id"]
    with mock.patch.dict(os.environ, place.owner):
        lose_a_task(place, run_id)
    assert place.call("status", run_id)["state"] == "interrupted"
    document = place.call("cancel", run_id)
    lost = document["cells"]["total"] - document["cells"]["done"]
    assert lost > 0 and document["state"] == "cancelled"
    best = json.loads(place.open().get(Layout.view(run_id, "best.json")))
    named = sum(stop - first for entry in best["missing"] for first, stop in entry["candidates"])
    assert (best["complete"], best["cells"]["missing"], named) == (False, lost, lost)
    resumed = place.call("resume", run_id)
    assert resumed["fits"] == lost
    assert place.digest(run_id, tmp_path) == reference(place, name, CASES[name].spec, 0, tmp_path)


def lose_a_task(place: Place, run_id: str) -> None:
    """Remove all that the last task of a run ever wrote, and what was made of it."""
    store = place.open()
    plan = require_round(store, run_id)
    task = plan.num_tasks - 1
    store.delete(Layout.all(run_id, 0))
    store.delete(Layout.done(run_id, 0, task))
    for key in list(store.keys(f"{Layout.logs(run_id, 0)}{task:06d}/")):
        store.delete(key)
    for key in list(store.keys(Layout.view(run_id, ""))):
        store.delete(key)


def test_a_widened_grid_computes_the_new_cells_only(place: Place, tmp_path: Path) -> None:
    text = CASES["groups_in_a_table"].spec
    first = place.run(write_spec("first", text, tmp_path))
    wide = place.run(write_spec("wide", text.replace("[1, 3, 5]", "[1, 3, 5, 7]"), tmp_path))
    assert first["run_id"] != wide["run_id"]
    assert (wide["fits"], wide["cells"]["reused"]) == (3, 9)


def test_a_cancelled_run_is_resumed_to_the_same_digest(place: Place, tmp_path: Path) -> None:
    spec = write_spec("long", LONG, tmp_path)
    command = [sys.executable, "-m", "submitter", "run", str(spec), "--on", place.backend, "--store", place.store]
    process = subprocess.Popen(
        command, env={**os.environ, **place.environment}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        run_id = wait_for_cells(process, place)
        cancelled = place.call("cancel", run_id)
        process.communicate()
    finally:
        process.kill()
        process.communicate()
    assert process.returncode in (0, 130) and cancelled["state"] in ("cancelled", "finished")
    resumed = place.call("resume", run_id)
    assert resumed["cells"]["reused"] + resumed["fits"] == 36
    assert place.digest(run_id, tmp_path) == reference(place, "long", LONG, 0, tmp_path)


def wait_for_cells(process: subprocess.Popen[str], place: Place) -> str:
    """Ask for the run's status until some of its cells are finished."""
    while process.poll() is None:
        done = place.submit("status", "latest", "--json", "--store", place.store, env=place.environment)
        document = json.loads(done.stdout)
        if done.returncode == 0 and document["cells"]["done"]:
            return str(document["run_id"])
    raise AssertionError(f"the run ended before anything could be cancelled: {process.communicate()}")
