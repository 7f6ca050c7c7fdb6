"""A crash at every write: kill -9 just before and just after each kind of object comes into the store.

Every process of a run loads `sitecustomize` from a folder of the test's own. It wraps the store's writes: each is
noted in a file, and the chosen one ends its process, once. Then the same command runs undisturbed.
"""

from __future__ import annotations

import collections
import csv
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

SPEC = """
name: crash
data: {builtin: iris}
cv: 3
candidates:
- {estimator: sklearn.naive_bayes.GaussianNB, grid: {var_smoothing: [1.0e-9, 0.1]}}
- {estimator: sklearn.svm.SVC, grid: {C: [0.1, 1]}}
scoring: accuracy
"""
NUM_CELLS = 4 * 3

SITECUSTOMIZE = """
import fcntl
import os
import re
import signal

from jobspec.stores.folder import FolderStore

HERE = os.environ["CRASH_FOLDER"]
POINTS = os.environ["CRASH_POINTS"].split(";")  # side, occurrence, kind ("write": whatever it is)


def turn(kind):
    with open(os.path.join(HERE, "writes"), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read().splitlines()
        file.write(kind + "\\n")
    return {f"{before.count(kind) + 1} {kind}", f"{len(before) + 1} write"}


def die_if_meant(side, names):
    if not {f"{side} {name}" for name in names} & set(POINTS):
        return
    with open(os.path.join(HERE, "crashes"), "a") as file:
        file.write(f"{side}\\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(name):
    write = getattr(FolderStore, name)

    def crashing(self, key, *rest):
        kind = name.removesuffix("_file") + " " + re.sub(r"\\b[0-9a-f]*[0-9][0-9a-f]*\\b", "#", key)
        names = turn(kind)
        die_if_meant("before", names)
        result = write(self, key, *rest)
        die_if_meant("after", names)
        return result

    setattr(FolderStore, name, crashing)


for name in ("create", "create_file", "put", "put_file", "swap", "swap_file", "delete"):
    wrap(name)
"""


class Point(NamedTuple):
    """A write to crash at: the ``occurrence``-th one of a kind, and on which side of it."""

    kind: str
    occurrence: int
    side: str

    def __str__(self) -> str:
        return f"{self.side} {self.occurrence} {self.kind}"


RUN = "runs/crash-#"
ROUND = f"{RUN}/rounds/#"
PART = f"create {ROUND}/log/#/#.json"
WRITES = {
    "create sources/#.json": 1,
    "create datasets/d-#/X.npy": 1,
    "create datasets/d-#/y.npy": 1,
    "create datasets/d-#/manifest.json": 1,
    "create datasets/d-#/splits/s-#.npz": 1,
    "create sources/split-#.json": 1,
    "create sources/prepare-#.json": 1,
    f"create {RUN}/spec.yaml": 1,
    f"create {RUN}/space.json": 1,
    "create books/b-#/#.json": 1,
    f"create {ROUND}/drafts/#/tasks-#.json": 1,
    f"create {ROUND}/plan.json": 1,
    f"create {ROUND}/arrays/#/claim-#.json": 1,
    f"create {ROUND}/arrays/#/handle-#.json": 1,
    PART: NUM_CELLS,
    f"create {ROUND}/done/#.parquet": NUM_CELLS,
    f"create {ROUND}/all.parquet": 1,
    f"swap {RUN}/views/cv_results.parquet": 1,
    f"swap {RUN}/views/cv_results.csv": 1,
    f"swap {RUN}/views/best.json": 2,
    f"swap {RUN}/views/model/model.joblib": 1,
    f"put {RUN}/views/model/README.md": 1,
    f"swap {RUN}/views/model/card.json": 2,
}
"""Every write of this run, by what it is a write of: a table to be kept whole, which the first test compares."""


def points() -> Iterator[Any]:
    """Give every second kind one side in every test run; the rest, and more of the repeated writes, are slow."""
    chance = random.Random(0)
    for index, (kind, number) in enumerate(WRITES.items()):
        sides = ["before", "after"]
        chance.shuffle(sides)
        occurrences = sorted(chance.sample(range(1, number + 1), min(number, 3)))
        first = chance.choice(occurrences)
        for occurrence in occurrences:
            for side in sides:
                is_slow = index % 2 == 1 or (occurrence, side) != (first, sides[0])
                point = Point(kind, occurrence, side)
                yield pytest.param(point, id=str(point), marks=[pytest.mark.thorough] if is_slow else [])


