"""Where a run can be: a backend, and a store; one digest says whether two runs found the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow.parquet as pq

from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from tests.conftest import Submit


@dataclass(frozen=True)
class Place:
    """A backend and a store, with what the environment must say to reach them, and the backend's own numerics.

    ``owner`` is the environment of somebody who may remove what nobody should: results.
    """

    backend: str
    store: str
    submit: Submit
    environment: Mapping[str, str] = field(default_factory=dict)
    numerics: str = "native"
    owner: Mapping[str, str] = field(default_factory=dict)

    def call(self, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
        """Run a command line with ``--json``, check how it ends, and return its answer."""
        done = self.submit(*arguments, "--store", self.store, "--json", env=self.environment)
        assert done.returncode == exit_code, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(self, spec: Path, *options: object, exit_code: int = 0) -> dict[str, Any]:
        """Run a spec here."""
        return self.call("run", spec, "--on", self.backend, *options, exit_code=exit_code)

    def open(self) -> Store:
        """Open the store in this process."""
        return open_store(self.store)

    def digest(self, run_id: str, folder: Path) -> dict[str, str]:
        """Return a digest for each column of the table, the best candidate, and the model's predictions."""
        store = self.open()
        table = folder / "table.parquet"
        table.write_bytes(store.get(Layout.view(run_id, "cv_results.parquet")))
        columns = pq.read_table(table).to_pydict()
        found = {name: _hash(values) for name, values in columns.items() if "_time" not in name}
        best = json.loads(store.get(Layout.view(run_id, "best.json")))
        found["best"] = _hash([best["best"], best["cells"], best["complete"]])
        body = store.get_or_none(Layout.view(run_id, "model/model.joblib"))
        return found | ({} if body is None else {"model": _predictions(body, folder)})


def _predictions(body: bytes, folder: Path) -> str:
    (folder / "model.joblib").write_bytes(body)
    model = joblib.load(folder / "model.joblib")
    rows = np.random.default_rng(0).normal(5, 5, (200, model.n_features_in_))
    return hashlib.sha256(np.ascontiguousarray(model.predict(rows)).tobytes()).hexdigest()


def _hash(value: object) -> str:
    """Hash exactly: Python writes a float with as many digits as tell it from every other."""
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]
