"""Objects of any store in blocks: one after the other from a disk, fetched ahead by threads over a network.

The threads have ended when the last block is handed out, and when an error leaves or the generator is closed: nothing
competes with a fit, nothing is running when a caller forks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from containers.data.npyfile import Body, write_all
from jobspec.errors import DataError
from jobspec.search.inspection import BLOCK_BYTES, Block
from jobspec.stores.base import Ranges, Store

SPARE_BUFFERS = 2
"""Blocks that wait to be used while every stream fetches another one."""


def iter_blocks(
    ranges: Ranges, key: str, block: Block, wanted: NDArray[np.bool_] | None = None
) -> Generator[tuple[int, Body], None, None]:
    """Return (index, bytes) of the wanted blocks in order, every digest checked; each is overwritten by a later one.

    Every wanted block is read once. Holds one `BLOCK_BYTES`; over a network as many as streams and `SPARE_BUFFERS`.

    Raises:
        DataError: a block's bytes are not those that were written.
    """
    indices = range(len(block.digests)) if wanted is None else [int(index) for index in np.flatnonzero(wanted)]

    def fetch(index: int, buffer: Body) -> Body:
        return fetch_block(ranges, key, block, index, buffer)

    return _iter_fetched(ranges, indices, block.nbytes, fetch)


def _iter_fetched(
    ranges: Ranges, indices: Sequence[int], nbytes: int, fetch: Callable[[int, Body], Body]
) -> Generator[tuple[int, Body], None, None]:
    """Yield (index, bytes) for each index; ``fetch`` fills the front of a buffer."""
    size = min(BLOCK_BYTES, nbytes)
    if ranges.streams == 1 or len(indices) < 2:
        buffer = np.empty(size, np.uint8)
        for only in indices:
            yield only, fetch(only, buffer)
        return
    spare = [np.empty(size, np.uint8) for _ in range(min(ranges.streams + SPARE_BUFFERS, len(indices)))]
    pending: deque[tuple[int, Body, Future[Body]]] = deque()
    coming = iter(indices)
    with ThreadPoolExecutor(min(ranges.streams, len(spare)), "fetch") as pool:
        try:
            while True:
                while spare and (index := next(coming, None)) is not None:
                    buffer = spare.pop()
                    pending.append((index, buffer, pool.submit(fetch, index, buffer)))
                if not pending:
                    return
                index, buffer, future = pending.popleft()
                body = future.result()
                if not pending:  # as many are begun as there are buffers: this was the last one
                    pool.shutdown()
                yield index, body
                spare.append(buffer)
        finally:
            for _, _, future in pending:
                future.cancel()


def fetch_block(ranges: Ranges, key: str, block: Block, index: int, buffer: Body) -> Body:
    """Read one block into the front of ``buffer`` and check it; what a network spoilt is asked for once more.

    Raises:
        DataError: the bytes are not those that were written.
    """
    offset = index * BLOCK_BYTES
    body = buffer[: min(BLOCK_BYTES, block.nbytes - offset)]
    if ranges.streams > 1:
        # Ranged reads carry no checksum: a flipped bit may come from the way, not from the object.
        with suppress(DataError):
            ranges.read_into(offset, body.data)
            if xxhash.xxh3_128_hexdigest(body.data) == block.digests[index]:
                return body
    ranges.read_into(offset, body.data)
    check_digest(body.data, block.digests[index], key, index)
    return body


def load_small(store: Store, key: str, block: Block) -> Body:
    """Return an object of one block in one request, its length and its digest checked.

    Raises:
        NotFoundError: there is none.
        DataError: the bytes are not those that were written.
    """
    body = store.get(key)
    if store.streams > 1 and xxhash.xxh3_128_hexdigest(body) != block.digests[0]:
        body = store.get(key)  # servers that keep no checksums do not notice what the way spoilt
    if len(body) != block.nbytes:
        raise other_length(key, block, len(body))
    check_digest(memoryview(body), block.digests[0], key, 0)
    return np.frombuffer(body, np.uint8)


def other_length(key: str, block: Block, size: int | None) -> DataError:
    """Return the error for an object that has not the length (None: is not there) that was written."""
    state = "is missing" if size is None else f"has {size} bytes"
    return DataError(
        f"The stored object {key!r} {state}, {block.nbytes} bytes were written. Delete that dataset's folder "
        "in the store and run the same command again."
    )


def check_digest(data: memoryview, digest: str, key: str, index: int) -> None:
    """Compare a block's bytes with what was written.

    Raises:
        DataError: they differ.
    """
    found = xxhash.xxh3_128_hexdigest(data)
    if found != digest:
        raise DataError(
            f"The stored object {key!r} is damaged in its block {index} ({BLOCK_BYTES} bytes from "
            f"{index * BLOCK_BYTES}): xxh3_128 is {found}, {digest} was written. "
            "Delete that dataset's folder in the store and run the same command again."
        )


def iter_whole(ranges: Ranges) -> Generator[tuple[int, Body], None, None]:
    """Yield (index, bytes) of all blocks of an object whose digests nobody knows, as `iter_blocks` does."""

    def fetch(index: int, buffer: Body) -> Body:
        body = buffer[: ranges.size - index * BLOCK_BYTES]
        ranges.read_into(index * BLOCK_BYTES, body.data)
        return body

    return _iter_fetched(ranges, range(-(-ranges.size // BLOCK_BYTES)), ranges.size, fetch)


def write_blocks(path: Path, bodies: Iterable[tuple[int, Body]]) -> tuple[str, ...]:
    """Write all blocks of an object to a new file; return the digest of each."""
    digests = []
    with path.open("xb", buffering=0) as file:
        for _, body in bodies:
            digests.append(xxhash.xxh3_128_hexdigest(body.data))
            write_all(file, body.data)
    return tuple(digests)


def allocate(descriptor: int, nbytes: int) -> None:
    """Take the space of a file on its disk; raises ENOSPC now, where a map of a sparse file would end the process."""
    if nbytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, nbytes)
    else:
        os.ftruncate(descriptor, nbytes)
