"""What S3 tells of an object's bytes, and the comparison with them; values as AWS documents and servers send them."""

from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from containers.data.checksums import Comparison
from jobspec.errors import DataError
from jobspec.stores.base import Algorithm, Checksum
from jobspec.stores.s3 import S3Store
from jobspec.stores.s3checksums import find_checksum
from jobspec.stores.s3requests import S3Requests

BODY = bytes(range(256)) * 40
SIZE = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()
CRC = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()
SHA = base64.b64encode(hashlib.sha256(BODY).digest()).decode()


def digest(algorithm: Algorithm, body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "big") if algorithm == "crc32" else hashlib.new(algorithm, body).digest()


def of_parts(algorithm: Algorithm, parts: tuple[int, ...]) -> bytes:
    ends = np.cumsum(parts).tolist()
    pieces = [BODY[end - length : end] for end, length in zip(ends, parts, strict=True)]
    return digest(algorithm, b"".join(digest(algorithm, piece) for piece in pieces))


def holds(known: Checksum, body: bytes, cuts: list[int]) -> bool:
    comparison = Comparison(known)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        comparison.update(memoryview(body)[start:end])
    return comparison.holds()


@given(
    algorithm=st.sampled_from(["crc32", "md5", "sha1", "sha256"]),
    first=st.integers(0, SIZE),
    cuts=st.lists(st.integers(0, SIZE), max_size=5),
    bit=st.integers(0, SIZE * 8 - 1),
    short=st.integers(0, SIZE - 1),
)
def test_what_differs_is_told(algorithm: Algorithm, first: int, cuts: list[int], bit: int, short: int) -> None:
    """Whole or in parts, and however the bytes come: one bit or byte more, less or other is noticed."""
    parts = tuple(length for length in (first, SIZE - first) if length)
    flipped = bytearray(BODY)
    flipped[bit // 8] ^= 1 << bit % 8
    for known in (Checksum(algorithm, digest(algorithm, BODY)), Checksum(algorithm, of_parts(algorithm, parts), parts)):
        assert holds(known, BODY, cuts)
        for other in (bytes(flipped), BODY[:short], BODY + b"\0"):
            assert not holds(known, other, cuts)


def test_nothing_is_compared_too() -> None:
    assert holds(Checksum("md5", hashlib.md5(b"").digest()), b"", [])
    assert not holds(Checksum("md5", hashlib.md5(b"").digest()), b"a", [])


def find(head: dict[str, Any], parts: tuple[int, ...] = (), bucket: str = "bucket") -> tuple[Checksum | None, int]:
    """Ask for the checksum of an object; return also how many parts were looked at."""
    store = S3Store(f"s3://{bucket}/x")
    asked = []

    class Client:
        def head_object(self, *, PartNumber: int, **named: str) -> dict[str, int]:
            from botocore.exceptions import ClientError

            asked.append(PartNumber)
            if not parts:
                told: Any = {"Error": {"Code": "416"}, "ResponseMetadata": {"HTTPStatusCode": 416}}
                raise ClientError(told, "HeadObject")
            return {"ContentLength": parts[PartNumber - 1]}

    class Requests(S3Requests):
        def head(self, key: str, wanted: Any = None) -> Any:
            assert wanted == {"ChecksumMode": "ENABLED"}
            return head

        def client(self) -> Any:
            return Client()

    requests = Requests(store._address, store._requests.settings)
    return find_checksum(cast("Any", requests), "k", SIZE, head["ETag"], 4), len(asked)


KMS = {"ServerSideEncryption": "aws:kms"}
IN_PARTS = {"ETag": '"' + of_parts("md5", (4000, 4000, SIZE - 8000)).hex() + '-3"'}


@pytest.mark.parametrize(
    ("head", "algorithm"),
    [
        ({"ETag": f'"{MD5}"'}, "md5"),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "AES256"}, "md5"),
        ({"ETag": f'"{MD5}"', "ChecksumCRC64NVME": "ofqmlrkjVYk=", "ChecksumType": "FULL_OBJECT"}, "md5"),
        ({"ETag": f'"{MD5}"', "ChecksumCRC32": CRC}, "crc32"),
        ({"ETag": f'"{MD5}"', "ChecksumSHA256": SHA, "ChecksumType": "FULL_OBJECT", **KMS}, "sha256"),
        ({"ETag": f'"{"0" * 32}-7"', "ChecksumCRC32": CRC, "ChecksumType": "FULL_OBJECT"}, "crc32"),
    ],
)
def test_a_checksum_of_the_whole_is_taken(head: dict[str, Any], algorithm: str) -> None:
    known, asked = find(head)
    assert known is not None and (known.algorithm, known.parts, asked) == (algorithm, (), 0)
    assert holds(known, BODY, [])


@pytest.mark.parametrize(
    ("head", "parts", "asked"),
    [
        (IN_PARTS, (4000, 4000, SIZE - 8000), 2),
        # A value without its number of parts, as one server sends it, may be either kind.
        (IN_PARTS | {"ChecksumCRC32": CRC}, (4000, 4000, SIZE - 8000), 2),
        ({"ETag": '"' + of_parts("md5", (SIZE,)).hex() + '-1"'}, (SIZE,), 0),
        ({"ETag": '"' + of_parts("md5", (9000, SIZE - 9000)).hex() + '-2"'}, (9000, SIZE - 9000), 1),
        # Programs that upload while they write make parts of any length.
        ({"ETag": '"' + of_parts("md5", (5000, 100, SIZE - 5100)).hex() + '-3"'}, (5000, 100, SIZE - 5100), 4),
        ({"ETag": '"' + of_parts("md5", (100, SIZE - 100)).hex() + '-2"'}, (100, SIZE - 100), 2),
        (
            {
                "ETag": f'"{"0" * 32}-3"',
                "ChecksumCRC32": base64.b64encode(of_parts("crc32", (4000, 4000, SIZE - 8000))).decode() + "-3",
                "ChecksumType": "COMPOSITE",
                **KMS,
            },
            (4000, 4000, SIZE - 8000),
            2,
        ),
    ],
)
def test_a_checksum_of_parts_is_taken(head: dict[str, Any], parts: tuple[int, ...], asked: int) -> None:
    known, found = find(head, parts)
    assert known is not None and (known.parts, found) == (parts, asked)
    assert holds(known, BODY, [])


@pytest.mark.parametrize(
    ("head", "parts", "bucket"),
    [
        ({"ETag": f'"{MD5}"', **KMS}, (), "bucket"),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms:dsse"}, (), "bucket"),
        ({"ETag": f'"{MD5}"'}, (), "bucket--use1-az4--x-s3"),
        ({"ETag": '"a-tag-of-its-own"', "ChecksumCRC32C": "yZRlqg=="}, (), "bucket"),
        (IN_PARTS, (), "bucket"),
        (IN_PARTS, (SIZE, SIZE, SIZE), "bucket"),  # a server that ignores the number of the part
        (IN_PARTS, (4000, 4000, 1), "bucket"),
    ],
)
def test_what_cannot_be_compared_is_none(head: dict[str, Any], parts: tuple[int, ...], bucket: str) -> None:
    assert find(head, parts, bucket)[0] is None


def test_another_version_is_refused() -> None:
    store = S3Store("s3://bucket/x")

    class Requests(S3Requests):
        def head(self, key: str, wanted: Any = None) -> Any:
            return {"ETag": '"new"'}

    with pytest.raises(DataError, match="was replaced or deleted"):
        find_checksum(Requests(store._address, store._requests.settings), "k", 1, '"old"', 4)
