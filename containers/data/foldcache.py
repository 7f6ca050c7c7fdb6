"""The host's fold cache: one copy of a fold for all processes, in scikit-learn's row order, mapped read-only.

An entry is a folder ``folds/{dataset_id}/{split_id}/{k}``: arrays, and ``meta.json``, which is written last before
the folder gets its name. Beside it lies ``{k}.lock``: whoever builds or evicts the entry holds it exclusively, whoever
uses it holds it shared. The kernel releases the lock of a killed holder; lock files stay, so that no two processes
ever lock different files of one name. Starts no threads: callers fork.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.foldbuild import build_fold, fold_bytes, is_trusted
from containers.data.splits import load_splits
from jobspec.errors import TryLaterError
from jobspec.hostlock import HostLock
from jobspec.search.inspection import Manifest
from jobspec.stores.base import Store
from jobspec.stores.folder import explain_os_error, free_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT)

_SPARE_BYTES = 16 * 2**20
"""Left free beside a fold, for logs and locks."""


@dataclass(frozen=True)
class FoldPaths:
    """An entry of the cache; it stays as long as the context that gave it is open."""

    path: Path


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

    @contextmanager
    def fold(self, store: Store, manifest: Manifest, split_id: str, split: int) -> Iterator[FoldPaths]:
        """Give a fold that is not evicted inside the context, building it if this host does not have it.

        Only one process builds, the others wait. Children that are forked inside the context hold it, too.

        Raises:
            DataError: a stored block is damaged, named with both digests.
            TryLaterError: the disk is too small even after evicting every unlocked fold.
            AccessError: the cache's folder cannot be written.
        """
        entry = self._entry(manifest, split_id, split)
        lock = self._lock(entry)
        with _explained(entry):
            lock.acquire(shared=True, blocking=True)
        try:
            while not is_trusted(entry):
                lock.release()
                self._build(store, manifest, split_id, split)
                lock.acquire(shared=True, blocking=True)
            lock.path.touch()
            yield FoldPaths(entry)
        finally:
            lock.release()

    def ensure(self, store: Store, manifest: Manifest, split_id: str, split: int) -> Path:
        """Build a fold ahead of its use; without a lock it may be evicted again."""
        with self.fold(store, manifest, split_id, split) as paths:
            return paths.path

    def evict(self) -> int:
        """Remove every fold that nobody uses; return their number."""
        return sum(self._evict_one(lock) for lock in self._oldest_first())

    def _build(self, store: Store, manifest: Manifest, split_id: str, split: int) -> None:
        entry = self._entry(manifest, split_id, split)
        with _explained(entry), self._lock(entry):
            # Another process may have built it while this one waited.
            if is_trusted(entry, verify=True):
                return
            _remove(entry)
            splits = load_splits(store, manifest.dataset_id, split_id)
            needed = fold_bytes(manifest, splits, split)

            def build() -> None:
                self._make_room(needed)
                aside = _aside(entry)
                try:
                    build_fold(aside, store, manifest, splits, split)
                    aside.rename(entry)
                except BaseException:
                    shutil.rmtree(aside, ignore_errors=True)
                    raise

            self._retry_if_full(build, entry, needed)

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

    def _make_room(self, needed: int) -> None:
        """Evict unlocked folds, oldest first, until the fold fits; say both numbers if it never will."""
        locks = self._oldest_first()
        while (free := free_bytes(self.root)) < needed + _SPARE_BYTES:
            lock = next(locks, None)
            if lock is None:
                raise TryLaterError(
                    f"The fold needs {needed} bytes on the disk of the cache {self.root}, {free} are free, and no fold "
                    "that is not in use is left to be evicted. Free some space, or name a folder on a larger disk with "
                    "FOLDFLEET_CACHE, then run the same command again."
                )
            self._evict_one(lock)

    def _oldest_first(self) -> Iterator[Path]:
        """Yield the lock files of all entries by their last use."""
        used = []
        for path in self.root.glob("folds/*/*/*.lock"):
            with suppress(FileNotFoundError):
                used.append((path.stat().st_mtime_ns, path))
        yield from (path for _, path in sorted(used))

    def _evict_one(self, lock_path: Path) -> bool:
        """Remove an entry, and what a killed builder left of it, unless someone holds its lock."""
        entry = lock_path.with_suffix("")
        lock = HostLock(lock_path)
        if not (entry.exists() or _aside(entry).exists()) or not lock.acquire():
            return False
        try:
            _remove(entry)
            return True
        finally:
            lock.release()

    def _entry(self, manifest: Manifest, split_id: str, split: int) -> Path:
        return self.root / "folds" / manifest.dataset_id / split_id / f"{split:05d}"

    def _lock(self, entry: Path) -> HostLock:
        return HostLock(entry.with_suffix(".lock"))


def map_fold(paths: FoldPaths | Path, writable: bool = False) -> Fold:
    """Map an entry: read-only, or copy-on-write for estimators that write into their input.

    The arrays are plain ndarrays, not ``np.memmap``, which some estimators treat in another way.
    """
    folder = paths.path if isinstance(paths, FoldPaths) else paths

    def load(name: str) -> NDArray[Any]:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c" if writable else "r", allow_pickle=False))

    weights = load("w_train") if (folder / "w_train.npy").exists() else None
    return Fold(load("X_train"), load("y_train"), load("X_test"), load("y_test"), weights)


def _aside(entry: Path) -> Path:
    """Return where an entry is built: one name, since the builder holds the entry's lock."""
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
