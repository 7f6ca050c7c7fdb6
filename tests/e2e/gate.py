"""A run that a test can hold: an estimator whose fit waits at a gate, and real `submit` processes around it.

The gate is a file; the test holds an exclusive lock on it, a gated fit asks for a shared one. Nothing waits by
the clock, and a killed process leaves the gate as it was.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil

ESTIMATOR = """
import fcntl
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Gated(ClassifierMixin, BaseEstimator):
    def __init__(self, level=0, gate=None):
        self.level = level
        self.gate = gate

    def fit(self, X, y):
        if self.gate is not None:
            with open(self.gate) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        rows = np.arange(len(X)) * 7919 + int(X[0, 0] * 1000)
        return self.classes_[(rows + self.level) % len(self.classes_)]
"""

SPEC = """
name: gated
data: {{path: table.csv, target: kind}}
cv: {{kind: KFold, n_splits: 3, shuffle: true, random_state: 0}}
candidates:
- estimator: gated_estimator.Gated
  grid: {{level: {free}}}
- estimator: gated_estimator.Gated
  params: {{gate: {gate}}}
  grid: {{level: {held}}}
scoring: accuracy
"""

TIMES = ("fit_time", "score_time")
PATIENCE_S = 120.0


class Gate:
    """A folder with a spec of three candidates on three folds, the last candidate of which waits at the gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.gate = folder / "gate"
        self.spec = folder / "gated.yaml"
        self._held: IO[str] | None = None
        self.gate.write_text("")
        (folder / "modules").mkdir()
        (folder / "modules" / "gated_estimator.py").write_text(ESTIMATOR)
        rows = [f"{(i * 37) % 101 / 10},{'abc'[i * 5 % 3]}" for i in range(60)]
        (folder / "table.csv").write_text("\n".join(["x,kind", *rows]) + "\n")
        self.write_spec()

    def write_spec(self, free: str = "[0, 1]", held: str = "[2]") -> None:
        self.spec.write_text(SPEC.format(free=free, held=held, gate=self.gate))

    def close(self) -> None:
        """Hold whoever comes to the gate."""
        self._held = self.gate.open()
        fcntl.flock(self._held, fcntl.LOCK_EX)

    def open(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FOLDFLEET_ALLOWED_MODULES": "gated_estimator",
            "FOLDFLEET_MODULE_PATH": str(self.folder / "modules"),
            "FOLDFLEET_STORE": str(self.store),
            "FOLDFLEET_WORKERS": "1",
        }

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end."""
        return subprocess.run(
            _command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self.environment,
            timeout=PATIENCE_S,
        )

    def json(self, *arguments: object) -> dict[str, Any]:
        """Run a command line with ``--json`` and return its answer."""
        done = self.call(*arguments, "--json")
        assert done.stdout.count("\n") == 1, done.stdout + done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Start a command line; whatever is left of it at the end is killed."""
        process = subprocess.Popen(
            _command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        children: list[psutil.Process] = []
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.communicate()

    def table(self, run_id: str) -> list[dict[str, str]]:
        """Return a run's table without its times."""
        path = self.store / "runs" / run_id / "views" / "cv_results.csv"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in rows]


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "submitter", *map(str, arguments)]


def read_until(process: subprocess.Popen[str], words: str) -> None:
    """Read a process's talk up to a line with ``words``."""
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said, but: {''.join(heard)}")


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert not alive
