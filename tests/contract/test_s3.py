"""What the S3 store promises beyond the contract: addresses, processes, versions, lost answers, what is left behind."""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import pytest

from jobspec.errors import AccessError, DataError, NotFoundError, TryLaterError, UsageError
from jobspec.stores.base import open_store
from jobspec.stores.s3 import S3Store
from jobspec.stores.s3client import S3Settings
from tests.servers.process import free_ports
from tests.servers.s3server import S3Server

SMALL_PARTS = S3Settings(part_bytes=5 << 20, upload_streams=3)
LARGE = bytes(range(256)) * 4096 * 16


@pytest.fixture(params=["s3_url", "moto_url"])
def url(request: pytest.FixtureRequest) -> str:
    return cast("str", request.getfixturevalue(request.param))


def stage(folder: Path, body: bytes) -> Path:
    path = folder / "staged"
    path.write_bytes(body)
    return path


def client_of(store: S3Store) -> Any:
    return store._requests.client()


def leftovers(store: S3Store) -> list[Any]:
    return list(store.unfinished(before=float("inf")))


def lose(store: S3Store, monkeypatch: pytest.MonkeyPatch, wanted: Callable[[Any], bool]) -> list[tuple[str, bool]]:
    """Let the first wanted request take effect and its answer be lost; return (method, lost) of what was sent."""
    from botocore.exceptions import ConnectionClosedError

    session = client_of(store)._endpoint.http_session
    real = session.send
    sent: list[tuple[str, bool]] = []

    def send(request: Any) -> Any:
        answer = real(request)
        lost = wanted(request) and not any(lost_before for _, lost_before in sent)
        sent.append((request.method, lost))
        if lost:
            raise ConnectionClosedError(endpoint_url=request.url)
        return answer

    monkeypatch.setattr(session, "send", send)
    return sent


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket///", "s3://bucket"),
        ("s3://my.bucket-1/a//b/", "s3://my.bucket-1/a/b"),
        ("s3://bucket/a b/+%2Fü", "s3://bucket/a b/+%2Fü"),
    ],
)
def test_one_prefix_has_one_url(text: str, url: str) -> None:
    assert open_store(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        *("s3://", "s3:///a", "s3://ab/x", "s3://Bucket/x", "s3://a_b_c", "s3://127.0.0.1/x", "s3://a..b/x"),
        *("s3://user@bkt/x", "s3://bucket/../x", "s3://bucket/a/./b", "s3://bucket/a\n"),
        *("s3://bucket/" + 800 * "x", "s3://" + 64 * "b"),
    ],
)
def test_what_cannot_be_a_prefix_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--store s3://BUCKET/PREFIX"):
        open_store(text)


def test_keys_that_need_quoting_are_kept(url: str) -> None:
    store = S3Store(url + "/a b+c/ü%2F", S3Settings(page_size=1))
    keys = ["x/%2F", "x/1 2+3", "x/ü?&#=é"]
    for key in keys:
        assert store.create(key, key.encode())
        with store.ranges(key) as ranges:
            target = bytearray(ranges.size)
            ranges.read_into(0, memoryview(target))
        assert target == store.get(key) == key.encode()
    assert sorted(store.keys("x")) == sorted(keys)


def test_listings_of_many_pages_are_whole(url: str) -> None:
    store = S3Store(url, S3Settings(page_size=2))
    keys = [f"runs/{run}/{part}" for run in "abc" for part in range(3)]
    for key in keys:
        store.create(key, b"1")
    assert list(store.keys("runs/")) == keys
    assert [entry.key for entry in store.entries("runs")] == keys
    assert store.folders("runs/") == ["a", "b", "c"]
    assert list(store.keys("run")) == [], "a prefix is a folder's name"


def test_a_large_file_is_stored_in_parts_once(url: str, tmp_path: Path) -> None:
    store = S3Store(url, SMALL_PARTS)
    assert store.create_file("datasets/d/X.npy", stage(tmp_path, LARGE))
    assert not (tmp_path / "staged").exists()
    assert not store.create_file("datasets/d/X.npy", stage(tmp_path, LARGE[:-1]))
    assert store.get("datasets/d/X.npy") == LARGE and leftovers(store) == []


