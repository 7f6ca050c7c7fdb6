"""Single objects named by a URL, such as a spec's data: the store that holds one, and its key in it."""

from __future__ import annotations

from jobspec.errors import DataError, UsageError
from jobspec.stores.base import Store, open_store

_SCHEME = "s3://"


def is_object_url(path: str) -> bool:
    """Say whether a path of a spec names an object of a store rather than a file of this machine."""
    return path.startswith(_SCHEME)


def open_object(url: str) -> tuple[Store, str]:
    """Return the folder of an object as a store, and the object's key there.

    Keys are taken letter by letter as they are written; nothing in them is decoded.

    Raises:
        DataError: the URL names no object that can exist.
    """
    bucket, key = split_url(url)
    folder, slash, name = key.rpartition("/")
    place = f"{_SCHEME}{bucket}{slash}{folder}"
    try:
        # The folder rather than the bucket, so that an error names the rights on no more than is needed.
        store = open_store(place)
        if store.url == place:
            return store, name
    except UsageError:
        pass  # a folder that no store may have is none of an object's concern
    return open_bucket(url), key


def open_bucket(url: str) -> Store:
    """Return the whole bucket of an object as a store.

    Raises:
        DataError: no such bucket can exist.
    """
    bucket, _ = split_url(url)
    try:
        return open_store(f"{_SCHEME}{bucket}")
    except UsageError:
        raise DataError(
            f"The data path {url!r} names the bucket {bucket!r}. A bucket's name has 3 to 63 lower-case letters, "
            "digits, dots and hyphens: `path: s3://BUCKET/FOLDER/TABLE.csv`."
        ) from None


def split_url(url: str) -> tuple[str, str]:
    """Return bucket and key of an object's URL.

    Raises:
        DataError: one of them is missing, or the key is one that no store takes.
    """
    bucket, _, key = url.removeprefix(_SCHEME).partition("/")
    if not bucket or not key or key.startswith("/") or key.endswith("/") or ".." in key.split("/"):
        raise DataError(f"The data path {url!r} names no object. Name one file: `path: s3://BUCKET/FOLDER/TABLE.csv`.")
    return bucket, key
