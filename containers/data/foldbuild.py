"""How an entry of the fold cache is made and when it is believed.

The dataset's blocks are streamed once, each digest checked, and every row goes straight to its place. Where rows come
in ascending order (KFold and its kin) the files are written front to back; where they are permuted (ShuffleSplit)
they are scattered into a map. Over a network, threads fetch ahead; rows are placed in one thread and in order, so that
the files are the same as from a folder.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray

from containers.data.blocks import copy_block, iter_block_rows, load_block
from containers.data.checksums import Comparison
from containers.data.fetch import allocate, iter_whole, write_blocks
from containers.data.npyfile import (
    HEADER_BYTES,
    NpyWriter,
    count_row_bytes,
    find_wanted_blocks,
    make_header,
    write_array,
)
from containers.data.splits import Splits
from jobspec.errors import TryLaterError
from jobspec.search.inspection import BLOCK_BYTES, Block, Manifest
from jobspec.stores.base import Checksum, Ranges, Store
from jobspec.stores.layout import Layout

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
"""Raise when the files of an entry change; it is in the path, so that entries of two versions lie beside each other."""

SOURCE = "source"
"""The file of a source that was fetched, in its entry."""

_FETCHES = 2
"""How often a source is fetched until it is what its store knows."""

_META = "meta.json"
_FILE_OVERHEAD = 2 * 4096


def fold_bytes(manifest: Manifest, splits: Splits, split: int) -> int:
    """Return what an entry takes on disk."""
    train, test = splits.train_rows(split), splits.test_rows(split)
    both = [manifest.blocks[0], manifest.y]
    weights = [] if manifest.weights is None else [manifest.weights]
    row_bytes = sum(count_row_bytes(block) for block in both)
    return row_bytes * (train + test) + sum(map(count_row_bytes, weights)) * train + 6 * _FILE_OVERHEAD


def build_fold(folder: Path, store: Store, manifest: Manifest, splits: Splits, split: int) -> None:
    """Write all arrays of a fold, and ``meta.json`` last, into a new folder.

    Raises:
        DataError: a stored block is damaged.
    """
    folder.mkdir(parents=True)
    train, test = splits.train(split), splits.test(split)
    blocks = _scatter_matrix(folder, store, manifest, train, test)
    y = load_block(store, Layout.block(manifest.dataset_id, manifest.y.file), manifest.y)
    blocks += [write_array(folder, "y_train", y[train]), write_array(folder, "y_test", y[test])]
    if manifest.weights is not None:
        weights = load_block(store, Layout.block(manifest.dataset_id, manifest.weights.file), manifest.weights)
        blocks.append(write_array(folder, "w_train", weights[train]))
    _finish(folder, [block.model_dump(mode="json") for block in blocks])


def matrix_bytes(manifest: Manifest) -> int:
    """Return what the entry of a whole matrix takes on disk."""
    return manifest.blocks[0].nbytes + 2 * _FILE_OVERHEAD


def build_matrix(folder: Path, store: Store, manifest: Manifest) -> None:
    """Copy a dataset's whole matrix, and write ``meta.json`` last, into a new folder.

    Raises:
        DataError: a stored block is damaged.
    """
    block = manifest.blocks[0]
    folder.mkdir(parents=True)
    copy_block(store, Layout.block(manifest.dataset_id, block.file), block, folder / block.file)
    _finish(folder, [block.model_dump(mode="json")])


def source_bytes(ranges: Ranges) -> int:
    """Return what the entry of a source takes on disk."""
    return ranges.size + 2 * _FILE_OVERHEAD


def build_source(folder: Path, ranges: Ranges, name: str) -> None:
    """Copy an object that is no array of ours, and write ``meta.json`` last, into a new folder.

    No digest of ours is known, so that the bytes are compared with what the store knows of them.

    Args:
        folder: does not exist yet.
        ranges: the object.
        name: what people call it.

    Raises:
        DataError: the object was replaced while it was read.
        TryLaterError: what came was not what the store knows, twice.
    """
    folder.mkdir(parents=True)
    known = ranges.checksum()
    if known is None:
        log.info("source_not_compared source=%s reason=the store tells no checksum that can be computed here", name)
        digests = _copy(folder / SOURCE, ranges, None)
    else:
        digests = _copy_compared(folder / SOURCE, ranges, known, name)
    block = Block(name=SOURCE, file=SOURCE, dtype="|u1", shape=(ranges.size,), nbytes=ranges.size, digests=digests)
    _finish(folder, [block.model_dump(mode="json")], compared=known is not None)


def _copy_compared(path: Path, ranges: Ranges, known: Checksum, name: str) -> tuple[str, ...]:
    for _ in range(_FETCHES):
        comparison = Comparison(known)
        digests = _copy(path, ranges, comparison)
        if comparison.holds():
            return digests
        path.unlink()
        log.warning("source_damaged source=%s algorithm=%s found=%s", name, known.algorithm, comparison.found().hex())
    raise TryLaterError(
        f"{name} came damaged {_FETCHES} times: its {known.algorithm} is {comparison.found().hex()}, the server tells "
        f"{known.value.hex()}. Nothing of it is kept: run the same command again. If that goes on, the object is "
        "damaged where it lies: upload it anew, or download it, check it and name the file under `data.path`."
    )


def _copy(path: Path, ranges: Ranges, comparison: Comparison | None) -> tuple[str, ...]:
    with closing(iter_whole(ranges)) as bodies:
        return write_blocks(path, bodies if comparison is None else comparison.watch(bodies))


def is_proven(entry: Path) -> bool:
    """Say whether a source's entry was compared with what its store knows, and still is as it was then."""
    try:
        meta = json.loads((entry / _META).read_bytes())
        return bool(meta.get("compared")) and all(_is_intact(entry, _block(block)) for block in meta["blocks"])
    except (OSError, ValueError):
        return False


