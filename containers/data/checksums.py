"""Compare bytes that pass by with what a store knows of them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from containers.data.npyfile import Body
from jobspec.stores.base import Algorithm, Checksum


class _Digest(Protocol):
    def update(self, data: memoryview | bytes, /) -> None:
        """Take the bytes that follow."""

    def digest(self) -> bytes:
        """Return the digest of what was taken."""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview | bytes, /) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


class Comparison:
    """Compute a checksum over bytes in order, and tell whether it is the one that the store knows."""

    def __init__(self, known: Checksum) -> None:
        self.known = known
        self._whole = _make(known.algorithm)
        self._part = _make(known.algorithm)
        self._parts = list(reversed(known.parts))
        self._left = self._parts.pop() if self._parts else 0

    def watch(self, bodies: Iterable[tuple[int, Body]]) -> Iterator[tuple[int, Body]]:
        """Yield what comes, unchanged, after it was taken into account."""
        for index, body in bodies:
            self.update(body.data)
            yield index, body

    def update(self, data: memoryview) -> None:
        """Take the bytes that follow."""
        if not self.known.parts:
            self._whole.update(data)
            return
        while data:
            piece, data = data[: self._left], data[self._left :]
            self._part.update(piece)
            self._left -= len(piece)
            if self._left:
                return
            self._whole.update(self._part.digest())
            self._part = _make(self.known.algorithm)
            # Bytes beyond the last part make one more digest, so that nothing compares as equal.
            self._left = self._parts.pop() if self._parts else len(data)

    def found(self) -> bytes:
        """Return the checksum of what was taken so far."""
        return self._whole.digest()

    def holds(self) -> bool:
        """Say whether all bytes were taken and are those that the store knows."""
        return not self._parts and not self._left and self.found() == self.known.value


def _make(algorithm: Algorithm) -> _Digest:
    return _Crc32() if algorithm == "crc32" else hashlib.new(algorithm, usedforsecurity=False)
