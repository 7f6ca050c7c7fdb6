"""The fields of a plan of two candidates and two splits, as a draft takes them."""

from __future__ import annotations

from typing import Any

from jobspec.engine import Engine, Numerics
from jobspec.grammar.spec import Limits


def plan_fields(numerics: Numerics = "native", **changed: Any) -> dict[str, Any]:
    return {
        "run_id": "letters-0123456789ab",
        "round": 2,
        "engine": Engine(python="3", packages={}, numerics=numerics, kernel="k"),
        "dataset_id": "d-1",
        "split_id": "s-1",
        "book_id": "b-1",
        "num_candidates": 2,
        "num_splits": 2,
        "num_known": 0,
        "space_digest": "0" * 32,
        "limits": Limits(),
        "unseeded_entries": (),
        "scorers": ("score",),
        "score_kind": "single",
        "train_score": False,
        "workers": 3,
        **changed,
    }
