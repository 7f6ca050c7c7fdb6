"""A run on the stand-in whose hosts are taken away at moments of its progress, and what became of its cells."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from docker import DockerClient

from jobspec.runs.rounds import latest_round
from jobspec.runs.tasklog import decode_part
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.images.build import ImageOptions
from tests.aws.fixtures import Deployed
from tests.aws.standin.cloud import Refused
from tests.docker.fixtures import BASE, build
from tests.docker.witness import ESTIMATOR as NOTING
from tests.docker.witness import MODULE, NUM_LEVELS, NUM_SPLITS, Evidence

PATIENCE_S = 400.0
LOOK_S = 0.05
FLUSH_S = 2.0
REST_S = 0.6
"""A fit rests, so that a task takes longer than a flush though the machine has fewer cores than the hosts."""

SLOWER = 2
"""So many rests more has a slow one: a task of twenty takes three times as long as a notice may stay unseen."""

MOST_DEATHS = 2
"""Of one task without a notice: a cell that was in flight at three deaths is lost, by rule."""

MOST_TRIES = 5
MARK = "witness "

ESTIMATOR = (
    NOTING.partition("def note")[0]
    + f'''def note(level, fold):
    line = json.dumps({{"level": level, "fold": fold, "time": time.time()}})
    os.write(2, ("{MARK}" + line + "\\n").encode())  # a host takes its disk with it, a log stream stays


class Slow(Witness):
    def fit(self, X, y):
        time.sleep({SLOWER} * float(os.environ.get("WITNESS_REST", 0)))
        return super().fit(X, y)
'''
)

SPEC = f"""
name: NAME
data: {{builtin: digits}}
cv: {{kind: StratifiedKFold, n_splits: {NUM_SPLITS}, shuffle: true, random_state: 0}}
candidates:
- estimator: {MODULE}.Witness
  grid: {{level: {list(range(NUM_LEVELS))}}}
