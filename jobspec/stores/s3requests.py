"""Requests to one prefix of a bucket: keys checked, refusals explained, absent told from forbidden."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from jobspec.errors import AccessError, DataError
from jobspec.stores.s3client import S3Address, S3Connection, S3Settings
from jobspec.stores.s3errors import Asked, code_of, explain, status_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

TOKEN = "foldfleet-attempt"  # noqa: S105 - it marks an object's writer and opens nothing
"""The user metadata that tells whose write an object is."""

_ABSENT = ".absent"
"""Below the prefix; nobody writes it, so that reading it tells whether absent keys can be told from forbidden ones."""


@dataclass(frozen=True)
class Body:
    """Hold an object as it arrived."""

    content: bytes
    tag: str


class S3Requests:
    """Send requests about the keys below one address."""

    def __init__(self, address: S3Address, settings: S3Settings) -> None:
        self.address = address
        self._connection = S3Connection(settings, address.bucket)
        self._said_of_absent: Exception | None = None

    @property
    def settings(self) -> S3Settings:
        """Return the settings with what the user set for every AWS tool."""
        return self._connection.settings

    def client(self) -> S3Client:
        """Return this process's client."""
        return self._connection.client()

    def certificates(self) -> str | None:
        """Return the file of certificate authorities to trust, if the user named one."""
        return self._connection.certificates()

    def full_key(self, key: str) -> str:
        """Return the key in the bucket.

        Raises:
            AccessError: the key would leave the store.
        """
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise AccessError(f"The key {key!r} would leave the store {self.address.url}.")
        return self.address.prefix + key

    def at(self, key: str) -> dict[str, str]:
        """Return the arguments that name an object."""
        return {"Bucket": self.address.bucket, "Key": self.full_key(key)}

    @contextlib.contextmanager
    def explained(self, operation: str, key: str) -> Iterator[None]:
        """Turn what botocore raises into errors that say what to do."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise explain(error, self._asked(operation, key), self._probe) from error
        except (RecursionError, KeyError) as error:  # redirected in circles; an answer without what S3 always tells
            raise self.no_s3(operation, key) from error

    def no_s3(self, operation: str, key: str) -> AccessError:
        """Return the error for an endpoint whose answers are not S3's."""
        return AccessError(
            f"The endpoint {self._asked(operation, key).endpoint} does not answer as S3 does ({operation} of "
            f"{self.address.url}). Check AWS_ENDPOINT_URL: its scheme (http or https), host and port."
        )

    def head(self, key: str, wanted: Mapping[str, str] | None = None) -> HeadObjectOutputTypeDef | None:
        """Return what is known of an object without its content, or None if there is none.

        Args:
            key: names the object.
            wanted: further parameters of HeadObject.
        """
        from botocore.exceptions import ClientError

        with self.explained("HeadObject", key):
            try:
                return self.client().head_object(**cast("Any", {**self.at(key), **(wanted or {})}))
            except ClientError as error:
                if status_of(error) != 404:
                    raise
                # HEAD calls an object of an absent bucket absent too.
                said = self._probe()
                if said is not None and code_of(said) == "NoSuchBucket":
                    raise said from None
                return None

    def is_own(self, key: str, token: str) -> bool | None:
        """Say whether the object under a key was written by the holder of ``token``; None if there is none."""
        head = self.head(key)
        return None if head is None else head["Metadata"].get(TOKEN) == token

    def fetch(self, key: str, start: int = 0, length: int | None = None, tag: str | None = None) -> Body | None:
        """Return an object, or ``length`` bytes of it, or None if there is none; a damaged one is fetched again.

        Raises:
            DataError: the range ends behind the object, or the object no longer has this ``tag``.
            TryLaterError: it kept arriving cut short or damaged.
        """
        from botocore.exceptions import IncompleteReadError

        if length == 0:
            return Body(b"", "")
        arguments: dict[str, Any] = {**self.at(key), **({} if tag is None else {"IfMatch": tag})}
        if length is not None:
            arguments["Range"] = f"bytes={start}-{start + length - 1}"
        damaged: Exception = IncompleteReadError(actual_bytes=0, expected_bytes=length or 0)
        with self.explained("GetObject", key):
            for _ in self.settings.pauses():
                response = self._begin_fetch(key, arguments)
                if response is None:
                    return None
                there = _length_behind(response, start)
                if length is not None and there < length:
                    response["Body"].close()
                    raise self.cut_short(key, start, length, there)
                content = _read_whole(response, length)
                if isinstance(content, bytes):
                    return Body(content, response["ETag"])
                damaged = content
            raise damaged

    def _begin_fetch(self, key: str, arguments: dict[str, Any]) -> GetObjectOutputTypeDef | None:
        from botocore.exceptions import ClientError

        try:
            return self.client().get_object(**arguments)
        except ClientError as error:
            status = status_of(error)
            if status == 404 and code_of(error) in {"NoSuchKey", "404"}:
                return None
            if status == 412:
                raise self.replaced(key) from None
            if status == 416:
                first, last = arguments["Range"].removeprefix("bytes=").split("-")
                raise self.cut_short(key, int(first), int(last) - int(first) + 1, 0) from None
            raise

    def replaced(self, key: str) -> DataError:
        """Return the error for an object that changed while it was read."""
        return DataError(
            f"The object {self.address.url}/{key} was replaced or deleted while it was being read. Nothing of the "
            "mixture is used. Make sure that nothing writes it, then run the same command again."
        )

    def cut_short(self, key: str, start: int, length: int, there: int) -> DataError:
        """Return the error for a range that ends behind the object."""
        return DataError(
            f"The object {key!r} in {self.address.url} is cut short: {length} bytes from {start} were asked for, "
            f"{there} are there. Delete the dataset's folder and run the same command again."
        )

    def _asked(self, operation: str, key: str) -> Asked:
        endpoint, partition = "AWS", "aws"
        # Whatever keeps the client from being made is being explained just now.
        with contextlib.suppress(Exception):
            meta = self.client().meta
            endpoint, partition = meta.endpoint_url, meta.partition
        full = self.address.prefix + key
        return Asked(operation, self.address.bucket, self.address.prefix, full, endpoint, partition)

    def _probe(self) -> Exception | None:
        """Return what S3 says to reading an object that is never there; what cannot change is asked once."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._said_of_absent is not None:
            return self._said_of_absent
        try:
            key = self.address.prefix + _ABSENT
            self.client().get_object(Bucket=self.address.bucket, Key=key)["Body"].close()
        except ClientError as error:
            if code_of(error) in {"NoSuchKey", "AccessDenied"}:
                self._said_of_absent = error
            return error
        except BotoCoreError as error:
            return error
        return None


def _length_behind(response: GetObjectOutputTypeDef, start: int) -> int:
    """Return how many bytes the object has from ``start`` on, whatever part of them has come."""
    size = response.get("ContentRange", "").rpartition("/")[2]
    return int(size) - start if size.isdigit() else response["ContentLength"]


def _read_whole(response: GetObjectOutputTypeDef, length: int | None) -> bytes | Exception:
    """Return the content, or what damaged it on its way; the server's checksum is compared where there is one."""
    from botocore.exceptions import FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    length = response["ContentLength"] if length is None else length
    with contextlib.closing(response["Body"]) as stream:
        try:
            content = stream.read()
        except (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError) as error:
            return error
    return content if len(content) == length else IncompleteReadError(actual_bytes=len(content), expected_bytes=length)
