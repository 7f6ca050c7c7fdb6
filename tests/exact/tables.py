"""Small tables to search on, and short spellings of a spec's nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.datasets import make_classification, make_regression

from tests.exact.reference import Table

_X, _LABELS = make_classification(
    n_samples=120, n_features=8, n_informative=5, n_classes=3, flip_y=0.15, random_state=7
)
_R, _NUMBERS = make_regression(n_samples=120, n_features=8, n_informative=5, noise=15.0, random_state=7)
_RNG = np.random.default_rng(7)
_HOLES = _X.copy()
_HOLES[_RNG.random(_X.shape) < 0.1] = np.nan

CLASSES = Table(_X, _LABELS)
TEXT = Table(_X, np.array(["ham", "egg", "spam"])[_LABELS])
BINARY = Table(_X, np.array(["ham", "spam"])[(_LABELS > 0).astype(int)])
BOOLS = Table(_X, _LABELS > 0)
FLOATS = Table(_X, _LABELS.astype(np.float64))
NUMBERS = Table(_R, _NUMBERS)
COUNTS = Table(_R, np.round(_NUMBERS).astype(np.int64))
HOLES = Table(_HOLES, _LABELS)
WEIGHTED = Table(_X, _LABELS, weights=_RNG.integers(0, 4, 120).astype(np.float64) / 3.0)
WEIGHTED_NUMBERS = Table(_R, _NUMBERS, weights=_RNG.random(120))


def one(path: str, params: dict[str, Any] | None = None, grid: Any = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"estimator": f"sklearn.{path}"}
    return entry | ({"params": params} if params else {}) | ({"grid": grid} if grid else {})


def steps(*steps: dict[str, Any], grid: Any = None) -> dict[str, Any]:
    return {"pipeline": list(steps)} | ({"grid": grid} if grid else {})


def node(path: str, **params: Any) -> dict[str, Any]:
    return {"estimator": f"sklearn.{path}"} | ({"params": params} if params else {})
