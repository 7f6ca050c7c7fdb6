from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from jobspec.errors import DataError
from jobspec.runs.rows import (
    Row,
    make_lost_row,
    row_from_json,
    row_to_json,
    rows_to_table,
    table_from_parquet,
    table_schema,
    table_to_parquet,
)
from jobspec.runs.tasklog import LogState, TaskLog, decode_part, encode_part
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout


def make_row(candidate: int, score: float = 0.5, attempt: str = "a") -> Row:
    row = make_lost_row(candidate, 0, f"k{candidate}", "", attempt, "host", "kernel")
    times = {"fit_s": 0.25, "score_s": 0.5, "cpu_s": 0.75}
    return row | times | {"state": "ok", "scores": {"test_score": score}, "score_digest": repr(score), "error": None}  # type: ignore[return-value]


def fold_from_scratch(store: Store) -> LogState:
    return TaskLog(store, "r", 0, 0, "reader").read()


def test_parts_have_no_holes_and_readers_agree(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    one, two = TaskLog(store, "r", 0, 0, "one"), TaskLog(store, "r", 0, 0, "two")
    one.append([make_row(0)], in_flight=[1], start={"host": "h"})
    two.append([make_row(1)])
    one.append([make_row(1, 0.75), make_row(2)], end="stopped")
    assert [store.exists(Layout.part("r", 0, 0, n)) for n in range(4)] == [True, True, True, False]
    assert fold_from_scratch(store).rows.keys() == {0, 1, 2}
    assert two.read().rows == fold_from_scratch(store).rows == one.state.rows
    assert one.state.rows[1]["scores"] == {"test_score": 0.5}, "the first row in log order counts"


def test_a_row_that_another_attempt_finished_is_dropped_before_it_is_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    one, two = TaskLog(store, "r", 0, 0, "one"), TaskLog(store, "r", 0, 0, "two")
    one.append([make_row(0)])
    two.append([make_row(0), make_row(1)])
    assert [row["candidate"] for row in json.loads(store.get(Layout.part("r", 0, 0, 1)))["part"]["rows"]] == [1]


def test_a_lost_acknowledgement_is_recognised_as_our_own_part(tmp_path: Path) -> None:
    class Forgetful:
        """Creates, then says that it did not: the answer was lost and the request was sent again."""

        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

        def create(self, key: str, body: bytes) -> bool:
            self._store.create(key, body)
            return False

    store = open_store(str(tmp_path))
    log = TaskLog(Forgetful(store), "r", 0, 0, "a")  # type: ignore[arg-type]
    log.append([make_row(0)])
    log.append([make_row(1)])
    state = fold_from_scratch(store)
    assert state.num_parts == 2 and state.rows.keys() == {0, 1} and not state.divergent


def test_a_later_row_with_other_scores_is_counted_as_divergent() -> None:
    state = LogState()
    for attempt, score in (("a", 0.5), ("b", 0.25), ("c", 0.5)):
        part = {
            "format_version": 1,
            "attempt": attempt,
            "rows": [row_to_json(make_row(3, score))],
            "in_flight": [],
        }
        state.fold(part)
    assert state.divergent == {3: 1} and state.rows[3]["scores"]["test_score"] == 0.5


def test_a_death_counts_for_the_cells_that_were_in_flight(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    TaskLog(store, "r", 0, 0, "killed").append(in_flight=[1, 2], start={})
    stopped = TaskLog(store, "r", 0, 0, "stopped")
    stopped.read()
    stopped.append(in_flight=[2], start={}, end="stopped")
    again = TaskLog(store, "r", 0, 0, "again")
    again.read()
    again.append(in_flight=[2], start={})
    state = fold_from_scratch(store)
    assert [state.deaths(c) for c in (0, 1, 2)] == [0, 1, 2]
    assert state.deaths(2, own_attempt="again") == 1


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(DataError, match="format 99"):
        LogState().fold({"format_version": 99})


@pytest.mark.parametrize("seed", range(200))
def test_racing_attempts_leave_one_linear_log(seed: int) -> None:
    """Two attempts of one task take turns at random moments, also between reading and writing."""
    chance = random.Random(seed)
    store = _Memory(chance)
    logs = [TaskLog(store, "r", 0, 0, str(n)) for n in range(2)]  # type: ignore[arg-type]
    store.rivals = logs
    for _ in range(20):
        store.acting = chance.choice(logs)
        store.acting.append([make_row(c, float(c)) for c in chance.sample(range(10), 2)])
    replay = TaskLog(store, "r", 0, 0, "reader")  # type: ignore[arg-type]
    store.rivals = []
    assert replay.read().rows.keys() == {r["candidate"] for body in store.parts() for r in body["rows"]}
    candidates = [row["candidate"] for body in store.parts() for row in body["rows"]]
    assert len(candidates) == len(set(candidates)), "no cell is written twice when each attempt reads before it writes"
    assert not replay.state.divergent


class _Memory:
    """A store in memory that lets a rival write in the middle of a call."""

    def __init__(self, chance: random.Random) -> None:
        self.objects: dict[str, bytes] = {}
        self.rivals: list[TaskLog] = []
        self.acting: TaskLog | None = None
        self._chance = chance
        self._busy = False

    def create(self, key: str, body: bytes) -> bool:
        self._maybe_interfere()
        won = self.objects.setdefault(key, body) is body
        return won and self._chance.random() > 0.2  # sometimes the acknowledgement is lost

    def get(self, key: str) -> bytes:
        return self.objects[key]

    def get_or_none(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def parts(self) -> list[dict[str, list[Row]]]:
        return [json.loads(self.objects[key])["part"] for key in sorted(self.objects)]

    def _maybe_interfere(self) -> None:
        if self.rivals and not self._busy and self._chance.random() < 0.4:
            self._busy = True
            candidate = self._chance.randrange(10)
            rival = next(log for log in self.rivals if log is not self.acting)
            rival.append([make_row(candidate, float(candidate))])
            self._busy = False


def test_rows_keep_every_bit_through_json_and_parquet() -> None:
    scores = {"test_a": 0.1 + 0.2, "test_b": -0.0, "train_a": math.nan, "train_b": math.inf}
    row = make_row(1) | {"scores": scores, "warning": "é <script>"}
    back = row_from_json(json.loads(json.dumps(row_to_json(row), allow_nan=False)))
    assert repr(back) == repr(row)
    schema = table_schema(["a", "b"], True)
    table = rows_to_table([row], schema, {1: 2})
    (found,) = table_from_parquet(table_to_parquet(table), schema).to_pylist()
    assert {name: repr(found[name]) for name in scores} == {name: repr(value) for name, value in scores.items()}
    assert found["divergent"] == 2 and found["warning"] == "é <script>"


@pytest.mark.parametrize("bit", [0, 100, 400, 600, -20])
def test_a_flipped_bit_in_a_part_is_never_believed(bit: int) -> None:
    body = bytearray(encode_part({"format_version": 1, "attempt": "a", "rows": [row_to_json(make_row(3))] * 2}))
    body[bit] ^= 1
    with pytest.raises(DataError, match="damaged"):
        decode_part(bytes(body), "runs/r/part")


def test_a_flipped_bit_in_a_table_is_never_believed() -> None:
    rows = [make_row(candidate, 0.1 * candidate) for candidate in range(50)]
    body = table_to_parquet(rows_to_table(rows, table_schema(["score"], False)))
    schema = table_schema(["score"], False)
    true = table_from_parquet(body, schema)
    for place in range(4, len(body) - 4, 41):
        damaged = bytearray(body)
        damaged[place] ^= 16
        try:
            found = table_from_parquet(bytes(damaged), schema)
        except DataError:
            continue
        assert found.equals(true), place
