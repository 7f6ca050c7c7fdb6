"""Finished rows of a run, gathered by name: what is known, folded tasks, and logs where no fold is."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobspec.errors import DataError
from jobspec.runs.rounds import RoundPlan, latest_round, load_known, load_round, runs_of_book
from jobspec.runs.rows import FINAL, concat_tables, rows_to_table, table_from_parquet, table_schema
from jobspec.runs.tasklog import LogState, decode_part
from jobspec.search.candidates import CandidateSpace
from jobspec.search.identity import make_cell_key
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RoundRows:
    """The rows of a round so far.

    ``open_tasks`` are the tasks that have no folded log yet; their rows so far are in ``table``.
    """

    table: pa.Table
    open_tasks: tuple[int, ...]


def schema_of(plan: RoundPlan) -> pa.Schema:
    """Return the columns of a round's rows."""
    return table_schema(plan.scorers, plan.train_score)


def read_rows(store: Store, plan: RoundPlan) -> RoundRows:
    """Read every row of a round: O(tasks) reads, no listing.

    A folded table that was damaged counts as absent: the logs under it are whole, or say so themselves.
    """
    schema = schema_of(plan)
    if (table := read_table(store, Layout.all(plan.run_id, plan.round), schema)) is not None:
        return RoundRows(table, ())
    known = load_known(store, plan)
    tables = [schema.empty_table() if known is None else table_from_parquet(known, schema)]
    open_tasks: list[int] = []
    for task, (table, is_folded) in enumerate(_read_tasks(store, plan)):
        tables.append(table)
        open_tasks.extend([] if is_folded else [task])
    return RoundRows(concat_tables(tables), tuple(open_tasks))


def _read_tasks(store: Store, plan: RoundPlan) -> Iterator[tuple[pa.Table, bool]]:
    """Yield the rows of each task, and whether its log was folded; several at once where each waits for an answer."""
    schema = schema_of(plan)

    def read(task: int) -> tuple[pa.Table, bool]:
        table = read_table(store, Layout.done(plan.run_id, plan.round, task), schema)
        return (read_log_table(store, plan, task), False) if table is None else (table, True)

    if store.streams == 1:
        yield from map(read, range(plan.num_tasks))
        return
    with ThreadPoolExecutor(store.streams) as pool:
        yield from pool.map(read, range(plan.num_tasks))


def read_table(store: Store, key: str, schema: pa.Schema) -> pa.Table | None:
    """Return a folded table, or None if there is none; one that was damaged counts as none."""
    body = store.get_or_none(key)
    return None if body is None else decode_table(body, key, schema)


def decode_table(body: bytes, key: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table | None:
    """Return a folded table, or only some of its columns, or None if it was damaged; ``key`` is for the log."""
    try:
        return table_from_parquet(body, schema, columns)
    except DataError as error:
        log.warning("table_damaged key=%s error=%s", key, error.message)
        return None


def read_log(store: Store, plan: RoundPlan, task: int) -> LogState:
    """Fold a task's log."""
    state = LogState()
    while (body := store.get_or_none(key := Layout.part(plan.run_id, plan.round, task, state.num_parts))) is not None:
        state.fold(decode_part(body, key))
    return state


def read_log_table(store: Store, plan: RoundPlan, task: int) -> pa.Table:
    """Fold a task's log into a table."""
    state = read_log(store, plan, task)
    return rows_to_table(list(state.rows.values()), schema_of(plan), state.divergent)


def is_folded(store: Store, run_id: str, round_index: int, task: int) -> bool:
    """Say whether a task's log was folded into a table that can be read, so that nothing needs the log."""
    schema = schema_of(load_round(store, run_id, round_index))
    return read_table(store, Layout.done(run_id, round_index, task), schema) is not None


def final_rows(store: Store, plan: RoundPlan) -> pa.Table:
    """Return the rows of a round that are never computed again."""
    import pyarrow.compute as pc

    table = read_rows(store, plan).table
    return table.filter(pc.is_in(table["state"], _strings(sorted(FINAL))))


def reusable_rows(
    store: Store,
    run_id: str,
    book_id: str,
    space: CandidateSpace,
    unseeded_entries: tuple[int, ...],
) -> pa.Table | None:
    """Return the final rows that a new round of ``run_id`` need not compute, numbered as in this run.

    The run's own newest round comes first, then the other runs of its book by the cells' keys. None means that
    nothing is known, and is told without reading any table.
    """
    own = latest_round(store, run_id)
    tables = [] if own is None else [final_rows(store, own)]
    others = [plan for other in runs_of_book(store, book_id) if other != run_id if (plan := latest_round(store, other))]
    if others:
        wanted = _candidates_by_key(space, unseeded_entries, run_id)
        tables.extend(_renumbered(final_rows(store, plan), wanted) for plan in others)
    table = concat_tables(tables)
    return None if table is None or table.num_rows == 0 else _first_of_each_cell(table)


def known_candidates(table: pa.Table | None) -> dict[int, list[int]]:
    """Return the candidates of a table's rows by split, sorted."""
    known: dict[int, list[int]] = {}
    if table is not None:
        for split, candidate in zip(table["split"].to_pylist(), table["candidate"].to_pylist(), strict=True):
            known.setdefault(split, []).append(candidate)
    return {split: sorted(candidates) for split, candidates in known.items()}


def _candidates_by_key(space: CandidateSpace, unseeded: tuple[int, ...], run_id: str) -> dict[str, list[int]]:
    wanted: dict[str, list[int]] = {}
    for candidate in range(len(space)):
        salt = run_id if space.candidate(candidate).entry_index in unseeded else None
        wanted.setdefault(make_cell_key(space, candidate, salt), []).append(candidate)
    return wanted


def _renumbered(table: pa.Table, wanted: dict[str, list[int]]) -> pa.Table:
    """Keep the rows whose key is wanted, once for each candidate that has that key."""
    import pyarrow as pa

    found = [(row, candidate) for row, key in enumerate(table["key"].to_pylist()) for candidate in wanted.get(key, ())]
    taken = table.take(pa.array([row for row, _ in found], pa.int64()))
    column = table.schema.get_field_index("candidate")
    return taken.set_column(column, "candidate", pa.array([candidate for _, candidate in found], pa.int64()))


def _first_of_each_cell(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    return table.take(pa.array(list(_first_indices(table)), pa.int64()))


def _first_indices(table: pa.Table) -> Iterator[int]:
    seen: set[tuple[int, int]] = set()
    cells = zip(table["split"].to_pylist(), table["candidate"].to_pylist(), strict=True)
    for index, cell in enumerate(cells):
        if cell not in seen:
            seen.add(cell)
            yield index


def _strings(values: list[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())
