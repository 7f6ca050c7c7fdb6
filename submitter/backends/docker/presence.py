"""What the engine tells of runs from any terminal: whether a task is alive, its log, and how orphans end."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable

from jobspec.errors import AccessError
from jobspec.stores.layout import Layout
from submitter.backends.base import Presence
from submitter.backends.docker import ownership
from submitter.backends.docker.engine import Connect, DockerEngine, EngineGoneError, EngineRefusedError, Seen, connect
from submitter.backends.local import tail

log = logging.getLogger(__name__)

_NO_ANSWER = (EngineGoneError, EngineRefusedError, AccessError)


def is_working(presence: Presence, connect: Connect = connect) -> bool:
    """Say whether a task of the run is alive in this machine's engine; where none answers, nothing is known to be."""
    try:
        engine = connect()
        return any(seen.alive for seen in engine.seen(ownership.run_labels(presence.store, presence.run_id)))
    except _NO_ANSWER as error:
        _warn(error.message)
        return False


def end_orphans(
    presence: Presence,
    connect: Connect = connect,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End the tasks of a run whose driver was killed, gently, and bury them; the caller holds the driver's lock.

    In a folder that lock lies beside the results, so that nobody else drives the run, whatever cache he uses. For
    another store a task goes on whose own process is alive, or on another machine.
    """
    engine = connect()
    labels = ownership.run_labels(presence.store, presence.run_id)
    inside = presence.store.local_path(Layout.spec(presence.run_id)) is not None
    orphans = [seen.name for seen in engine.seen(labels) if inside or _is_orphan(presence, seen)]
    ownership.end_gently(engine, labels, only=orphans, now=now, sleep=sleep)
    for seen in engine.seen(labels):
        if seen.name in orphans:
            ownership.bury(engine, presence.settings, seen)


def read_log(presence: Presence, stream: str, num_lines: int, connect: Connect = connect) -> list[str]:
    """Return the last lines of a container's log, from the engine while it is there, else from its file."""
    path = ownership.log_path(presence.settings, stream)
    body = None if path.exists() else _live_log(connect, stream, num_lines)
    if body is None:
        return tail(path, num_lines)
    return body.decode("utf-8", "replace").splitlines()[-num_lines:] or ["(empty: nothing went wrong so far)"]


def _live_log(connect: Connect, name: str, num_lines: int) -> bytes | None:
    try:
        engine: DockerEngine = connect()
        return engine.log(name, answers=False, num_lines=num_lines)
    except _NO_ANSWER:
        return None


@functools.cache
def _warn(words: str) -> None:
    """Say once, however many runs are asked about, why nobody knows whether they are worked on."""
    log.warning("Warning: runs in containers are taken not to be running at this moment. %s", words)


def _is_orphan(presence: Presence, seen: Seen) -> bool:
    return ownership.is_orphan(seen, ownership.desk_of(presence.settings.cache))
