"""Whose a container is: every `submit` process holds a lock of its own, and its containers name that lock.

The kernel releases the lock when the process dies, however it dies. So a container whose lock is free is an orphan,
and one whose lock is held is never touched by another process, whatever it runs: a task, or a step that belongs to no
run yet.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from jobspec.hostlock import HostLock
from jobspec.settings import Settings
from jobspec.stores.base import Store
from submitter.backends.docker.engine import DockerEngine, Seen
from submitter.backends.docker.launch import STOP_SECONDS

KIND = "foldfleet.kind"
"""``work`` for tasks, ``step`` for prepare, reduce and refit."""

STORE = "foldfleet.store"
RUN = "foldfleet.run"
ROUND = "foldfleet.round"
TASK = "foldfleet.task"

OWNER = "foldfleet.owner"
VCPUS = "foldfleet.vcpus"
MEMORY = "foldfleet.memory"
"""How many bytes it may take; a list of containers does not tell their limits."""

_DESK = "foldfleet.desk"
_LOCK = "foldfleet.owner-lock"

ASK_AGAIN_SECONDS = 2.0
"""A signal that comes while the interpreter is starting is lost."""

_LOOK_SECONDS = 0.1
_SETTLED_SECONDS = 3600.0
_FORGOTTEN_SECONDS = 86400.0
"""After so long, what runs without the lock that it names is taken for an orphan."""

WORK = "work"
STEP = "step"


class Owner:
    """This process, as its containers name it; the lock's file is there from `claim` to `release`."""

    def __init__(self, cache: Path) -> None:
        self.token = uuid.uuid4().hex[:12]
        self.desk = desk_of(cache)
        self._lock = HostLock(cache / "locks" / f"docker-{self.token}.lock")
        self._claimed = False

    def claim(self) -> None:
        """Take the lock, before the first container is made."""
        if not self._claimed:
            self._claimed = self._lock.acquire()

    def release(self) -> None:
        """Let the lock go, after the last container is removed."""
        if self._claimed:
            self._lock.path.unlink(missing_ok=True)
            self._lock.release()
            self._claimed = False

    def labels(self) -> dict[str, str]:
        """Return the labels of this process's containers."""
        return {**self.own(), _DESK: self.desk, _LOCK: str(self._lock.path)}

    def own(self) -> dict[str, str]:
        """Return the label that no container of another process has."""
        return {OWNER: self.token}


def desk_of(cache: Path) -> str:
    """Return what the processes of one user on one machine have in common: the cache with their locks and logs."""
    return hashlib.sha256(f"{socket.gethostname()}\0{cache}".encode()).hexdigest()[:16]


def limit_labels(vcpus: int, memory_bytes: int) -> dict[str, str]:
    """Return the labels that tell other runs what a container may take of the machine."""
    return {VCPUS: str(vcpus), MEMORY: str(memory_bytes)}


def taken_by_others(engine: DockerEngine, owner: Owner, run: Mapping[str, str]) -> tuple[int, int]:
    """Return how many vCPUs and bytes the living containers of other foldfleet processes may take.

    Args:
        engine: where they run.
        owner: this process.
        run: the labels of its run; tasks of that are no others', whoever started them.
    """
    others = [
        seen.labels
        for seen in engine.seen({OWNER: None})
        if seen.alive and seen.labels[OWNER] != owner.token and not run.items() <= seen.labels.items()
    ]
    return sum(int(labels.get(VCPUS, 0)) for labels in others), sum(int(labels.get(MEMORY, 0)) for labels in others)


def run_labels(store: Store, run_id: str) -> dict[str, str]:
    """Return the labels that all tasks of a run have, whoever started them."""
    return {KIND: WORK, STORE: store.url, RUN: run_id}


def is_orphan(seen: Seen, desk: str) -> bool:
    """Say whether the process that started a container is dead; unknown, as on another machine, counts as alive.

    A lock's file that is gone says nothing: somebody may have removed the cache under a process that lives. Then only
    what has ended is an orphan, and what is older than a day.
    """
    if seen.labels.get(_DESK) != desk or _LOCK not in seen.labels:
        return False
    path = Path(seen.labels[_LOCK])
    try:
        path.stat()
        return not HostLock(path).held_elsewhere()
    except (FileNotFoundError, NotADirectoryError):
        return seen.ended or time.time() - seen.created > _FORGOTTEN_SECONDS
    except OSError:
        return False


def sweep(engine: DockerEngine, settings: Settings) -> bool:
    """Bury what processes of this desk left behind when they were killed, and have end what still runs.

    Returns:
        Whether something still runs: sweep again later.
    """
    desk = desk_of(settings.cache)
    left = False
    found = engine.seen({_DESK: desk})
    _forget_locks(settings, {seen.labels.get(_LOCK) for seen in found})
    for seen in found:
        if not is_orphan(seen, desk):
            continue
        if seen.alive and seen.labels.get(KIND) == WORK:
            engine.signal(seen.name, "SIGTERM")
            left = True
        else:  # an answer that nobody waits for
            bury(engine, settings, seen)
    return left


def _forget_locks(settings: Settings, named: set[str | None]) -> None:
    """Remove the locks of processes that were killed while they had no container.

    Not those that have just been made: between making and taking a lock nobody holds it.
    """
    for path in (settings.cache / "locks").glob("docker-*.lock"):
        with contextlib.suppress(OSError):
            old = time.time() - path.stat().st_mtime > _SETTLED_SECONDS
            if old and str(path) not in named and not HostLock(path).held_elsewhere():
                path.unlink()


def bury(engine: DockerEngine, settings: Settings, seen: Seen) -> None:
    """Remove a dead process's container and keep its log; its lock goes with its last one, which it tells of."""
    save_log(engine, settings, seen.name, keep_empty=seen.labels.get(KIND) == WORK)
    engine.remove(seen.name)
    if not engine.seen({OWNER: seen.labels[OWNER]}):
        Path(seen.labels[_LOCK]).unlink(missing_ok=True)


def end_gently(
    engine: DockerEngine,
    labels: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Ask what has these labels to end, wait for it, and kill what has not after `STOP_SECONDS`.

    Args:
        engine: where it runs.
        labels: which containers are meant.
        only: their names, where not all of them are meant.
        now: the clock, in seconds.
        sleep: waits that many seconds.
    """
    asked = float("-inf")
    deadline = now() + STOP_SECONDS
    while names := [seen.name for seen in engine.seen(labels) if seen.alive and (only is None or seen.name in only)]:
        if now() - asked >= ASK_AGAIN_SECONDS or now() > deadline:
            for name in names:
                engine.signal(name, "SIGKILL" if now() > deadline else "SIGTERM")
            asked = now()
        sleep(_LOOK_SECONDS)


def log_path(settings: Settings, name: str) -> Path:
    """Return the file that keeps a container's log once it is gone."""
    return settings.cache / "logs" / f"{Path(name).name}.log"


def save_log(engine: DockerEngine, settings: Settings, name: str, *, keep_empty: bool) -> Path:
    """Write a container's log into its file; one without words is kept only where a start row may name it."""
    path = log_path(settings, name)
    body = engine.log(name, answers=False)
    if body or (body is not None and keep_empty):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return path
