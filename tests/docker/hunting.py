"""A run in containers, watched through the engine's events, and kill -9 at moments of its progress."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import APIError

from jobspec.runs.rounds import latest_round
from jobspec.runs.tasklog import decode_part
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout
from submitter.backends.docker.ownership import desk_of
from tests.docker.witness import MODULE, NUM_CELLS, read_notes

PATIENCE_S = 300.0
LOOK_S = 0.01
KILLED = 128 + 9

MOST_DEATHS = 2
"""Of one task: a cell that was in flight at three deaths is lost, by rule."""


class Events:
    """The containers of a desk in the order in which the engine told of them, and how they ended."""

    def __init__(self, client: DockerClient, desk: str) -> None:
        self.started: list[str] = []
        self.ended: dict[str, int] = {}
        self._stream = client.events(decode=True, filters={"label": f"foldfleet.desk={desk}"})
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(Exception):  # the stream is closed under it
            for event in self._stream:
                facts = event["Actor"]["Attributes"]
                if event["Action"] == "start":
                    self.started.append(facts["name"])
                elif event["Action"] == "die":
                    self.ended[facts["name"]] = int(facts["exitCode"])

    def close(self) -> None:
        self._stream.close()
        self._thread.join(5)


@dataclass
class Hunt:
    """A desk with its store, and the kills so far."""

    folder: Path
    client: DockerClient
    image: str
    store_url: str
    killed: list[str] = field(default_factory=list)
    durable: dict[tuple[int, int], str] = field(default_factory=dict)
    """Cells that had a row when something was killed, with its attempt."""

    def __post_init__(self) -> None:
        self.cache = self.folder / "cache"
        self.desk = desk_of(self.cache)
        self.store = open_store(self.store_url)
        self.events = Events(self.client, self.desk)
        self._parts: dict[str, list[tuple[tuple[int, int], str]]] = {}

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Start a command line, which is killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "submitter", *map(str, arguments), "--store", self.store_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment},
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @property
    def environment(self) -> Mapping[str, str]:
        return {
            "FOLDFLEET_ALLOWED_MODULES": MODULE,
            "FOLDFLEET_MODULE_PATH": str(self.folder / "modules"),
            "FOLDFLEET_CACHE": str(self.cache),
            "FOLDFLEET_WORKERS": "2",
            "FOLDFLEET_IMAGE": self.image,
        }

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for a command line that must end well, and return its answer."""
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"exit {process.returncode} after kills of {self.killed}\n{out}\n{err}"
        answer: dict[str, Any] = json.loads(out)
        return answer

    def begun(self) -> int:
        """Count the cells whose fits have begun."""
        return len({note.cell for note in read_notes(self.cache)} - {None})

    def refit_begun(self) -> bool:
        return any(note.cell is None for note in read_notes(self.cache))

    def hold(self, strike: Strike) -> None:
        """Let no fit go on that comes with or behind a strike's moment, but those of tasks that may not be its victim.

        So somebody is there to be killed, however late this process comes to it.
        """
        passing = {task_of(name) for name in self.killed if not strike.may_hit(self, name)}
        self.cache.mkdir(exist_ok=True)
        told = self.cache / "gate.new"
        told.write_text(json.dumps({"begun": strike.gate, "passing": sorted(passing)}))
        told.replace(self.cache / "gate")

    def open(self) -> None:
        """Let all fits go on."""
        (self.cache / "gate").unlink()

    def held(self, begun: int) -> dict[str, set[tuple[int, int]]]:
        """Return the containers with a fit that a gate at ``begun`` holds, each with the cells that it began before."""
        known: set[tuple[int, int] | None] = set()
        before: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
        held = set()
        for note in read_notes(self.cache):
            known.add(note.cell)
            if len(known) >= begun:
                held.add(note.where)
            elif note.cell is not None:
                before[note.where].add(note.cell)
        return {name: before[name] for name in held}

    def rows(self) -> dict[tuple[int, int], str]:
        """Return the cells that have a row in the log of the newest round, each with its first attempt."""
        found: dict[tuple[int, int], str] = {}
        for name in self.store.folders(Layout.runs()):
            plan = latest_round(self.store, name)
            for key in () if plan is None else self.store.keys(Layout.logs(name, plan.round)):
                if key not in self._parts:
                    part = decode_part(self.store.get(key), key)
                    rows = part["rows"]
                    self._parts[key] = [((row["candidate"], row["split"]), row["attempt"]) for row in rows]
                for cell, attempt in self._parts[key]:
                    found.setdefault(cell, attempt)
        return found

    def alive(self, words: str = "-t") -> list[str]:
        """Return the containers of tasks (or those with other words in their names) that run."""
        return [
            name
            for name in list(self.events.started)
            if words in name and name not in self.events.ended and name not in self.killed
        ]

    def left(self) -> list[str]:
        """Return what is left of this desk in the engine, dead or alive."""
        found = self.client.api.containers(all=True, filters={"label": f"foldfleet.desk={self.desk}"})
        return [entry["Names"][0] for entry in found]

    def kill(self, name: str) -> bool:
        """Kill a container and wait until it is dead; return whether it would have lived."""
        rows = self.rows()
        try:
            self.client.api.kill(name, "SIGKILL")
        except APIError as error:
            if error.status_code in (404, 409, 500):  # "is not running": it has ended meanwhile
                return False
            raise
        until(lambda: name in self.events.ended, None)
        if self.events.ended[name] != KILLED:
            return False
        self.killed.append(name)
        self.durable |= {cell: self.durable.get(cell, attempt) for cell, attempt in rows.items()}
        return True

    def clear(self) -> None:
        self.events.close()
        for name in self.left():
            self.client.api.remove_container(name, force=True)


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None) -> None:
    """Wait for a moment of a run's progress, which must come before the run ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        assert process is None or process.poll() is None, f"it ended too early: {process.communicate()}"
        time.sleep(LOOK_S)


def task_of(name: str) -> str:
    """Return the part of a container's name that all tries of its task have in common."""
    return name.rpartition("-")[0]


