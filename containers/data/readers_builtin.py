"""The data sets that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from containers.data.columns import Offer, Selection
from containers.data.sources import Chunk


class BuiltinSource:
    """One of ``sklearn.datasets.load_*``, with its target in scikit-learn's own coding."""

    untyped = False

    def __init__(self, name: str) -> None:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{name}")()
        self.X = np.ascontiguousarray(bunch.data, np.float64)
        self.y = np.asarray(bunch.target)
        self._columns = tuple(str(column) for column in bunch.feature_names)

    def offer(self) -> Offer:
        """Return the feature names; the target is called ``target``."""
        return Offer(self._columns, ("target",), default_target="target")

    def feature_dtype(self, features: tuple[str, ...]) -> np.dtype[Any]:  # noqa: ARG002 - the protocol's
        """Return float64."""
        return np.dtype(np.float64)

    def chunks(self, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Iterator[Chunk]:
        """Yield everything at once."""
        positions = [self._columns.index(name) for name in selection.features]
        matrix = np.ascontiguousarray(self.X[:rows, positions], dtype)
        yield Chunk(matrix, {name: pa.array(self.y[:rows]) for name in selection.sides})
