"""Every operation of the S3 store under every fault, by table: the right answer or a clear error."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.quota import RetryQuota

from jobspec.errors import ExitCode, FoldfleetError
from jobspec.stores.s3 import S3Store
from jobspec.stores.s3client import S3Settings
from tests.servers.faulty import KINDS, FaultyProxy, Rule
from tests.servers.s3server import BUCKET, S3Server

PART_BYTES = 5 << 20
"""S3's smallest part."""

ALWAYS = 10**9
SETTINGS = S3Settings(attempts=3, part_bytes=PART_BYTES, sleep=lambda _: None)

OLD = b"what lay there before " * 20
NEW = b"what is to lie there " * 30
LARGE = hashlib.shake_128(b"large").digest(2 * PART_BYTES + 100_000)


@dataclass(frozen=True)
class Place:
    """One prefix, seen directly and through a proxy that fails."""

    proxy: FaultyProxy
    direct: S3Store
    faulty: S3Store
    folder: Path
    client: Any

    def uploads(self) -> list[str]:
        """Return the multipart uploads that were neither completed nor aborted."""
        prefix = self.faulty.url.removeprefix(f"s3://{BUCKET}/")
        found = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in found.get("Uploads", [])]


@dataclass(frozen=True)
class Lines:
    """Connections to a server, directly and through a proxy; a client costs a quarter of a second."""

    proxy: FaultyProxy
    client: Any
    direct: S3Store
    faulty: S3Store


@pytest.fixture(scope="module")
def lines(seaweed: S3Server) -> Iterator[Lines]:
    with pytest.MonkeyPatch.context() as patch, FaultyProxy(seaweed.endpoint) as proxy:
        for name, value in seaweed.environment.items():
            patch.setenv(name, value)
        client = seaweed.client()
        stores = []
        for endpoint in (seaweed.endpoint, proxy.endpoint):
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
            stores.append(S3Store(seaweed.fresh_url(), SETTINGS))
            assert not stores[-1].exists("k")
        yield Lines(proxy, client, *stores)


@pytest.fixture
def place(lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # what botocore does before it tries again
    # A client counts its retries over its whole life; one test must not use up those of the next.
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: True)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    direct, faulty = S3Store(url, SETTINGS), S3Store(url, SETTINGS)
    direct._requests._connection = lines.direct._requests._connection
    faulty._requests._connection = lines.faulty._requests._connection
    lines.proxy.seen.clear()
    yield Place(lines.proxy, direct, faulty, tmp_path, lines.client)
    lines.proxy.rules = []


# --- every operation, every fault ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """A store's operation on the key ``k``: what it is done on, what it answers, what lies there afterwards."""

    act: Callable[[Place], Any]
    answer: Any
    before: bytes | None = None
    after: bytes | None = None

    def is_right(self, place: Place, answer: Any) -> bool:
        """Say whether an answer and what lies there are those of an undisturbed server."""
        return answer == self.answer and place.direct.get_or_none("k") == self.after


def from_file(body: bytes, act: Callable[[S3Store, Path], Any]) -> Callable[[Place], Any]:
    def acted(place: Place) -> Any:
        path = place.folder / "staged"
        path.write_bytes(body)
        answer = act(place.faulty, path)
        assert not path.exists()
        return answer

    return acted


def read_pieces(place: Place) -> bytes:
    target = bytearray(len(LARGE))
    with place.faulty.ranges("k") as ranges:
        for start in range(0, len(LARGE), 3 << 20):
            ranges.read_into(start, memoryview(target)[start : start + (3 << 20)])
    return bytes(target)


def swap(tag_of: Callable[[Place], str | None]) -> Callable[[Place], bool]:
    return lambda place: place.faulty.swap("k", NEW, tag_of(place))


