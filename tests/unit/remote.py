"""A folder that behaves as a store over a network: no paths, several reads at once, and bytes spoilt on their way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from jobspec.settings import load_settings
from jobspec.stores.base import Checksum, Ranges, Store
from jobspec.stores.folder import FolderStore

Spoil = Callable[[str, int, memoryview], None]
"""Gets key, offset and the bytes that came; may change them, wait, or raise."""


LIST_PAGE = 1000
"""Names in one answer of S3."""


class RemoteRanges:
    """Ranges of a network: several at once pay off, and every read is noted."""

    streams = 4

    def __init__(
        self, ranges: Ranges, body: Callable[[], bytes], known: bool, note: Callable[[int, memoryview], None]
    ) -> None:
        self.size = ranges.size
        self.tag = make_tag(body())
        self._ranges, self._body, self._known, self._note = ranges, body, known, note

    def read_into(self, offset: int, target: memoryview) -> None:
        self._ranges.read_into(offset, target)
        self._note(offset, target)

    def checksum(self) -> Checksum | None:
        return Checksum("md5", bytes.fromhex(make_tag(self._body()))) if self._known else None


def make_tag(body: bytes) -> str:
    """Return a tag of the content, as ETags are: bytes that come back have the tag that they had."""
    return hashlib.md5(body).hexdigest()


class RemoteStore:
    """A store without local paths, as S3 is one. Reads are noted in a file, so that all processes count."""

    streams = 4

    def __init__(self, store: Store, log: Path) -> None:
        self._store = store
        self._log = log
        self.spoil: Spoil | None = None
        self.known = True
        """Whether it knows checksums."""
        self.requests: list[str] = []
        """What this process asked for, such as ``GET key`` and ``LIST prefix``."""

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

    def staging(self) -> AbstractContextManager[Path]:
        return FolderStore(load_settings().cache).staging()

    def tag(self, key: str) -> str | None:
        self.requests.append(f"HEAD {key}")
        body = self._store.get_or_none(key)
        return None if body is None else make_tag(body)

    def exists(self, key: str) -> bool:
        self.requests.append(f"HEAD {key}")
        return self._store.exists(key)

    def size(self, key: str) -> int | None:
        self.requests.append(f"HEAD {key}")
        return self._store.size(key)

    def get_or_none(self, key: str) -> bytes | None:
        self.requests.append(f"GET {key}")
        return self._store.get_or_none(key)

    def create(self, key: str, body: bytes) -> bool:
        self.requests.append(f"PUT {key}")
        return self._store.create(key, body)

    def keys(self, prefix: str) -> Iterator[str]:
        return self._paged(prefix, self._store.keys(prefix))

    def folders(self, prefix: str) -> list[str]:
        return list(self._paged(prefix, iter(self._store.folders(prefix))))

    def _paged(self, prefix: str, names: Iterator[str]) -> Iterator[str]:
        """Yield names as listings give them: so many for a request."""
        while True:
            page = list(islice(names, LIST_PAGE))
            self.requests.append(f"LIST {prefix}")
            yield from page
            if len(page) < LIST_PAGE:
                return

    def get(self, key: str) -> bytes:
        self.requests.append(f"GET {key}")
        body = bytearray(self._store.get(key))
        self._note(key, 0, memoryview(body))
        return bytes(body)

    @contextmanager
    def ranges(self, key: str) -> Iterator[RemoteRanges]:
        with self._store.ranges(key) as ranges:
            yield RemoteRanges(ranges, lambda: self._store.get(key), self.known, partial(self._note, key))

    def _note(self, key: str, offset: int, target: memoryview) -> None:
        with self._log.open("ab", buffering=0) as log:  # one write: lines of several processes never mix
            log.write(f"{offset} {key.rpartition('/')[2]}\n".encode())
        if self.spoil is not None:
            self.spoil(key, offset, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