scoring: accuracy
resources: {{vcpus: 2, memory_gib: 1}}
"""
SLOW_SPEC = SPEC.replace(".Witness", ".Slow")


def build_witness(client: DockerClient, image: str, folder: Path) -> str:
    """Return an image like ``image`` that has the estimator, and flushes more often.

    Its label must say what it computes with, so the module comes by `submit image build`'s own way.
    """
    (folder / f"{MODULE}.py").write_text(ESTIMATOR)
    name, _, tag = image.partition(":")
    whole = f"{name}-witness:{tag}"
    build(client, ImageOptions(tag=whole, base=BASE), (MODULE,), folder)
    recipe = f"FROM {whole}\nENV FOLDFLEET_FLUSH_SECONDS={FLUSH_S} WITNESS_REST={REST_S}\n"
    client.images.build(fileobj=io.BytesIO(recipe.encode()), tag=whole, rm=True)
    return whole


WORKERS = 4
"""Given to a run: two tasks for each fold, of which four run at once, on two hosts."""

NUM_TASKS = 6


@dataclass
class Hunt:
    """A run from its desk, the hosts that were taken from it, and what was durable by then."""

    deployed: Deployed
    image: str
    folder: Path
    name: str
    taken: list[str] = field(default_factory=list)
    durable: dict[tuple[int, int], str] = field(default_factory=dict)
    """Cells that had a row when a host was taken, with its attempt."""

    deaths: Counter[str] = field(default_factory=Counter)
    """Of tasks, by job id, without a notice."""

    def __post_init__(self) -> None:
        self.cloud = self.deployed.cloud
        self.store_url = self.deployed.outputs["StoreUrl"]
        self._began_ms = int(time.time() * 1000)
        self._first_call = len(self.cloud.calls())
        self._counts: Counter[str] = Counter()
        self._parts: dict[str, list[tuple[tuple[int, int], str]]] = {}

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.deployed.environment,
            "FOLDFLEET_STORE": self.store_url,
            "FOLDFLEET_IMAGE": self.image,
            "FOLDFLEET_ALLOWED_MODULES": MODULE,
            "FOLDFLEET_MODULE_PATH": str(self.folder / "modules"),
            "FOLDFLEET_CACHE": str(self.folder / "desk"),
        }

    @property
    def store(self) -> Store:
        return open_store(self.store_url)

    def write_spec(self, text: str = SPEC) -> Path:
        (self.folder / "modules").mkdir(exist_ok=True)
        (self.folder / "modules" / f"{MODULE}.py").write_text(ESTIMATOR)
        path = self.folder / f"{self.name}.yaml"
        path.write_text(text.replace("NAME", self.name))
        return path

    @contextlib.contextmanager
    def started(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """Start a command line, which is killed at the end if it still runs."""
        process = subprocess.Popen(
            [sys.executable, "-m", "submitter", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for a command line that must end well, and return its answer."""
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, f"exit {process.returncode} after {len(self.taken)} reclaims\n{out}\n{err}"
        answer: dict[str, Any] = json.loads(out)
        return answer

    def processes(self) -> list[psutil.Process]:
        """Return what runs at the desk: whatever has its cache in its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("FOLDFLEET_CACHE") == self.environment["FOLDFLEET_CACHE"]:
                    found.append(process)
        return found

    # --- what has happened -----------------------------------------------------------------------------------------

    def count(self, kind: str) -> int:
        """Count what a role has done since the hunt began: ``calls`` of work, its ``puts``, ``reduce``'s calls."""
        calls = self.cloud.calls(start=self._first_call)
        self._first_call += len(calls)
        for call in calls:
            if "-TaskRole" in call.principal:
                self._counts["calls"] += 1
                self._counts["puts"] += call.action == "s3:PutObject" and call.decision == "allowed"
            self._counts["reduce"] += "-ReducerRole" in call.principal
        return self._counts[kind]

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return the tasks of this run by job id."""
        return {
            job["jobId"]: job
            for job in self.jobs()
            if "first_task" in job["parameters"] and not job.get("arrayProperties", {}).get("size")
        }

    def jobs(self) -> list[dict[str, Any]]:
        """Return what was sent for this run since the hunt began, tasks of an array each for itself."""
        return [
            job
            for job in self.cloud.jobs()
            if str(job["parameters"].get("run", "")).startswith(f"{self.name}-") and job["createdAt"] >= self._began_ms
        ]

    def rows(self) -> dict[tuple[int, int], str]:
        """Return the cells that have a row in the log of the newest round, each with its first attempt."""
        found: dict[tuple[int, int], str] = {}
        store = self.store
        for run_id in store.folders(Layout.runs()):
            plan = latest_round(store, run_id) if run_id.startswith(f"{self.name}-") else None
            for key in () if plan is None else store.keys(Layout.logs(run_id, plan.round)):
                if key not in self._parts:
                    rows = decode_part(store.get(key), key)["rows"]
                    self._parts[key] = [((row["candidate"], row["split"]), row["attempt"]) for row in rows]
                for cell, attempt in self._parts[key]:
                    found.setdefault(cell, attempt)
        return found

    def endings(self) -> list[tuple[int | None, str]]:
        """Return exit code and status reason of every try of the run's tasks that has ended."""
        return [
            (one["container"].get("exitCode"), one["statusReason"])
            for task in self.tasks().values()
            for one in task["attempts"]
        ]

    # --- what is done to it ------------------------------------------------------------------------------------------

    def victims(self, among: Callable[[str], bool] = lambda _job_id: True) -> list[dict[str, Any]]:
        """Return the hosts with a task of this run whose tasks can all stand another death."""
        own = {job["jobId"]: len(job["attempts"]) for job in self.jobs()}
        return [
            host
            for host in self.cloud.hosts()
            if not host["notice"]
            and any(job in own and among(job) for job in host["jobs"])
            and all(self.deaths[job] < MOST_DEATHS and own.get(job, 0) < MOST_TRIES - 1 for job in host["jobs"])
        ]

    def host_of(self, job_id: str) -> dict[str, Any] | None:
        """Return the host on which a task is, if it is on one."""
        return next((host for host in self.cloud.hosts() if job_id in host["jobs"] and not host["notice"]), None)

    def take(self, host: Mapping[str, Any], notice_s: float = 0.0) -> bool:
        """Take a host away; what is durable at that moment must stay. Return whether it was still there."""
        rows = self.rows()
        try:
            self.cloud.reclaim(host["instance_id"], notice_s)
        except Refused:
            return False
        self.taken.append(host["instance_id"])
        self.deaths.update(host["jobs"] if not notice_s else ())
        self.durable |= {cell: self.durable.get(cell, attempt) for cell, attempt in rows.items()}
        return True

    # --- what became of it -------------------------------------------------------------------------------------------

    def write_notes(self) -> Path:
        """Write down what the fits told in all log streams of this run, as `witness.read_notes` reads it."""
        folder = self.folder / "notes-of-streams"
        folder.mkdir(exist_ok=True)
        notes = [note for job in self.jobs() for stream in streams_of(job) for note in self._notes(stream)]
        notes.sort(key=lambda note: note["time"])
        (folder / "notes").write_text("".join(json.dumps(note) + "\n" for note in notes))
        return folder

    def _notes(self, stream: str) -> Iterator[dict[str, Any]]:
        logs, group = self.cloud.client("logs"), self.deployed.outputs["LogGroupName"]
        named = {"logGroupName": group, "logStreamNamePrefix": stream}
        if not logs.describe_log_streams(**named)["logStreams"]:
            return  # it was killed before it said anything
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group, logStreamNames=[stream]):
            for event in page["events"]:
                if event["message"].startswith(MARK):
                    yield {**json.loads(event["message"].removeprefix(MARK)), "where": stream}

    def evidence(self, run_id: str) -> Evidence:
        return Evidence(self.store, self.write_notes(), run_id)


