"""Datasets are stored once, found again without reading, and checked when they are read."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.data import ingest
from containers.data.blocks import iter_block_rows
from containers.data.dataset import ensure_dataset, load_manifest, open_dataset, verify
from containers.data.npyfile import NpyWriter, find_wanted_blocks
from jobspec.errors import DataError, NotFoundError
from jobspec.grammar.spec import DataSpec
from jobspec.search.inspection import BLOCK_BYTES, Manifest
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout

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
    path.write_text(path.read_text().replace('"format_version":1', '"format_version":99'))
    with pytest.raises(DataError, match=r"format_version.*another version"):
        load_manifest(store, manifest.dataset_id)


class RemoteStore:
    """A store without local paths, as S3 is one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fetched: list[int] = []

    def local_path(self, key: str) -> None:
        return None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.fetched.append(start)
        return self._store.get_range(key, start, length)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


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
    remote = RemoteStore(store)
    for place in (store, remote):
        parts = [(first, rows.copy()) for first, rows in iter_block_rows(place, "a.npy", block)]
        assert np.array_equal(np.concatenate([rows for _, rows in parts]), values)
        assert [first for first, _ in parts] == [0, *np.cumsum([len(rows) for _, rows in parts])[:-1]]
    remote.fetched.clear()
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
        assert len(remote.fetched) == wanted.sum() <= 2 or row_shape == (1_500_000,)
        remote.fetched.clear()
