"""One bit of a stored document is another: the same tables or a refusal that says what to do, never another score."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from tests.conftest import Submit

SPEC = """
name: flips
data: {builtin: iris}
cv: {kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 1}
candidates:
- {estimator: sklearn.naive_bayes.GaussianNB, grid: {var_smoothing: [1.0e-9, 0.1, 10]}}
- {estimator: sklearn.svm.SVC, grid: {C: [0.01, 0.1]}}
scoring: {f: {metric: fbeta_score, beta: 2, average: macro}}
refit: f
"""
FLIPS = {
    "a data set's byte order": ("manifest.json", b'"dtype": "<f8"', b'"dtype": ">f8"'),
    "a target's byte order": ("manifest.json", b'"dtype": "<i8"', b'"dtype": ">i8"'),
    "a metric's parameter": ("spec.yaml", b"beta: 2", b"beta: 3"),
    "a metric": ("spec.yaml", b"metric: fbeta", b"metric: bbeta"),
    "the number of splits": ("plan.json", b'"num_splits": 3', b'"num_splits": 2'),
    "the number of candidates": ("plan.json", b'"num_candidates": 5', b'"num_candidates": 4'),
    "what is told of known cells": ("plan.json", b'"num_known": 0', b'"num_known": 1'),
    "the data set": ("plan.json", b'"dataset_id": "d-', b'"dataset_id": "e-'),
}
"""Document, what was written, what is read: one bit apart."""


def scores(store: Path, run_id: str) -> list[dict[str, str]]:
    with (store / "runs" / run_id / "views" / "cv_results.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if "_time" not in name} for row in csv.DictReader(file)]


def run_ids(store: Path) -> set[str]:
    return {path.name for path in (store / "runs").iterdir()}


def interrupt(run: Path) -> None:
    """Make a finished run one that was killed with two thirds of its cells logged."""
    shutil.rmtree(run / "views")
    for path in [*run.glob("rounds/*/done/*"), *run.glob("rounds/*/all.parquet")]:
        path.unlink()
    for folder in sorted(run.glob("rounds/000/log/*"))[::3]:
        shutil.rmtree(folder)


def damage(path: Path, before: bytes, after: bytes) -> None:
    assert sum((a ^ b).bit_count() for a, b in zip(before, after, strict=True)) == 1
    body = path.read_bytes()
    assert before in body, body.decode()
    path.write_bytes(body.replace(before, after, 1))


@pytest.mark.faults
@pytest.mark.parametrize("name", FLIPS)
def test_a_flipped_bit_changes_no_score(name: str, tmp_path: Path, submit: Submit, cache: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    store = tmp_path / "store"
    assert submit("run", "spec.yaml", "--store", store, "--workers", "1").returncode == 0
    (run_id,) = run_ids(store)
    expected = scores(store, run_id)
    interrupt(store / "runs" / run_id)
    shutil.rmtree(cache)
    file, before, after = FLIPS[name]
    (path,) = store.rglob(file)
    damage(path, before, after)
    done = submit("run", "spec.yaml", "--store", store, "--workers", "1")
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        assert scores(store, run_id) == expected
    else:
        assert done.returncode == 3, f"{done.returncode}: {done.stderr}"
        assert file in done.stderr, done.stderr
