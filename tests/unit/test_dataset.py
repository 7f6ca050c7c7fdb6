"""Datasets are stored once, found again without reading, and checked when they are read."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from containers.data import fetch, ingest, npyfile
from containers.data.blocks import iter_block_rows, load_block
from containers.data.dataset import ensure_dataset, load_manifest, open_dataset, verify
from containers.data.foldcache import FoldCache
from containers.data.npyfile import NpyWriter, find_wanted_blocks, write_array
from jobspec.errors import DataError, NotFoundError, TryLaterError
from jobspec.grammar.spec import DataSpec
from jobspec.search.inspection import BLOCK_BYTES, Block, Manifest
from jobspec.stores.base import Store, open_store
from jobspec.stores.folder import FolderStore
from jobspec.stores.layout import Layout
from tests.unit.remote import RemoteRanges, RemoteStore

SPEC = DataSpec(path="t.npz", target="y")


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "t.npz"
    np.savez(path, X=np.random.default_rng(0).standard_normal((1000, 4)), y=np.arange(1000) % 3)
    age(path)
    return path


def age(path: Path, seconds: int = 3600) -> None:
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def refuse_reading(*arguments: Any) -> Any:
    raise AssertionError("the source was read")


def test_a_second_call_reads_nothing(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_dataset(store, SPEC, source.parent)
    monkeypatch.setattr(ingest, "_hash_file", refuse_reading)
    assert ensure_dataset(store, SPEC, source.parent) == first
    age(source)
    with pytest.raises(AssertionError):
        ensure_dataset(store, SPEC, source.parent)


def test_a_fresh_file_is_hashed_again(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source.touch()
    first = ensure_dataset(store, SPEC, source.parent)
    monkeypatch.setattr(ingest, "open_file", refuse_reading)
    assert ensure_dataset(store, SPEC, source.parent) == first
    monkeypatch.setattr(ingest, "_hash_file", refuse_reading)
    with pytest.raises(AssertionError):
        ensure_dataset(store, SPEC, source.parent)


def test_an_id_is_of_the_content(store: Store, source: Path, tmp_path: Path) -> None:
    first = ensure_dataset(store, SPEC, source.parent)
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(source, tmp_path / "other" / "copy.npz"))
    assert ensure_dataset(store, DataSpec(path=str(copy), target="y"), tmp_path).dataset_id == first.dataset_id
    others = [
        ensure_dataset(store, DataSpec(path="t.npz", target="y", rows=500), tmp_path),
        ensure_dataset(store, DataSpec(path="t.npz", target="y", drop=("0",)), tmp_path),
    ]
    np.savez(source, X=np.ones((1000, 4)), y=np.arange(1000) % 3)
    others.append(ensure_dataset(store, SPEC, tmp_path))
    assert len({first.dataset_id, *(other.dataset_id for other in others)}) == 4


def test_the_manifest_comes_last_and_a_torn_staging_is_completed(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ensure_dataset(store, SPEC, source.parent)
    store.delete(Layout.manifest(whole.dataset_id))
    store.delete(Layout.block(whole.dataset_id, "y.npy"))
    assert ensure_dataset(store, SPEC, source.parent) == whole
    dataset = open_dataset(store, load_manifest(store, whole.dataset_id))
    verify(dataset)
    assert len(dataset.y) == 1000


def _ensure(url: str, folder: Path) -> Manifest:
    return ensure_dataset(open_store(url), SPEC, folder)


def test_processes_at_once_end_with_one_dataset(store_url: str, source: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = [future.result() for future in [pool.submit(_ensure, store_url, source.parent) for _ in range(4)]]
    assert len({manifest.dataset_id for manifest in found}) == 1
    verify(open_dataset(open_store(store_url), found[0]))


class SweptStore(FolderStore):
    """A folder in which someone removes the array, which he found unused, as soon as there is a manifest."""

    def __init__(self, root: Path, times: int) -> None:
        super().__init__(root)
        self.times = times

    def create(self, key: str, body: bytes) -> bool:
        won = super().create(key, body)
        if key.endswith("/manifest.json") and self.times:
            self.times -= 1
            self.delete(key.replace("manifest.json", "X.npy"))
        return won


@pytest.mark.parametrize("source_kind", ["file", "builtin"])
@pytest.mark.parametrize("times", [1, 2])
def test_arrays_that_vanish_below_their_manifest_are_stored_again(
    store_url: str, source: Path, times: int, source_kind: str
) -> None:
    spec = SPEC if source_kind == "file" else DataSpec(builtin="iris")
    swept = SweptStore(Path(store_url), times)
    if times == 2:
        with pytest.raises(TryLaterError, match=r"vanished from .* 2 times.*submit gc"):
            ensure_dataset(swept, spec, source.parent)
    verify(open_dataset(swept, ensure_dataset(swept, spec, source.parent)))


def test_a_flipped_byte_is_found(store: Store, store_url: str, source: Path) -> None:
    manifest = ensure_dataset(store, SPEC, source.parent)
    for file, opens in (("X.npy", True), ("y.npy", False)):
        path = Path(store_url) / Layout.block(manifest.dataset_id, file)
        body = bytearray(path.read_bytes())
        body[500] ^= 1
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"damaged in its block 0.*xxh3_128 is [0-9a-f]{32}, [0-9a-f]{32} was"):
            verify(open_dataset(store, manifest))
        if not opens:
            with pytest.raises(DataError, match="damaged"):
                open_dataset(store, manifest)
        body[500] ^= 1
        path.write_bytes(body)


def test_missing_and_short_objects(store: Store, store_url: str, source: Path) -> None:
    manifest = ensure_dataset(store, SPEC, source.parent)
    path = Path(store_url) / Layout.block(manifest.dataset_id, "X.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes were written"):
        open_dataset(store, manifest)
    path.unlink()
    with pytest.raises(DataError, match="is missing"):
        open_dataset(store, manifest)
    with pytest.raises(NotFoundError):
        load_manifest(store, "d-none")


def test_a_manifest_of_another_version(store: Store, store_url: str, source: Path) -> None:
    manifest = ensure_dataset(store, SPEC, source.parent)
    path = Path(store_url) / Layout.manifest(manifest.dataset_id)
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(DataError, match=r"format_version.*another version"):
        load_manifest(store, manifest.dataset_id)


@pytest.mark.parametrize(
    ("num_rows", "row_shape", "dtype"), [(700_000, (3,), "f8"), (3, (1_500_000,), "f4"), (5, (), "U3")]
)
def test_rows_come_back_from_any_store(
    store: Store, tmp_path: Path, num_rows: int, row_shape: tuple[int, ...], dtype: str
) -> None:
    values = np.arange(num_rows * int(np.prod(row_shape))).reshape(num_rows, *row_shape).astype(dtype)
    writer = NpyWriter(tmp_path / "a.npy", values.dtype, row_shape)
    for start in range(0, num_rows, 1 + num_rows // 7):
        writer.append(values[start : start + 1 + num_rows // 7])
    block = writer.close("a")
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)
    assert block.nbytes == (tmp_path / "a.npy").stat().st_size and len(block.digests) == -(-block.nbytes // BLOCK_BYTES)
    store.create_file("a.npy", tmp_path / "a.npy")
    remote = RemoteStore(store, tmp_path / "log")
    for place in (store, remote):
        parts = [(first, rows.copy()) for first, rows in iter_block_rows(place, "a.npy", block)]
        assert np.array_equal(np.concatenate([rows for _, rows in parts]), values)
        assert [first for first, _ in parts] == [0, *np.cumsum([len(rows) for _, rows in parts])[:-1]]
    remote.forget()
    for wanted_row in {0, num_rows // 2, num_rows - 1}:
        wanted_rows = np.arange(num_rows) == wanted_row
        wanted = find_wanted_blocks(block, wanted_rows)
        found = {
            first + i: row.copy()
            for first, rows in iter_block_rows(remote, "a.npy", block, wanted)
            for i, row in enumerate(rows)
        }
        assert np.array_equal(found[wanted_row], values[wanted_row])
        assert all(np.array_equal(row, values[index]) for index, row in found.items())
        assert len(remote.fetched("a.npy")) == wanted.sum() <= 2 or row_shape == (1_500_000,)
        remote.forget()


# --- over a network


@dataclass(frozen=True)
class Stored:
    """An array of ``num_blocks`` small blocks in a remote store."""

    remote: RemoteStore
    block: Block
    values: NDArray[Any]

    def load(self) -> NDArray[Any]:
        return load_block(self.remote, "a.npy", self.block)


NUM_BLOCKS = 20


@pytest.fixture
def stored(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stored]:
    for module in (fetch, npyfile):
        monkeypatch.setattr(module, "BLOCK_BYTES", 256)
    values = np.random.default_rng(0).standard_normal(((NUM_BLOCKS - 1) * 256 // 8 // 3, 3))
    writer = NpyWriter(tmp_path / "a.npy", values.dtype, (3,))
    writer.append(values)
    block = writer.close("a")
    assert len(block.digests) == NUM_BLOCKS
    store.create_file("a.npy", tmp_path / "a.npy")
    yield Stored(RemoteStore(store, tmp_path / "log"), block, values)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fetch")]


def test_every_block_is_fetched_once(stored: Stored) -> None:
    assert np.array_equal(stored.load(), stored.values)
    assert sorted(stored.remote.fetched("a.npy")) == list(range(0, stored.block.nbytes, 256))


def test_blocks_that_come_in_another_order(stored: Stored) -> None:
    arrived = threading.Event()
    order: list[int] = []

    def delay(key: str, offset: int, target: memoryview) -> None:
        if offset == 0:
            assert arrived.wait(60)
        order.append(offset)
        if offset == 3 * 256:
            arrived.set()

    stored.remote.spoil = delay
    assert np.array_equal(stored.load(), stored.values)
    assert order.index(3 * 256) < order.index(0)


def test_few_buffers_are_held(stored: Stored) -> None:
    places = set()

    def note(key: str, offset: int, target: memoryview) -> None:
        places.add(np.frombuffer(target, np.uint8).ctypes.data)

    stored.remote.spoil = note
    stored.load()
    assert len(places) <= RemoteRanges.streams + fetch.SPARE_BUFFERS < NUM_BLOCKS


def test_a_bit_flipped_on_its_way_is_fetched_again(stored: Stored) -> None:
    flipped: list[int] = []

    def flip(key: str, offset: int, target: memoryview) -> None:
        if offset == 5 * 256 and not flipped:
            flipped.append(offset)
            target[7] ^= 1

    stored.remote.spoil = flip
    assert np.array_equal(stored.load(), stored.values)
    assert stored.remote.fetched("a.npy").count(5 * 256) == 2
    assert len(stored.remote.fetched("a.npy")) == NUM_BLOCKS + 1


def test_a_damaged_block_is_fetched_twice_then_told(stored: Stored) -> None:
    def flip(key: str, offset: int, target: memoryview) -> None:
        if offset == 5 * 256:
            target[7] ^= 1

    stored.remote.spoil = flip
    with pytest.raises(DataError, match=r"'a.npy' is damaged in its block 5 .*xxh3_128 is (\w{32}), (?!\1)\w{32} was"):
        stored.load()
    assert stored.remote.fetched("a.npy").count(5 * 256) == 2


def test_errors_of_threads_come_out_as_they_are(stored: Stored) -> None:
    def fail(key: str, offset: int, target: memoryview) -> None:
        if offset == 2 * 256:
            raise TryLaterError("the network is down")

    stored.remote.spoil = fail
    with pytest.raises(TryLaterError, match="the network is down"):
        stored.load()
    assert len(stored.remote.fetched("a.npy")) < NUM_BLOCKS


def test_threads_end_with_a_reader_that_stops(stored: Stored) -> None:
    rows = iter_block_rows(stored.remote, "a.npy", stored.block)
    next(rows)
    rows.close()
    assert len(stored.remote.fetched("a.npy")) < NUM_BLOCKS


def test_threads_have_ended_when_the_last_block_is_used(stored: Stored) -> None:
    alive = [
        any(thread.name.startswith("fetch") for thread in threading.enumerate())
        for _ in iter_block_rows(stored.remote, "a.npy", stored.block)
    ]
    assert alive[0] and not alive[-1]


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_small_array_is_got_in_one_request(store: Store, tmp_path: Path, times: int) -> None:
    block = write_array(tmp_path, "a", np.arange(100))
    store.create_file("a.npy", tmp_path / "a.npy")
    remote = RemoteStore(store, tmp_path / "log")
    flips = iter(range(times))

    def flip(key: str, offset: int, target: memoryview) -> None:
        if next(flips, None) is not None:
            target[200] ^= 1

    remote.spoil = flip
    remote.ranges = refuse_reading  # type: ignore[method-assign, assignment]
    if times == 2:
        with pytest.raises(DataError, match=r"'a.npy' is damaged in its block 0"):
            load_block(remote, "a.npy", block)
    else:
        assert np.array_equal(load_block(remote, "a.npy", block), np.arange(100))
    assert len(remote.fetched("a.npy")) == max(1, times + (times == 1))
    remote.spoil = None
    for body, told in ((b"short", "has 5 bytes"), (None, "is missing")):
        store.delete("a.npy") if body is None else store.put("a.npy", body)
        with pytest.raises(DataError, match=told):
            load_block(remote, "a.npy", block)


@settings(max_examples=200)
@given(
    num_rows=st.integers(1, 40),
    row_shape=st.sampled_from([(), (1,), (3,), (7,), (40,), (100,)]),
    dtype=st.sampled_from(["f8", "f4", "i2", "?", "U3", "U1"]),
    block_bytes=st.sampled_from([128, 256, 512]),
    wanted_seed=st.integers(0, 1000),
)
def test_any_rows_of_any_shape(
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    row_shape: tuple[int, ...],
    dtype: str,
    block_bytes: int,
    wanted_seed: int,
) -> None:
    """Blocks borders inside rows, rows wider than blocks, gaps between wanted blocks: near and far give the same."""
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(wanted_seed)
    values = rng.integers(0, 100, (num_rows, *row_shape)).astype(dtype)
    wanted_rows = rng.random(num_rows) < rng.random()
    with pytest.MonkeyPatch.context() as patch:
        for module in (fetch, npyfile):
            patch.setattr(module, "BLOCK_BYTES", block_bytes)
        writer = NpyWriter(folder / "a.npy", values.dtype, row_shape)
        writer.append(values)
        block = writer.close("a")
        store = open_store(str(folder / "store"))
        store.create_file("a.npy", folder / "a.npy")
        wanted = find_wanted_blocks(block, wanted_rows)
        for place in (store, RemoteStore(store, folder / "log")):
            assert np.array_equal(load_block(place, "a.npy", block), values)
            found = {}
            for first, rows in iter_block_rows(place, "a.npy", block, wanted):
                assert first not in found
                found.update({first + i: row.tobytes() for i, row in enumerate(rows)})
            assert list(found) == sorted(found)
            assert {*np.flatnonzero(wanted_rows).tolist()} <= found.keys()
            assert all(body == values[row].tobytes() for row, body in found.items())


def test_x_comes_into_the_cache_when_it_is_asked_for(
    store: Store, source: Path, tmp_path: Path, cache: Path
) -> None:
    manifest = ensure_dataset(store, SPEC, source.parent)
    remote = RemoteStore(store, tmp_path / "log")
    dataset = open_dataset(remote, manifest)
    assert dataset.num_features == 4 and dataset.row_bytes == 4 * 8 + 8
    assert len(remote.fetched("y.npy")) == 1 and not remote.fetched("X.npy")
    verify(dataset)
    assert len(remote.fetched("X.npy")) == 1 and len(remote.fetched("y.npy")) == 1
    assert np.array_equal(dataset.X, open_dataset(store, manifest).X) and not dataset.X.flags.writeable
    verify(open_dataset(remote, manifest))
    assert len(remote.fetched("X.npy")) == 1
    folds = FoldCache(cache)
    assert folds.evict() == 0, "the matrix is in use"
    del dataset
    assert folds.evict() == 1


def test_a_matrix_that_was_damaged_far_away_is_never_mapped(store: Store, source: Path, tmp_path: Path) -> None:
    manifest = ensure_dataset(store, SPEC, source.parent)
    remote = RemoteStore(store, tmp_path / "log")

    def flip(key: str, offset: int, target: memoryview) -> None:
        if key.endswith("X.npy"):
            target[1000] ^= 1

    remote.spoil = flip
    dataset = open_dataset(remote, manifest)
    with pytest.raises(DataError, match=r"X.npy' is damaged in its block 0.*xxh3_128 is \w{32}, \w{32} was"):
        verify(dataset)
    with pytest.raises(DataError, match="damaged"):
        _ = dataset.X


def test_arrays_are_staged_in_the_cache_where_the_store_is_no_folder(
    store: Store, source: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteStore(store, tmp_path / "log")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    seen: list[Path] = []

    def create_file(key: str, path: Path) -> bool:
        seen.append(path)
        return store.create_file(key, path)

    monkeypatch.setattr(remote, "create_file", create_file, raising=False)
    verify(open_dataset(remote, ensure_dataset(remote, SPEC, source.parent)))
    assert seen and all(path.is_relative_to(cache) for path in seen)
    assert not list((cache / ".tmp").iterdir())
