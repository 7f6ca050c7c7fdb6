"""What processes say to each other: command lines, environment names, and the signals of a run."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    from jobspec.engine import Engine
    from jobspec.stores.base import Store

ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
"""Index of a task in its array, from 0; absent for a task that is an array of its own."""

IMAGE_MODULE = "containers"
"""With what every command of a step begins behind an image's entry point; see `image_command`."""

JOB_ID = "AWS_BATCH_JOB_ID"
"""What AWS Batch calls a process that it started; absent elsewhere."""

ATTEMPT = "AWS_BATCH_JOB_ATTEMPT"
"""Which try at a task it is, from 1; absent where tasks are tried once."""

NUM_TASKS = "FOLDFLEET_NUM_TASKS"
"""How many tasks, from the first on, one process tree serves; 1 unless a backend says otherwise."""

WORKERS = "FOLDFLEET_WORKERS"
CACHE = "FOLDFLEET_CACHE"
FLUSH_SECONDS = "FOLDFLEET_FLUSH_SECONDS"
ALLOWED_MODULES = "FOLDFLEET_ALLOWED_MODULES"
MODULE_PATH = "FOLDFLEET_MODULE_PATH"
LOG_STREAM = "FOLDFLEET_LOG_STREAM"

DEFAULT_FLUSH_SECONDS = 5.0

_JOB_STREAM = "batch:"

NO_ANSWER = "-"
"""Stands for a token where none is wanted: a parameter of a job definition must have a value."""


def containers_command(arguments: list[str]) -> list[str]:
    """Return the command line of a step on this machine; ``-P`` keeps the working folder out of imports."""
    return [sys.executable, "-P", "-m", "containers", *arguments]


def image_command(arguments: Sequence[str]) -> list[str]:
    """Return what follows the entry point of an image, which starts any module there without the working folder."""
    return [IMAGE_MODULE, *arguments]


def prepare_arguments(
    store: str,
    spec: Path | str,
    *,
    max_folds: int,
    allow_small_classes: bool,
    numerics: str,
    engine: Engine | None = None,
    answer: str | None = None,
) -> list[str]:
    """Return the arguments of the step that reads data and computes splits.

    Args:
        store: the store's URL.
        spec: the spec's file, or the ``s3://`` URL of its text.
        max_folds: how many folds are accepted.
        allow_small_classes: accept classes with fewer rows than folds.
        numerics: the backend's default, for a spec that names none.
        engine: what the tasks will compute with; None if it is what the step itself computes with.
        answer: the token under which the step leaves its answer in the store; None for stdout alone.
    """
    arguments = ["prepare", "--store", store, "--spec", str(spec), "--max-folds", str(max_folds)]
    arguments += ["--numerics", numerics]
    arguments += ["--allow-small-classes"] if allow_small_classes else []
    arguments += [] if engine is None else ["--engine", engine.model_dump_json()]
    return arguments + answer_arguments(answer)


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


def reduce_arguments(store: str, run_id: str, *, refit: bool = False, answer: str | None = None) -> list[str]:
    """Return the arguments of the step that makes the views of a run, and with ``refit`` its model, too."""
    arguments = ["reduce", "--store", store, "--run", run_id, *(["--refit"] if refit else [])]
    return arguments + answer_arguments(answer)


def refit_arguments(store: str, run_id: str, *, answer: str | None = None) -> list[str]:
    """Return the arguments of the step that fits the best candidate on all rows."""
    return ["refit", "--store", store, "--run", run_id, *answer_arguments(answer)]


def answer_arguments(token: str | None) -> list[str]:
    """Return what makes a step leave its answer, or its refusal, in the store under a token."""
    return [] if token is None else ["--answer", token]


def job_stream(job_id: str, attempt: int) -> str:
    """Return what stands for a log stream that a task could not find out: AWS Batch knows it by these two.

    A stream's own name holds no colon.
    """
    return f"{_JOB_STREAM}{job_id}:{attempt}"


def parse_job_stream(stream: str) -> tuple[str, int] | None:
    """Return job id and attempt (from 1) of what `job_stream` made, or None for the name of a log stream."""
    job_id, _, attempt = stream.removeprefix(_JOB_STREAM).rpartition(":")
    return (job_id, int(attempt)) if stream.startswith(_JOB_STREAM) and attempt.isdecimal() else None


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
