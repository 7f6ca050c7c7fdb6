"""The ``.npy`` format in rows: headers, writing with digests, and reading back with every digest checked."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from jobspec.errors import DataError
from jobspec.search.inspection import BLOCK_BYTES, Block

HEADER_BYTES = 128
"""Length of the header that `NpyWriter` writes: a multiple of 64, so that mapped rows are aligned."""

MAX_HEADER_BYTES = 2**22
_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}


Body = NDArray[np.uint8]
"""Bytes of a file."""


class Readable(Protocol):
    """A binary stream: an opened file, or a member of a zip archive."""

    def read(self, size: int = ..., /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""


@dataclass(frozen=True)
class NpyHeader:
    """What a header says; ``data_offset`` counts the bytes before the first element."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    data_offset: int

    @property
    def data_bytes(self) -> int:
        """Return the length of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: Readable, name: str) -> NpyHeader:
    """Read a header without ever unpickling, leaving the stream at the first element.

    Raises:
        DataError: the bytes are no ``.npy`` header, or announce something other than plain elements.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != _MAGIC or start[6] not in _LENGTH_BYTES:
        raise DataError(
            f"{name} is not in NumPy's npy format (its first bytes are {start!r}). Write it with numpy.save."
        )
    width = _LENGTH_BYTES[start[6]]
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(min(length, MAX_HEADER_BYTES))
    if len(text) < length:
        raise DataError(f"{name} is cut short or damaged inside its header. Write it again with numpy.save.")
    dtype, shape, fortran_order = _parse_header(text.decode("utf-8" if start[6] == 3 else "latin-1"), name)
    return NpyHeader(dtype, shape, fortran_order, 8 + width + length)


def _parse_header(text: str, name: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.strip())
        dtype = np.lib.format.descr_to_dtype(header["descr"])
        shape, fortran_order = header["shape"], header["fortran_order"]
        sound = isinstance(fortran_order, bool) and all(type(n) is int and n >= 0 for n in shape)
    except (SyntaxError, ValueError, TypeError, KeyError, IndexError, RecursionError, MemoryError):
        sound = False
    if not sound:
        raise DataError(f"{name} has a damaged npy header: {text[:80]!r}. Write it again with numpy.save.")
    if dtype.hasobject:
        raise DataError(
            f"{name} holds Python objects (dtype {dtype}), which only pickle could read, and unpickling runs code. "
            "Save plain numbers, or labels as text: y.astype(str)."
        )
    return dtype, tuple(shape), fortran_order


class NpyWriter:
    """Write rows to a new C-ordered ``.npy`` file of unknown length, keeping a digest per `BLOCK_BYTES`.

    Nothing is made durable here: the store or the cache decides that.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self._file: FileIO = path.open("x+b", buffering=0)
        self._dtype = dtype
        self._row_shape = row_shape
        self._num_rows = 0
        self._digests: list[str] = []
        self._hash = xxhash.xxh3_128()
        self._hashed = 0
        self._put(memoryview(bytes(HEADER_BYTES)))

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows that already have the writer's type."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows of {rows.dtype} {rows.shape} do not fit {self._dtype} {self._row_shape}")
        self._num_rows += len(rows)
        if rows.nbytes:
            self._put(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)

    def close(self, name: str, columns: tuple[str, ...] = ()) -> Block:
        """Complete the header and describe the file."""
        self._close_digest()
        shape = (self._num_rows, *self._row_shape)
        self._file.seek(0)
        write_all(self._file, memoryview(make_header(self._dtype, shape)))
        self._file.seek(0)
        self._digests[0] = xxhash.xxh3_128_hexdigest(self._file.read(BLOCK_BYTES))
        nbytes = self._file.seek(0, os.SEEK_END)
        file = Path(str(self._file.name)).name
        self._file.close()
        return Block(
            name=name,
            file=file,
            dtype=self._dtype.str,
            shape=shape,
            columns=columns,
            nbytes=nbytes,
            digests=tuple(self._digests),
        )

    def abort(self) -> None:
        """Close the file without completing it; after `close` this does nothing."""
        self._file.close()

    def _put(self, data: memoryview) -> None:
        write_all(self._file, data)
        while data:
            part = data[: BLOCK_BYTES - self._hashed]
            self._hash.update(part)
            self._hashed += len(part)
            data = data[len(part) :]
            if self._hashed == BLOCK_BYTES:
                self._close_digest()

    def _close_digest(self) -> None:
        if self._hashed:
            self._digests.append(self._hash.hexdigest())
        self._hash.reset()
        self._hashed = 0


def write_array(folder: Path, name: str, values: NDArray[Any]) -> Block:
    """Write a whole array as ``{name}.npy``."""
    writer = NpyWriter(folder / f"{name}.npy", values.dtype, values.shape[1:])
    try:
        writer.append(values)
        return writer.close(name)
    finally:
        writer.abort()


def write_all(file: FileIO, data: memoryview) -> None:
    """Write every byte to an unbuffered file, which may take fewer at once than it is given."""
    while data:
        data = data[file.write(data) :]


def make_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return a version 1.0 header of exactly `HEADER_BYTES`."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}".encode("ascii")
    body = text.ljust(HEADER_BYTES - 11) + b"\n"
    return _MAGIC + b"\x01\x00" + len(body).to_bytes(2, "little") + body


def iter_rows(block: Block, bodies: Iterable[tuple[int, Body]]) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, rows) in order: the whole rows of each block, and alone a row that lies across a border.

    The arrays are views that the next step overwrites; beside the blocks at most one row is held.

    Args:
        block: the stored array.
        bodies: (index, bytes) of its blocks in order; where some are left out, rows that are not whole are, too.
    """
    dtype, row_bytes = np.dtype(block.dtype), count_row_bytes(block)
    seam, carried, following = np.empty(row_bytes, np.uint8), 0, 0
    for index, body in bodies:
        offset = index * BLOCK_BYTES - HEADER_BYTES
        begin = max(0, -offset)
        carried = carried if index == following else 0
        following = index + 1
        if carried:
            missing = min(row_bytes - carried, len(body) - begin)
            seam[carried : carried + missing] = body[begin : begin + missing]
            carried, begin = carried + missing, begin + missing
            if carried < row_bytes:  # a row that is wider than a block
                continue
            yield (offset + begin) // row_bytes - 1, seam.view(dtype).reshape(1, *block.shape[1:])
        begin += -(offset + begin) % row_bytes  # behind a gap a block begins inside a row that nobody wants
        num_rows = max(0, len(body) - begin) // row_bytes
        end = begin + num_rows * row_bytes
        if num_rows:
            rows = body[begin:end].view(dtype).reshape(num_rows, *block.shape[1:])
            yield (offset + begin) // row_bytes, rows
        carried = max(0, len(body) - end)
        seam[:carried] = body[len(body) - carried :]


def find_wanted_blocks(block: Block, wanted_rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for each `BLOCK_BYTES` of the file whether it holds a part of a wanted row."""
    row_bytes = count_row_bytes(block)
    starts = np.arange(len(block.digests), dtype=np.int64) * BLOCK_BYTES - HEADER_BYTES
    first = np.maximum(starts // row_bytes, 0)
    stop = np.minimum(-(-(starts + BLOCK_BYTES) // row_bytes), block.shape[0])
    counts = np.concatenate([[0], np.cumsum(wanted_rows)])
    return np.asarray(counts[stop] > counts[np.minimum(first, stop)])


def count_row_bytes(block: Block) -> int:
    """Return the size of one row of an array."""
    return math.prod(block.shape[1:]) * np.dtype(block.dtype).itemsize