def is_trusted(entry: Path, verify: bool = False) -> bool:
    """Say whether an entry is whole.

    A folder gets its name before its bytes are on the disk, so that a power cut can leave a whole-looking entry with
    holes. An entry of this boot is believed; an older one only after all digests are compared (``verify``, under the
    builder's lock), which stamps it with this boot.
    """
    try:
        meta = json.loads((entry / _META).read_bytes())
    except (OSError, ValueError):
        return False
    if meta.get("format_version") != FORMAT_VERSION:
        return False
    if not all(_has_size(entry, block) for block in meta["blocks"]):
        return False  # something cleaned up behind our back
    if meta["boot_id"] == boot_id():
        return True
    if not verify or not all(_is_intact(entry, _block(block)) for block in meta["blocks"]):
        return False
    _write_meta(entry, meta["blocks"], compared=bool(meta.get("compared")))
    return True


@cache
def boot_id() -> str:
    """Return what the kernel calls this boot; empty where it has no name (builders then write through to the disk)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class _Target(Protocol):
    def put(self, first: int, rows: NDArray[Any]) -> None:
        """Take those of the consecutive ``rows`` from row ``first`` on that belong here."""

    def close(self) -> Block:
        """Complete the file."""

    def abort(self) -> None:
        """Let the file go as it is."""


def _scatter_matrix(
    folder: Path, store: Store, manifest: Manifest, train: NDArray[np.int64], test: NDArray[np.int64]
) -> list[Block]:
    source = manifest.blocks[0]
    targets = [_open_target(folder, "X_train", source, train), _open_target(folder, "X_test", source, test)]
    wanted_rows = np.zeros(manifest.num_rows, np.bool_)
    wanted_rows[train] = wanted_rows[test] = True
    wanted = find_wanted_blocks(source, wanted_rows)
    try:
        key = Layout.block(manifest.dataset_id, source.file)
        # Closed, so that threads which fetch have ended when an error leaves.
        with closing(iter_block_rows(store, key, source, wanted)) as parts:
            for first, rows in parts:
                for target in targets:
                    target.put(first, rows)
        return [target.close() for target in targets]
    finally:
        for target in targets:
            target.abort()


def _open_target(folder: Path, name: str, source: Block, indices: NDArray[np.int64]) -> _Target:
    if np.all(indices[1:] >= indices[:-1]):
        return _AscendingTarget(folder, name, source, indices)
    return _PermutedTarget(folder, name, source, indices)


class _AscendingTarget:
    """Rows in ascending order: written front to back."""

    def __init__(self, folder: Path, name: str, source: Block, indices: NDArray[np.int64]) -> None:
        self._dtype = np.dtype(source.dtype)
        self._writer = NpyWriter(folder / f"{name}.npy", self._dtype, source.shape[1:])
        self._name = name
        self._indices = indices
        self._gathered = np.empty((0, *source.shape[1:]), self._dtype)

    def put(self, first: int, rows: NDArray[Any]) -> None:
        low, high = np.searchsorted(self._indices, [first, first + len(rows)])
        places = self._indices[low:high] - first
        if not len(places):
            return
        consecutive = places[-1] - places[0] + 1 == len(places) and np.all(np.diff(places) == 1)
        self._writer.append(rows[places[0] : places[-1] + 1] if consecutive else self._gather(rows, places))

    def _gather(self, rows: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        """Copy the rows side by side, into memory that is used again: fresh pages cost more than the copy."""
        if len(self._gathered) < len(places):
            self._gathered = np.empty((max(len(rows), len(places)), *rows.shape[1:]), self._dtype)
        # The places are in range; any mode but "raise" writes into `out` without a copy in between.
        return np.take(rows, places, axis=0, out=self._gathered[: len(places)], mode="clip")

    def close(self) -> Block:
        return self._writer.close(self._name)

    def abort(self) -> None:
        self._writer.abort()


class _PermutedTarget:
    """Rows in any order, also repeated: scattered into a map of the whole file."""

    def __init__(self, folder: Path, name: str, source: Block, indices: NDArray[np.int64]) -> None:
        self._path, self._name = folder / f"{name}.npy", name
        self._order = np.argsort(indices, kind="stable")
        self._sorted = indices[self._order]
        self._dtype = np.dtype(source.dtype)
        self._shape = (len(indices), *source.shape[1:])
        nbytes = HEADER_BYTES + len(indices) * count_row_bytes(source)
        with self._path.open("xb") as file:
            # A map of a sparse file ends the process with SIGBUS when the disk is full; this raises ENOSPC now.
            allocate(file.fileno(), nbytes)
            file.write(make_header(self._dtype, self._shape))
        self._map: NDArray[Any] | None = np.memmap(self._path, self._dtype, "r+", HEADER_BYTES, self._shape)

    def put(self, first: int, rows: NDArray[Any]) -> None:
        low, high = np.searchsorted(self._sorted, [first, first + len(rows)])
        if self._map is not None:
            self._map[self._order[low:high]] = rows[self._sorted[low:high] - first]

    def close(self) -> Block:
        self.abort()
        return _describe(self._path, self._name, self._dtype, self._shape)

    def abort(self) -> None:
        self._map = None


def _describe(path: Path, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Block:
    digests = tuple(_digests(path))
    nbytes = path.stat().st_size
    return Block(name=name, file=path.name, dtype=dtype.str, shape=shape, nbytes=nbytes, digests=digests)


def _digests(path: Path) -> list[str]:
    digests = []
    with path.open("rb", buffering=0) as file:
        while body := file.read(BLOCK_BYTES):
            digests.append(xxhash.xxh3_128_hexdigest(body))
    return digests


def _has_size(entry: Path, block: dict[str, Any]) -> bool:
    try:
        return (entry / str(block["file"])).stat().st_size == int(block["nbytes"])
    except OSError:
        return False


def _is_intact(entry: Path, block: Block) -> bool:
    path = entry / block.file
    return path.is_file() and path.stat().st_size == block.nbytes and _digests(path) == list(block.digests)


def _block(stored: dict[str, Any]) -> Block:
    return Block.model_validate_json(json.dumps(stored))


def _finish(folder: Path, blocks: list[dict[str, Any]], *, compared: bool = False) -> None:
    if not boot_id():
        _sync(folder)
    _write_meta(folder, blocks, compared=compared)


def _write_meta(folder: Path, blocks: list[dict[str, Any]], *, compared: bool) -> None:
    meta = {"format_version": FORMAT_VERSION, "boot_id": boot_id(), "blocks": blocks, "compared": compared}
    aside = folder / f"{_META}.{uuid.uuid4().hex}"
    aside.write_text(json.dumps(meta), encoding="utf-8")
    aside.replace(folder / _META)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
