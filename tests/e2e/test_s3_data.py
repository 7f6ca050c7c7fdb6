"""Data that lie in S3, and folds that come out of a store there: a real server, and a proxy that fails and counts."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import uuid
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.data import foldcache
from containers.data.dataset import ensure_dataset, load_manifest, open_dataset, verify
from containers.data.foldcache import FoldCache, map_fold
from containers.data.splits import ensure_splits
from jobspec.engine import current_engine
from jobspec.errors import AccessError, DataError, ExitCode, NotFoundError, TryLaterError
from jobspec.grammar.load import load
from jobspec.grammar.spec import CvSpec, DataSpec
from jobspec.search.inspection import BLOCK_BYTES, Manifest
from jobspec.search.memo import PrepareOptions, memo_key
from jobspec.stores import s3ranges
from jobspec.stores.base import open_store
from jobspec.stores.objects import open_object
from tests.conftest import Submit
from tests.servers.faulty import FaultyProxy, Rule
from tests.servers.s3server import BUCKET, S3Server

FORK = multiprocessing.get_context("fork")

TABLE = "a,b,label\n" + "".join(f"{i},{i * i % 7},{'yes' if i % 3 else 'no'}\n" for i in range(60))

SPEC = """\
name: far
data: {{path: "{path}", target: label}}
cv: 3
candidates:
  - estimator: sklearn.tree.DecisionTreeClassifier
    params: {{random_state: 0}}
    grid: {{max_depth: [1, 2]}}
"""


@pytest.fixture
def proxy(seaweed: S3Server, user: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Lead the environment to the server through a proxy; ranged answers carry no checksum there, as on AWS."""
    with FaultyProxy(seaweed.endpoint, checksums=False) as proxy:
        for name, value in seaweed.behind(proxy.endpoint).environment.items():
            monkeypatch.setenv(name, value)
        yield proxy


def put(server: S3Server, body: bytes | str, name: str = "t.csv") -> str:
    """Store an object under a prefix of its own; return its URL."""
    key = f"{uuid.uuid4().hex}/{name}"
    server.client().put_object(Bucket=BUCKET, Key=key, Body=body)
    return f"s3://{BUCKET}/{key}"


def operations(proxy: FaultyProxy, word: str) -> list[str]:
    return [seen.operation for seen in proxy.seen if word in seen.key]


