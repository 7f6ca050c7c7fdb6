"""An estimator that writes down when its fits begin, and what became of a run by these notes and by its store."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from jobspec.runs.results import read_rows
from jobspec.runs.rounds import RoundPlan, latest_round, load_round
from jobspec.runs.tasklog import decode_part
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

NUM_LEVELS = 20
NUM_SPLITS = 3
NUM_CELLS = NUM_LEVELS * NUM_SPLITS

MODULE = "witness_estimator"

ESTIMATOR = '''
import fcntl
import hashlib
import json
import os
import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier

NUM_ROWS = 1797


class Witness(ClassifierMixin, BaseEstimator):
    """A forest; where it runs, how long it rests and for what it waits is told by the environment, not the spec."""

    def __init__(self, level=0):
        self.level = level

    def fit(self, X, y):
        waits = os.environ.get("WITNESS_REFIT") == "waits" and len(X) == NUM_ROWS and is_first()
        note(self.level, hashlib.sha256(np.ascontiguousarray(X)).hexdigest())
        if waits:
            time.sleep(600)  # who reads the note kills it
        forest = RandomForestClassifier(n_estimators=25, max_features=1 + self.level, random_state=0)
        self.forest_ = forest.fit(X, y)
        self.classes_ = forest.classes_
        self.n_features_in_ = forest.n_features_in_
        time.sleep(float(os.environ.get("WITNESS_REST", 0)))
        return self

    def predict(self, X):
        return self.forest_.predict(X)


def is_first():
    try:
        os.close(os.open(os.path.join(os.environ["FOLDFLEET_CACHE"], "refit"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def note(level, fold):
    where = os.environ.get("FOLDFLEET_LOG_STREAM")
    line = json.dumps({"level": level, "fold": fold, "where": where, "time": time.time()})
    file = os.open(os.path.join(os.environ["FOLDFLEET_CACHE"], "notes"), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.write(file, (line + "\\n").encode())
    notes = [json.loads(line) for line in os.pread(file, 1 << 24, 0).splitlines()]
    os.close(file)
    while is_held(len({(one["level"], one["fold"]) for one in notes}), where):
        time.sleep(0.01)


def is_held(begun, where):
    try:
        with open(os.path.join(os.environ["FOLDFLEET_CACHE"], "gate")) as file:
            gate = json.load(file)
    except FileNotFoundError:
        return False
    return begun >= gate["begun"] and where.rpartition("-")[0] not in gate["passing"]
'''

SPEC = f"""
name: witnessed
data: {{builtin: digits}}
cv: {{kind: StratifiedKFold, n_splits: {NUM_SPLITS}, shuffle: true, random_state: 0}}
candidates:
- estimator: {MODULE}.Witness
  grid: {{level: {list(range(NUM_LEVELS))}}}
scoring: accuracy
resources: {{vcpus: VCPUS}}
"""


def write_spec(folder: Path, vcpus: int = 1) -> Path:
    path = folder / "witnessed.yaml"
    path.write_text(SPEC.replace("VCPUS", str(vcpus)))
    return path


@dataclass(frozen=True)
class Note:
    """A fit has begun: of a cell (None: of the refit), in a container, at a moment (seconds since 1970)."""

    cell: tuple[int, int] | None
    where: str
    time: float


@dataclass(frozen=True)
class Found:
    """A part of a task's log: who wrote it when, and the cells that it holds and names."""

    round: int
    task: int
    attempt: str
    where: str
    time: float
    rows: tuple[tuple[int, int], ...]
    in_flight: frozenset[int]


def _split_names() -> dict[str, int]:
    data = load_digits()
    splits = StratifiedKFold(NUM_SPLITS, shuffle=True, random_state=0).split(data.data, data.target)
    return {hashlib.sha256(data.data[train]).hexdigest(): split for split, (train, _) in enumerate(splits)}


_SPLITS = _split_names()


def read_notes(cache: Path) -> list[Note]:
    """Return the notes in the order in which they were written."""
    path = cache / "notes"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    documents = map(json.loads, lines)
    return [
        Note((d["level"], _SPLITS[d["fold"]]) if d["fold"] in _SPLITS else None, d["where"], d["time"])
        for d in documents
    ]


@dataclass(frozen=True)
class Evidence:
    """What store and notes tell of a run that has ended."""

    store: Store
    cache: Path
    run_id: str

    @cached_property
    def plan(self) -> RoundPlan:
        plan = latest_round(self.store, self.run_id)
        assert plan is not None
        return plan

    @cached_property
    def notes(self) -> list[Note]:
        return read_notes(self.cache)

    @cached_property
    def parts(self) -> list[Found]:
        """Return all parts, those of a task in order; a hole in a log is an error."""
        found = []
        streams: dict[str, str] = {}
        for index in range(self.plan.round + 1):
            for task in range(load_round(self.store, self.run_id, index).num_tasks):
                keys = list(self.store.keys(f"{Layout.logs(self.run_id, index)}{task:06d}/"))
                assert keys == [Layout.part(self.run_id, index, task, n) for n in range(len(keys))], "a log has a hole"
                for key in keys:
                    part = decode_part(self.store.get(key), key)
                    if part["start"]:
                        streams[part["attempt"]] = part["start"]["log"]
                    rows = tuple((row["candidate"], row["split"]) for row in part["rows"])
                    where = streams[part["attempt"]]
                    found.append(
                        Found(
                            index, task, part["attempt"], where, part["time"], rows, frozenset(part["in_flight"])
                        )
                    )
        return found

    def check_rows(self, durable: Collection[tuple[tuple[int, int], str]]) -> None:
        """See that every cell has exactly one row, and that those of ``durable``, (cell, attempt), are still it."""
        table = read_rows(self.store, self.plan).table.to_pydict()
        cells = list(zip(table["candidate"], table["split"], strict=True))
        assert sorted(cells) == [(level, split) for level in range(NUM_LEVELS) for split in range(NUM_SPLITS)]
        assert set(table["state"]) == {"ok"}
        assert not any(table["divergent"])
        assert set(durable) <= set(zip(cells, table["attempt"], strict=True))
        written = Counter(cell for part in self.parts for cell in part.rows)
        assert set(written.values()) == {1}, "a cell was written twice"

    def check_loss(self, flush_seconds: float, workers: int) -> None:
        """See that what was computed twice was in flight, or younger than a flush.

        A fit that has begun without giving a row was either named in flight by its container's last part, or began
        after that. And a second one of the same worker that began later than a flush after it was handed out by
        somebody who first had to write.
        """
        rows = {cell: part.where for part in self.parts for cell in part.rows}
        began: defaultdict[str, list[Note]] = defaultdict(list)
        for note in self.notes:
            if note.cell is not None:
                began[note.where].append(note)
        for cell, where in rows.items():
            assert [note.where for note in self.notes if note.cell == cell][-1] == where, "computed though durable"
        lost = 0
        for where, notes in began.items():
            assert len({note.cell for note in notes}) == len(notes), "computed twice in one container"
            own = [note for note in notes if rows[note.cell] != where]  # type: ignore[index]
            parts = [part for part in self.parts if part.where == where]
            written = parts[-1].time if parts else notes[0].time
            named = parts[-1].in_flight if parts else {note.cell[0] for note in notes if note.cell is not None}
            for note in own:
                assert note.cell is not None
                assert note.time >= written or note.cell[0] in named, "lost though older than a part"
            late = [note for note in own if note.time > written + flush_seconds]
            assert len(late) <= 2 * workers, "lost though older than a flush"
            lost += len(own)
        assert len([note for note in self.notes if note.cell is not None]) == NUM_CELLS + lost
