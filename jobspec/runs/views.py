"""What a person reads of a run, as it lies in the store: two tables, and best.json, which describes them.

The three are replaced one after the other, best.json last, each only if it still is the version that its writer found
(`Store.swap`). So a writer that dies or loses a race in between leaves tables that best.json does not describe; their
lengths, which it records, tell.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

PARQUET, CSV, BEST = "cv_results.parquet", "cv_results.csv", "best.json"
TABLES = (PARQUET, CSV)


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
    def num_done(self) -> int:
        """Return the number of cells with a final row; 0 where there is no best.json."""
        return int(self.best["cells"]["done"]) if self.best else 0


def read_views(store: Store, run_id: str) -> Views:
    """Look at the views of a run."""
    tagged = store.tagged(Layout.view(run_id, BEST))
    best = {} if tagged is None else _decode(tagged[0])
    tags = {name: store.tag(Layout.view(run_id, name)) for name in TABLES}
    return Views(best, bool(best) and has_tables(store, run_id, best), tags | {BEST: tagged and tagged[1]})


def read_best(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return what best.json says, or None where there is none or the tables are not those that it describes."""
    body = store.get_or_none(Layout.view(run_id, BEST))
    best = {} if body is None else _decode(body)
    return best if best and has_tables(store, run_id, best) else None


def has_tables(store: Store, run_id: str, best: dict[str, Any]) -> bool:
    """Say whether the tables are there, with the lengths that best.json tells (older ones tell none)."""
    sizes = {name: store.size(Layout.view(run_id, name)) for name in TABLES}
    wanted = best.get("tables", {})
    return all(size is not None and size == wanted.get(name, size) for name, size in sizes.items())


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}  # damaged: the next reduce writes it anew
    return document if isinstance(document, dict) and "cells" in document else {}
