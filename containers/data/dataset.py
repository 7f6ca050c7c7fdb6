"""Datasets in the store: content-addressed, written once, the manifest last.

A dataset's id is a hash over the source's bytes, the reading options and the reader's version, so that the same
bytes meet under every path. A memo (`Layout.source`) remembers which file had which id: a second call reads nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from pydantic import ValidationError

from containers.data.blocks import iter_block_rows, load_block, map_file, refuse_other_length
from containers.data.foldcache import FoldCache
from containers.data.npyfile import count_row_bytes
from jobspec.errors import DataError, NotFoundError
from jobspec.search.inspection import Block, Manifest
from jobspec.settings import load_settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import unseal_as

if TYPE_CHECKING:
    from jobspec.grammar.spec import DataSpec


@dataclass(frozen=True)
class Dataset:
    """A stored dataset, opened: plain read-only arrays. X is mapped when it is first asked for."""

    store: Store
    manifest: Manifest
    y: NDArray[Any]
    weights: NDArray[Any] | None
    groups: NDArray[Any] | None
    extra: Mapping[str, NDArray[Any]]

    @property
    def num_features(self) -> int:
        """Return the number of columns of X."""
        return self.manifest.blocks[0].shape[1]

    @property
    def row_bytes(self) -> int:
        """Return the size of one row over all arrays of a fold."""
        arrays = (self.manifest.blocks[0], self.manifest.y, self.manifest.weights)
        return sum(count_row_bytes(block) for block in arrays if block is not None)

    @cached_property
    def X(self) -> NDArray[Any]:  # noqa: N802  # scikit-learn's name
        """Return the matrix: mapped and checked by its length alone in a folder, else out of the host's cache.

        Its bytes are checked on their way into the cache, where the entry is held as long as this object lives.

        Raises:
            DataError: the matrix is missing, cut short or damaged.
            TryLaterError: it does not fit on the cache's disk.
        """
        block = self.manifest.blocks[0]
        path = self.store.local_path(Layout.block(self.manifest.dataset_id, block.file))
        if path is None:
            stack = ExitStack()
            path = stack.enter_context(FoldCache(load_settings().cache).matrix(self.store, self.manifest))
            weakref.finalize(self, stack.close)
        return map_file(path, block)


def ensure_dataset(store: Store, data: DataSpec, folder: Path, extra_columns: tuple[str, ...] = ()) -> Manifest:
    """Return the stored dataset that a spec names, reading and storing it if it is not there yet.

    Idempotent: processes that do this at once write the same bytes, and each object is created once.

    Args:
        store: where datasets lie.
        data: the spec's `data`.
        folder: the spec's folder, at which relative paths begin.
        extra_columns: further columns that leave X and are stored, such as the one of a PredefinedSplit.

    Raises:
        DataError: the source cannot be read exactly (`bad-inputs` 18 to 29), or changed while being read.
        TryLaterError: the store's disk is full.
    """
    # Readers bring pyarrow with them, which workers do without.
    from containers.data.ingest import ingest

    return load_manifest(store, ingest(store, data, folder, extra_columns))


def load_manifest(store: Store, dataset_id: str) -> Manifest:
    """Return a stored manifest.

    Raises:
        NotFoundError: there is no such dataset.
        DataError: the manifest is of another format version or damaged.
    """
    key = Layout.manifest(dataset_id)
    body = store.get_or_none(key)
    if body is None:
        raise NotFoundError(f"The store {store.url} has no dataset {dataset_id!r}. Run `submit run SPEC` to store it.")
    try:
        return unseal_as(Manifest, body, key)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(
            f"The stored object {key!r} cannot be read ({place}: {first['msg']}). It was written by another version of "
            "foldfleet or is damaged: delete that dataset's folder in the store and run the same command again."
        ) from None


def open_dataset(store: Store, manifest: Manifest) -> Dataset:
    """Open a stored dataset; y and the columns beside it are checked against their digests.

    X is checked by its length where it is mapped as it lies, elsewhere on its way here.

    Raises:
        DataError: an array is missing, cut short or damaged.
    """
    dataset_id = manifest.dataset_id

    def load(block: Block | None) -> NDArray[Any] | None:
        return None if block is None else load_block(store, Layout.block(dataset_id, block.file), block)

    y = load_block(store, Layout.block(dataset_id, manifest.y.file), manifest.y)
    extra = {name: load_block(store, Layout.block(dataset_id, b.file), b) for name, b in manifest.extra.items()}
    key = Layout.block(dataset_id, manifest.blocks[0].file)
    if store.local_path(key) is not None:  # over a network, whoever reads it looks at its length first
        refuse_other_length(store, key, manifest.blocks[0])
    return Dataset(store, manifest, y, load(manifest.weights), load(manifest.groups), extra)


def verify(dataset: Dataset) -> None:
    """Read every byte of a dataset and compare all digests; costs one read.

    Over a network that read is the one that brings X here; nothing is fetched twice.

    Raises:
        DataError: a block is damaged, named by object and both digests.
    """
    manifest = dataset.manifest
    if dataset.store.local_path(Layout.manifest(manifest.dataset_id)) is None:
        _ = dataset.X  # checked on its way here, and the other arrays when they were loaded
        return
    sides = (manifest.y, manifest.weights, manifest.groups, *manifest.extra.values())
    for block in (*manifest.blocks, *sides):
        if block is not None:
            for _ in iter_block_rows(dataset.store, Layout.block(manifest.dataset_id, block.file), block):
                pass
