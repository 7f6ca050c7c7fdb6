"""The fold cache: bit for bit scikit-learn's folds, one builder per host, nothing torn is ever believed."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import model_selection

from containers.data import foldbuild, foldcache
from containers.data.dataset import Dataset, ensure_dataset, open_dataset
from containers.data.foldcache import FoldCache, map_fold
from containers.data.npyfile import HEADER_BYTES, write_array
from containers.data.splits import Splits, ensure_splits
from jobspec.errors import DataError, TryLaterError
from jobspec.grammar.spec import CvSpec, DataSpec
from jobspec.hostlock import HostLock
from jobspec.search.inspection import Manifest
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout
from tests.unit.remote import RemoteStore

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Host:
    dataset: Dataset
    splits: Splits
    cache: FoldCache

    @property
    def place(self) -> tuple[Any, Any, str]:
        return self.dataset.store, self.dataset.manifest, self.splits.split_id

    def entry(self, split: int) -> Path:
        return self.entry_of(f"folds-{foldbuild.FORMAT_VERSION}", split)

    def entry_of(self, folder: str, split: int) -> Path:
        return self.cache.root / folder / self.dataset.manifest.dataset_id / self.splits.split_id / f"{split:05d}"


def make_host(folder: Path, arrays: dict[str, Any], cv: CvSpec, **data: Any) -> Host:
    np.savez(folder / "t.npz", **arrays)
    store = open_store(str(folder / "store"))
    spec = DataSpec(**{"path": "t.npz", "target": "y"} | data)
    manifest = ensure_dataset(store, spec, folder)
    dataset = open_dataset(store, manifest)
    splits = ensure_splits(store, manifest, dataset, cv, None, allow_small_classes=True)
    return Host(dataset, splits, FoldCache(folder / "cache"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    rng = np.random.default_rng(0)
    arrays = {"X": rng.standard_normal((300, 5)), "y": rng.integers(0, 3, 300), "w": rng.random(300)}
    return make_host(tmp_path, arrays, CvSpec(kind="KFold", params={"n_splits": 4}), weights="w")


def assert_fold(host: Host, split: int) -> None:
    dataset, train, test = host.dataset, host.splits.train(split), host.splits.test(split)
    with host.cache.fold(*host.place, split) as paths:
        fold = map_fold(paths)
        for found, expected in (
            (fold.X_train, dataset.X[train]),
            (fold.X_test, dataset.X[test]),
            (fold.y_train, dataset.y[train]),
            (fold.y_test, dataset.y[test]),
        ):
            assert type(found) is np.ndarray and found.flags.c_contiguous and not found.flags.writeable
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert found.tobytes() == expected.tobytes()
        if dataset.weights is not None:
            assert fold.w_train is not None and np.array_equal(fold.w_train, dataset.weights[train])


SPLITTERS = st.one_of(
    st.builds(
        lambda n, seed: CvSpec(kind="KFold", params={"n_splits": n, "shuffle": True, "random_state": seed}),
        st.integers(2, 6),
        st.integers(0, 99),
    ),
    st.builds(
        lambda test, train, seed: CvSpec(
            kind="ShuffleSplit", params={"n_splits": 2, "test_size": test, "train_size": train, "random_state": seed}
        ),
        st.integers(1, 5),
        st.one_of(st.none(), st.integers(1, 5)),
        st.integers(0, 99),
    ),
    st.builds(
        lambda n, gap: CvSpec(kind="TimeSeriesSplit", params={"n_splits": n, "gap": gap}),
        st.integers(2, 4),
        st.integers(0, 1),
    ),
    st.just(CvSpec(kind="RepeatedStratifiedKFold", params={"n_splits": 2, "n_repeats": 2, "random_state": 0})),
)


@settings(max_examples=40)
@given(
    cv=SPLITTERS,
    num_rows=st.integers(12, 60),
    num_columns=st.integers(1, 7),
    dtype=st.sampled_from(["f8", "f4"]),
    labels=st.booleans(),
    block=st.sampled_from([256, 1024, 1 << 23]),
)
def test_folds_are_scikit_learns_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    cv: CvSpec,
    num_rows: int,
    num_columns: int,
    dtype: str,
    labels: bool,
    block: int,
) -> None:
    rng = np.random.default_rng(num_rows)
    matrix = rng.standard_normal((num_rows, num_columns)).astype(dtype)
    matrix[rng.random(matrix.shape) < 0.1] = -0.0
    y = np.array(["no", "maybe"])[np.arange(num_rows) % 2] if labels else np.arange(num_rows) % 2
    with pytest.MonkeyPatch.context() as patch:
        for module in ("containers.data.npyfile", "containers.data.fetch", "containers.data.foldbuild"):
            patch.setattr(f"{module}.BLOCK_BYTES", block)
        host = make_host(tmp_path_factory.mktemp("host"), {"X": matrix, "y": y}, cv)
        splitter = getattr(model_selection, cv.kind)(**cv.params)
        for split, (train, test) in enumerate(splitter.split(matrix, y)):
            assert np.array_equal(host.splits.train(split), train) and np.array_equal(host.splits.test(split), test)
            assert_fold(host, split)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@settings(max_examples=60)
@given(
    num_rows=st.integers(1, 80),
    num_columns=st.integers(1, 40),
    dtype=st.sampled_from(["f8", "f4"]),
    block=st.sampled_from([128, 256, 1024]),
    data=st.data(),
)
def test_folds_from_afar_are_the_same_files(
    tmp_path_factory: pytest.TempPathFactory,
    num_rows: int,
    num_columns: int,
    dtype: str,
    block: int,
    data: st.DataObject,
) -> None:
    """Any rows in any order, also repeated: what threads fetch gives the files that a folder gives, byte for byte."""
    rows = st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=100)
    orders = st.one_of(rows, rows.map(sorted), rows.map(lambda found: sorted(set(found))))
    train, test = (np.array(data.draw(orders), np.int64) for _ in range(2))
    folder = tmp_path_factory.mktemp("afar")
    rng = np.random.default_rng(num_rows)
    matrix, y = rng.standard_normal((num_rows, num_columns)).astype(dtype), rng.integers(0, 9, num_rows)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("containers.data.npyfile", "containers.data.fetch", "containers.data.foldbuild"):
            patch.setattr(f"{module}.BLOCK_BYTES", block)
        x_block = write_array(folder, "X", np.ascontiguousarray(matrix))
        y_block, w_block = write_array(folder, "y", y), write_array(folder, "w", y / 8)
        manifest = Manifest(
            dataset_id="d-1",
            num_rows=num_rows,
            blocks=(x_block,),
            y=y_block,
            weights=w_block,
            target="y",
            source_digest="",
            reading_options={},
        )
        near = open_store(str(folder / "store"))
        for name in ("X.npy", "y.npy", "w.npy"):
            near.create_file(Layout.block("d-1", name), folder / name)
        splits = make_splits(num_rows, train, test)
        far = RemoteStore(near, folder / "log")
        foldbuild.build_fold(folder / "near", near, manifest, splits, 0)
        foldbuild.build_fold(folder / "far", far, manifest, splits, 0)
        fold = map_fold(folder / "far")
    assert _files(folder / "near") == _files(folder / "far")
    assert fold.X_train.tobytes() == matrix[train].tobytes() and fold.X_test.tobytes() == matrix[test].tobytes()
    assert np.array_equal(fold.y_train, y[train]) and np.array_equal(fold.y_test, y[test])
    assert len(far.fetched("X.npy")) == len(set(far.fetched("X.npy")))


def make_splits(num_rows: int, train: NDArray[np.int64], test: NDArray[np.int64]) -> Splits:
    ends = [np.array([0, len(rows)]) for rows in (test, train)]
    return Splits("s-1", "d-1", num_rows, 1, test, ends[0], train, ends[1], np.array([False]))


def test_weights_go_to_the_train_rows(host: Host) -> None:
    for split in range(4):
        assert_fold(host, split)


def test_a_fold_is_built_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    path = host.cache.ensure(*host.place, 0)
    before = path.stat().st_ino
    monkeypatch.setattr(foldcache, "build_fold", None)
    assert_fold(host, 0)
    assert path.stat().st_ino == before


def test_writable_maps_do_not_touch_the_cache(host: Host) -> None:
    with host.cache.fold(*host.place, 0) as paths:
        fold = map_fold(paths, writable=True)
        fold.X_train[:] = 0
        fold.y_train[:] = 0
    assert_fold(host, 0)


def _get(host: Host, answers: Any) -> None:
    with host.cache.fold(*host.place, 0) as paths:
        answers.put((paths.path.stat().st_ino, float(map_fold(paths).X_train.sum())))


def test_processes_share_one_copy(host: Host) -> None:
    answers = FORK.Queue()
    children = [FORK.Process(target=_get, args=(host, answers)) for _ in range(4)]
    for child in children:
        child.start()
    found = {answers.get(timeout=60) for _ in children}
    for child in children:
        child.join()
    assert len(found) == 1


def finishes(body: Callable[[], object]) -> bool:
    """Say whether something ends well by itself; what waits for a lock lets other threads go on."""
    ended = []
    thread = threading.Thread(target=lambda: ended.append(body()), daemon=True)
    thread.start()
    thread.join(30)
    return bool(ended)


def test_nobody_waits_for_those_who_use_a_fold(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at a fold and the turn to build it, another worker builds it, and keeps it from then on.

    Workers keep a fold while they are idle, and are idle until the last one is done: a wait for them had no end.
    """
    trusted = foldbuild.is_trusted
    with ExitStack() as stack:

        def look(entry: Path, verify: bool = False) -> bool:
            whole = trusted(entry, verify)
            if not whole:
                monkeypatch.setattr(foldcache, "is_trusted", trusted)
                stack.enter_context(host.cache.fold(*host.place, 0))
            return whole

        monkeypatch.setattr(foldcache, "is_trusted", look)
        assert finishes(lambda: assert_fold(host, 0))
        assert host.cache.evict() == 0