class Desk:
    """A spec, a store, and runs of the real command line whose processes note their writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        (folder / "crash.yaml").write_text(SPEC)
        (folder / "modules").mkdir()
        (folder / "modules" / "sitecustomize.py").write_text(SITECUSTOMIZE)

    def run(self, *points: Point) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "submitter", "run", "crash.yaml", "--json"]
        return subprocess.run(
            [*command, "--store", str(self.store), "--workers", "1"],
            cwd=self.folder,
            env={
                **os.environ,
                "FOLDFLEET_CACHE": str(self.folder / "cache"),
                "PYTHONPATH": str(self.folder / "modules"),
                "CRASH_FOLDER": str(self.folder),
                "CRASH_POINTS": ";".join(map(str, points)),
            },
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )

    def writes(self) -> collections.Counter[str]:
        return collections.Counter((self.folder / "writes").read_text().splitlines())

    def num_crashes(self) -> int:
        crashes = self.folder / "crashes"
        return len(crashes.read_text().splitlines()) if crashes.exists() else 0

    def durable(self) -> collections.Counter[tuple[int, int]]:
        """Count the logged rows of every cell over all rounds."""
        parts = [json.loads(path.read_text())["part"] for path in self.store.glob("runs/*/rounds/*/log/*/*.json")]
        return collections.Counter((row["split"], row["candidate"]) for part in parts for row in part["rows"])

    def view(self, name: str) -> Path:
        (path,) = self.store.glob(f"runs/*/views/{name}")
        return path

    def scores(self) -> list[dict[str, str]]:
        with self.view("cv_results.csv").open(newline="") as file:
            return [{name: value for name, value in row.items() if "_time" not in name} for row in csv.DictReader(file)]

    def alive(self) -> list[psutil.Process]:
        """Return the processes of any run here that still live."""
        return [process for process in psutil.process_iter() if _crash_folder(process) == str(self.folder)]

    def wait_until_quiet(self) -> None:
        deadline = time.monotonic() + 30
        while left := self.alive():
            assert time.monotonic() < deadline, [process.cmdline() for process in left]
            time.sleep(0.02)


def _crash_folder(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("CRASH_FOLDER") if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


@functools.cache
def undisturbed(folder: Path) -> tuple[list[dict[str, str]], collections.Counter[str]]:
    desk = Desk(folder)
    done = desk.run()
    assert done.returncode == 0, done.stderr
    return desk.scores(), desk.writes()


@pytest.fixture(scope="module")
def quiet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    for process in desk.alive():
        process.kill()


def test_the_table_of_writes_is_whole(quiet_folder: Path) -> None:
    _, writes = undisturbed(quiet_folder)
    parts = writes.pop(PART)
    assert NUM_CELLS <= parts <= 2 * NUM_CELLS, (
        "a task of a cell that takes over a second is named in a part of its own"
    )
    assert dict(writes) == {kind: number for kind, number in WRITES.items() if kind != PART}


@pytest.mark.faults
@pytest.mark.parametrize("point", list(points()))
def test_a_crash_at_a_write_costs_nothing_that_was_durable(desk: Desk, quiet_folder: Path, point: Point) -> None:
    scores, _ = undisturbed(quiet_folder)
    crashed = desk.run(point)
    assert desk.num_crashes() == 1, f"no process came to this write\n{crashed.stdout}{crashed.stderr}"
    assert "Traceback" not in crashed.stderr
    desk.wait_until_quiet()
    kept = desk.durable()
    answer = finish(desk)
    assert answer["cells"]["reused"] >= len(kept)
    assert desk.scores() == scores


@pytest.mark.thorough
@pytest.mark.faults
@pytest.mark.parametrize("seed", range(2))
def test_crashes_upon_crashes_come_to_the_same_end(desk: Desk, quiet_folder: Path, seed: int) -> None:
    """Kill a process at every eighth write or so, recovery's writes too: there is always another way on.

    Writes are counted over all attempts, and one that was killed before it came into effect is made again: so at
    least as many are made as in an undisturbed run, and every point is reached.
    """
    scores, _ = undisturbed(quiet_folder)
    chance = random.Random(seed)
    starts = range(1, sum(WRITES.values()) - 7, 8)
    numbers = [chance.randrange(start, start + 8) for start in starts]
    points = [Point("write", number, chance.choice(["before", "after"])) for number in numbers]
    for _ in points:
        desk.run(*points)
        desk.wait_until_quiet()
    finish(desk)
    assert desk.num_crashes() == len(points) >= 4
    assert desk.scores() == scores


def finish(desk: Desk) -> dict[str, Any]:
    """Run the command undisturbed and check all that does not depend on how it came here; return its answer."""
    done = desk.run()
    assert done.returncode == 0, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    reused = answer["cells"]["reused"]
    assert answer["cells"] == {"total": NUM_CELLS, "done": NUM_CELLS, "failed": 0, "lost": 0, "reused": reused}
    assert answer["fits"] + reused == NUM_CELLS
    assert set(desk.durable().values()) == {1}, "a cell was computed though it was durable"
    assert len(desk.durable()) == NUM_CELLS
    check_model(desk)
    desk.wait_until_quiet()
    return answer


def check_model(desk: Desk) -> None:
    best = json.loads(desk.view("best.json").read_text())
    card = json.loads(desk.view("model/card.json").read_text())
    assert best["model"] == "model/model.joblib"
    assert best["complete"] and best["divergent"] == 0
    assert card["candidate"] == best["best"]["candidate"]
    assert card["sha256"] == hashlib.sha256(desk.view("model/model.joblib").read_bytes()).hexdigest()
    assert desk.view("model/README.md").exists()
    assert not list((desk.store / "runs").glob("*/views/*.tmp"))
