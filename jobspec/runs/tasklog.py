"""A task's append-only log: parts without holes, created and never changed.

Rules 1 to 5 of the store (section 5 of the design): an attempt creates part n + 1 only after it has seen n; the
first row of a cell in log order counts; folding the log gives the same answer to every reader.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jobspec.errors import DataError
from jobspec.runs.rows import Row, row_from_json, row_to_json
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

FORMAT_VERSION = 1
"""Raise when a part's fields change their meaning; `LogState.fold` must go on reading the old number."""

ALONE_AFTER = 2
LOST_AFTER = 3
"""A cell in flight at two deaths of whole attempts runs alone; at a third it is lost."""


@dataclass
class Attempt:
    """What the log says of one attempt: where it ran, what it had in flight last, whether it ended gently."""

    start: Mapping[str, Any]
    in_flight: frozenset[int] = frozenset()
    ended: bool = False


@dataclass
class LogState:
    """The fold of a log's parts, in order."""

    rows: dict[int, Row] = field(default_factory=dict)
    divergent: Counter[int] = field(default_factory=Counter)
    attempts: dict[str, Attempt] = field(default_factory=dict)
    num_parts: int = 0

    def fold(self, part: Mapping[str, Any]) -> None:
        """Take in the next part."""
        if part["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"A result was written in format {part['format_version']}, this foldfleet reads {FORMAT_VERSION}. "
                "Install the foldfleet that began the run."
            )
        attempt = self.attempts.setdefault(part["attempt"], Attempt(part.get("start") or {}))
        for document in part["rows"]:
            self._take(row_from_json(document))
        attempt.in_flight = frozenset(part["in_flight"])
        attempt.ended = part.get("end") is not None
        self.num_parts += 1

    def deaths(self, candidate: int, own_attempt: str | None = None) -> int:
        """Count the attempts that died with an unfinished candidate in flight."""
        return sum(
            candidate in attempt.in_flight and not attempt.ended
            for token, attempt in self.attempts.items()
            if token != own_attempt
        )

    def _take(self, row: Row) -> None:
        first = self.rows.setdefault(row["candidate"], row)
        if first is not row and first["score_digest"] != row["score_digest"]:
            self.divergent[row["candidate"]] += 1


def encode_part(part: Mapping[str, Any]) -> bytes:
    """Write a part with a digest over its text: a score that was damaged must not be believed."""
    text = json.dumps(part, allow_nan=False)
    return f'{{"digest": "{_digest(text)}", "part": {text}}}\n'.encode()


def decode_part(body: bytes, key: str) -> Mapping[str, Any]:
    """Read a part.

    Args:
        body: what `encode_part` wrote.
        key: names the object in messages.

    Raises:
        DataError: the part was damaged.
    """
    try:
        document = json.loads(body)
        part: Mapping[str, Any] = document["part"]
        intact = _digest(json.dumps(part, allow_nan=False)) == document["digest"]
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DataError(
            f"The object {key!r} in the store was damaged: its digest is not the one that was written. "
            "Run the spec again with --fresh."
        )
    return part


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class TaskLog:
    """One attempt's hand on a task's log."""

    def __init__(self, store: Store, run_id: str, round_index: int, task: int, attempt: str) -> None:
        self.state = LogState()
        self._store = store
        self._place = (run_id, round_index, task)
        self._attempt = attempt
        self._sequence = 0

    def read(self) -> LogState:
        """Fold the parts that have been added since the last reading."""
        while (body := self._store.get_or_none(self._key())) is not None:
            self._advance(body)
        return self.state

    def append(
        self,
        rows: Sequence[Row] = (),
        in_flight: Iterable[int] = (),
        start: Mapping[str, Any] | None = None,
        end: str | None = None,
    ) -> None:
        """Add a part; rows that another attempt has finished meanwhile are dropped."""
        while True:
            fresh = [row for row in rows if row["candidate"] not in self.state.rows]
            body = self._encode(fresh, in_flight, start, end)
            if self._store.create(self._key(), body):
                self._advance(body)
                return
            winner = self._store.get(self._key())
            self._advance(winner)
            if winner == body:  # our own, its acknowledgement was lost
                return

    def _encode(
        self, rows: Sequence[Row], in_flight: Iterable[int], start: Mapping[str, Any] | None, end: str | None
    ) -> bytes:
        part = {
            "format_version": FORMAT_VERSION,
            "attempt": self._attempt,
            "sequence": self._sequence,
            "time": time.time(),
            "start": start,
            "rows": [row_to_json(row) for row in rows],
            "in_flight": sorted(in_flight),
            "end": end,
        }
        return encode_part(part)

    def _advance(self, body: bytes) -> None:
        self.state.fold(decode_part(body, self._key()))
        self._sequence += 1

    def _key(self) -> str:
        run_id, round_index, task = self._place
        return Layout.part(run_id, round_index, task, self._sequence)
