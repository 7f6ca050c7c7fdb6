"""Writes that happen once: conditions, attempt tokens for lost acknowledgements, parts for what is large."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from jobspec.errors import DataError, TryLaterError
from jobspec.stores.s3errors import code_of, status_of
from jobspec.stores.s3requests import TOKEN, S3Requests

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ABSENT: Mapping[str, str] = {"IfNoneMatch": "*"}
"""The condition of a create. https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""

_MAX_PARTS = 10_000
_MIB = 1 << 20


def replacing(tag: str | None) -> Mapping[str, str]:
    """Return the condition of a swap from the version with this tag."""
    return ABSENT if tag is None else {"IfMatch": tag}


def write(requests: S3Requests, key: str, body: bytes | Path, condition: Mapping[str, str]) -> bool:
    """Store ``body`` under ``key`` if the condition holds; return whether it is this call's object that lies there.

    A write that won can be refused when its acknowledgement was lost and the client sent it again: the object's token
    tells. A conflict with another write at the same moment (409) says nothing yet and is tried again.
    """
    token = uuid.uuid4().hex
    large = isinstance(body, Path) and body.stat().st_size > 2 * requests.settings.part_bytes
    operation = "CompleteMultipartUpload" if large else "PutObject"
    with requests.explained(operation, key):
        for _ in requests.settings.pauses():
            answer = _try_once(requests, key, body, token, condition, large=large)
            if answer is not None:
                return answer
    raise TryLaterError(
        f"Other writers kept changing {requests.address.url}/{key} at the same moment; S3 asked to try again "
        f"{requests.settings.attempts} times. Run the same command again: what is finished is kept."
    )


def _try_once(
    requests: S3Requests, key: str, body: bytes | Path, token: str, condition: Mapping[str, str], *, large: bool
) -> bool | None:
    """Write once; return whether it won, or None if that is not decided."""
    from botocore.exceptions import ClientError

    try:
        if large:
            _send_parts(requests, key, cast("Path", body), token, condition)
        else:
            _send_whole(requests, key, body, token, condition)
    except ClientError as error:
        status, code = status_of(error), code_of(error)
        if status == 412 or code == "NoSuchUpload" or (code == "NoSuchKey" and "IfMatch" in condition):
            own = requests.is_own(key, token)
            if own is None and "IfMatch" in condition:
                return False  # the version that was to be replaced is gone
            # None: refused as taken, and absent a moment later: it was deleted in between, or the upload was.
            return own
        if status == 409:
            return None
        if code == "NotImplemented" and "IfMatch" in condition:
            return _compare_then_write(requests, key, body, token, condition["IfMatch"], large=large)
        raise
    return True


def _compare_then_write(
    requests: S3Requests, key: str, body: bytes | Path, token: str, tag: str, *, large: bool
) -> bool | None:
    """Replace a view on a server without If-Match: two callers at one moment may both think they were first."""
    head = requests.head(key)
    if head is None or head["ETag"] != tag:
        return False
    return _try_once(requests, key, body, token, {}, large=large)


def _send_whole(requests: S3Requests, key: str, body: bytes | Path, token: str, condition: Mapping[str, str]) -> None:
    with _opened(body) as content:
        arguments = {**requests.at(key), **condition, "Body": content, "Metadata": {TOKEN: token}}
        requests.client().put_object(**cast("Any", arguments))


@contextlib.contextmanager
def _opened(body: bytes | Path) -> Iterator[bytes | IO[bytes]]:
    if isinstance(body, bytes):
        yield body
        return
    with body.open("rb") as file:
        yield file


@dataclass(frozen=True)
class _Upload:
    """Name a multipart upload under way."""

    client: S3Client
    target: Mapping[str, str]
    checksum: Mapping[str, str]
    descriptor: int
    size: int
    part_bytes: int

    def send(self, number: int, stop: threading.Event) -> dict[str, Any]:
        """Send part ``number``, counted from 1, and return how the completion names it."""
        if stop.is_set():
            return {}
        offset = (number - 1) * self.part_bytes
        length = min(self.part_bytes, self.size - offset)
        content = os.pread(self.descriptor, length, offset)
        if len(content) != length:
            raise DataError("A file was cut short while it was being stored. Run the same command again.")
        answer = self.client.upload_part(
            **cast("Any", {**self.target, **self.checksum, "PartNumber": number, "Body": content})
        )
        sums = {name: value for name, value in answer.items() if name.startswith("ChecksumC")}
        return {"PartNumber": number, "ETag": answer["ETag"], **sums}


def _send_parts(requests: S3Requests, key: str, path: Path, token: str, condition: Mapping[str, str]) -> None:
    """Upload a large file in parallel parts; whatever goes wrong, no part stays behind to be billed."""
    client, settings, place = requests.client(), requests.settings, requests.at(key)
    size = path.stat().st_size
    fewest = -(-size // _MAX_PARTS)
    part_bytes = max(settings.part_bytes, -(-fewest // _MIB) * _MIB)
    # The parts' checksums must be announced, or S3 refuses to put them together.
    wanted = client.meta.config.request_checksum_calculation == "when_supported"  # type: ignore[attr-defined]
    checksum = {"ChecksumAlgorithm": "CRC32"} if wanted else {}
    begin = {**place, **checksum, "Metadata": {TOKEN: token}}
    upload_id = client.create_multipart_upload(**cast("Any", begin))["UploadId"]
    target = {**place, "UploadId": upload_id}
    try:
        with path.open("rb") as file:
            upload = _Upload(client, target, checksum, file.fileno(), size, part_bytes)
            parts = _send_in_parallel(upload, settings.upload_streams)
        end = {**target, **condition, "MultipartUpload": {"Parts": parts}}
        client.complete_multipart_upload(**cast("Any", end))
    except BaseException:
        _abort(client, target)
        raise


def _send_in_parallel(upload: _Upload, streams: int) -> list[dict[str, Any]]:
    stop = threading.Event()
    numbers = range(1, -(-upload.size // upload.part_bytes) + 1)
    with ThreadPoolExecutor(streams, "upload") as pool:
        futures = [pool.submit(upload.send, number, stop) for number in numbers]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            raise


def _abort(client: S3Client, target: Mapping[str, str]) -> None:
    """Remove the parts of an upload; a bucket's lifecycle rule removes what cannot be removed now."""
    from botocore.exceptions import BotoCoreError, ClientError

    with contextlib.suppress(BotoCoreError, ClientError):
        client.abort_multipart_upload(**cast("Any", target))
