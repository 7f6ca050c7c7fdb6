"""The store: where objects lie, and the one primitive that makes results exactly-once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from jobspec.errors import UsageError


class Store(Protocol):
    """Keep whole objects under string keys.

    ``create`` and ``create_file`` never overwrite: exactly one of any number of callers wins.
    ``put`` and ``put_file`` replace atomically and are for views alone.
    """

    url: str

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

    def folders(self, prefix: str) -> list[str]:
        """Return the names one level below ``prefix`` that have objects below them."""

    def local_path(self, key: str) -> Path | None:
        """Return the file behind a key where the store is a folder of this host, to be mapped."""

    def staging(self) -> AbstractContextManager[Path]:
        """Give an empty folder from which `create_file` and `put_file` take files without a copy."""


def open_store(url: str) -> Store:
    """Open the folder or ``s3://`` prefix named by ``url``; nothing is created until the first write.

    Raises:
        UsageError: a scheme that no store serves, or a path that leads nowhere.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme != "file":
        raise UsageError(f"The store {url!r} has the scheme {scheme!r}. A store is a folder: use --store DIR.")
    from jobspec.stores.folder import FolderStore

    try:
        # Resolved: two spellings of one folder must not look like two stores, with a driver each.
        return FolderStore(Path(url.removeprefix("file://")).expanduser().resolve())
    except (OSError, RuntimeError) as error:  # links in a circle, a home that nobody has
        raise UsageError(f"The store {url!r} leads nowhere: {error}. Name a folder: --store DIR.") from None
