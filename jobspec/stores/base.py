"""The store: where objects lie, and the one primitive that makes results exactly-once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from jobspec.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """An object as a listing shows it: its length in bytes, and when it was written, in seconds since 1970."""

    key: str
    size: int
    written: float


Algorithm = Literal["crc32", "md5", "sha1", "sha256"]
"""What the standard library computes of what stores keep."""


@dataclass(frozen=True)
class Checksum:
    """What a store knows of an object's bytes.

    ``value`` is the digest of them all, or where ``parts`` tells lengths in bytes, the digest of the parts' digests.
    """

    algorithm: Algorithm
    value: bytes
    parts: tuple[int, ...] = ()


class Ranges(Protocol):
    """One version of an object, read in pieces; threads may read at once, until it is closed."""

    size: int
    """Length of the object in bytes."""

    streams: int
    """How many reads at once pay off: 1 on a disk, more over a network."""

    tag: str
    """The tag of the version that is read."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the object's bytes from ``offset`` on.

        Raises:
            DataError: the object ends before that, or was replaced since it was opened.
        """

    def checksum(self) -> Checksum | None:
        """Return what the store knows of the bytes, or None; asked for only here, since it costs requests.

        Raises:
            DataError: the object was replaced since it was opened.
        """


class Store(Protocol):
    """Keep whole objects under string keys.

    ``create`` and ``create_file`` never overwrite: exactly one of any number of callers wins.
    ``put`` and ``put_file`` replace atomically and are for views alone.
    """

    url: str
    streams: int
    """How many requests at once pay off: 1 on a disk, more where each waits for an answer."""

    def create(self, key: str, body: bytes) -> bool:
        """Store ``body`` durably if ``key`` is free; return whether this call won."""

    def create_file(self, key: str, path: Path) -> bool:
        """Take a file made under `staging` into the store if ``key`` is free; the file is gone afterwards."""

    def get(self, key: str) -> bytes:
        """Return an object.

        Raises:
            NotFoundError: there is none.
        """

    def get_or_none(self, key: str) -> bytes | None:
        """Return an object, or None if there is none."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start``; fewer bytes are an error, never a short answer."""

    def ranges(self, key: str) -> AbstractContextManager[Ranges]:
        """Open an object to be read in pieces, all of one version.

        Raises:
            NotFoundError: there is none.
        """

    def tagged(self, key: str) -> tuple[bytes, str] | None:
        """Return an object with the tag of its version, or None if there is none."""

    def tag(self, key: str) -> str | None:
        """Return the tag of an object's version, or None if there is none."""

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Replace a view if it still is the version with this tag (None: if there is none); say whether it was.

        A version whose tag was read before another call replaced it is never replaced by this one.
        """

    def swap_file(self, key: str, path: Path, tag: str | None) -> bool:
        """Like `swap`, from a file made under `staging`; the file is gone afterwards."""

    def size(self, key: str) -> int | None:
        """Return an object's length in bytes, or None if there is none."""

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""

    def put(self, key: str, body: bytes) -> None:
        """Replace a view atomically."""

    def put_file(self, key: str, path: Path) -> None:
        """Replace a view by a file made under `staging`."""

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is no error."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below ``prefix`` in order; never called while working or reducing."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield what lies below ``prefix``, in order of keys; never called while working or reducing."""

    def folders(self, prefix: str) -> list[str]:
        """Return the names one level below ``prefix`` that have objects below them."""

    def unfinished(self, before: float) -> Iterator[Entry]:
        """Yield uploads that were begun before a moment (seconds since 1970) and never completed; they cost space."""

    def discard(self, upload: Entry) -> None:
        """Remove what `unfinished` found."""

    def local_path(self, key: str) -> Path | None:
        """Return the file behind a key where the store is a folder of this host, to be mapped."""

    def staging(self) -> AbstractContextManager[Path]:
        """Give an empty folder from which `create_file` and `put_file` take files without a copy."""


def open_store(url: str, *, hasty: bool = False) -> Store:
    """Open the folder or ``s3://`` prefix named by ``url``; nothing is created until the first write.

    Args:
        url: the folder or prefix.
        hasty: give up on a request within seconds, for a process that must not be deaf for minutes.

    Raises:
        UsageError: a scheme that no store serves, or a path that leads nowhere.
    """
    scheme, separator, _ = url.partition("://")
    if not separator and url.startswith(("s3:", "S3:", "arn:")):
        raise UsageError(f"The store {url!r} is no folder's name. Did you mean --store s3://BUCKET/PREFIX?")
    if scheme == "s3" and separator:
        from jobspec.stores.s3 import S3Store
        from jobspec.stores.s3client import HASTY

        return S3Store(url, HASTY if hasty else None)
    if separator and scheme != "file":
        raise UsageError(
            f"The store {url!r} has the scheme {scheme!r}. A store is a folder or an S3 prefix: use --store DIR or "
            "--store s3://BUCKET/PREFIX."
        )
    from jobspec.stores.folder import FolderStore

    try:
        # Resolved: two spellings of one folder must not look like two stores, with a driver each.
        return FolderStore(Path(url.removeprefix("file://")).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # links in a circle, a home that nobody has
        raise UsageError(f"The store {url!r} leads nowhere: {error}. Name a folder: --store DIR.") from None
