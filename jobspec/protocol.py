"""What processes say to each other: command lines, environment names, and the signals of a run."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

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


def prepare_arguments(store: str, spec: Path, *, max_folds: int, allow_small_classes: bool) -> list[str]:
    """Return the arguments of the step that reads data and computes splits."""
    arguments = ["prepare", "--store", store, "--spec", str(spec), "--max-folds", str(max_folds)]
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


def array_lock(cache: Path, store: str, run_id: str) -> Path:
    """Return the file whose lock says that this host works on a run."""
    digest = hashlib.sha256(f"{store}\0{run_id}".encode()).hexdigest()[:32]
    return cache / "locks" / f"{digest}.lock"


def usable_cpus() -> int:
    """Return the number of CPUs this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