def test_a_fold_that_is_damaged_while_it_is_used_is_built_anew(host: Host) -> None:
    with host.cache.fold(*host.place, 0) as paths:
        fold = map_fold(paths)
        before = fold.X_train.copy()
        (paths.path / "meta.json").unlink()
        assert finishes(lambda: assert_fold(host, 0))
        assert np.array_equal(fold.X_train, before)
        assert host.cache.evict() == 0


def _keep(host: Host, answers: Any, leave: Any) -> None:
    with host.cache.fold(*host.place, 0):
        answers.put(os.getpid())
        leave.wait()


def test_many_processes_get_a_fold_together(host: Host) -> None:
    answers, leave = FORK.Queue(), FORK.Event()
    children = [FORK.Process(target=_keep, args=(host, answers, leave)) for _ in range(8)]
    for child in children:
        child.start()
    try:
        assert {answers.get(timeout=60) for _ in children} == {child.pid for child in children}
    finally:
        leave.set()
        for child in children:
            child.join()


def test_who_builds_is_not_disturbed_by_who_evicts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(aside: Path, *arguments: Any) -> None:
        build_fold(aside, *arguments)
        assert host.cache.evict() == 0

    build_fold = foldbuild.build_fold
    monkeypatch.setattr(foldcache, "build_fold", build)
    assert_fold(host, 0)


