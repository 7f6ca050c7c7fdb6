"""What processes say to each other: command lines, environment names, and the signals of a run."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    from jobspec.stores.base import Store

ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
"""Index of a task in its array, from 0; absent for a task that is an array of its own."""

NUM_TASKS = "FOLDFLEET_NUM_TASKS"
"""How many tasks, from the first on, one process tree serves; 1 unless a backend says otherwise."""

WORKERS = "FOLDFLEET_WORKERS"
CACHE = "FOLDFLEET_CACHE"
FLUSH_SECONDS = "FOLDFLEET_FLUSH_SECONDS"
ALLOWED_MODULES = "FOLDFLEET_ALLOWED_MODULES"
MODULE_PATH = "FOLDFLEET_MODULE_PATH"
LOG_STREAM = "FOLDFLEET_LOG_STREAM"

DEFAULT_FLUSH_SECONDS = 5.0


def containers_command(arguments: list[str]) -> list[str]:
    """Return the command line of a step on this machine; ``-P`` keeps the working folder out of imports."""
    return [sys.executable, "-P", "-m", "containers", *arguments]


def prepare_arguments(
    store: str, spec: Path, *, max_folds: int, allow_small_classes: bool, numerics: str
) -> list[str]:
    """Return the arguments of the step that reads data and computes splits.

    ``numerics`` is the backend's default, for a spec that names none.
    """
    arguments = ["prepare", "--store", store, "--spec", str(spec), "--max-folds", str(max_folds)]
    arguments += ["--numerics", numerics]
    return [*arguments, "--allow-small-classes"] if allow_small_classes else arguments


def work_arguments(store: str, run_id: str, round_index: int, first_task: int) -> list[str]:
    """Return the arguments of a task; its number is ``first_task`` plus its array index."""
    return [
        "work",
        "--store",
        store,
        "--run",
        run_id,
        "--round",
        str(round_index),
        "--first-task",
        str(first_task),
    ]


def reduce_arguments(store: str, run_id: str) -> list[str]:
    """Return the arguments of the step that makes the views of a run."""
    return ["reduce", "--store", store, "--run", run_id]


def refit_arguments(store: str, run_id: str) -> list[str]:
    """Return the arguments of the step that fits the best candidate on all rows."""
    return ["refit", "--store", store, "--run", run_id]


def array_lock(store: Store, cache: Path, run_id: str) -> Path:
    """Return the file whose lock says that this host works on a run."""
    return run_lock(store, cache, run_id, "array")


def run_lock(store: Store, cache: Path, run_id: str, name: str) -> Path:
    """Return the file of a lock of a run; nothing is created.

    It lies inside a store that is a folder, since two processes with other caches still share that. For another
    store it lies in the cache, where it tells of this host alone.
    """
    key = Layout.lock(run_id, name)
    inside = store.local_path(key)
    digest = hashlib.sha256(f"{store.url}\0{key}".encode()).hexdigest()[:32]
    return inside if inside is not None else cache / "locks" / f"{digest}.lock"


def usable_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the number of CPUs this process may use, which can be fewer than the machine has.

    A container's quota (``docker run --cpus 2``, a task's vCPUs) is no affinity: more workers than it would only be
    throttled.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([count, *_quotas(cgroups, own)])


def _quotas(cgroups: Path, own: Path) -> Iterator[int]:
    """Yield the CPU limits of this process's control group (version 2) and of those around it."""
    try:
        place = own.read_text(encoding="utf-8").partition("0::/")[2].partition("\n")[0]
    except OSError:
        place = ""
    folder = cgroups / place
    for group in (folder, *folder.parents):
        if not group.is_relative_to(cgroups):
            return
        try:
            quota, _, period = (group / "cpu.max").read_text(encoding="ascii").strip().partition(" ")
        except OSError:  # the topmost group has no limit; in a container the path can lie outside of what is mounted
            continue
        if quota.isdigit() and period.isdigit():  # else it is "max"
            yield max(math.ceil(int(quota) / int(period)), 1)
