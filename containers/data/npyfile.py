"""The ``.npy`` format in rows: headers, writing with digests, and reading back with every digest checked."""

from __future__ import annotations

import ast
import math
import os
from collections.abc import Callable, Iterator
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
    """Write a whole one-dimensional array as ``{name}.npy``."""
    writer = NpyWriter(folder / f"{name}.npy", values.dtype, ())
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


ReadInto = Callable[[int, memoryview], None]
"""Fill a buffer with the bytes from an offset on, or raise."""


def iter_checked_rows(
    block: Block, key: str, read_into: ReadInto, wanted: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, rows) in order, every digest checked before its bytes are used.

    The arrays are views of one buffer which the next step overwrites. At most `BLOCK_BYTES` and one row are held.

    Args:
        block: the stored array.
        key: its key, for messages.
        read_into: fills a buffer with the file's bytes from an offset on.
        wanted: one flag per `BLOCK_BYTES`; a block without it is not read (see `find_wanted_blocks`).

    Raises:
        DataError: a block's bytes are not those that were written.
    """
    dtype, row_bytes, data_start = np.dtype(block.dtype), _row_bytes(block), HEADER_BYTES
    buffer = np.empty(row_bytes + BLOCK_BYTES, np.uint8)
    carried = 0
    for index, digest in enumerate(block.digests):
        offset = index * BLOCK_BYTES
        if wanted is not None and not wanted[index]:
            carried = 0
            continue
        length = min(BLOCK_BYTES, block.nbytes - offset)
        filled = carried + length
        target = buffer.data[carried:filled]
        read_into(offset, target)
        check_digest(target, digest, key, index)
        # After a gap the block begins inside a row that nobody wants.
        first = max(0, -(-(offset - carried - data_start) // row_bytes))
        start = data_start + first * row_bytes - (offset - carried)
        num_rows = (filled - start) // row_bytes
        end = start + num_rows * row_bytes
        if num_rows > 0:
            yield first, buffer[start:end].view(dtype).reshape(num_rows, *block.shape[1:])
        else:
            end = start
        carried = filled - end
        buffer[:carried] = buffer[end:filled].copy()


def find_wanted_blocks(block: Block, wanted_rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Say for each `BLOCK_BYTES` of the file whether it holds a part of a wanted row."""
    row_bytes = _row_bytes(block)
    starts = np.arange(len(block.digests), dtype=np.int64) * BLOCK_BYTES - HEADER_BYTES
    first = np.maximum(starts // row_bytes, 0)
    stop = np.minimum(-(-(starts + BLOCK_BYTES) // row_bytes), block.shape[0])
    counts = np.concatenate([[0], np.cumsum(wanted_rows)])
    return np.asarray(counts[stop] > counts[np.minimum(first, stop)])


def check_digest(data: memoryview, digest: str, key: str, index: int) -> None:
    """Compare a block's bytes with what was written.

    Raises:
        DataError: they differ.
    """
    found = xxhash.xxh3_128_hexdigest(data)
    if found != digest:
        raise DataError(
            f"The stored object {key!r} is damaged in its block {index} ({BLOCK_BYTES} bytes from "
            f"{index * BLOCK_BYTES}): xxh3_128 is {found}, {digest} was written. "
            "Delete that dataset's folder in the store and run the same command again."
        )


def _row_bytes(block: Block) -> int:
    return math.prod(block.shape[1:]) * np.dtype(block.dtype).itemsize
