"""Rows of a leaderboard out of ``cv_results.csv``: read by rank, nothing computed again."""

from __future__ import annotations

import csv
import heapq
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobspec.errors import DataError, NotFoundError
from jobspec.runs.views import CSV, check_table, read_best
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

_MEAN = "mean_test_"
_UNRANKED = 2**31
_LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Entry:
    """One candidate; scores are by scorer name, None where it has none. ``name`` is its entry's, if it has one."""

    rank: int | None
    candidate: int
    estimator: str
    params: dict[str, Any]
    means: dict[str, float | None]
    stds: dict[str, float | None]
    fit_s: float | None
    error: str | None
    name: str | None = None

    @property
    def title(self) -> str:
        """Return what tells it apart from other entries' candidates, such as ``shallow: DecisionTreeClassifier``."""
        return f"{self.name}: {self.estimator}" if self.name else self.estimator

    def to_json(self) -> dict[str, Any]:
        """Encode for ``--json``."""
        return {
            "rank": self.rank,
            "candidate": self.candidate,
            "name": self.name,
            "estimator": self.estimator,
            "params": self.params,
            "mean_test": self.means,
            "std_test": self.stds,
            "mean_fit_time": self.fit_s,
            "error": self.error,
        }


def read_leaderboard(store: Store, run_id: str, ranked_by: str | None, top: int) -> list[Entry]:
    """Return the ``top`` best candidates of a run's table, in scikit-learn's order among equals.

    Args:
        store: where the run lies.
        run_id: the run.
        ranked_by: the scorer whose ranks count; None: the table's first.
        top: how many.

    Raises:
        NotFoundError: the run has no table yet.
        DataError: the table was damaged.
    """
    body = _read_table(store, run_id)
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.DictReader(io.StringIO(body.decode("utf-8")))
    scorers = [name.removeprefix(_MEAN) for name in rows.fieldnames or () if name.startswith(_MEAN)]
    chosen = ranked_by if ranked_by in scorers else scorers[0]
    entries = _entries(rows, scorers, chosen)
    return heapq.nsmallest(top, entries, key=lambda entry: (entry.rank or _UNRANKED, entry.candidate))


def _read_table(store: Store, run_id: str) -> bytes:
    """Return the table that best.json describes; a reducer may replace both while they are read."""
    for last in (False, False, True):
        best = read_best(store, run_id)
        body = store.get_or_none(Layout.view(run_id, CSV))
        if body is None:
            raise NotFoundError(
                f"{run_id} has no table yet. `submit resume {run_id}` finishes it; `submit cancel {run_id}` makes a "
                "table of what there is."
            )
        try:
            check_table(best or {}, CSV, body, store.url)
        except DataError:
            if last:
                raise
        else:
            return body
    raise AssertionError("the last try returns or raises")


def _entries(rows: Iterator[Mapping[str, str]], scorers: list[str], ranked_by: str) -> Iterator[Entry]:
    for index, row in enumerate(rows):
        yield Entry(
            rank=int(row[f"rank_test_{ranked_by}"]) if row[f"rank_test_{ranked_by}"] else None,
            candidate=index,
            estimator=row["estimator"],
            params=json.loads(row["params"]),
            means={name: _number(row[f"mean_test_{name}"]) for name in scorers},
            stds={name: _number(row[f"std_test_{name}"]) for name in scorers},
            fit_s=_number(row["mean_fit_time"]),
            error=row["error"] or None,
            name=row.get("name") or None,
        )


def _number(text: str) -> float | None:
    if not text:
        return None
    number = float(text)
    return None if number != number else number  # noqa: PLR0124 - NaN is the one number that differs from itself
