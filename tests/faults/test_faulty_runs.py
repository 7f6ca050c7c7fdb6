"""Whole runs on an S3 store that fails, by seed and by table: identical tables or a clear error."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.datasets import load_digits

from jobspec.errors import ExitCode
from tests.servers.faulty import FaultyProxy, Rule
from tests.servers.s3server import BUCKET, S3Server

ALWAYS = 10**9

SPEC = """
name: weather
data: {builtin: digits}
cv: 3
candidates:
- {estimator: sklearn.naive_bayes.GaussianNB, grid: {var_smoothing: [1.0e-9, 0.001, 0.1]}}
- {estimator: sklearn.tree.DecisionTreeClassifier, params: {random_state: 0}, grid: {max_depth: [2, 5]}}
scoring: [accuracy, f1_macro]
refit: accuracy
"""
NUM_CELLS = 5 * 3

HASTE = """
import time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.002))
"""
"""What the processes of a run load first: nothing waits long before it tries again."""


@dataclass(frozen=True)
class Answer:
    """What must not depend on the weather."""

    table: list[dict[str, str]]
    best: dict[str, Any]
    predictions: list[int]


@dataclass
class Desk:
    """Runs of the real command line on a store in S3, through a proxy."""

    server: S3Server
    proxy: FaultyProxy
    folder: Path
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.server.fresh_url()
        (self.folder / "weather.yaml").write_text(SPEC)
        (self.folder / "modules").mkdir()
        (self.folder / "modules" / "sitecustomize.py").write_text(HASTE)

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command; whatever it says, it says it in one paragraph."""
        command = [sys.executable, "-m", "submitter", "run", "weather.yaml", "--json", "--workers", "1"]
        done = subprocess.run(
            [*command, "--store", self.url],
            cwd=self.folder,
            env={
                **os.environ,
                **self.server.behind(self.proxy.endpoint).environment,
                "FOLDFLEET_CACHE": str(self.folder / "cache"),
                "PYTHONPATH": str(self.folder / "modules"),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=240,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def answer(self) -> Answer:
        """Read what lies in the store, not through the proxy."""
        views = {name: self._read(f"views/{name}") for name in ("cv_results.csv", "best.json", "model/model.joblib")}
        rows = csv.DictReader(io.StringIO(views["cv_results.csv"].decode()))
        best = json.loads(views["best.json"])
        assert best["complete"] and best["divergent"] == 0 and best["model"]
        model = joblib.load(io.BytesIO(views["model/model.joblib"]))
        return Answer(
            [{name: value for name, value in row.items() if "_time" not in name} for row in rows],
            {name: best["best"][name] for name in ("candidate", "scores", "mean_test_score", "std_test_score")},
            model.predict(load_digits().data).tolist(),
        )

    def num_durable(self) -> int:
        """Count the rows in the logs."""
        return sum(len(json.loads(self._get(key))["part"]["rows"]) for key in self._keys() if "/log/" in key)

    def _read(self, name: str) -> bytes:
        (key,) = (key for key in self._keys() if key.endswith(name))
        return self._get(key)

    def _get(self, key: str) -> bytes:
        return self.server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def _keys(self) -> list[str]:
        prefix = self.url.removeprefix(f"s3://{BUCKET}/") + "/runs/"
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


@pytest.fixture(scope="module")
def undisturbed(seaweed: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    with FaultyProxy(seaweed.endpoint) as proxy:
        desk = Desk(seaweed, proxy, tmp_path_factory.mktemp("undisturbed"))
        done = desk.run()
        assert done.returncode == 0, done.stderr
        return desk.answer()


@pytest.fixture
def desk(seaweed: S3Server, tmp_path: Path) -> Iterator[Desk]:
    with FaultyProxy(seaweed.endpoint) as proxy:
        yield Desk(seaweed, proxy, tmp_path)


def finish(desk: Desk, undisturbed: Answer, done: subprocess.CompletedProcess[str], *codes: ExitCode) -> None:
    """Check how a run in bad weather ended; then the sun shines, the same command completes it."""
    durable = desk.num_durable()
    if done.returncode != 0:
        assert done.returncode in codes, f"{done.returncode}: {done.stderr}"
        desk.proxy.rules = []
        again = desk.run()
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["cells"]["reused"] >= durable
    assert desk.answer() == undisturbed


TRANSIENT = ("lost_ack", "reset_before", "conflict", "storm", "internal", "truncated", "short")


def seeds(few: int, many: int) -> list[Any]:
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(few, many))]


@pytest.mark.faults
@pytest.mark.parametrize("seed", seeds(1, 12))
def test_bad_weather_changes_no_score(desk: Desk, undisturbed: Answer, seed: int) -> None:
    chance = random.Random(seed)
    desk.proxy.seed = seed
    desk.proxy.rules = [Rule(kind, times=ALWAYS, chance=chance.choice([0.01, 0.03, 0.1])) for kind in TRANSIENT]
    done = desk.run()
    assert len(desk.proxy.faults) >= 3
    finish(desk, undisturbed, done, ExitCode.TRY_LATER)


@pytest.mark.faults
@pytest.mark.parametrize("seed", seeds(1, 12))
def test_flipped_bits_change_no_score(desk: Desk, undisturbed: Answer, seed: int) -> None:
    """A server that keeps no checksums hands out damaged bytes without a word, one object in ten to fifty."""
    chance = random.Random(seed)
    desk.proxy.seed, desk.proxy.checksums = seed, False
    desk.proxy.rules = [Rule("flipped", times=ALWAYS, chance=chance.choice([0.02, 0.05, 0.1]))]
    done = desk.run()
    assert desk.proxy.faults
    finish(desk, undisturbed, done, ExitCode.DATA, ExitCode.TRY_LATER)


OBJECTS = (
    "*/X.npy",
    "*/y.npy",
    "*/splits/*.npz",
    "*/manifest.json",
    "*/sources/*.json",
    "*/spec.yaml",
    "*/space.json",
    "*/books/*.json",
    "*/plan.json",
    "*/drafts/*/tasks-*.json",
    "*/log/*.json",
    "*/done/*.parquet",
    "*/views/best.json",
)


@pytest.mark.soak
@pytest.mark.faults
@pytest.mark.parametrize("key", OBJECTS)
def test_a_kind_of_object_that_arrives_damaged_every_time_changes_no_score(
    desk: Desk, undisturbed: Answer, key: str
) -> None:
    desk.proxy.checksums = False
    desk.proxy.rules = [Rule("flipped", key=key, times=ALWAYS)]
    done = desk.run()
    finish(desk, undisturbed, done, ExitCode.DATA, ExitCode.TRY_LATER)


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["expired", "denied"])
def test_credentials_that_end_in_the_middle_of_a_run_cost_nothing_that_is_durable(
    desk: Desk, undisturbed: Answer, kind: str
) -> None:
    desk.proxy.rules = [Rule(kind, key="*/log/*", operation="put", after=10, times=ALWAYS)]
    done = desk.run()
    assert done.returncode == ExitCode.ACCESS, done.stderr
    assert {"expired": "expired", "denied": "s3:PutObject"}[kind] in done.stderr
    assert desk.num_durable() > 0
    finish(desk, undisturbed, done, ExitCode.ACCESS)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.faults
@pytest.mark.parametrize(("name", "left"), [("FOLDFLEET_CACHE", 400_000)])
def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(
    desk: Desk, undisturbed: Answer, tiny_disk: Path, name: str, left: int
) -> None:
    """Data on their way into the store, folds, tables and the model lie in the cache; all of them take 0.9 MB."""
    (tiny_disk / "filler").write_bytes(bytes((1 << 20) - left))
    done = desk.run(**{name: str(tiny_disk)})
    assert done.returncode == ExitCode.TRY_LATER, f"{done.returncode}: {done.stderr}"
    assert re.search(r"full: \d+ bytes are needed, \d+ are free", done.stderr), done.stderr
    assert str(tiny_disk) in done.stderr
    finish(desk, undisturbed, done, ExitCode.TRY_LATER)