def test_a_condition_guards_the_end_of_a_large_upload(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On SeaweedFS alone: moto 5.2.5 lets a completion pass whatever its If-Match says.
    store = S3Store(s3_url, SMALL_PARTS)
    store.create("a/b", b"first")
    monkeypatch.setattr(store, "exists", lambda key: False)  # it comes while the parts are being sent
    assert not store.create_file("a/b", stage(tmp_path, LARGE))
    assert store.swap_file("a/b", stage(tmp_path, LARGE), store.tag("a/b"))
    assert not store.swap_file("a/b", stage(tmp_path, LARGE + b"1"), '"00"')
    assert store.get("a/b") == LARGE and leftovers(store) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_upload_that_fails_leaves_no_parts(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    store = S3Store(url, SMALL_PARTS)
    real, sent = client_of(store).upload_part, []

    def upload_part(**arguments: Any) -> Any:
        sent.append(arguments["PartNumber"])
        if arguments["PartNumber"] == 3:
            raise error
        return real(**arguments)

    monkeypatch.setattr(client_of(store), "upload_part", upload_part)
    with pytest.raises(error):
        store.create_file("a/b", stage(tmp_path, LARGE))
    assert 3 in sent and not store.exists("a/b") and not (tmp_path / "staged").exists() and leftovers(store) == []


def test_uploads_of_killed_writers_are_found_and_discarded(url: str) -> None:
    store, other = S3Store(url), S3Store(url + "-other")
    for one in (store, other):
        upload = client_of(one).create_multipart_upload(**one._requests.at("datasets/d/X.npy"))["UploadId"]
        client_of(one).upload_part(
            **one._requests.at("datasets/d/X.npy"), UploadId=upload, PartNumber=1, Body=b"12345"
        )
    [found] = leftovers(store)
    assert found.key.startswith("datasets/d/X.npy#") and found.size == 5
    assert list(store.unfinished(before=found.written)) == []
    store.discard(found)
    store.discard(found)
    assert leftovers(store) == [] and len(leftovers(other)) == 1


def test_a_write_whose_acknowledgement_was_lost_has_won(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(url)
    sent = lose(store, monkeypatch, lambda request: request.method == "PUT")
    assert store.create("a/b", b"1")
    assert sent == [("PUT", True), ("PUT", False), ("HEAD", False)]
    monkeypatch.undo()
    assert not store.create("a/b", b"2") and store.get("a/b") == b"1"


def test_a_swap_whose_acknowledgement_was_lost_has_won(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(s3_url)
    store.put("a/b", b"1")
    tag = store.tag("a/b")
    sent = lose(store, monkeypatch, lambda request: request.method == "PUT")
    assert store.swap("a/b", b"2", tag)
    assert sent == [("PUT", True), ("PUT", False), ("HEAD", False)] and store.get("a/b") == b"2"


def test_a_completion_whose_acknowledgement_was_lost_has_won(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(url, SMALL_PARTS)

    def completes(request: Any) -> bool:
        return request.method == "POST" and "uploadId=" in request.url

    lose(store, monkeypatch, completes)
    assert store.create_file("a/b", stage(tmp_path, LARGE))
    assert store.get("a/b") == LARGE


def answering(store: S3Store, monkeypatch: pytest.MonkeyPatch, answers: list[tuple[int, str]], operation: str) -> None:
    """Let an operation be refused by a list before it is sent; afterwards it is sent."""
    from botocore.exceptions import ClientError

    client = client_of(store)
    real = getattr(client, operation)

    def refuse(**arguments: Any) -> Any:
        if not answers:
            return real(**arguments)
        status, code = answers.pop(0)
        told: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(told, operation)

    monkeypatch.setattr(client, operation, refuse)


CONFLICT = (409, "ConditionalRequestConflict")


def test_a_conflict_is_tried_again(s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pauses: list[float] = []
    store = S3Store(s3_url, S3Settings(part_bytes=5 << 20, sleep=pauses.append))
    answering(store, monkeypatch, [CONFLICT, CONFLICT], "put_object")
    assert store.create("a/b", b"1") and len(pauses) == 2
    answering(store, monkeypatch, [CONFLICT], "complete_multipart_upload")
    assert store.create_file("a/c", stage(tmp_path, LARGE)) and len(pauses) == 3
    assert store.get("a/c") == LARGE and leftovers(store) == []
    answering(store, monkeypatch, [CONFLICT] * 99, "put_object")
    with pytest.raises(TryLaterError, match="S3 asked to try again 8 times"):
        store.create("a/d", b"1")
    assert len(pauses) == 3 + 7 and max(pauses) <= 20


def test_an_object_deleted_between_refusal_and_reading_back_is_created(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(s3_url, S3Settings(sleep=lambda seconds: None))
    answering(store, monkeypatch, [(412, "PreconditionFailed")], "put_object")
    assert store.create("a/b", b"1") and store.get("a/b") == b"1"


def test_a_server_without_conditions_is_refused_for_results_and_compared_for_views(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(s3_url)
    store.put("a/b", b"1")
    tag = store.tag("a/b")
    without = (501, "NotImplemented")
    answering(store, monkeypatch, [without], "put_object")
    with pytest.raises(UsageError, match="conditional writes"):
        store.create("a/c", b"1")
    answering(store, monkeypatch, [without], "put_object")
    assert store.swap("a/b", b"2", tag) and store.get("a/b") == b"2"
    answering(store, monkeypatch, [without], "put_object")
    assert not store.swap("a/b", b"3", tag) and store.get("a/b") == b"2"


def test_pieces_of_another_version_are_refused(url: str) -> None:
    store = S3Store(url)
    store.put("a/b", LARGE)
    piece = memoryview(bytearray(1000))
    with store.ranges("a/b") as ranges:
        ranges.read_into(5, piece)
        store.put("a/b", LARGE[::-1])
        with pytest.raises(DataError, match="replaced or deleted while it was being read"):
            ranges.read_into(5, piece)
        store.delete("a/b")
        with pytest.raises(DataError, match="replaced or deleted"):
            ranges.read_into(5, piece)
    with pytest.raises(NotFoundError), store.ranges("a/b"):
        pass


def test_many_threads_read_one_version_into_one_buffer(url: str) -> None:
    store, step = S3Store(url), 1 << 20
    store.put("a/b", LARGE)
    target = bytearray(len(LARGE))
    with store.ranges("a/b") as ranges, memoryview(target) as view, ThreadPoolExecutor(ranges.streams) as pool:
        assert 4 <= ranges.streams <= 16
        list(pool.map(lambda at: ranges.read_into(at, view[at : at + step]), range(0, len(LARGE), step)))
    assert target == LARGE


def test_an_idle_connection_that_was_closed_is_opened_again(s3_url: str) -> None:
    import socket

    store = S3Store(s3_url)
    store.put("a/b", LARGE)
    piece = bytearray(1000)
    with store.ranges("a/b") as ranges, memoryview(piece) as view:
        ranges.read_into(0, view)
        [idle] = ranges._idle
        idle.sock.shutdown(socket.SHUT_RDWR)
        ranges.read_into(7, view)
    assert piece == LARGE[7:1007]


def test_behind_a_proxy_the_sdk_reads(s3_url: str, seaweed: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = S3Store(s3_url)
    store.put("a/b", LARGE)
    piece = bytearray(1000)
    asked: list[bytes] = []

    class Proxy(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().split()[1])
            self.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with store.ranges("a/b") as ranges:
                monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
                monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
                ranges._requests = S3Store(s3_url)._requests
                with pytest.raises(TryLaterError, match="503"):
                    ranges.read_into(0, memoryview(piece))
        finally:
            server.shutdown()
            thread.join()
    assert asked and asked[0].startswith(seaweed.endpoint.encode())


def test_over_tls_only_trusted_servers_are_read(
    s3_url: str, seaweed_tls: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in seaweed_tls.environment.items():
        monkeypatch.setenv(name, value)
    store = S3Store(s3_url, SMALL_PARTS)
    assert store.create_file("a/b", stage(tmp_path, LARGE))
    piece = bytearray(100_000)
    with store.ranges("a/b") as ranges, memoryview(piece) as view:
        ranges.read_into(17, view)
        assert piece == LARGE[17:100_017] and len(ranges._idle) == 1, "read without the SDK"
        monkeypatch.delenv("AWS_CA_BUNDLE")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        ranges.close()
        ranges._requests = S3Store(s3_url)._requests
        with pytest.raises(AccessError, match=r"is not trusted.*AWS_CA_BUNDLE"):
            ranges.read_into(17, view)


def test_a_signature_that_is_refused_is_made_by_the_sdk(s3_url: str) -> None:
    store = S3Store(s3_url)
    store.put("a/b", LARGE)
    piece = bytearray(1000)
    with store.ranges("a/b") as ranges, memoryview(piece) as view:
        ranges.read_into(0, view)
        made, url = cast("tuple[float, str]", ranges._signed)
        ranges._signed = made, url.replace("X-Amz-Signature=", "X-Amz-Signature=0")
        ranges.read_into(3, view)
        assert piece == LARGE[3:1003] and ranges._signed is None


def test_reading_and_creating_start_no_thread(url: str) -> None:
    before = threading.active_count()
    store = open_store(url)
    store.create("a/b", b"1")
    store.get("a/b")
    assert store.get_or_none("a/c") is None and threading.active_count() == before


def use_in_child(store: S3Store, parents: int, answers: Any) -> None:
    won = store.create(f"runs/{os.getpid()}", b"child")
    answers.put((won, store.get("runs/parent"), id(client_of(store)) != parents))


def test_a_forked_child_has_a_client_of_its_own(url: str) -> None:
    store = S3Store(url)
    store.create("runs/parent", b"parent")
    context = get_context("fork")
    answers = context.SimpleQueue()
    keep = client_of(store)
    children = [context.Process(target=use_in_child, args=(store, id(keep), answers)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [answers.get() for _ in children] == [(True, b"parent", True)] * 3
    assert client_of(store) is keep and store.get("runs/parent") == b"parent"


def test_staging_is_a_folder_of_the_cache_that_goes(cache: Path) -> None:
    with open_store("s3://bucket/x").staging() as folder:
        (folder / "a").write_bytes(b"1")
        assert folder.parent == cache / ".tmp"
    assert list((cache / ".tmp").iterdir()) == []


def test_other_servers_are_asked_by_path_and_aws_by_host(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def signed(store: S3Store) -> str:
        named = {"Bucket": store._address.bucket, "Key": "k"}
        url = client_of(store).generate_presigned_url("get_object", Params=named)
        return cast("str", url.partition("?")[0])

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:1")
    assert signed(S3Store("s3://bucket/x")) == "http://localhost:1/bucket/k"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://localhost:2")
    assert signed(S3Store("s3://bucket/x")) == "http://localhost:2/bucket/k"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    # Not the global endpoint, which would redirect every piece.
    assert signed(S3Store("s3://bucket/x")) == "https://bucket.s3.eu-central-1.amazonaws.com/k"
    monkeypatch.setenv("AWS_REGION", "eu-west-1")  # what other tools of AWS read, and read first
    assert signed(S3Store("s3://bucket/x")) == "https://bucket.s3.eu-west-1.amazonaws.com/k"
    assert signed(S3Store("s3://buck.et/x")).endswith("amazonaws.com/buck.et/k"), "no certificate covers such a host"


def test_a_profile_is_taken_as_any_aws_tool_takes_it(
    seaweed: S3Server, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user / ".aws").mkdir()
    (user / ".aws" / "config").write_text(
        "[profile lab]\nregion = us-east-1\nservices = lab\nmax_attempts = 3\n"
        f"[services lab]\ns3 =\n  endpoint_url = {seaweed.endpoint}\n"
    )
    (user / ".aws" / "credentials").write_text(
        "[lab]\naws_access_key_id = ADMIN\naws_secret_access_key = secret-admin\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store = S3Store(seaweed.fresh_url())
    assert store.create("a", b"1") and store.get("a") == b"1" and store._requests.settings.attempts == 3


@pytest.fixture
def as_user(seaweed: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], S3Store]:
    """Return a function that opens the store as one of SeaweedFS's users; an object ``a/b`` lies there."""
    S3Store(s3_url).create("a/b", b"1")

    def open_as(name: str) -> S3Store:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", name.upper())
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"secret-{name}")
        return S3Store(s3_url)

    return open_as


REFUSED: dict[str, tuple[str, Callable[[S3Store], object], str]] = {
    "create": ("reader", lambda store: store.create("x", b""), "s3:PutObject on arn:aws:s3:::"),
    "put": ("reader", lambda store: store.put("x", b""), "s3:PutObject"),
    "delete": ("reader", lambda store: store.delete("a/b"), "s3:DeleteObject"),
    "get": ("writer", lambda store: store.get("a/b"), "s3:GetObject on arn:aws:s3:::"),
    "head": ("writer", lambda store: store.size("a/b"), "s3:GetObject"),
    "list": ("blind", lambda store: list(store.keys("a")), "s3:ListBucket on arn:aws:s3:::"),
    "stranger-get": ("nobody", lambda store: store.get("a/b"), "InvalidAccessKeyId.*AWS_ACCESS_KEY_ID"),
    "stranger-head": ("nobody", lambda store: store.exists("a/b"), "InvalidAccessKeyId.*AWS_PROFILE"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_real_refusal_names_what_is_missing(as_user: Callable[[str], S3Store], case: str) -> None:
    user, call, told = REFUSED[case]
    with pytest.raises(AccessError, match=told) as caught:
        call(as_user(user))
    assert caught.value.exit_code == 4 and "\n" not in caught.value.message


def test_an_absent_bucket_is_told_whatever_is_asked(s3_url: str) -> None:
    calls: list[Callable[[S3Store], object]] = [
        lambda store: store.get("a"),
        lambda store: store.exists("a"),
        lambda store: store.create("a", b""),
        lambda store: list(store.keys("a")),
    ]
    for call in calls:
        with pytest.raises(NotFoundError, match=r"no bucket 'nowhere-here'.*aws s3 mb") as caught:
            call(S3Store("s3://nowhere-here/x"))
        assert caught.value.exit_code == 5


def test_a_server_that_does_not_answer_is_named(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [port] = free_ports(1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(TryLaterError, match=f"127.0.0.1:{port} did not answer") as caught:
        S3Store(s3_url).get("a")
    assert caught.value.exit_code == 75


def test_a_server_that_goes_away_between_two_pieces_is_named(s3_url: str) -> None:
    store = S3Store(s3_url, S3Settings(attempts=2, sleep=lambda seconds: None))
    store.put("a/b", LARGE)
    [port] = free_ports(1)
    with store.ranges("a/b") as ranges:
        made, url = 1e18, f"http://127.0.0.1:{port}/b?x"
        ranges._signed = made, url
        with pytest.raises(TryLaterError, match=r"a/b could not be read from byte 5 .* after 2 tries: Connection"):
            ranges.read_into(5, memoryview(bytearray(7)))


def test_settings_that_lead_nowhere_are_told(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessError, match=r"no usable AWS credentials.*aws sso login"):
        S3Store(s3_url).get("a")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessError, match=r"profile .*nobody.*AWS_PROFILE"):
        S3Store(s3_url).get("a")


class _Flaky:
    """A body that ends early a number of times."""

    def __init__(self, real: Callable[..., Any], times: int) -> None:
        self.real, self.times = real, times

    def __call__(self, **arguments: Any) -> Any:
        response = self.real(**arguments)
        if self.times:
            self.times -= 1
            response["Body"].close()
            response["Body"] = _Short()
        return response


class _Short:
    def read(self) -> bytes:
        return b"1"

    def close(self) -> None:
        pass


@pytest.fixture
def flaky(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], S3Store]:
    def make(times: int) -> S3Store:
        store = S3Store(s3_url, S3Settings(attempts=3, sleep=lambda seconds: None))
        store.put("a/b", b"12345")
        monkeypatch.setattr(client_of(store), "get_object", _Flaky(client_of(store).get_object, times))
        return store

    return make


def test_a_short_body_is_fetched_again_and_never_returned(flaky: Callable[[int], S3Store]) -> None:
    assert flaky(2).get("a/b") == b"12345"
    assert flaky(2).get_range("a/b", 1, 3) == b"234"
    with pytest.raises(TryLaterError, match="cut short or damaged"):
        flaky(3).get("a/b")
