"""NumPy's own files: ``.npy`` (a matrix, or a structured array) and ``.npz`` (``X`` and further arrays).

Nothing is unpickled. What lies uncompressed is read in place, chunk by chunk, out of the archive itself.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.data.columns import Offer, Selection
from containers.data.matrix import refuse_inexact_integers
from containers.data.npyfile import NpyHeader, read_header
from containers.data.sources import CHUNK_BYTES, Chunk, refuse_bomb
from jobspec.errors import DataError

_LOCAL_HEADER = struct.Struct("<4s22xHH")


@dataclass(frozen=True)
class StoredArray:
    """An array inside a file: its header, where its first element lies (None if packed), and how it is opened.

    ``crc`` is the archive's checksum over header and elements, and ``crc_start`` its state after the header.
    """

    name: str
    path: Path
    header: NpyHeader
    offset: int | None
    open_packed: Callable[[], BinaryIO] | None = None
    crc: int | None = None
    crc_start: int = 0

    def load(self) -> NDArray[Any]:
        """Return the whole array."""
        with self.open() as file:
            body = bytearray(self.header.data_bytes)
            _fill(file, memoryview(body), self)
        self.check_crc(zlib.crc32(body, self.crc_start))
        flat: NDArray[Any] = np.frombuffer(body, self.header.dtype)
        return flat.reshape(self.header.shape, order="F" if self.header.fortran_order else "C")

    def open(self) -> BinaryIO:
        """Open the file at the first element."""
        if self.open_packed is not None:
            return self.open_packed()
        file = self.path.open("rb", buffering=0)
        file.seek(self.offset or 0)
        return cast(BinaryIO, file)

    def iter_rows(self, stop: int) -> Iterator[NDArray[Any]]:
        """Yield the rows before ``stop`` in chunks; each is overwritten by the next."""
        if self.header.fortran_order and len(self.header.shape) == 2 and self.header.shape[1] > 1:
            yield from self._iter_fortran_rows(stop)
            return
        row_bytes = max(1, self.header.data_bytes // max(1, self.header.shape[0]))
        chunk_rows = max(1, CHUNK_BYTES // row_bytes)
        buffer = np.empty(chunk_rows * row_bytes, np.uint8)
        crc = self.crc_start
        with self.open() as file:
            for first in range(0, stop, chunk_rows):
                num_rows = min(chunk_rows, stop - first)
                body = buffer[: num_rows * row_bytes]
                _fill(file, body.data, self)
                crc = zlib.crc32(body.data, crc) if self.crc is not None else 0
                yield body.view(self.header.dtype).reshape(num_rows, *self.header.shape[1:])
        if stop == self.header.shape[0]:
            self.check_crc(crc)

    def check_crc(self, found: int) -> None:
        """Compare the elements with the archive's checksum, where there is one."""
        if self.crc is not None and found != self.crc:
            raise DataError(
                f"{self.path}: the array {self.name!r} is damaged: its CRC-32 is {found:08x}, {self.crc:08x} was "
                "written. Copy or write the file again."
            )

    def _iter_fortran_rows(self, stop: int) -> Iterator[NDArray[Any]]:
        """Columns lie one behind the other: map the file, or hold the array if it is packed."""
        if self.offset is None:
            whole = self.load()
        else:
            shape, dtype = self.header.shape, self.header.dtype
            whole = np.asarray(np.memmap(self.path, dtype, "r", self.offset, shape, order="F"))
        chunk_rows = max(1, CHUNK_BYTES // max(1, self.header.dtype.itemsize * self.header.shape[1]))
        for first in range(0, stop, chunk_rows):
            yield np.ascontiguousarray(whole[first : min(stop, first + chunk_rows)])


def _fill(file: BinaryIO, target: memoryview, array: StoredArray) -> None:
    """Read exactly as many bytes as the target takes."""
    try:
        while target:
            count = file.readinto(target)  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the file ends early")
            target = target[count:]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{array.path}: the array {array.name!r} is damaged: {error}. Write the file again.") from None


class ArraySource:
    """A matrix whose columns are numbered, or a structured array, and arrays beside it."""

    untyped = False

    def __init__(self, matrix: StoredArray, sides: Mapping[str, Callable[[], StoredArray]] | None) -> None:
        self._matrix = matrix
        self._sides = sides
        _check_matrix(matrix)
        self._fields = matrix.header.dtype.names
        count = len(self._fields or ()) or matrix.header.shape[1]
        self._columns = self._fields or tuple(str(i) for i in range(count))

    def offer(self) -> Offer:
        """Return fields or positions as columns; in an NPZ the other arrays stand beside them."""
        if self._sides is None:
            hint = "" if self._fields else " Columns are positions; the last one is '-1'."
            return Offer(self._columns, self._columns, hint=hint)
        names = tuple(self._sides)
        return Offer(self._columns, names, default_target="y" if "y" in names else None)

    def feature_dtype(self, features: tuple[str, ...]) -> np.dtype[Any]:
        """Return float32 if all features are stored as float32, else float64."""
        single = all(self._dtype_of(name).newbyteorder("=") == np.float32 for name in features)
        return np.dtype(np.float32 if single else np.float64)

    def chunks(self, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Iterator[Chunk]:
        """Yield the rows; arrays beside X are read whole, with the first chunk's rows first."""
        for name in selection.features:
            _refuse_no_number(name, self._dtype_of(name), self._matrix)
        total = self._matrix.header.shape[0]
        stop = total if rows is None else min(rows, total)
        beside = {name: self._load_side(name, total)[:stop] for name in selection.sides if self._sides is not None}
        first = 0
        for part in self._matrix.iter_rows(stop):
            sides = {name: values[first : first + len(part)] for name, values in beside.items()}
            if self._sides is None:
                sides = {name: self._column(part, name) for name in selection.sides}
            matrix = self._take_features(part, selection.features, dtype, first)
            yield Chunk(matrix, {name: _to_arrow(name, values) for name, values in sides.items()})
            first += len(part)

    def _dtype_of(self, name: str) -> np.dtype[Any]:
        dtype = self._matrix.header.dtype
        return dtype[name] if self._fields else dtype

    def _column(self, part: NDArray[Any], name: str) -> NDArray[Any]:
        return part[name] if self._fields else part[:, int(name)]

    def _take_features(
        self, part: NDArray[Any], features: tuple[str, ...], dtype: np.dtype[Any], first: int
    ) -> NDArray[Any]:
        """Return C-ordered features; the very chunk if it is that already."""
        if part.dtype.names is None and features == self._columns:
            _refuse_inexact_matrix(part, features, first)
            return np.ascontiguousarray(part, dtype)
        matrix = np.empty((len(part), len(features)), dtype)
        for position, name in enumerate(features):
            column = self._column(part, name)
            refuse_inexact_integers(name, column, first)
            matrix[:, position] = column
        return matrix

    def _load_side(self, name: str, num_rows: int) -> NDArray[Any]:
        array = (self._sides or {})[name]()
        if array.header.shape != (num_rows,):
            raise DataError(
                f"{array.path}: the array {name!r} has the shape {array.header.shape}, X has {num_rows} rows. "
                f"It must have the shape ({num_rows},)."
            )
        return array.load()


def _check_matrix(array: StoredArray) -> None:
    shape, dtype = array.header.shape, array.header.dtype
    if dtype.names is not None and len(shape) == 1:
        for name in dtype.names:
            if dtype[name].names is not None or dtype[name].shape:
                raise DataError(f"{array.path}: the field {name!r} holds {dtype[name]}; a field must hold one value.")
    elif dtype.names is not None or len(shape) != 2 or shape[1] == 0:
        raise DataError(
            f"{array.path}: the array {array.name!r} has the shape {shape} and the type {dtype}. It must have two "
            "dimensions (rows, columns) of numbers, or one dimension of records with named fields."
        )


def _refuse_no_number(name: str, dtype: np.dtype[Any], array: StoredArray) -> None:
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        return
    raise DataError(
        f"{array.path}: the column {name!r} has the type {dtype}; features must be booleans, integers or floats of at "
        f"most 64 bits. Convert it (.astype('float64')) or leave it out: `drop: ['{name}']`."
    )


def _refuse_inexact_matrix(part: NDArray[Any], features: tuple[str, ...], first: int) -> None:
    if part.dtype.kind in "iu" and part.dtype.itemsize == 8:
        for position, name in enumerate(features):
            refuse_inexact_integers(name, part[:, position], first)


def _to_arrow(name: str, values: NDArray[Any]) -> pa.Array:
    """Return a column beside X as Arrow; bytes are taken for ASCII text."""
    if values.dtype.kind == "S":
        try:
            values = np.char.decode(values, "ascii")
        except UnicodeDecodeError:
            raise DataError(
                f"The column {name!r} holds bytes that are no ASCII text. Save it as text: .astype(str)."
            ) from None
    if values.dtype.kind == "U":
        return pa.array(values.tolist(), pa.string())
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise DataError(f"The column {name!r} has the type {values.dtype}; it must hold numbers, booleans or text.")
    return pa.array(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("=")))


def open_npy(path: Path) -> ArraySource:
    """Open a ``.npy`` file.

    Raises:
        DataError: no npy, cut short, bytes behind its end, objects, or a shape that is no table.
    """
    with path.open("rb") as file:
        header = read_header(file, str(path))
    _check_length(str(path), header, path.stat().st_size)
    return ArraySource(StoredArray(path.stem, path, header, header.data_offset), None)


def open_npz(path: Path) -> ArraySource:
    """Open a ``.npz`` archive with an array ``X``; only headers are read.

    Raises:
        DataError: no zip, no ``X``, a damaged member, or one that unpacks beyond reason.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as NPZ: {error}. Write it with numpy.savez.") from None
    if "X" not in members:
        raise DataError(
            f"{path} has no array 'X'; it has {', '.join(map(repr, members)) or 'none'}. "
            "Write it as numpy.savez(file, X=..., y=...)."
        )
    # Opened when they are asked for: an array that nobody names may hold anything.
    sides = {name: partial(open_member, path, name, info) for name, info in members.items() if name != "X"}
    return ArraySource(open_member(path, "X", members["X"]), sides)


def open_member(path: Path, name: str, info: zipfile.ZipInfo) -> StoredArray:
    """Read the header of one array of an archive and find its elements."""
    where = f"{path}: the array {name!r}"
    refuse_bomb(path, info.file_size, max(1, info.compress_size))
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as file:
            header = read_header(file, where)
        start = _first_bytes(path, info, header.data_offset)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{where} is damaged: {error}. Write the file again.") from None
    _check_length(where, header, info.file_size)
    if info.compress_type == zipfile.ZIP_STORED:
        offset, crc_start = start
        return StoredArray(name, path, header, offset, None, info.CRC, crc_start)

    def open_packed() -> BinaryIO:
        # A member keeps its archive's file open until it is closed itself.
        with zipfile.ZipFile(path) as archive:
            file = archive.open(info)
        file.read(header.data_offset)
        return cast(BinaryIO, file)

    return StoredArray(name, path, header, None, open_packed)


def _first_bytes(path: Path, info: zipfile.ZipInfo, header_bytes: int) -> tuple[int, int]:
    """Return where an unpacked member's elements begin, and the CRC-32 of its header."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        mark, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if mark != b"PK\x03\x04":
            raise zipfile.BadZipFile("its local header is missing")
        # The lengths here can differ from those in the central directory.
        file.seek(name_length + extra_length, 1)
        start = file.tell()
        return start + header_bytes, zlib.crc32(file.read(header_bytes))


def _check_length(where: str, header: NpyHeader, length: int) -> None:
    needed = header.data_offset + header.data_bytes
    if length == needed:
        return
    what = "is cut short" if length < needed else "has extra bytes behind its end"
    raise DataError(
        f"{where} {what}: its header announces {needed} bytes for the shape {header.shape} of {header.dtype}, it has "
        f"{length}. Write it again with NumPy."
    )
