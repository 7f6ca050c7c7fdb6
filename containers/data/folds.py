"""The fold that a worker has mapped: kept until another one is asked for."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from containers.data.foldcache import Fold, FoldCache, FoldPaths, map_fold
from jobspec.search.inspection import Manifest
from jobspec.stores.base import Store


class FoldHolder:
    """Map one fold at a time from the host's cache; read-only pages are shared by all processes of the host."""

    def __init__(self, cache: Path, store: Store, manifest: Manifest, split_id: str) -> None:
        self._cache = FoldCache(cache)
        self._store = store
        self._manifest = manifest
        self._split_id = split_id
        self._held: int | None = None
        self._stack = ExitStack()
        self._paths: FoldPaths | None = None
        self._fold: Fold | None = None

    def get(self, split: int) -> Fold:
        """Return a fold, loading it if this host does not have it yet."""
        if self._held != split or self._fold is None:
            self._fold = None
            self._stack.close()
            self._paths = self._stack.enter_context(
                self._cache.fold(self._store, self._manifest, self._split_id, split)
            )
            self._fold, self._held = map_fold(self._paths), split
        return self._fold

    def writable(self) -> Fold:
        """Return the held fold as copy-on-write maps, for estimators that write into their input."""
        if self._paths is None:
            raise RuntimeError("no fold is held")
        return map_fold(self._paths, writable=True)