def test_processes_fetch_a_fold_once(host: Host, tmp_path: Path) -> None:
    far = RemoteStore(host.dataset.store, tmp_path / "log")
    afar = Host(replace(host.dataset, store=far), host.splits, host.cache)
    test_processes_share_one_copy(afar)
    assert (len(far.fetched("X.npy")), len(far.fetched("y.npy")), len(far.fetched("weights.npy"))) == (1, 1, 1)


def test_a_failed_fetch_leaves_nothing(host: Host, tmp_path: Path) -> None:
    far = RemoteStore(host.dataset.store, tmp_path / "log")

    def fail(key: str, offset: int, target: memoryview) -> None:
        raise TryLaterError("the network is down")

    far.spoil = fail
    with pytest.raises(TryLaterError, match="the network is down"):
        host.cache.ensure(far, *host.place[1:], 0)
    assert {entry.name for entry in host.entry(0).parent.iterdir()} == {"00000.lock", "00000.builder"}
    far.spoil = None
    assert_fold(host, 0)


def test_an_entry_of_a_source_is_of_its_version(host: Host, tmp_path: Path) -> None:
    """Replaced before it is fetched, then put back: the other bytes never lie under the first version's name."""
    far = RemoteStore(host.dataset.store, tmp_path / "log")
    far.put("t.csv", b"first")
    tag = far.tag("t.csv")
    assert tag is not None
    far.put("t.csv", b"other")
    with pytest.raises(DataError, match=r"t.csv was replaced before it was fetched"), source(host, far, tag):
        pass
    far.put("t.csv", b"first")
    with source(host, far, tag) as path:
        assert path.read_bytes() == b"first"