def streams_of(job: Mapping[str, Any]) -> Iterable[str]:
    """Return the log streams of a task's tries."""
    tries = [*[one["container"] for one in job["attempts"]], job["container"]]
    return dict.fromkeys(str(one["logStreamName"]) for one in tries if one.get("logStreamName"))


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for a moment of a run's progress, which must come before ``process`` ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        assert process is None or process.poll() is None, f"it ended too early: {process.communicate()}"
        time.sleep(LOOK_S)


@dataclass(frozen=True)
class Strike:
    """A reclaim: once ``kind`` was counted so often; ``pick`` in [0, 1) says which of the hosts that work."""

    kind: str
    count: int
    pick: float
    notice_s: float = 0.0

    def fall(self, hunt: Hunt, process: subprocess.Popen[str]) -> None:
        """Wait for the moment and take the host."""
        until(lambda: hunt.count(self.kind) >= self.count, process)

        def hit() -> bool:
            hosts = hunt.victims()
            return bool(hosts) and hunt.take(hosts[int(self.pick * len(hosts))], self.notice_s)

        until(hit, process)


CALLS, PUTS = 140, 26
"""About so many does work make in an undisturbed run."""

NOTICES_S = (0.0, 0.0, 6.0, 30.0)
"""None, one that is seen late or not at all, and one that lets the cells in hand end."""


def draw(chance: random.Random, num: int) -> list[Strike]:
    """Draw strikes over the first three quarters of a run."""
    strikes = []
    for part in sorted(chance.uniform(0, 0.75) for _ in range(num)):
        kind, most = chance.choice([("calls", CALLS), ("puts", PUTS)])
        strikes.append(Strike(kind, 1 + int(part * most), chance.random(), chance.choice(NOTICES_S)))
    return strikes
