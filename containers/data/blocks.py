"""Stored arrays as bytes of any store: mapped where they lie in a folder, else fetched in checked ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.npyfile import HEADER_BYTES, ReadInto, iter_checked_rows
from jobspec.errors import DataError
from jobspec.search.inspection import Block
from jobspec.stores.base import Store


def iter_block_rows(
    store: Store, key: str, block: Block, wanted: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, rows) of a stored array, digests checked; see `iter_checked_rows`."""
    refuse_other_length(store, key, block)
    with ExitStack() as stack:
        yield from iter_checked_rows(block, key, _open_ranges(store, key, stack), wanted)


def load_block(store: Store, key: str, block: Block) -> NDArray[Any]:
    """Return a whole stored array, digests checked, read-only.

    Raises:
        DataError: it is missing, cut short or damaged.
    """
    values = np.empty(block.shape, np.dtype(block.dtype))
    for first, rows in iter_block_rows(store, key, block):
        values[first : first + len(rows)] = rows
    values.flags.writeable = False
    return values


def map_block(store: Store, key: str, block: Block) -> NDArray[Any]:
    """Return a stored array read-only: mapped and checked by its length alone in a folder, else loaded."""
    path = store.local_path(key)
    if path is None:
        return load_block(store, key, block)
    refuse_other_length(store, key, block)
    return np.asarray(np.memmap(path, np.dtype(block.dtype), "r", HEADER_BYTES, block.shape))


def refuse_other_length(store: Store, key: str, block: Block) -> None:
    """Compare an object's length with its description.

    Raises:
        DataError: it is missing, or has another length.
    """
    size = store.size(key)
    if size != block.nbytes:
        state = "is missing" if size is None else f"has {size} bytes"
        raise DataError(
            f"The stored object {key!r} {state}, {block.nbytes} bytes were written. Delete that dataset's folder "
            "in the store and run the same command again."
        )


def _open_ranges(store: Store, key: str, stack: ExitStack) -> ReadInto:
    path = store.local_path(key)
    if path is None:

        def fetch(offset: int, target: memoryview) -> None:
            target[:] = store.get_range(key, offset, len(target))

        return fetch
    file = stack.enter_context(path.open("rb", buffering=0))

    def read(offset: int, target: memoryview) -> None:
        file.seek(offset)
        while target:
            count = file.readinto(target)
            if not count:
                raise DataError(f"The stored object {key!r} became shorter while it was read. Run the command again.")
            target = target[count:]

    return read
