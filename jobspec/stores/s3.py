"""The store below a prefix of an S3 bucket: conditional writes make creation atomic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec.errors import NotFoundError
from jobspec.settings import load_settings
from jobspec.stores.base import Entry
from jobspec.stores.folder import FolderStore
from jobspec.stores.folder import explained as explained_here
from jobspec.stores.s3client import S3Address, S3Settings
from jobspec.stores.s3leftovers import discard_unfinished, find_unfinished
from jobspec.stores.s3ranges import S3Ranges
from jobspec.stores.s3requests import S3Requests
from jobspec.stores.s3upload import ABSENT, replacing, write

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, PaginatorConfigTypeDef


class S3Store:
    """Keep each object under ``s3://bucket/prefix/key``.

    No request is sent until an object is asked for. A store may be used by threads and by forked children: each process
    has a client of its own. `create` and `get` start no thread.

    Raises:
        UsageError: the URL names no bucket.
    """

    streams = 16

    def __init__(self, url: str, settings: S3Settings | None = None) -> None:
        self._address = S3Address.parse(url)
        self._requests = S3Requests(self._address, settings or S3Settings())
        self.url = self._address.url

    def create(self, key: str, body: bytes) -> bool:
        """Store ``body`` durably if ``key`` is free; return whether this call won."""
        return write(self._requests, key, body, ABSENT)

    def create_file(self, key: str, path: Path) -> bool:
        """Upload a staged file if ``key`` is free, in parallel parts if it is large; the file is gone afterwards."""
        with _taken(path):
            # What is there already is not sent again only to be refused.
            return not self.exists(key) and write(self._requests, key, path, ABSENT)

    def get(self, key: str) -> bytes:
        """Return an object; raise NotFoundError if there is none."""
        body = self.get_or_none(key)
        if body is None:
            raise self._no_object(key)
        return body

    def get_or_none(self, key: str) -> bytes | None:
        """Return an object, or None if there is none."""
        body = self._requests.fetch(key)
        return None if body is None else body.content

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return exactly ``length`` bytes from ``start``."""
        body = self._requests.fetch(key, start, length)
        if body is None:
            raise self._no_object(key)
        return body.content

    @contextlib.contextmanager
    def ranges(self, key: str) -> Iterator[S3Ranges]:
        """Open an object to be read in pieces; a piece of another version is an error."""
        head = self._requests.head(key)
        if head is None:
            raise self._no_object(key)
        with contextlib.closing(S3Ranges(self._requests, key, head["ContentLength"], head["ETag"])) as ranges:
            yield ranges

    def tagged(self, key: str) -> tuple[bytes, str] | None:
        """Return an object with its ETag."""
        body = self._requests.fetch(key)
        return None if body is None else (body.content, body.tag)

    def tag(self, key: str) -> str | None:
        """Return an object's ETag."""
        head = self._requests.head(key)
        return None if head is None else head["ETag"]

    def swap(self, key: str, body: bytes, tag: str | None) -> bool:
        """Replace a view if its content still is that of the version with this tag."""
        return write(self._requests, key, body, replacing(tag))

    def swap_file(self, key: str, path: Path, tag: str | None) -> bool:
        """Replace a view by a staged file if its content still is that of the version with this tag."""
        with _taken(path):
            return write(self._requests, key, path, replacing(tag))

    def size(self, key: str) -> int | None:
        """Return an object's length in bytes, or None if there is none."""
        head = self._requests.head(key)
        return None if head is None else head["ContentLength"]

    def exists(self, key: str) -> bool:
        """Say whether an object is there."""
        return self.size(key) is not None

    def put(self, key: str, body: bytes) -> None:
        """Replace a view atomically."""
        write(self._requests, key, body, {})

    def put_file(self, key: str, path: Path) -> None:
        """Replace a view by a staged file."""
        with _taken(path):
            write(self._requests, key, path, {})

    def delete(self, key: str) -> None:
        """Remove an object; an absent one is no error."""
        place = self._requests.at(key)
        with self._requests.explained("DeleteObject", key):
            self._requests.client().delete_object(Bucket=place["Bucket"], Key=place["Key"])

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys below ``prefix`` in the server's order: on AWS that of their UTF-8 bytes."""
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                yield item["Key"].removeprefix(self._address.prefix)

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield what lies below ``prefix`` in the server's order."""
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self._address.prefix)
                yield Entry(key, item["Size"], item["LastModified"].timestamp())

    def folders(self, prefix: str) -> list[str]:
        """Return the names one level below ``prefix`` that have objects below them."""
        found = (item for page in self._pages(prefix, Delimiter="/") for item in page.get("CommonPrefixes", []))
        return sorted(item["Prefix"].rstrip("/").rpartition("/")[2] for item in found)

    def unfinished(self, before: float) -> Iterator[Entry]:
        """Yield the multipart uploads that killed writers left behind: invisible to listings, and billed."""
        return find_unfinished(self._requests, before)

    def discard(self, upload: Entry) -> None:
        """Remove the parts of an upload that `unfinished` found."""
        discard_unfinished(self._requests, upload)

    def local_path(self, key: str) -> Path | None:
        """Return None: nothing lies in a folder of this host."""
        self._requests.full_key(key)
        return None

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Give an empty folder in this host's cache (a container's ``/tmp`` is small); its rest is removed.

        What killed processes left there a day ago or earlier is removed, too.
        """
        with FolderStore(load_settings().cache).staging() as folder:
            yield folder

    def _pages(self, prefix: str, **options: Any) -> Iterator[ListObjectsV2OutputTypeDef]:
        full = self._requests.full_key(prefix.rstrip("/")) + "/"
        with self._requests.explained("ListObjectsV2", prefix):
            pages = self._requests.client().get_paginator("list_objects_v2")
            size: PaginatorConfigTypeDef = {"PageSize": self._requests.settings.page_size}
            for page in pages.paginate(Bucket=self._address.bucket, Prefix=full, PaginationConfig=size, **options):
                if "Name" not in page:  # some web server's page is not an empty bucket
                    raise self._requests.no_s3("ListObjectsV2", prefix)
                yield page

    def _no_object(self, key: str) -> NotFoundError:
        return NotFoundError(f"There is no object {key!r} in the store {self.url}.")


@contextlib.contextmanager
def _taken(path: Path) -> Iterator[None]:
    """Remove a staged file whatever becomes of it."""
    try:
        with explained_here(path, 0):
            yield
    finally:
        path.unlink(missing_ok=True)