def refused(store_url: str, url: str, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        ensure_dataset(open_store(store_url), DataSpec(path=url, target="label"), Path("/nowhere"))
    return str(caught.value)


# --- what is read


@pytest.mark.parametrize(
    "name", ["t.csv", "a b+c%2Fd/100% (1).csv", "größe & 漢字/emoji 🙂.csv", "a=b?c#d;e,f:g@h.csv"]
)
def test_the_same_bytes_are_the_same_dataset_wherever_they_lie(
    proxy: FaultyProxy, seaweed: S3Server, store_url: str, tmp_path: Path, cache: Path, name: str
) -> None:
    (tmp_path / "near.csv").write_text(TABLE)
    url = put(seaweed, TABLE, name)
    store = open_store(store_url)
    far = ensure_dataset(store, DataSpec(path=url, target="label"), tmp_path)
    assert ensure_dataset(store, DataSpec(path="near.csv", target="label"), tmp_path) == far
    assert np.array_equal(open_dataset(store, far).X[:, 0], np.arange(60))
    assert not list(cache.rglob("source")), "what was stored is not kept twice"


@pytest.mark.parametrize("name", ["a//b.csv", "a/./b.csv", "x" * 800 + "/b.csv"])
def test_keys_that_no_folder_has(
    moto_url: str, moto_s3: S3Server, store_url: str, tmp_path: Path, name: str
) -> None:
    manifest = ensure_dataset(open_store(store_url), DataSpec(path=put(moto_s3, TABLE, name), target="label"), tmp_path)
    assert manifest.num_rows == 60


def test_the_second_call_looks_once_and_reads_nothing(
    proxy: FaultyProxy, seaweed: S3Server, store_url: str, tmp_path: Path
) -> None:
    url = put(seaweed, TABLE)
    spec = DataSpec(path=url, target="label")
    first = ensure_dataset(open_store(store_url), spec, tmp_path)
    proxy.seen.clear()
    assert ensure_dataset(open_store(store_url), spec, tmp_path) == first
    assert operations(proxy, "t.csv") == ["head"]
    store, key = open_object(url)
    store.put(key, TABLE.replace("no", "maybe").encode())
    assert ensure_dataset(open_store(store_url), spec, tmp_path).dataset_id != first.dataset_id


def test_the_desk_looks_once(proxy: FaultyProxy, seaweed: S3Server, tmp_path: Path) -> None:
    url = put(seaweed, TABLE)
    (tmp_path / "spec.yaml").write_text(SPEC.format(path=url))
    loaded = load(tmp_path / "spec.yaml")
    engine = current_engine("native", loaded.spec.identity())
    key = memo_key(loaded, engine, PrepareOptions())
    assert key is not None and memo_key(loaded, engine, PrepareOptions()) == key
    assert operations(proxy, "t.csv") == ["head", "head"]
    store, name = open_object(url)
    store.put(name, b"other")
    assert memo_key(loaded, engine, PrepareOptions()) not in (None, key)
    store.delete(name)
    assert memo_key(loaded, engine, PrepareOptions()) is None


@pytest.mark.parametrize("far_store", [False, True])
def test_a_run_gives_the_scores_of_a_local_file(
    s3_url: str, seaweed: S3Server, submit: Submit, tmp_path: Path, far_store: bool
) -> None:
    (tmp_path / "near.csv").write_text(TABLE)
    (tmp_path / "near.yaml").write_text(SPEC.format(path="near.csv"))
    (tmp_path / "far.yaml").write_text(SPEC.format(path=put(seaweed, TABLE, "my table.csv")))
    store = s3_url if far_store else "far"
    found = submit("run", "far.yaml", "--store", store, "--json")
    assert found.returncode == 0, found.stderr
    expected = json.loads(submit("run", "near.yaml", "--store", "near", "--json").stdout)
    answer = json.loads(found.stdout)
    assert answer["run_id"] == expected["run_id"]
    assert answer["best"] == expected["best"]
    again = json.loads(submit("run", "far.yaml", "--store", store, "--json").stdout)
    assert (again["fits"], again["run_id"]) == (0, answer["run_id"])


# --- what cannot be read (bad-inputs 18, 27, 36)


def test_a_missing_object_names_the_closest_one(s3_url: str, seaweed: S3Server, store_url: str) -> None:
    url = put(seaweed, TABLE, "table.csv")
    message = refused(store_url, url.replace("table.csv", "tabel.csv"))
    assert message.startswith("There is no data object s3://") and "Did you mean" in message and "table.csv" in message


def test_a_missing_bucket_is_told_apart(s3_url: str, store_url: str) -> None:
    message = refused(store_url, "s3://no-such-bucket-here/t.csv")
    assert "s3://no-such-bucket-here/t.csv" in message and "no bucket 'no-such-bucket-here'" in message
    assert "--store" not in message


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/folder/", "s3:///t.csv", "s3://No_Bucket/t.csv", "s3://b//t", "s3://b/../t.csv"]
)
def test_a_url_of_no_object(store_url: str, url: str) -> None:
    message = refused(store_url, url)
    assert repr(url) in message and "s3://BUCKET/" in message


