"""A folder that behaves as a store over a network: no paths, several reads at once, and bytes spoilt on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobspec.stores.base import Ranges, Store

Spoil = Callable[[str, int, memoryview], None]
"""Gets key, offset and the bytes that came; may change them, wait, or raise."""


class RemoteRanges:
    """Ranges of a network: several at once pay off, and every read is noted."""

    streams = 4

    def __init__(self, ranges: Ranges, note: Callable[[int, memoryview], None]) -> None:
        self.size = ranges.size
        self._ranges, self._note = ranges, note

    def read_into(self, offset: int, target: memoryview) -> None:
        self._ranges.read_into(offset, target)
        self._note(offset, target)


class RemoteStore:
    """A store without local paths, as S3 is one. Reads are noted in a file, so that all processes count."""

    def __init__(self, store: Store, log: Path) -> None:
        self._store = store
        self._log = log
        self.spoil: Spoil | None = None

    def fetched(self, file: str) -> list[int]:
        """Return the offsets that were read of the objects with this name, in the order of their arrival."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        pairs = [line.split() for line in lines]
        return [int(offset) for offset, name in pairs if name == file]

    def forget(self) -> None:
        """Begin to count anew."""
        self._log.unlink(missing_ok=True)

    def local_path(self, key: str) -> None:
        return None

    @contextmanager
    def ranges(self, key: str) -> Iterator[RemoteRanges]:
        def note(offset: int, target: memoryview) -> None:
            with self._log.open("ab", buffering=0) as log:  # one write: lines of several processes never mix
                log.write(f"{offset} {key.rpartition('/')[2]}\n".encode())
            if self.spoil is not None:
                self.spoil(key, offset, target)

        with self._store.ranges(key) as ranges:
            yield RemoteRanges(ranges, note)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