def source(host: Host, far: RemoteStore, tag: str) -> AbstractContextManager[Path]:
    return host.cache.source(far, "t.csv", tag, "version")


@pytest.mark.parametrize(
    ("known", "damaged", "kept"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_source_in_doubt_is_dropped(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture, known: bool, damaged: bool, kept: bool
) -> None:
    caplog.set_level("INFO")
    far = RemoteStore(host.dataset.store, tmp_path / "log")
    far.known = known
    far.put("t.csv", b"first")
    with source(host, far, str(far.tag("t.csv"))) as path:
        pass
    assert ("source_not_compared" in caplog.text) is not known
    if damaged:
        path.write_bytes(b"firsT")
    host.cache.drop_source("version", unless_proven=True)
    assert path.exists() is kept
    host.cache.drop_source("version")
    assert not path.exists()


@pytest.mark.parametrize("times", [1, 2])
def test_a_source_that_comes_damaged_is_fetched_twice(host: Host, tmp_path: Path, times: int) -> None:
    far = RemoteStore(host.dataset.store, tmp_path / "log")
    far.put("t.csv", b"first")
    flips = iter(range(times))

    def flip(key: str, offset: int, target: memoryview) -> None:
        if next(flips, None) is not None:
            target[0] ^= 1

    far.spoil = flip
    with ExitStack() as stack:
        if times == 2:
            with pytest.raises(TryLaterError, match=r"t.csv came damaged 2 times: its md5 is \w{32}, the server tells"):
                stack.enter_context(source(host, far, str(far.tag("t.csv"))))
            assert not list(host.cache.root.rglob("meta.json"))
        path = stack.enter_context(source(host, far, str(far.tag("t.csv"))))
        assert path.read_bytes() == b"first"


def _die_while_building(host: Host) -> None:
    def die(*arguments: Any) -> None:
        foldbuild_put(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    foldbuild_put = foldbuild._AscendingTarget.put
    foldbuild._AscendingTarget.put = die  # type: ignore[assignment, method-assign]
    host.cache.ensure(*host.place, 0)


def test_a_killed_builder_leaves_nothing_in_the_way(host: Host) -> None:
    child = FORK.Process(target=_die_while_building, args=(host,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert host.entry(0).with_suffix(".building").is_dir() and not host.entry(0).exists()
    assert_fold(host, 0)
    assert not host.entry(0).with_suffix(".building").exists()


def test_a_failed_builder_cleans_up(host: Host) -> None:
    key = Layout.block(host.dataset.manifest.dataset_id, "X.npy")
    path = Path(host.dataset.store.url) / key
    body = bytearray(path.read_bytes())
    body[4000] ^= 1
    path.write_bytes(body)
    with pytest.raises(DataError, match=f"{key}.*xxh3_128 is [0-9a-f]+, [0-9a-f]+ was written"):
        host.cache.ensure(*host.place, 0)
    assert {entry.name for entry in host.entry(0).parent.iterdir()} == {"00000.lock", "00000.builder"}
    body[4000] ^= 1
    path.write_bytes(body)
    assert_fold(host, 0)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_entry_of_another_boot_is_verified(host: Host, monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    entry = host.cache.ensure(*host.place, 0)
    meta = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps(meta | {"boot_id": "before the power cut"}))
    if damaged:
        with (entry / "X_train.npy").open("r+b") as file:
            file.seek(2000)
            file.write(bytes(512))
    before = (entry / "X_train.npy").stat().st_mtime_ns
    assert_fold(host, 0)
    assert ((entry / "X_train.npy").stat().st_mtime_ns == before) is not damaged
    assert json.loads((entry / "meta.json").read_text())["boot_id"] == foldbuild.boot_id()
    monkeypatch.setattr(foldbuild, "_digests", None)  # verified once, not at every use
    assert_fold(host, 0)


@pytest.mark.parametrize("text", ["", "{", '{"format_version": 0}'])
def test_an_unreadable_entry_is_built_anew(host: Host, text: str) -> None:
    entry = host.cache.ensure(*host.place, 0)
    (entry / "meta.json").write_text(text)
    assert_fold(host, 0)


@pytest.mark.parametrize("how", ["missing", "short"])
def test_an_entry_that_something_cleaned_up_is_built_anew(host: Host, how: str) -> None:
    with host.cache.fold(*host.place, 0) as paths:
        before = map_fold(paths).X_test.copy()
    file = next(path for path in host.entry(0).glob("*test*") if path.stat().st_size > 200)
    if how == "missing":
        file.unlink()
    else:
        os.truncate(file, 150)
    with host.cache.fold(*host.place, 0) as paths:
        assert np.array_equal(map_fold(paths).X_test, before)


@pytest.fixture
def disk(host: Host, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the cache a disk of so many bytes beside the spare ones."""
    size = [0]

    def free(path: Path) -> int:
        used = sum(file.stat().st_size for file in path.glob("folds*/*/*/*/*.npy"))
        return size[0] - used + foldcache._SPARE_BYTES

    monkeypatch.setattr(foldcache, "free_bytes", free)
    return size


def test_the_oldest_unlocked_folds_are_evicted(host: Host, disk: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foldbuild, "_FILE_OVERHEAD", HEADER_BYTES)
    disk[0] = 3 * foldbuild.fold_bytes(host.dataset.manifest, host.splits, 0)
    with ExitStack() as stack:
        stack.enter_context(host.cache.fold(*host.place, 0))
        for split in (1, 2):
            host.cache.ensure(*host.place, split)
        for age, split in enumerate((1, 2, 0)):
            os.utime(host.entry(split).with_suffix(".lock"), (age, age))
        host.cache.ensure(*host.place, 3)
        assert [host.entry(split).exists() for split in range(4)] == [True, False, True, True]
    with host.cache.fold(*host.place, 3):
        assert host.cache.evict() == 2
        assert host.entry(3).exists()


def test_a_disk_that_is_too_small_is_told_before_loading(host: Host, disk: list[int]) -> None:
    needed = foldbuild.fold_bytes(host.dataset.manifest, host.splits, 0) + foldcache._SPARE_BYTES
    disk[0] = 1000
    with pytest.raises(TryLaterError, match=rf"needs {needed} bytes.*\d+ are free.*FOLDFLEET_CACHE"):
        host.cache.ensure(*host.place, 0)
    assert not host.entry(0).exists()
    disk[0] = 10**9
    assert_fold(host, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_building(host: Host, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Others write to the disk, too, and a quota shows in no count of free bytes: the unused folds go, once."""
    host.cache.ensure(*host.place, 1)
    calls: list[bool] = []

    def fail(*arguments: Any) -> Any:
        calls.append(host.entry(1).exists())
        if host.entry(1).exists():
            raise OSError(number, os.strerror(number))
        return write_array(*arguments)

    monkeypatch.setattr(foldbuild, "write_array", fail)
    assert_fold(host, 0)
    assert calls[:2] == [True, False]


def test_a_disk_that_stays_full_is_told_with_both_numbers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(*arguments: Any) -> None:
        calls.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    needed = foldbuild.fold_bytes(host.dataset.manifest, host.splits, 0)
    with monkeypatch.context() as patch:
        patch.setattr(foldbuild, "write_array", fail)
        with pytest.raises(TryLaterError, match=rf"full: {needed} bytes are needed, [1-9]\d* are free"):
            host.cache.ensure(*host.place, 0)
    assert len(calls) == 2
    assert not host.entry(0).with_suffix(".building").exists()
    assert_fold(host, 0)


def of_another_format(host: Host, monkeypatch: pytest.MonkeyPatch) -> FoldCache:
    """Return the same cache as another version of foldfleet sees it."""
    with monkeypatch.context() as patch:
        for module in (foldcache, foldbuild):
            patch.setattr(module, "FORMAT_VERSION", foldbuild.FORMAT_VERSION + 1)
        other = FoldCache(host.cache.root)
        other.ensure(*host.place, 0)
    return other


def test_versions_of_two_formats_keep_their_folds_beside_each_other(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host.cache.fold(*host.place, 0) as paths:
        before = (paths.path / "meta.json").stat()
    other = of_another_format(host, monkeypatch)
    theirs = host.entry_of(f"folds-{foldbuild.FORMAT_VERSION + 1}", 0)
    assert json.loads((theirs / "meta.json").read_bytes())["format_version"] == foldbuild.FORMAT_VERSION + 1
    assert_fold(host, 0)
    after = (host.entry(0) / "meta.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)  # nothing was built again
    assert other.evict() == 2


@pytest.mark.parametrize("folder", ["folds", f"folds-{foldbuild.FORMAT_VERSION + 1}"])
def test_folds_of_another_format_are_evicted_by_their_age_unless_they_are_used(
    host: Host, disk: list[int], monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Also those of versions that put no format into the path."""
    monkeypatch.setattr(foldbuild, "_FILE_OVERHEAD", HEADER_BYTES)
    disk[0] = 3 * foldbuild.fold_bytes(host.dataset.manifest, host.splits, 0)
    host.cache.ensure(*host.place, 0)
    of_another_format(host, monkeypatch)
    (host.cache.root / f"folds-{foldbuild.FORMAT_VERSION + 1}").rename(host.cache.root / folder)
    theirs = host.entry_of(folder, 0)
    os.utime(theirs.with_suffix(".lock"), (1, 1))
    user = HostLock(theirs.with_suffix(".lock"))
    assert user.acquire(shared=True)
    host.cache.ensure(*host.place, 1)
    host.cache.ensure(*host.place, 2)  # the disk is full: the oldest is in use, the next one goes
    assert theirs.exists() and not host.entry(0).exists()
    user.release()
    host.cache.ensure(*host.place, 3)
    assert not theirs.exists()
    assert [host.entry(split).exists() for split in range(4)] == [False, True, True, True]


def test_what_killed_builders_left_is_evicted_too(host: Host) -> None:
    host.entry(2).with_suffix(".building").mkdir(parents=True)
    host.entry(2).with_suffix(".lock").touch()
    host.cache.evict()
    assert not host.entry(2).with_suffix(".building").exists()


def test_stores_that_split_differently_share_a_cache(tmp_path: Path) -> None:
    """Each store draws a seed of its own: what one of them cached is never served to the other."""
    arrays = {"X": np.arange(200.0).reshape(100, 2), "y": np.arange(100) % 2}
    hosts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        hosts.append(make_host(tmp_path / name, arrays, CvSpec(kind="KFold", params={"shuffle": True})))
    first, second = hosts
    second = Host(second.dataset, second.splits, first.cache)
    assert first.dataset.manifest.dataset_id == second.dataset.manifest.dataset_id
    assert first.splits.split_id != second.splits.split_id
    for split in range(5):
        assert_fold(first, split)
        assert_fold(second, split)
