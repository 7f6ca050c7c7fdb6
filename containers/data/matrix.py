"""The feature matrix on its way into the store: checked chunk by chunk, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.npyfile import NpyWriter
from jobspec.errors import DataError
from jobspec.search.inspection import Block

MAX_EXACT_INTEGER = 2**53
"""Above it not every integer is a float64."""

_SHOWN = 8


class MatrixWriter:
    """Append chunks of X to a file, refusing what no estimator can use.

    Missing values (NaN) are kept. Columns that still look constant or empty are few after the first chunk,
    so that watching for them costs nothing.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], columns: tuple[str, ...]) -> None:
        self._writer = NpyWriter(path, dtype, (len(columns),))
        self._columns = columns
        self._num_rows = 0
        self._num_missing = np.zeros(len(columns), np.int64)
        self._constant = np.arange(len(columns))
        self._value = np.full(len(columns), np.nan)

    @property
    def num_missing(self) -> int:
        """Return how many values are missing so far."""
        return int(self._num_missing.sum())

    def append(self, chunk: NDArray[Any]) -> None:
        """Check and write rows of the writer's type.

        Raises:
            DataError: an infinite value, named by column and row.
        """
        if len(chunk) == 0:
            return
        if not np.isfinite(chunk).all():
            self._count_missing(chunk)
        self._watch_constant(chunk)
        self._writer.append(chunk)
        self._num_rows += len(chunk)

    def close(self) -> tuple[Block, tuple[str, ...]]:
        """Complete the file; return its description and warnings.

        Raises:
            DataError: a column without any value.
        """
        block = self._writer.close("X", self._columns)
        empty = [self._columns[i] for i in np.flatnonzero(self._num_missing == self._num_rows)]
        if empty and self._num_rows:
            raise DataError(
                f"{_name_columns(empty)} without a single value. Leave them out: `drop: [{', '.join(empty[:_SHOWN])}]`."
            )
        return block, (*self._warn_constant(), *self._warn_missing())

    def abort(self) -> None:
        """Close the file without completing it."""
        self._writer.abort()

    def _count_missing(self, chunk: NDArray[Any]) -> None:
        infinite = np.isinf(chunk)
        if infinite.any():
            row, column = np.argwhere(infinite)[0]
            raise DataError(
                f"The column {self._columns[column]!r} holds {chunk[row, column]} in row {self._num_rows + row + 1} "
                "(a number beyond 1.8e308 is read as inf, too). Correct the value, leave it empty if it is missing, "
                f"or leave the column out: `drop: [{self._columns[column]}]`."
            )
        self._num_missing += np.isnan(chunk).sum(axis=0)

    def _watch_constant(self, chunk: NDArray[Any]) -> None:
        """Keep the columns in which all values so far are one value (or missing)."""
        if not len(self._constant):
            return
        watched = chunk if len(self._constant) == chunk.shape[1] else chunk[:, self._constant]
        low, high = np.fmin.reduce(watched, axis=0), np.fmax.reduce(watched, axis=0)
        value = np.where(np.isnan(self._value[self._constant]), low, self._value[self._constant])
        self._value[self._constant] = value
        same = (np.isnan(low) | (low == value)) & (np.isnan(high) | (high == value))
        self._constant = self._constant[same]

    def _warn_constant(self) -> tuple[str, ...]:
        names = [self._columns[i] for i in self._constant]
        return (f"{_name_columns(names)} with one value only: nothing can be learned there",) if names else ()

    def _warn_missing(self) -> tuple[str, ...]:
        names = [self._columns[i] for i in np.flatnonzero(self._num_missing)]
        return (f"{_name_columns(names)} with missing values ({self.num_missing} in all)",) if names else ()


def _name_columns(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"There are columns ({shown}{more})" if len(names) > 1 else f"There is a column ({shown})"


def refuse_inexact_integers(name: str, values: NDArray[Any], first_row: int) -> None:
    """Refuse 64-bit integers that float64 cannot hold; ``first_row`` counts the rows before ``values``.

    Raises:
        DataError: one is above 2**53, named by column and row.
    """
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not len(values):
        return
    if int(values.max()) <= MAX_EXACT_INTEGER and int(values.min()) >= -MAX_EXACT_INTEGER:
        return
    large = (values > MAX_EXACT_INTEGER) | (values < -MAX_EXACT_INTEGER)
    row = int(np.argmax(large))
    raise inexact_integer(name, int(values[row]), first_row + row)


def inexact_integer(name: str, value: int, row: int) -> DataError:
    """Return the error for an integer above 2**53 in the row with index ``row``."""
    return DataError(
        f"The column {name!r} holds the integer {value} in row {row + 1}. Beyond 2**53 = {MAX_EXACT_INTEGER} float64 "
        "does not hold every integer, so that different values would become equal. If it is an identifier, leave it "
        f"out: `drop: [{name}]`."
    )
