"""One contract for every store; a new one joins by a line in STORES."""

from __future__ import annotations

import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from jobspec.errors import AccessError, DataError, NotFoundError, UsageError
from jobspec.stores.base import Store, open_store
from jobspec.stores.folder import FolderStore

STORES = {"folder": "store_url", "seaweed": "s3_url", "moto": "moto_url"}
"""Each store with the fixture that gives the URL of a fresh one."""


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(request.getfixturevalue(STORES[request.param]))


def test_an_object_is_created_once_and_never_changed(store: Store) -> None:
    assert store.create("runs/a/plan.json", b"first")
    assert not store.create("runs/a/plan.json", b"second")
    assert store.get("runs/a/plan.json") == b"first"


def test_a_staged_file_is_created_once(store: Store) -> None:
    for body, won in ((b"first", True), (b"second", False)):
        with store.staging() as folder:
            (folder / "X.npy").write_bytes(body)
            assert store.create_file("datasets/d/X.npy", folder / "X.npy") is won
    assert store.get("datasets/d/X.npy") == b"first"


def test_views_may_be_replaced(store: Store) -> None:
    store.put("runs/a/views/best.json", b"1")
    store.put("runs/a/views/best.json", b"22")
    with store.staging() as folder:
        (folder / "x").write_bytes(b"333")
        store.put_file("runs/a/views/cv_results.csv", folder / "x")
    assert store.get("runs/a/views/best.json") == b"22"
    assert store.get("runs/a/views/cv_results.csv") == b"333"


def test_absent_objects_are_told_apart_from_empty_ones(store: Store) -> None:
    store.create("a/empty", b"")
    assert store.get_or_none("a/empty") == b"" and store.exists("a/empty") and store.size("a/empty") == 0
    assert store.get_or_none("a/none") is None and not store.exists("a/none") and store.size("a/none") is None
    assert store.get_or_none("a/empty/below") is None
    with pytest.raises(NotFoundError, match="a/none"):
        store.get("a/none")


def test_a_range_is_whole_or_an_error(store: Store) -> None:
    store.create("a/b", bytes(range(100)))
    assert store.get_range("a/b", 10, 5) == bytes(range(10, 15))
    with pytest.raises(DataError, match="cut short"):
        store.get_range("a/b", 98, 5)


def test_an_object_is_read_in_pieces_of_one_version(store: Store) -> None:
    body = bytes(range(256)) * 100
    store.put("runs/a/views/x", body)
    with store.ranges("runs/a/views/x") as ranges:
        assert ranges.size == len(body) and ranges.streams >= 1
        piece = bytearray(1000)
        ranges.read_into(12_345, memoryview(piece))
        assert piece == body[12_345:13_345]
        with pytest.raises(DataError):
            ranges.read_into(len(body) - 10, memoryview(bytearray(11)))
    with pytest.raises(NotFoundError, match="runs/a/none"), store.ranges("runs/a/none"):
        pass


def test_a_view_is_swapped_only_from_the_version_that_was_read(store: Store) -> None:
    key = "runs/a/views/best.json"
    assert store.tagged(key) is None and store.tag(key) is None
    assert store.swap(key, b"1", None) and not store.swap(key, b"2", None)
    body, tag = store.tagged(key) or (b"", "")
    assert body == b"1" and tag == store.tag(key)
    assert store.swap(key, b"3", tag) and not store.swap(key, b"4", tag)
    for expected, won in ((store.tag(key), True), (tag, False)):
        with store.staging() as folder:
            (folder / "x").write_bytes(b"55")
            assert store.swap_file(key, folder / "x", expected) is won
            assert not (folder / "x").exists()
    assert store.get(key) == b"55"
    gone = store.tag(key)
    store.delete(key)
    assert not store.swap(key, b"6", gone) and not store.exists(key)


def test_keys_are_listed_in_order_and_folders_by_level(store: Store) -> None:
    for key in ("runs/b/plan.json", "runs/a/x/2", "runs/a/x/1", "books/q/0"):
        store.create(key, b"")
    assert list(store.keys("runs/")) == ["runs/a/x/1", "runs/a/x/2", "runs/b/plan.json"]
    assert store.folders("runs/") == ["a", "b"] and store.folders("nothing/") == []


def test_a_listing_tells_lengths_and_times(store: Store) -> None:
    before = time.time()
    store.create("runs/a/1", b"123")
    store.create("runs/b/2", b"")
    entries = list(store.entries("runs/"))
    assert [(entry.key, entry.size) for entry in entries] == [("runs/a/1", 3), ("runs/b/2", 0)]
    assert all(before - 5 < entry.written < time.time() + 5 for entry in entries), "clocks of one machine"
    assert list(store.entries("nothing/")) == []


def test_a_key_cannot_leave_the_store(store: Store) -> None:
    for key in ("../x", "a/../../x", "/etc/passwd", ""):
        with pytest.raises(AccessError):
            store.create(key, b"")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match="ftp"):
        open_store("ftp://somewhere/x")


def _race(url: str, number: int, barrier: object, wins: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if open_store(url).create("plan.json", str(number).encode()):
        wins.put(number)  # type: ignore[attr-defined]


@pytest.mark.parametrize("trial", range(5))
def test_of_eight_racers_one_wins(store: Store, trial: int) -> None:
    context = get_context("fork")
    barrier, wins = context.Barrier(8), context.SimpleQueue()
    racers = [context.Process(target=_race, args=(store.url, number, barrier, wins)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winner = wins.get()
    assert wins.empty() and store.get("plan.json") == str(winner).encode()


def test_without_hard_links_creation_still_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda self: False)  # so that the primitive itself is asked
    assert store.create("a/b", b"1") and not store.create("a/b", b"2")
    assert store.get("a/b") == b"1"
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_full_disk_is_told_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    from jobspec.errors import TryLaterError

    with pytest.raises(TryLaterError, match="3 bytes are needed") as caught:
        FolderStore(tmp_path).create("a", b"abc")
    assert caught.value.exit_code == 75 and not (tmp_path / "a").exists()


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AccessError):
        open_store(str(tmp_path / "file" / "store")).create("a", b"")
