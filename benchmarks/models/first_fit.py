"""An estimator that says when its fit begins."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

MARK = "fit begins at "


class FirstFit(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Predict the first class, having written the time, in seconds since 1970, to the log."""

    def __init__(self, level: int = 0) -> None:
        self.level = level

    def fit(self, X: Any, y: Any) -> FirstFit:  # noqa: ARG002 - the interface of scikit-learn
        """Write the time."""
        print(f"{MARK}{time.time():.6f}", flush=True)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        """Return the first class for every row."""
        return np.full(len(X), self.classes_[0])
