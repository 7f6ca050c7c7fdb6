"""CSV through pyarrow, in blocks, with every option written out; plain or gzip.

Types are not guessed from the first block alone: features are numbers by declaration, columns beside X come as
text and get their type when all of them is known. Where a value does not fit, the file is read once more to name it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from containers.data.columns import MISSING_WORDS, Offer, Selection
from containers.data.matrix import MAX_EXACT_INTEGER, inexact_integer
from containers.data.sources import CHUNK_BYTES, Chunk, refuse_bomb
from jobspec.errors import DataError

_INTEGER = r"^\s*[+-]?[0-9]+\s*$"
_NUMERIC = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
_TRUE_WORDS = ["1", "true", "True", "TRUE"]
_FALSE_WORDS = ["0", "false", "False", "FALSE"]
_PARSE_OPTIONS = {"delimiter": ",", "quote_char": '"', "double_quote": True, "newlines_in_values": True}


class CsvSource:
    """A comma-separated file with a header line."""

    untyped = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._booleans: frozenset[str] = frozenset()
        self._spelled: set[str] = set()
        self._columns = self._read_header()

    def offer(self) -> Offer:
        """Return the header's names; columns without a name are no features."""
        named = tuple(name for name in self._columns if name)
        unlisted = {}
        if len(named) < len(self._columns):
            place = self._columns.index("") + 1
            unlisted[""] = f"column {place} has no name (an index?) and is left out of X; name it in the file to use it"
        return Offer(self._columns, self._columns, unlisted=unlisted, hint=_hint(self._columns))

    def feature_dtype(self, features: tuple[str, ...]) -> np.dtype[Any]:  # noqa: ARG002 - the protocol's
        """Return float64: text says nothing of a width."""
        return np.dtype(np.float64)

    def chunks(self, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Iterator[Chunk]:
        """Yield blocks of rows; a type that was guessed wrong is corrected on the way.

        Raises:
            DataError: text among the numbers, ragged rows, another encoding, damaged compression.
        """
        first = 0
        while True:
            try:
                for chunk in self._read(selection, dtype, rows, first):
                    yield chunk
                    first += len(chunk.matrix)
                return
            except pa.ArrowInvalid as error:
                if "conversion error" not in str(error):
                    raise
                # A later block holds what the first one did not: find out over the whole file, then go on behind
                # the rows that were already given out.
                known = self._booleans
                self._booleans = self._find_booleans(selection, rows)
                if known == self._booleans:
                    raise DataError(f"{self._path}: {str(error)[:300]}. Mend that row.") from None

    def _read(self, selection: Selection, dtype: np.dtype[Any], rows: int | None, skip: int) -> Iterator[Chunk]:
        types = {name: pa.bool_() if name in self._booleans else pa.float64() for name in selection.features}
        first = 0
        for batch in self._batches(selection, types, rows):
            part = batch.slice(max(0, skip - first))
            first += batch.num_rows
            if part.num_rows:
                yield self._make_chunk(part, selection, dtype, rows)

    def _make_chunk(self, batch: pa.RecordBatch, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Chunk:
        matrix = np.empty((batch.num_rows, len(selection.features)), dtype)
        for position, name in enumerate(selection.features):
            column = batch.column(name)
            matrix[:, position] = column.cast(pa.uint8()) if name in self._booleans else column
        if (np.abs(matrix) >= MAX_EXACT_INTEGER).any():
            self._refuse_inexact(selection, matrix, rows)
        return Chunk(matrix, {name: batch.column(name) for name in selection.sides})

    def _refuse_inexact(self, selection: Selection, matrix: NDArray[Any], rows: int | None) -> None:
        """Look up, once for a column, how large numbers are spelled: 1e300 is a float, digits alone are an integer."""
        large = np.flatnonzero((np.abs(matrix) >= MAX_EXACT_INTEGER).any(axis=0))
        names = [selection.features[i] for i in large if selection.features[i] not in self._spelled]
        self._spelled.update(names)
        first = 0
        for batch in self._texts(tuple(names), rows) if names else ():
            for name in names:
                _refuse_large_integers(name, batch.column(name), first)
            first += batch.num_rows

    def _find_booleans(self, selection: Selection, rows: int | None) -> frozenset[str]:
        """Return the features that hold booleans over all rows; name the first value that is neither.

        Raises:
            DataError: a value that is no number, or a number in a column of booleans.
        """
        words: set[str] = set()
        numbers: set[str] = set()
        first = 0
        for batch in self._texts(selection.features, rows):
            for name in selection.features:
                _sort_column(name, batch.column(name), first, words, numbers)
            first += batch.num_rows
        return frozenset(words)

    def _texts(self, columns: tuple[str, ...], rows: int | None) -> Iterator[pa.RecordBatch]:
        names = Selection(columns, columns[0], None, None, (), ())
        yield from self._batches(names, {name: pa.string() for name in columns}, rows)

    def _batches(
        self, selection: Selection, types: dict[str, pa.DataType], rows: int | None
    ) -> Iterator[pa.RecordBatch]:
        texts = {name: pa.string() for name in selection.sides if name not in types}
        options = pacsv.ConvertOptions(
            check_utf8=True,
            column_types=types | texts,
            include_columns=list(types | texts),
            null_values=list(MISSING_WORDS),
            true_values=_TRUE_WORDS,
            false_values=_FALSE_WORDS,
            strings_can_be_null=False,
            quoted_strings_can_be_null=True,
        )
        left = rows
        with self._stream(options) as reader:
            for batch in reader:
                part = batch if left is None else batch.slice(0, left)
                left = None if left is None else left - part.num_rows
                if part.num_rows:
                    yield part
                if left == 0:
                    return

    def _read_header(self) -> tuple[str, ...]:
        _refuse_utf16(self._path)
        with self._stream(pacsv.ConvertOptions(null_values=list(MISSING_WORDS))) as reader:
            names = _names(reader, self._path)
            self._booleans = frozenset(
                name for name, kind in zip(names, reader.schema.types, strict=True) if pa.types.is_boolean(kind)
            )
        return names

    @contextmanager
    def _stream(self, options: pacsv.ConvertOptions) -> Iterator[pacsv.CSVStreamingReader]:
        """Open a reader and turn its refusals, but for values that do not convert, into DataError."""
        ragged: list[pacsv.InvalidRow] = []

        def refuse(row: pacsv.InvalidRow) -> str:
            ragged.append(row)
            return "error"

        with _open_bytes(self._path) as stream:
            try:
                # pyarrow numbers rows only when it does not parse in parallel.
                reading = pacsv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES)
                parsing = pacsv.ParseOptions(**_PARSE_OPTIONS, invalid_row_handler=refuse)
                with pacsv.open_csv(pa.PythonFile(stream, "r"), reading, parsing, options) as reader:
                    yield reader
            except DataError:
                raise
            except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
                stream.raise_own()
                if ragged:
                    raise _ragged(self._path, ragged[0]) from None
                if isinstance(error, pa.ArrowInvalid) and "conversion error" in str(error) and "UTF8" not in str(error):
                    raise
                raise _explain(self._path, error) from None


def _sort_column(name: str, column: pa.Array, first: int, words: set[str], numbers: set[str]) -> None:
    """Note whether a piece of a column holds words of truth or numbers; refuse both, and anything else."""
    words_here = pc.utf8_trim_whitespace(column)
    missing = pc.is_in(words_here, pa.array(MISSING_WORDS))
    truth = pc.is_in(words_here, pa.array(_TRUE_WORDS[1:] + _FALSE_WORDS[1:]))
    rest = pc.invert(pc.or_(missing, truth))
    numbers_here = words_here.filter(rest)
    if pc.any(truth).as_py():
        words.add(name)
    if not _is_numeric(numbers_here):
        flags = [not _is_numeric(pa.array([text])) for text in numbers_here.to_pylist()]
        row = int(np.flatnonzero(rest.to_numpy(zero_copy_only=False))[flags.index(True)])
        raise _no_number(name, first + row, column[row].as_py())
    binary = pc.is_in(numbers_here, pa.array(["0", "1"]))
    if not pc.all(binary, min_count=0).as_py():
        numbers.add(name)
    if name in words and name in numbers:
        wrong = truth if pc.any(truth).as_py() else pc.and_(rest, pc.invert(pc.is_in(words_here, pa.array(["0", "1"]))))
        row = int(pc.index(wrong, True).as_py())
        raise _no_number(name, first + row, column[row].as_py(), " among other kinds of values")


def _is_numeric(column: pa.Array) -> bool:
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _no_number(name: str, row: int, text: str, more: str = "") -> DataError:
    return DataError(
        f"The column {name!r} holds {text[:80]!r} in row {row + 1}{more}, which is no number. Features must be numbers "
        "or true/false (categories and text are not read yet): correct the value, leave the field empty if it is "
        f"missing, or leave the column out: `drop: [{name}]`."
    )


def _refuse_large_integers(name: str, column: pa.Array, first: int) -> None:
    for row in np.flatnonzero(pc.match_substring_regex(column, _INTEGER).to_numpy(zero_copy_only=False)):
        text = column[int(row)].as_py().strip()
        if len(text) > 15 and abs(int(text)) > MAX_EXACT_INTEGER:
            raise inexact_integer(name, int(text), first + int(row))


class _CountedStream(io.RawIOBase):
    """The unpacked bytes of a file: caps what a small archive may unpack to and counts its quotes.

    pyarrow swallows exceptions of the streams it reads from, hence `raise_own`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path.open("rb")
        self._is_gzip = self._packed.peek(2)[:2] == b"\x1f\x8b"
        self._stream = gzip.GzipFile(fileobj=self._packed) if self._is_gzip else self._packed
        self._unpacked = 0
        self._quotes = 0
        self._error: DataError | None = None

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes; all there are up to the next read's worth."""
        try:
            body = self._stream.read(size)
            self._check(body, size)
            return body
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._error = DataError(f"{self._path} is a damaged or cut-short gzip file: {error}. Copy it again.")
            raise OSError("damaged") from None
        except DataError as error:
            self._error = error
            raise OSError("refused") from None

    def raise_own(self) -> None:
        """Raise this stream's own error, if that is what made the reader fail."""
        if self._error is not None:
            raise self._error from None

    def close(self) -> None:
        """Close the file."""
        self._packed.close()
        super().close()

    def _check(self, body: bytes, size: int) -> None:
        self._unpacked += len(body)
        self._quotes += body.count(b'"')
        if self._is_gzip:
            refuse_bomb(self._path, self._unpacked, max(1, self._packed.tell()))
        if not body and size and self._quotes % 2:
            raise DataError(
                f"{self._path} has an odd number of quotes ({self._quotes}): one that opens is never closed, so that "
                "rows after it would be swallowed. Close it, or double quotes inside a quoted field."
            )


def _open_bytes(path: Path) -> _CountedStream:
    return _CountedStream(path)


def _names(reader: pacsv.CSVStreamingReader, path: Path) -> tuple[str, ...]:
    try:
        return tuple(reader.schema.names)
    except UnicodeDecodeError as error:
        raise _explain(path, error) from None


def _hint(columns: tuple[str, ...]) -> str:
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        return " The file seems to be separated by another sign; only commas are read."
    if 2 * sum(_is_numeric(pa.array([name])) for name in columns) > len(columns):
        return " The first line must be the header with the columns' names; here it holds numbers."
    return ""


def _ragged(path: Path, row: pacsv.InvalidRow) -> DataError:
    return DataError(
        f"{path}: row {row.number - 1} (line {row.number} if no field spans lines) has {row.actual_columns} fields, "
        f"the header has {row.expected_columns}: {row.text[:80]!r}. Mend that row; a field with commas needs quotes."
    )


def _explain(path: Path, error: Exception) -> DataError:
    _refuse_encoding(path)
    text = str(error)
    if "Empty CSV file" in text:
        return DataError(f"{path} has 0 rows. A table needs a header line and at least two rows.")
    if "straddling" in text:
        return DataError(f"{path} has a row longer than {CHUNK_BYTES} bytes; an unclosed quote can be the reason.")
    return DataError(f"{path} cannot be read as CSV: {text[:300]}. Mend the file, or check `data.format`.")


def _refuse_utf16(path: Path) -> None:
    with _open_bytes(path) as stream:
        try:
            start = stream.read(4096)
        except OSError:
            stream.raise_own()
            raise
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if wide or b"\0" in start:
        offset = 0 if wide else start.index(b"\0")
        raise DataError(
            f"{path} is not UTF-8 text: at offset {offset} are the bytes {start[offset : offset + 4].hex(' ')}, as in "
            "UTF-16. Convert it: iconv -f UTF-16 -t UTF-8."
        )


def _refuse_encoding(path: Path) -> None:
    """Find the first byte that is no UTF-8.

    Raises:
        DataError: there is one; its offset, the probable encoding, and the command that converts.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with _open_bytes(path) as stream:
        while body := stream.read(CHUNK_BYTES):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(body)
            except UnicodeDecodeError as error:
                place = offset - pending + error.start
                raise DataError(
                    f"{path} is not UTF-8 text: the byte 0x{error.object[error.start]:02x} at offset {place} is not. "
                    "It is probably Latin-1 or Windows-1252; convert it: iconv -f WINDOWS-1252 -t UTF-8."
                ) from None
            offset += len(body)
