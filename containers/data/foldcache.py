"""The host's fold cache: one copy of a fold for all processes, in scikit-learn's row order, mapped read-only.

An entry is a folder ``folds-{format}/{dataset_id}/{split_id}/{k}``: arrays, and ``meta.json``, which is written last
before the folder gets its name. Beside it lie two locks. ``{k}.lock`` is held shared by whoever uses the entry, for as
long as a worker lives; it is only ever tried exclusively, by who evicts. ``{k}.builder`` is held exclusively by who
builds or evicts. So a wait is for a build or an eviction, never for a use: a worker that waited for idle ones to let a
fold go would wait for ever, since they keep it until that worker is done. The kernel releases the locks of a killed
holder; their files stay, so that no two processes ever lock different files of one name. No thread outlives a build:
callers fork.

Versions of foldfleet that write other files have other formats, and never read or rebuild each other's entries. Depth,
locks and the names beside an entry are the same in every format, also in the first, which lay in ``folds``: so each
evicts what any of them no longer uses.

Where the store is no folder, ``folds-{format}/{dataset_id}/whole/X`` is the whole matrix, for a refit, and
``folds-{format}/sources/{version}/file`` a spec's data file until it is stored.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.foldbuild import (
    FORMAT_VERSION,
    SOURCE,
    build_fold,
    build_matrix,
    build_source,
    fold_bytes,
    is_proven,
    is_trusted,
    matrix_bytes,
    source_bytes,
)
from containers.data.splits import load_splits
from jobspec.errors import DataError, TryLaterError
from jobspec.hostlock import HostLock
from jobspec.search.inspection import Manifest
from jobspec.stores.base import Store
from jobspec.stores.folder import explain_os_error, free_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT)

_ALL_LOCKS = "folds*/*/*/*.lock"
"""Of the entries of all formats."""

_SPARE_BYTES = 16 * 2**20
"""Left free beside a fold, for logs and locks."""


@dataclass(frozen=True)
class FoldPaths:
    """An entry of the cache; it stays as long as the context that gave it is open."""

    path: Path


@dataclass(frozen=True)
class Plan:
    """How an entry is made: what it is called in messages, the disk it needs, and what fills a new folder."""

    what: str
    needed_bytes: int
    build: Callable[[Path], None]


@dataclass(frozen=True)
class Fold:
    """The arrays of one split: C order, X float64 (float32 where the data are), plain ndarrays over maps."""

    X_train: NDArray[Any]
    y_train: NDArray[Any]
    X_test: NDArray[Any]
    y_test: NDArray[Any]
    w_train: NDArray[Any] | None


class FoldCache:
    """The folds below ``root``, shared by all processes and containers of a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._entries = root / f"folds-{FORMAT_VERSION}"

    @contextmanager
    def fold(self, store: Store, manifest: Manifest, split_id: str, split: int) -> Iterator[FoldPaths]:
        """Give a fold that is not evicted inside the context, building it if this host does not have it.

        Only one process builds, the others wait. Children that are forked inside the context hold it, too.

        Raises:
            DataError: a stored block is damaged, named with both digests.
            TryLaterError: the disk is too small even after evicting every unlocked fold.
            AccessError: the cache's folder cannot be written.
        """

        def plan() -> Plan:
            splits = load_splits(store, manifest.dataset_id, split_id)
            needed = fold_bytes(manifest, splits, split)
            return Plan("The fold", needed, lambda aside: build_fold(aside, store, manifest, splits, split))

        with self._held(self._entries / manifest.dataset_id / split_id / f"{split:05d}", plan) as entry:
            yield FoldPaths(entry)

    @contextmanager
    def matrix(self, store: Store, manifest: Manifest) -> Iterator[Path]:
        """Give the file of a dataset's whole matrix, copied here with its digests checked; otherwise as `fold`."""

        def plan() -> Plan:
            return Plan("The data", matrix_bytes(manifest), lambda aside: build_matrix(aside, store, manifest))

        with self._held(self._entries / manifest.dataset_id / "whole" / "X", plan) as entry:
            yield entry / manifest.blocks[0].file

    @contextmanager
    def source(self, store: Store, key: str, tag: str, version: str) -> Iterator[Path]:
        """Give the file with one version of an object, such as the data that a spec names; otherwise as `fold`.

        Args:
            store: where the object lies.
            key: its key.
            tag: the tag of this version.
            version: a short name of this version, of letters and digits.

        Raises:
            NotFoundError: there is no such object.
            DataError: it is of another version, or was replaced while it was read.
            TryLaterError: its bytes are not those that the store tells.
        """
        name = f"{store.url}/{key}"
        with ExitStack() as stack:

            def plan() -> Plan:
                ranges = stack.enter_context(store.ranges(key))
                if ranges.tag != tag:  # the entry's name stands for the bytes of one version
                    raise DataError(
                        f"{name} was replaced before it was fetched. Make sure that nothing writes it, then run the "
                        "same command again."
                    )
                return Plan("The data file", source_bytes(ranges), lambda aside: build_source(aside, ranges, name))

            with self._held(self._entries / "sources" / version / "file", plan) as entry:
                stack.close()
                yield entry / SOURCE

    def drop_source(self, version: str, *, unless_proven: bool = False) -> None:
        """Remove a source unless someone uses it; or unless it certainly is what its store has, which reads it."""
        entry = self._entries / "sources" / version / "file"
        if not (unless_proven and is_proven(entry)):
            self._evict_one(entry.with_suffix(".lock"))

    def ensure(self, store: Store, manifest: Manifest, split_id: str, split: int) -> Path:
        """Build a fold ahead of its use; without a lock it may be evicted again."""
        with self.fold(store, manifest, split_id, split) as paths:
            return paths.path

    def evict(self) -> int:
        """Remove every entry that nobody uses, of any format; return their number."""
        return sum(self._evict_one(lock) for lock in self._oldest_first())

    @contextmanager
    def _held(self, entry: Path, plan: Callable[[], Plan]) -> Iterator[Path]:
        """Hold an entry's lock, after building it where it is not whole."""
        lock = _use_lock(entry)
        with _explained(entry):
            lock.acquire(shared=True, blocking=True)
        try:
            while not is_trusted(entry):
                lock.release()
                self._build(entry, plan)
                lock.acquire(shared=True, blocking=True)
            lock.path.touch()
            yield entry
        finally:
            lock.release()

    def _build(self, entry: Path, make_plan: Callable[[], Plan]) -> None:
        with _explained(entry), _builder_lock(entry):
            # Another process may have built it while this one waited.
            if is_trusted(entry, verify=True):
                return
            _remove(entry)  # whoever uses a damaged one keeps its maps
            plan = make_plan()

            def build() -> None:
                self._make_room(plan)
                aside = _aside(entry)
                try:
                    plan.build(aside)
                    aside.rename(entry)
                except BaseException:
                    shutil.rmtree(aside, ignore_errors=True)
                    raise

            self._retry_if_full(build, entry, plan.needed_bytes)

    def _retry_if_full(self, build: Callable[[], None], entry: Path, needed: int) -> None:
        """Build; if the disk filled up meanwhile (others write there, too), evict all that is unused and build again.

        A quota shows in the error alone, never in the free bytes, so that making room beforehand cannot see it.
        """
        try:
            build()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.evict()
            with _explained(entry, needed):
                build()

    def _make_room(self, plan: Plan) -> None:
        """Evict unlocked entries, oldest first, until the new one fits; say both numbers if it never will."""
        locks = self._oldest_first()
        while (free := free_bytes(self.root)) < plan.needed_bytes + _SPARE_BYTES:
            lock = next(locks, None)
            if lock is None:
                raise TryLaterError(
                    f"{plan.what} needs {plan.needed_bytes + _SPARE_BYTES} bytes on the disk of the cache {self.root}, "
                    f"{free} are free, and no fold that is not in use is left to be evicted. Free some space, or name "
                    "a folder on a larger disk with FOLDFLEET_CACHE, then run the same command again."
                )
            self._evict_one(lock)

    def _oldest_first(self) -> Iterator[Path]:
        """Yield the lock files of the entries of all formats by their last use."""
        used = []
        for path in self.root.glob(_ALL_LOCKS):
            with suppress(FileNotFoundError):
                used.append((path.stat().st_mtime_ns, path))
        yield from (path for _, path in sorted(used))

    def _evict_one(self, lock_path: Path) -> bool:
        """Remove an entry, and what a killed builder left of it, unless someone holds its lock."""
        entry = lock_path.with_suffix("")
        if not (entry.exists() or _aside(entry).exists()):
            return False
        builder, use = _builder_lock(entry), _use_lock(entry)
        try:
            if not (builder.acquire() and use.acquire()):
                return False
            _remove(entry)
            return True
        finally:
            use.release()
            builder.release()


def map_fold(paths: FoldPaths | Path, writable: bool = False) -> Fold:
    """Map an entry: read-only, or copy-on-write for estimators that write into their input.

    The arrays are plain ndarrays, not ``np.memmap``, which some estimators treat in another way.
    """
    folder = paths.path if isinstance(paths, FoldPaths) else paths

    def load(name: str) -> NDArray[Any]:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c" if writable else "r", allow_pickle=False))

    weights = load("w_train") if (folder / "w_train.npy").exists() else None
    return Fold(load("X_train"), load("y_train"), load("X_test"), load("y_test"), weights)


def _use_lock(entry: Path) -> HostLock:
    return HostLock(entry.with_suffix(".lock"))


def _builder_lock(entry: Path) -> HostLock:
    return HostLock(entry.with_suffix(".builder"))


def _aside(entry: Path) -> Path:
    """Return where an entry is built: one name, since one process builds."""
    return entry.with_suffix(".building")


def _remove(entry: Path) -> None:
    """Remove an entry so that a kill halfway leaves nothing that looks whole."""
    aside = _aside(entry)
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(FileNotFoundError):
        entry.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _explained(path: Path, needed: int = 0) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path, needed) from error