def test_no_permission_names_the_action(
    s3_url: str, seaweed: S3Server, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = put(seaweed, TABLE)
    for name, value in seaweed.user("WRITER", "secret-writer").environment.items():
        monkeypatch.setenv(name, value)
    message = refused(store_url, url, AccessError)
    assert f"s3:GetObject on arn:aws:s3:::{url.removeprefix('s3://').rpartition('/')[0]}/* " in message


@pytest.mark.parametrize(("path", "code"), [("t.csv", 0), ("none.csv", ExitCode.DATA), ("denied", ExitCode.ACCESS)])
def test_exit_codes(
    s3_url: str, seaweed: S3Server, submit: Submit, tmp_path: Path, path: str, code: int
) -> None:
    url = put(seaweed, TABLE)
    (tmp_path / "spec.yaml").write_text(SPEC.format(path=url if path == "denied" else url.replace("t.csv", path)))
    denied = seaweed.user("WRITER", "secret-writer").environment if path == "denied" else {}
    found = submit("validate", "spec.yaml", env=denied)
    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr


def test_errors_name_the_object_and_not_where_it_was_fetched_to(s3_url: str, seaweed: S3Server, store_url: str) -> None:
    url = put(seaweed, TABLE + "1,2\n")
    message = refused(store_url, url)
    assert url in message and "cache" not in message


def test_after_an_error_nothing_is_fetched_again(proxy: FaultyProxy, seaweed: S3Server, store_url: str) -> None:
    url = put(seaweed, TABLE)
    with pytest.raises(DataError, match="labl"):
        ensure_dataset(open_store(store_url), DataSpec(path=url, target="labl"), Path("/nowhere"))
    ensure_dataset(open_store(store_url), DataSpec(path=url, target="label"), Path("/nowhere"))
    assert operations(proxy, "t.csv").count("get_range") == 1


def put_in_parts(server: S3Server, lengths: list[int], table: bytes) -> str:
    """Upload a table in parts of these lengths and a last one; return its URL."""
    client, target = server.client(), {"Bucket": BUCKET, "Key": f"{uuid.uuid4().hex}/t.csv"}
    upload = {**target, "UploadId": client.create_multipart_upload(**target)["UploadId"]}  # type: ignore[arg-type]
    edges = [0, *np.cumsum(lengths).tolist(), len(table)]
    parts = []
    for number, (start, end) in enumerate(pairwise(edges), 1):
        part: Any = {**upload, "PartNumber": number, "Body": table[start:end]}
        parts.append({"PartNumber": number, "ETag": client.upload_part(**part)["ETag"]})
    end_of_it: Any = {**upload, "MultipartUpload": {"Parts": parts}}
    client.complete_multipart_upload(**end_of_it)
    return f"s3://{BUCKET}/{target['Key']}"


MIB = 1 << 20


@pytest.mark.parametrize("times", [1, 1000])
@pytest.mark.parametrize(
    ("checksums", "lengths"), [(True, []), (False, []), (False, [5 * MIB, 5 * MIB]), (False, [5 * MIB, 7 * MIB])]
)
def test_a_bit_of_the_source_that_flips_on_its_way_changes_no_dataset(
    proxy: FaultyProxy,
    seaweed: S3Server,
    store_url: str,
    tmp_path: Path,
    cache: Path,
    checksums: bool,
    lengths: list[int],
    times: int,
) -> None:
    """With a checksum of the server's, with an MD5 as ETag, and in equal and other parts."""
    table = (TABLE + "1,2,no\n" * (2 * MIB if lengths else 0)).encode()
    (tmp_path / "near.csv").write_bytes(table)
    url = put_in_parts(seaweed, lengths, table) if lengths else put(seaweed, table)
    proxy.checksums = checksums
    proxy.rules = (Rule("flipped", "get_range", "*t.csv", times=times),)
    if times > 1:
        message = refused(store_url, url, TryLaterError)
        assert f"{url} came damaged 2 times" in message and "the server tells" in message
        assert not list(cache.rglob("source"))
        assert len(proxy.faults) == 2 * -(-len(table) // BLOCK_BYTES)
        proxy.rules = ()
    store = open_store(store_url)
    far = ensure_dataset(store, DataSpec(path=url, target="label"), tmp_path)
    assert proxy.faults and far == ensure_dataset(store, DataSpec(path="near.csv", target="label"), tmp_path)


def test_a_source_that_is_put_back_is_read_as_it_is(
    s3_url: str, seaweed: S3Server, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its version is the first one's again: what came in between must not lie under that name."""
    (tmp_path / "near.csv").write_text(TABLE)
    url = put(seaweed, TABLE)
    store, key = open_object(url)
    true_source = FoldCache.source

    def replace_first(*arguments: Any) -> Any:
        store.put(key, TABLE.replace("no", "maybe").encode())
        return true_source(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FoldCache, "source", replace_first)
        refused(store_url, url)
    store.put(key, TABLE.encode())
    far = ensure_dataset(open_store(store_url), DataSpec(path=url, target="label"), tmp_path)
    assert far == ensure_dataset(open_store(store_url), DataSpec(path="near.csv", target="label"), tmp_path)


@pytest.mark.parametrize("moment", ["source", "build_source"])
def test_an_object_that_is_replaced_before_or_while_it_is_fetched(
    s3_url: str, seaweed: S3Server, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    url = put(seaweed, TABLE + "1,2,no\n" * (BLOCK_BYTES // 4))
    store, key = open_object(url)
    owner: Any = FoldCache if moment == "source" else foldcache
    true_step = getattr(owner, moment)

    def step(*arguments: Any) -> Any:
        store.put(key, TABLE.encode())
        return true_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, step)
        message = refused(store_url, url)
    assert url in message and "was replaced " in message
    assert ensure_dataset(open_store(store_url), DataSpec(path=url, target="label"), tmp_path).num_rows == 60


def test_a_small_disk_is_told_before_anything_is_fetched(
    proxy: FaultyProxy, seaweed: S3Server, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = put(seaweed, TABLE)
    monkeypatch.setattr(foldcache, "free_bytes", lambda path: 100)
    message = refused(store_url, url, TryLaterError)
    assert f"needs {len(TABLE) + 2 * 8192 + foldcache._SPARE_BYTES} bytes" in message and "100 are free" in message
    assert "FOLDFLEET_CACHE" in message and "get_range" not in operations(proxy, "t.csv")


# --- folds


NUM_ROWS, NUM_COLUMNS = 60_000, 51


@pytest.fixture
def stored(proxy: FaultyProxy, seaweed: S3Server, tmp_path: Path) -> tuple[str, Manifest, str]:
    """Store 24 MB in S3, in blocks that end inside rows; return store, manifest and splits."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", X=rng.standard_normal((NUM_ROWS, NUM_COLUMNS)), y=rng.integers(0, 3, NUM_ROWS))
    url = seaweed.fresh_url()
    store = open_store(url)
    manifest = ensure_dataset(store, DataSpec(path="t.npz", target="y"), tmp_path)
    cv = CvSpec(kind="StratifiedKFold", params={"n_splits": 3, "shuffle": True, "random_state": 0})
    splits = ensure_splits(store, manifest, open_dataset(store, manifest), cv, True)
    proxy.seen.clear()
    return url, manifest, splits.split_id


def assert_fold(tmp_path: Path, cache: Path, stored: tuple[str, Manifest, str]) -> None:
    from sklearn.model_selection import StratifiedKFold

    url, manifest, split_id = stored
    with np.load(tmp_path / "t.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    train, test = next(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    with FoldCache(cache).fold(open_store(url), manifest, split_id, 0) as paths:
        fold = map_fold(paths)
        assert fold.X_train.tobytes() == X[train].tobytes() and fold.X_test.tobytes() == X[test].tobytes()
        assert np.array_equal(fold.y_train, y[train]) and np.array_equal(fold.y_test, y[test])


def _ensure(cache: Path, stored: tuple[str, Manifest, str]) -> None:
    url, manifest, split_id = stored
    FoldCache(cache).ensure(open_store(url), manifest, split_id, 0)


def test_a_fold_is_fetched_once_by_all_processes_of_a_host(
    proxy: FaultyProxy, tmp_path: Path, cache: Path, stored: tuple[str, Manifest, str]
) -> None:
    children = [FORK.Process(target=_ensure, args=(cache, stored)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert operations(proxy, "X.npy").count("get_range") == len(stored[1].blocks[0].digests) == 3
    assert_fold(tmp_path, cache, stored)


@pytest.mark.parametrize("kind", ["flipped", "truncated", "short", "storm", "reset_before"])
def test_a_fault_on_the_way_is_fetched_again(
    proxy: FaultyProxy, tmp_path: Path, cache: Path, stored: tuple[str, Manifest, str], kind: str
) -> None:
    proxy.rules = (Rule(kind, "get_range", "*X.npy", after=1),)
    assert_fold(tmp_path, cache, stored)
    assert len(proxy.faults) == 1
    assert len([seen for seen in proxy.seen if seen.operation == "get_range" and "X.npy" in seen.key]) == 4


def test_a_block_that_stays_damaged_is_named(
    proxy: FaultyProxy, tmp_path: Path, cache: Path, stored: tuple[str, Manifest, str]
) -> None:
    proxy.rules = (Rule("flipped", "get_range", "*X.npy", times=1000),)
    with pytest.raises(DataError, match=r"X.npy' is damaged in its block 0.*xxh3_128 is (\w{32}), (?!\1)\w{32} was"):
        _ensure(cache, stored)
    assert not list(cache.rglob("meta.json"))
    proxy.rules = ()
    assert_fold(tmp_path, cache, stored)


def test_small_arrays_are_got_in_one_request(proxy: FaultyProxy, stored: tuple[str, Manifest, str]) -> None:
    url, manifest, _ = stored
    proxy.seen.clear()
    open_dataset(open_store(url), manifest)
    assert operations(proxy, "y.npy") == ["get"] and not operations(proxy, "X.npy")


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_certificates_are_trusted_as_the_sdk_trusts_them(
    s3_url: str, seaweed_tls: S3Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable, value in seaweed_tls.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("AWS_CA_BUNDLE")
    monkeypatch.setenv(name, seaweed_tls.ca_bundle)
    store: Any = open_store(s3_url)
    store.create("a", bytes(range(100)))
    with store.ranges("a") as ranges:
        piece = bytearray(10)
        ranges.read_into(20, memoryview(piece))
        assert piece == bytes(range(20, 30)) and len(ranges._idle) == 1, "read without the SDK"


@pytest.mark.parametrize("reason", ["signature", "proxy", "no such file"])
def test_the_sdk_is_asked_from_the_first_piece_that_needs_it_on(
    s3_url: str, seaweed_tls: S3Server, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    store: Any = open_store(s3_url)
    store.create("a", bytes(range(100)))
    tries = []
    true_read = s3ranges.S3Ranges._read_once

    def read_once(self: s3ranges.S3Ranges, offset: int, target: memoryview) -> None:
        tries.append(offset)
        if reason == "signature":
            self._signed = 1e18, self._url().replace("X-Amz-Signature=", "X-Amz-Signature=0")
        true_read(self, offset, target)

    monkeypatch.setattr(s3ranges.S3Ranges, "_read_once", read_once)
    monkeypatch.setattr(s3ranges, "_proxied", lambda scheme, host: reason == "proxy")
    with store.ranges("a") as ranges:
        if reason == "no such file":
            made = 1e18, f"https{ranges._url().removeprefix('http')}"
            ranges._signed = made
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file")
        piece = bytearray(10)
        for offset in (0, 10, 20):
            ranges.read_into(offset, memoryview(piece))
            assert piece == bytes(range(offset, offset + 10))
    assert tries == [0]


def test_staging_removes_what_was_left_there_long_ago(s3_url: str, cache: Path) -> None:
    for name, age_s in (("old", 2 * 86400), ("young", 0)):
        (cache / ".tmp" / name).mkdir(parents=True)
        os.utime(cache / ".tmp" / name, (time.time() - age_s,) * 2)
    with open_store(s3_url).staging() as folder:
        (folder / "X.npy").write_bytes(b"1")
        assert {path.name for path in (cache / ".tmp").iterdir()} == {"young", folder.name}
    assert not folder.exists()


def test_a_refit_fetches_the_matrix_once(
    proxy: FaultyProxy, tmp_path: Path, cache: Path, stored: tuple[str, Manifest, str]
) -> None:
    url, manifest, _ = stored
    dataset = open_dataset(open_store(url), load_manifest(open_store(url), manifest.dataset_id))
    assert "get_range" not in operations(proxy, "X.npy")
    verify(dataset)
    with np.load(tmp_path / "t.npz") as arrays:
        assert dataset.X.tobytes() == arrays["X"].tobytes()
    assert operations(proxy, "X.npy").count("get_range") == 3


def test_an_array_that_is_missing_or_short(
    proxy: FaultyProxy, cache: Path, stored: tuple[str, Manifest, str]
) -> None:
    url, manifest, _ = stored
    store = open_store(url)
    key = f"datasets/{manifest.dataset_id}/X.npy"
    store.put(key, b"short")
    with pytest.raises(DataError, match="has 5 bytes"):
        _ensure(cache, stored)
    store.delete(key)
    with pytest.raises(DataError, match="is missing"):
        _ensure(cache, stored)
    with pytest.raises(NotFoundError):
        load_manifest(store, "d-none")
