"""Where a spec's data come from: a file, an object in S3, a built-in set; and how each is recognised unread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from containers.data.foldcache import FoldCache
from containers.data.readers import READER_VERSION, find_format, stat_source
from jobspec.errors import DataError, FoldfleetError, NotFoundError
from jobspec.grammar.spec import DataSpec
from jobspec.names import closest
from jobspec.search.memo import source_path
from jobspec.settings import load_settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.objects import is_object_url, open_bucket, open_object, split_url

MEMO_VERSION = 1
"""Raise when a memo's fields change; old memos are then not found, and the data are hashed again."""

RACY_SECONDS = 2.0
"""A file changed this recently could change again within its time stamp's grain: no memo is kept of it."""

_LISTED_KEYS = 1000


@dataclass(frozen=True)
class Place:
    """An object in a store, and the tag of the version that is read."""

    store: Store
    key: str
    tag: str


@dataclass(frozen=True)
class Origin:
    """A source before it is read.

    ``name`` is what people call it; ``stamp`` changes when its bytes do; ``options`` are how it is read. It is a file
    (``path``), an object (``place``), or one of scikit-learn's own sets (neither).
    """

    name: str
    path: Path | None
    place: Place | None
    kind: str
    stamp: tuple[int | str, ...]
    options: dict[str, Any]

    def memo_key(self) -> str:
        """Return the key under which its dataset is remembered."""
        path = self.name if self.place is not None else str(self.path)
        return Layout.source(digest([MEMO_VERSION, READER_VERSION, path, self.stamp, self.options]))

    def is_settled(self, started: float) -> bool:
        """Say whether a change after ``started`` (seconds of the clock) would show in the stamp."""
        return self.path is None or started - self.path.stat().st_mtime > RACY_SECONDS

    def refuse_changed(self) -> None:
        """Compare the stamp with what it is now.

        Raises:
            DataError: the source was changed or replaced since it was found.
        """
        if self.path is not None:
            changed = _stamp_file(self.path) != self.stamp
        else:
            changed = self.place is not None and self.place.store.tag(self.place.key) != self.place.tag
        if changed:
            raise DataError(
                f"{self.name} changed while it was being read. Run the same command again when it is complete."
            )

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Give the source as a file of this machine; an object is fetched into the host's cache.

        Raises:
            DataError: the object is gone, or was replaced while it was fetched.
            TryLaterError: the object does not fit on the cache's disk, told before it is fetched; or it came damaged.
        """
        if self.place is None:
            yield Path(self.name)
            return
        version = digest([self.name, self.stamp])[:32]
        cache = FoldCache(load_settings().cache)
        place = self.place
        try:
            with _absence_told(self.name), cache.source(place.store, place.key, place.tag, version) as path:
                self.refuse_changed()
                with _called(path, self.name):
                    yield path
        except Exception:
            cache.drop_source(version, unless_proven=True)  # else it stays for the next try
            raise
        cache.drop_source(version)  # it is in the store now


def find_origin(data: DataSpec, folder: Path, extra_columns: tuple[str, ...]) -> Origin:
    """Look at a source without reading it.

    Raises:
        DataError: it is not there, is no file, or has no format that is read.
        AccessError: an object may not be read; names the permission.
    """
    options = {**data.reading_options(), "extra": list(extra_columns)}
    if data.builtin is not None:
        from importlib.metadata import version

        options["scikit-learn"] = version("scikit-learn")
        return Origin(f"builtin: {data.builtin}", None, None, "builtin", (), options)
    given = str(data.path)
    if is_object_url(given):
        place = _find_object(given)
        options["format"] = find_format(given, data.format)
        return Origin(given, None, place, options["format"], (place.tag,), options)
    if "://" in given:
        raise DataError(f"The data path {given!r} is neither a file nor an `s3://` URL. Name one of these.")
    path = source_path(data, folder) or Path(given)
    stamp = _stamp_file(path)
    options["format"] = find_format(str(path), data.format)
    return Origin(str(path), path, None, options["format"], stamp, options)


def digest(content: object) -> str:
    """Return the SHA-256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stamp_file(path: Path) -> tuple[int | str, ...]:
    """The inode and ctime betray a file that was replaced or changed under its old time stamp."""
    stat = stat_source(path)
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _find_object(url: str) -> Place:
    store, key = open_object(url)
    with _absence_told(url):
        tag = store.tag(key)
    if tag is None:
        raise DataError(f"There is no data object {url}.{_similar(url)} Keys are taken letter by letter.")
    return Place(store, key, tag)


def _similar(url: str) -> str:
    """Return the closest key of the same folder, if this user may list it."""
    _, key = split_url(url)
    folder = key[: key.rfind("/") + 1]
    try:
        return closest(key, list(islice(open_bucket(url).keys(folder), _LISTED_KEYS)))
    except FoldfleetError:
        return ""


@contextmanager
def _absence_told(url: str) -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        reason = error.message.partition(". ")[0].rstrip(".")  # what follows speaks of stores
        raise DataError(f"There is no data object {url}: {reason}. Check `data.path`.") from None


@contextmanager
def _called(path: Path, name: str) -> Iterator[None]:
    """Let errors of readers name the source as the spec does, not the file it was fetched into."""
    try:
        yield
    except FoldfleetError as error:
        if str(path) not in error.message:
            raise
        raise type(error)(error.message.replace(str(path), name)) from None
