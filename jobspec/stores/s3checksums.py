"""What S3 knows of an object's bytes, in a form that the standard library can compare.

Ranged answers carry no checksum; what is kept of the whole object is told by HEAD alone: the checksum it was uploaded
with, else its ETag, which is the MD5 of what was uploaded in one request without KMS, and the MD5 of the parts' MD5s of
what came in parts. https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html tells when an ETag is no MD5.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from jobspec.stores.base import Algorithm, Checksum
from jobspec.stores.s3errors import status_of

if TYPE_CHECKING:
    from jobspec.stores.s3requests import S3Requests

_ALGORITHMS: dict[str, Algorithm] = {"ChecksumSHA256": "sha256", "ChecksumSHA1": "sha1", "ChecksumCRC32": "crc32"}
"""CRC-32C and CRC-64/NVME are left out: neither the standard library nor a package of ours computes them."""

_MD5_ETAG = re.compile(r'"([0-9a-f]{32})(?:-([1-9][0-9]{0,4}))?"')
_NUMBERED = re.compile(r"([A-Za-z0-9+/=]+)-([1-9][0-9]{0,4})")
_MAX_PARTS_ASKED = 1000
_NO_SUCH_PART = {400, 405, 416, 501}
"""What servers answer that keep no parts."""


def find_checksum(requests: S3Requests, key: str, size: int, tag: str, streams: int) -> Checksum | None:
    """Return what can be compared with the bytes of an object, or None; costs one HEAD, for parts two more.

    Parts of different lengths cost one HEAD each, ``streams`` at once.

    Raises:
        DataError: the object no longer has this ``tag``, which is its ETag.
    """
    head = requests.head(key, {"ChecksumMode": "ENABLED"})
    if head is None or head["ETag"] != tag:
        raise requests.replaced(key)
    known = sorted(_list_known(cast("Any", head), requests.address.bucket), key=lambda found: found[2])
    for algorithm, value, count in known:  # those of the whole come first
        if count == 0:
            return Checksum(algorithm, value)
        parts = _measure_parts(lambda number: _measure_part(requests, key, number), size, count, streams)
        return None if parts is None else Checksum(algorithm, value, parts)
    return None


def _list_known(head: dict[str, Any], bucket: str) -> Iterator[tuple[Algorithm, bytes, int]]:
    """Yield algorithm, value and number of parts (0: of the whole), the most reliable first."""
    etag = _MD5_ETAG.fullmatch(head["ETag"])
    in_parts = etag is None or etag[2] is not None
    for name, algorithm in _ALGORITHMS.items():
        value = head.get(name, "")
        if (numbered := _NUMBERED.fullmatch(value)) is not None:
            yield algorithm, base64.b64decode(numbered[1]), int(numbered[2])
        elif value and head.get("ChecksumType", "COMPOSITE" if in_parts else "FULL_OBJECT") == "FULL_OBJECT":
            yield algorithm, base64.b64decode(value), 0
    # Encrypted objects, and all in directory buckets, have ETags that are no MD5.
    secret = head.get("ServerSideEncryption", "").startswith("aws:kms") or "SSECustomerAlgorithm" in head
    if etag is not None and not secret and not bucket.endswith("--x-s3"):
        yield "md5", bytes.fromhex(etag[1]), int(etag[2] or 0)


def _measure_parts(measure: Callable[[int], int | None], size: int, count: int, streams: int) -> tuple[int, ...] | None:
    """Return the parts' lengths in bytes, or None where they cannot be told.

    Nearly all uploads have parts of one length and a shorter last one: the first and the last part tell.
    """
    if count == 1:
        return (size,)
    first = measure(1)
    if first is None or first >= size:
        return None  # the server keeps no parts, and tells of the whole
    last = size - (count - 1) * first
    if 0 < last <= first and (count == 2 or measure(count) == last):
        return (*([first] * (count - 1)), last)
    if count > _MAX_PARTS_ASKED:
        return None
    with ThreadPoolExecutor(streams, "parts") as pool:
        rest = list(pool.map(measure, range(2, count + 1)))
    parts = (first, *(length or 0 for length in rest))
    return parts if all(parts) and sum(parts) == size else None


def _measure_part(requests: S3Requests, key: str, number: int) -> int | None:
    from botocore.exceptions import ClientError

    with requests.explained("HeadObject", key):
        try:
            head = requests.client().head_object(**cast("Any", {**requests.at(key), "PartNumber": number}))
        except ClientError as error:
            if status_of(error) in _NO_SUCH_PART:
                return None
            raise
    return head["ContentLength"]
