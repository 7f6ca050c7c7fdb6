"""Parquet through pyarrow: typed columns, read in batches of rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from containers.data.columns import Offer, Selection
from containers.data.matrix import refuse_inexact_integers
from containers.data.sources import CHUNK_BYTES, Chunk, refuse_bomb
from jobspec.errors import DataError

_INDEX_HINT = (
    "the column {name!r} is the index of a pandas table and is left out of X; name it under `features` to use it"
)


class ParquetSource:
    """A Parquet file."""

    untyped = False

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=False, pre_buffer=False, page_checksum_verification=True)
            self._schema = self._file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from None

    def offer(self) -> Offer:
        """Return the columns; a pandas index is offered, but is no feature by default."""
        names = tuple(self._schema.names)
        metadata = self._schema.pandas_metadata or {}
        index = [name for name in metadata.get("index_columns", []) if isinstance(name, str)]
        return Offer(names, names, unlisted={name: _INDEX_HINT.format(name=name) for name in index})

    def feature_dtype(self, features: tuple[str, ...]) -> np.dtype[Any]:
        """Return float32 if all features are stored as float32, else float64."""
        single = all(pa.types.is_float32(self._schema.field(name).type) for name in features)
        return np.dtype(np.float32 if single else np.float64)

    def chunks(self, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Iterator[Chunk]:
        """Yield batches; the file's own checksums are verified where it has any."""
        for name in selection.features:
            _refuse_text(name, self._schema.field(name).type)
        wanted = self._file.metadata.num_rows if rows is None else min(rows, self._file.metadata.num_rows)
        refuse_bomb(self._path, wanted * dtype.itemsize * len(selection.features), self._path.stat().st_size)
        batch_rows = max(256, 4 * CHUNK_BYTES // (8 * len(selection.features)))
        columns = list(dict.fromkeys((*selection.features, *selection.sides)))
        first = 0
        try:
            for batch in self._file.iter_batches(batch_rows, columns=columns, use_threads=False):
                part = batch.slice(0, wanted - first)
                yield _make_chunk(part, selection, dtype, first)
                first += part.num_rows
                if first >= wanted:
                    break
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self._path, error) from None


def _make_chunk(batch: pa.RecordBatch, selection: Selection, dtype: np.dtype[Any], first: int) -> Chunk:
    matrix = np.empty((batch.num_rows, len(selection.features)), dtype)
    for position, name in enumerate(selection.features):
        matrix[:, position] = _to_floats(name, batch.column(name), first)
    return Chunk(matrix, {name: batch.column(name) for name in selection.sides})


def _to_floats(name: str, column: pa.Array, first: int) -> NDArray[Any]:
    """Return a column as numbers, with NaN for null."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    elif pa.types.is_integer(kind) and kind.bit_width == 64:
        refuse_inexact_integers(name, column.fill_null(0).to_numpy(zero_copy_only=False), first)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _refuse_text(name: str, kind: pa.DataType) -> None:
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
        return
    raise DataError(
        f"The column {name!r} has the type {kind}; features must be numbers or booleans (categories and text are not "
        f"read yet). Convert it in the file, or leave it out: `drop: [{name}]`."
    )


def _damaged(path: Path, error: Exception) -> DataError:
    text = str(error).partition("\n")[0][:300]
    return DataError(f"{path} cannot be read as Parquet: {text}. Write the file again, or check `data.format`.")