@dataclass(frozen=True)
class Strike:
    """A kill: when so many cells have begun or have a row, or containers were started; ``times`` of one task in a row.

    ``settled``: so many cells have begun, and what the victim has finished is durable. ``pick`` in [0, 1) says which of
    the tasks that run is the victim. ``gate`` is the number of the first fit that may wait for it.
    """

    kind: str
    count: int
    pick: float
    times: int = 1
    gate: int = NUM_CELLS

    def may_hit(self, hunt: Hunt, name: str) -> bool:
        """Say whether the task of a container can stand these deaths, too."""
        return sum(task_of(victim) == task_of(name) for victim in hunt.killed) + self.times <= MOST_DEATHS

    def fall(self, hunt: Hunt, process: subprocess.Popen[str] | None) -> None:
        """Wait for the moment and kill."""
        until(lambda: self._is_due(hunt), process)
        victim: list[str] = []

        def hit() -> bool:
            names = [name for name in hunt.alive() if self.may_hit(hunt, name)]
            if self.kind == "started":
                names = names[-1:]
            elif self.kind == "settled" or self.times > 1:  # one that is not about to end
                held, rows = hunt.held(self.count), hunt.rows().keys()
                names = [name for name in names if name in held and (self.kind != "settled" or held[name] <= rows)]
            if names and hunt.kill(chosen := names[int(self.pick * len(names))]):
                victim.append(chosen)
            return bool(victim)

        until(hit, process)
        for _ in range(self.times - 1):
            before, _, number = victim[-1].rpartition("-")
            again = f"{before}-{int(number) + 1}"
            until(lambda name=again: name in hunt.events.started, process)  # type: ignore[misc]
            assert hunt.kill(again)
            victim.append(again)

    def _is_due(self, hunt: Hunt) -> bool:
        if self.kind in ("begun", "settled"):
            return hunt.begun() >= self.count
        if self.kind == "rows":
            return len(hunt.rows()) >= self.count
        return sum("-t" in name for name in list(hunt.events.started)) >= self.count


def draw(chance: random.Random, num_tasks: int, num: int, row: int | None = None) -> list[Strike]:
    """Draw strikes over the first three quarters of a run; strike ``row`` kills twice in a row."""
    cells = NUM_CELLS // num_tasks
    strikes = []
    for index, part in enumerate(sorted(chance.uniform(0, 0.75) for _ in range(num))):
        kind = chance.choice(["begun", "begun", "begun", "settled", "started"])
        count = 1 + int(part * (num_tasks if kind == "started" else NUM_CELLS))
        gate = 1 + (count - 1) * cells if kind == "started" else count
        strikes.append(Strike(kind, count, chance.random(), 2 if index == row else 1, gate))
    return strikes


def strike_all(hunt: Hunt, strikes: Iterable[Strike], process: subprocess.Popen[str]) -> None:
    """Let strikes fall one after the other; the run waits for each."""
    for strike in strikes:
        hunt.hold(strike)
        strike.fall(hunt, process)
    hunt.open()


def kill_step(hunt: Hunt, step: str, process: subprocess.Popen[str], ready: Callable[[], object]) -> None:
    """Kill the container of a step as soon as it runs and something has come of it."""

    def hit() -> bool:
        names = hunt.alive(f"-{step}-")
        return bool(names) and bool(ready()) and hunt.kill(names[-1])

    until(hit, process)
