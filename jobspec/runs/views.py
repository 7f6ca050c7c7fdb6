"""What a person reads of a run, as it lies in the store: two tables, and best.json, which describes them.

The three are replaced one after the other, best.json last, each only if it still is the version that its writer found
(`Store.swap`). So a writer that dies or loses a race in between leaves tables that best.json does not describe; their
lengths, which it records, tell. Their digests are there for whoever reads them whole.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobspec.errors import DataError
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import seal, unseal

PARQUET, CSV, BEST = "cv_results.parquet", "cv_results.csv", "best.json"
TABLES = (PARQUET, CSV)

LONGEST_TOLD = 8_000
"""Characters of a candidate's parameters, or of its description, in what is told of a run.

An execution of Step Functions holds 256 KiB in all.
"""

LONGEST_NAME = 300


@dataclass(frozen=True)
class Views:
    """The views at one moment.

    ``best`` is what best.json says, empty where there is none or it was damaged; ``whole`` says that the tables are
    those which it describes. ``tags`` are the versions of all three, for `Store.swap`.
    """

    best: dict[str, Any]
    whole: bool
    tags: dict[str, str | None]

    @property
    def is_any(self) -> bool:
        """Say whether anything was ever written, whole or not."""
        return any(self.tags.values())

    @property
    def num_done(self) -> int:
        """Return the number of cells with a final row; 0 where there is no best.json."""
        return int(self.best.get("cells", {}).get("done", 0))


def read_views(store: Store, run_id: str) -> Views:
    """Look at the views of a run."""
    tagged = store.tagged(Layout.view(run_id, BEST))
    best = {} if tagged is None else decode_best(tagged[0])
    tags = {name: store.tag(Layout.view(run_id, name)) for name in TABLES}
    return Views(best, bool(best) and has_tables(store, run_id, best), tags | {BEST: tagged and tagged[1]})


def read_best(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return what best.json says, or None where there is none or the tables are not those that it describes."""
    body = store.get_or_none(Layout.view(run_id, BEST))
    best = {} if body is None else decode_best(body)
    return best if best and has_tables(store, run_id, best) else None


def has_tables(store: Store, run_id: str, best: dict[str, Any]) -> bool:
    """Say whether the tables are there, with the lengths that best.json tells (older ones tell none)."""
    sizes = {name: store.size(Layout.view(run_id, name)) for name in TABLES}
    told = best.get("tables", {})
    return all(size is not None and size == told.get(name, {"bytes": size})["bytes"] for name, size in sizes.items())


def describe_table(path: Path) -> dict[str, Any]:
    """Return what best.json tells of a table: its length in bytes and its SHA-256."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def check_table(best: dict[str, Any], name: str, body: bytes, url: str) -> None:
    """Compare a table with what best.json tells of it.

    Raises:
        DataError: it was damaged.
    """
    told = best.get("tables", {}).get(name)
    if told is not None and hashlib.sha256(body).hexdigest() != told["sha256"]:
        raise DataError(
            f"The table {name} of {best['run_id']} in {url} is not the one that was written: it was damaged. Delete "
            "it and run the spec again, or `submit resume` the run: it is made again, nothing is computed."
        )


def short(best: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a best candidate as it is told to others; a very long one has no parameters, best.json holds them."""
    if best is None or max(len(best["estimator"]), len(json.dumps(best["params"]))) <= LONGEST_TOLD:
        return best
    name = best["estimator"]
    return best | {"estimator": name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]} ...", "params": None}


def encode_best(best: dict[str, Any]) -> bytes:
    """Return best.json, with a digest of itself."""
    return seal(best, indent=1)


def decode_best(body: bytes) -> dict[str, Any]:
    """Return what best.json says; nothing where it was damaged: the next reduce writes it anew."""
    try:
        return unseal(body, BEST)
    except DataError:
        return {}