OPERATIONS = {
    "create": Operation(lambda p: p.faulty.create("k", NEW), True, None, NEW),
    "create what is there": Operation(lambda p: p.faulty.create("k", NEW), False, OLD, OLD),
    "create the same again": Operation(lambda p: p.faulty.create("k", OLD), False, OLD, OLD),
    "create_file": Operation(from_file(NEW, lambda s, path: s.create_file("k", path)), True, None, NEW),
    "create_file in parts": Operation(from_file(LARGE, lambda s, path: s.create_file("k", path)), True, None, LARGE),
    "create_file what is there": Operation(from_file(NEW, lambda s, p: s.create_file("k", p)), False, OLD, OLD),
    "put": Operation(lambda p: p.faulty.put("k", NEW), None, OLD, NEW),
    "put_file in parts": Operation(from_file(LARGE, lambda s, path: s.put_file("k", path)), None, OLD, LARGE),
    "swap": Operation(swap(lambda p: p.direct.tag("k")), True, OLD, NEW),
    "swap what is new": Operation(swap(lambda p: None), True, None, NEW),
    "swap what was replaced": Operation(swap(lambda p: '"0123456789abcdef0123456789abcdef"'), False, OLD, OLD),
    "get": Operation(lambda p: p.faulty.get("k"), OLD, OLD, OLD),
    "get what is absent": Operation(lambda p: p.faulty.get_or_none("k"), None),
    "get_range": Operation(lambda p: p.faulty.get_range("k", 5, 100), OLD[5:105], OLD, OLD),
    "ranges": Operation(read_pieces, LARGE, LARGE, LARGE),
    "tagged": Operation(lambda p: (p.faulty.tagged("k") or (None,))[0], OLD, OLD, OLD),
    "size": Operation(lambda p: p.faulty.size("k"), len(OLD), OLD, OLD),
    "exists": Operation(lambda p: p.faulty.exists("k"), False),
    "keys": Operation(lambda p: list(p.faulty.keys("below/")), []),
    "delete": Operation(lambda p: p.faulty.delete("k"), None, OLD, None),
}
"""``exists`` and the absent: an error must never be taken for absence."""

_BUSY, _DAMAGED, _REFUSED = {ExitCode.TRY_LATER}, {ExitCode.TRY_LATER, ExitCode.DATA}, {ExitCode.ACCESS}

ENDINGS = {
    "conflict": _BUSY,
    "storm": _BUSY,
    "internal": _BUSY,
    "lost_ack": _BUSY,
    "reset_before": _BUSY,
    "truncated": _BUSY,
    "short": _DAMAGED,
    "flipped": _DAMAGED,
    "expired": _REFUSED,
    "denied": _REFUSED,
}
"""How an operation may end whose every try meets the fault."""

UNCHECKED = {"get_range", "ranges"}
"""Where a flipped bit passes: ranges carry no checksum on the wire, who reads them compares the digests of blocks."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "times", [pytest.param(1, id="once"), pytest.param(2, id="twice", marks=pytest.mark.soak), ALWAYS]
)
def test_an_operation_gives_the_right_answer_or_a_clear_error(place: Place, name: str, kind: str, times: int) -> None:
    operation = OPERATIONS[name]
    if operation.before is not None:
        place.direct.put("k", operation.before)
    place.proxy.rules = [Rule(kind, times=times)]
    refused: FoldfleetError | None = None
    answer = None
    try:
        answer = operation.act(place)
    except FoldfleetError as error:
        refused = error
    place.proxy.rules = []
    if refused is not None:
        assert place.proxy.faults, "refused, and nothing was done to it"
        assert times == ALWAYS or kind in {"expired", "denied"}, refused.message
        assert refused.exit_code in ENDINGS[kind], refused.message
        assert len(refused.message) > 60
        assert place.direct.get_or_none("k") in {operation.before, operation.after}
    elif not (kind == "flipped" and name in UNCHECKED):
        assert operation.is_right(place, answer)
    if times < ALWAYS and "begin" not in {seen.operation for seen in place.proxy.faults}:
        assert place.uploads() == []  # an upload whose beginning was not acknowledged has no known name


def test_a_multipart_upload_that_is_refused_leaves_no_parts_behind(place: Place) -> None:
    place.direct.put("k", OLD)
    with place.faulty.staging() as folder:
        (folder / "x").write_bytes(LARGE)
        assert not place.faulty.swap_file("k", folder / "x", '"0123456789abcdef0123456789abcdef"')
    assert place.direct.get("k") == OLD and place.uploads() == []
