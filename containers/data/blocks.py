"""Stored arrays as bytes of any store: mapped where they lie in a folder, else fetched in checked ranges."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.fetch import iter_blocks, load_small, other_length, write_blocks
from containers.data.npyfile import HEADER_BYTES, Body, iter_rows
from jobspec.errors import NotFoundError
from jobspec.search.inspection import Block
from jobspec.stores.base import Store


def iter_block_rows(
    store: Store, key: str, block: Block, wanted: NDArray[np.bool_] | None = None
) -> Generator[tuple[int, NDArray[Any]], None, None]:
    """Yield (first row, rows) of a stored array in order, digests checked.

    The arrays are views that the next step overwrites. Over a network, threads fetch ahead until the generator ends
    or is closed.

    Args:
        store: where it lies.
        key: its key.
        block: its description.
        wanted: one flag per `BLOCK_BYTES`; a block without it is not read (see `find_wanted_blocks`).

    Raises:
        DataError: it is missing, cut short or damaged.
    """
    with _bodies(store, key, block, wanted) as bodies:
        yield from iter_rows(block, bodies)


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


def copy_block(store: Store, key: str, block: Block, path: Path) -> None:
    """Copy the file of a stored array to a new file of this host, digests checked.

    Raises:
        DataError: it is missing, cut short or damaged.
    """
    with _bodies(store, key, block) as bodies:
        write_blocks(path, bodies)


def map_file(path: Path, block: Block) -> NDArray[Any]:
    """Map the file of a stored array read-only."""
    return np.asarray(np.memmap(path, np.dtype(block.dtype), "r", HEADER_BYTES, block.shape))


def refuse_other_length(store: Store, key: str, block: Block) -> None:
    """Compare an object's length with its description; costs a request.

    Raises:
        DataError: it is missing, or has another length.
    """
    size = store.size(key)
    if size != block.nbytes:
        raise other_length(key, block, size)


@contextmanager
def _bodies(
    store: Store, key: str, block: Block, wanted: NDArray[np.bool_] | None = None
) -> Iterator[Iterable[tuple[int, Body]]]:
    """Give (index, bytes) of the wanted blocks; what is small comes whole, without a look at it before."""
    try:
        if wanted is not None and not wanted.any():
            yield ()
        elif len(block.digests) == 1:
            yield ((0, load_small(store, key, block)),)
        else:
            with store.ranges(key) as ranges:
                if ranges.size != block.nbytes:
                    raise other_length(key, block, ranges.size)
                with closing(iter_blocks(ranges, key, block, wanted)) as bodies:
                    yield bodies
    except NotFoundError:
        raise other_length(key, block, None) from None
