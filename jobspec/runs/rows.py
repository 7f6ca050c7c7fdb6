"""Result rows: one per cell, as JSON in a task's log and as Parquet once folded."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from jobspec.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

State = Literal["ok", "fit_error", "lost"]

FINAL: frozenset[str] = frozenset({"ok", "fit_error"})
"""States that are never computed again; `lost` is (rule 6 of the store)."""

FORMAT_VERSION = 1
"""Raise when a column changes its meaning; it stands in the metadata of every Parquet file."""


class Row(TypedDict):
    """The result of one cell.

    ``scores`` maps ``test_{scorer}`` and ``train_{scorer}`` to a score, NaN where it failed; times are in
    seconds, memory in bytes. ``shared_fit`` says that another candidate's fit scored this one.
    """

    candidate: int
    split: int
    key: str
    state: State
    scores: dict[str, float]
    fit_s: float
    score_s: float
    cpu_s: float
    peak_memory_bytes: int
    attempt: str
    host: str
    kernel: str
    shared_fit: bool
    score_digest: str
    error: str | None
    num_warnings: int
    warning: str | None


def make_lost_row(candidate: int, split: int, key: str, reason: str, attempt: str, host: str, kernel: str) -> Row:
    """Return the row of a cell that could not be finished."""
    return Row(
        candidate=candidate,
        split=split,
        key=key,
        state="lost",
        scores={},
        fit_s=math.nan,
        score_s=math.nan,
        cpu_s=math.nan,
        peak_memory_bytes=0,
        attempt=attempt,
        host=host,
        kernel=kernel,
        shared_fit=False,
        score_digest="lost",
        error=reason,
        num_warnings=0,
        warning=None,
    )


def row_to_json(row: Row) -> dict[str, Any]:
    """Encode a row; floats keep every bit (shortest repr), NaN and infinities are tagged."""
    document: dict[str, Any] = {name: _number_to_json(value) for name, value in row.items()}
    document["scores"] = {name: _number_to_json(value) for name, value in row["scores"].items()}
    return document


def row_from_json(document: Mapping[str, Any]) -> Row:
    """Decode what `row_to_json` made."""
    row: dict[str, Any] = {name: _number_from_json(value) for name, value in document.items()}
    row["scores"] = {name: _number_from_json(value) for name, value in document["scores"].items()}
    row["error"], row["warning"] = _printable(row["error"]), _printable(row["warning"])
    return cast(Row, row)


def rows_to_table(rows: Sequence[Row], schema: pa.Schema, divergent: Mapping[int, int] | None = None) -> pa.Table:
    """Return the rows of one task as an Arrow table, sorted by split and candidate.

    Args:
        rows: the first row of each cell.
        schema: what `table_schema` returned for the run.
        divergent: by candidate, how many later rows had other scores.
    """
    import pyarrow as pa

    counts = divergent or {}
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for row in sorted(rows, key=lambda row: (row["split"], row["candidate"])):
        flat = {**row, "divergent": counts.get(row["candidate"], 0)}
        for name in schema.names:
            columns[name].append(row["scores"].get(name, math.nan) if _is_score(name) else flat[name])
    return pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema)


def table_schema(scorers: Sequence[str], train_score: bool) -> pa.Schema:
    """Return the columns of folded results."""
    import pyarrow as pa

    kinds = ("test", "train") if train_score else ("test",)
    scores = [(f"{kind}_{scorer}", pa.float64()) for scorer in scorers for kind in kinds]
    fields = [
        ("candidate", pa.int64()),
        ("split", pa.int32()),
        ("key", pa.string()),
        ("state", pa.string()),
        *scores,
        *((name, pa.float64()) for name in ("fit_s", "score_s", "cpu_s")),
        ("peak_memory_bytes", pa.int64()),
        *((name, pa.string()) for name in ("attempt", "host", "kernel")),
        ("shared_fit", pa.bool_()),
        ("score_digest", pa.string()),
        ("error", pa.string()),
        ("num_warnings", pa.int32()),
        ("warning", pa.string()),
        ("divergent", pa.int32()),
    ]
    return pa.schema(fields, metadata={"foldfleet_format_version": str(FORMAT_VERSION)})


def table_to_parquet(table: pa.Table) -> bytes:
    """Return an Arrow table as the bytes of a Parquet file."""
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table, sink, compression="snappy", write_page_checksum=True)
    return sink.getvalue()


def table_from_parquet(body: bytes, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the Arrow table in the bytes of a Parquet file.

    `ParquetFile` and not `read_table`, whose data set layer costs a millisecond more for each of 10^4 small files.

    Args:
        body: what `table_to_parquet` made.
        schema: the columns that it must have.
        columns: those that are wanted, where not all are: of 10^4 small files that saves half the time.

    Raises:
        DataError: the bytes were damaged (every page carries a checksum), or are of another format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False, page_checksum_verification=True)
        is_whole = file.schema_arrow.equals(schema, check_metadata=True)
        table = file.read(columns, use_threads=False) if is_whole else None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(str(error)) from None
    if table is None:
        raise _damaged("its columns are not those of the run")
    return table


def _damaged(what: str) -> DataError:
    return DataError(
        f"A table of results in the store was damaged: {what}. Remove it (rows are then read from the logs of their "
        "tasks), or run the spec again with --fresh."
    )


def concat_tables(tables: Iterable[pa.Table]) -> pa.Table | None:
    """Return the tables below each other, or None if there is none."""
    import pyarrow as pa

    present = list(tables)
    return pa.concat_tables(present) if present else None


def _printable(text: str | None) -> str | None:
    """Replace what UTF-8 cannot hold: messages can quote file names with undecodable bytes (lone surrogates)."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _is_score(name: str) -> bool:
    return name.startswith(("test_", "train_"))


def _number_to_json(value: Any) -> Any:
    return {"$float": repr(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _number_from_json(value: Any) -> Any:
    return float(value["$float"]) if isinstance(value, dict) and "$float" in value else value
