"""Data that lie in S3, and folds that come out of a store there: a real server, and a proxy that fails and counts."""

from __future__ import annotations

import json
import multiprocessing
import uuid
from collections.abc import Iterator
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
    assert url in message and ("changed while it" in message or "was replaced or deleted while" in message)
    assert ensure_dataset(open_store(store_url), DataSpec(path=url, target="label"), tmp_path).num_rows == 60


def test_a_small_disk_is_told_before_anything_is_fetched(
    proxy: FaultyProxy, seaweed: S3Server, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = put(seaweed, TABLE)
    monkeypatch.setattr(foldcache, "free_bytes", lambda path: 100)
    message = refused(store_url, url, TryLaterError)
    assert f"needs {len(TABLE) + 2 * 8192} bytes" in message and "100 are free" in message
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
