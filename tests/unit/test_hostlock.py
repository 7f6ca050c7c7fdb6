from __future__ import annotations

import math
import os
import signal
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from jobspec import hostlock
from jobspec.hostlock import HostLock


def _hold(path: Path, told: Connection) -> None:
    HostLock(path).acquire()
    told.send("held")
    signal.pause()


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    ours, theirs = get_context("fork").Pipe()
    holder = get_context("fork").Process(target=_hold, args=(path, theirs))
    holder.start()
    ours.recv()
    lock = HostLock(path)
    assert lock.held_elsewhere() and not lock.acquire() and not lock.acquire(shared=True)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join()
    assert not lock.held_elsewhere() and lock.acquire()


def test_readers_share_and_a_writer_waits_for_them(tmp_path: Path) -> None:
    one, two, writer = (HostLock(tmp_path / "a.lock") for _ in range(3))
    assert one.acquire(shared=True) and two.acquire(shared=True) and not writer.acquire()
    one.release()
    two.release()
    assert writer.acquire() and not one.acquire(shared=True)
    writer.release()


def test_a_lock_nobody_ever_took_is_free(tmp_path: Path) -> None:
    assert not HostLock(tmp_path / "none.lock").held_elsewhere()


def test_looking_creates_nothing(tmp_path: Path) -> None:
    assert not HostLock(tmp_path / "store" / ".locks" / "a.lock").held_elsewhere()
    assert not (tmp_path / "store").exists()


def _probe(path: Path, told: Connection) -> None:
    told.send("probing")
    while True:
        HostLock(path).held_elsewhere()


def test_who_only_looks_is_not_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlock, "PROBE_SECONDS", math.inf)  # however late a machine lets a probe go on
    path = tmp_path / "a.lock"
    lock = HostLock(path, probed=True)
    assert lock.acquire()
    lock.release()
    ours, theirs = get_context("fork").Pipe()
    prober = get_context("fork").Process(target=_probe, args=(path, theirs))
    prober.start()
    try:
        ours.recv()
        for _ in range(20_000):
            assert lock.acquire()
            lock.release()
            assert not HostLock(path).held_elsewhere()
    finally:
        prober.kill()
        prober.join()


def test_a_probed_lock_that_is_held_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlock, "PROBE_SECONDS", math.inf)
    monkeypatch.setattr("jobspec.hostlock.time.sleep", lambda _seconds: pytest.fail("it was tried again"))
    one, two = (HostLock(tmp_path / "a.lock", probed=True) for _ in range(2))
    assert one.acquire()
    assert not two.acquire() and two.held_elsewhere()
    one.release()
