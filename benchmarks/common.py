"""What the benchmarks share: whole processes, timed and weighed from outside, in places of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobspec.engine import numeric_environment

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
MIB = 2**20

SAMPLE_SECONDS = 0.05
"""Between two readings of /proc; reading the page tables of 1 GB takes about 10 ms for each process."""


@dataclass(frozen=True)
class Finished:
    """A process tree that has ended.

    ``max_rss_bytes`` is the largest resident set of any one of its processes, as the kernel counted it;
    ``peak_pss_bytes`` the largest sum of proportional set sizes that was sampled, 0 without sampling.
    """

    seconds: float
    stdout: str
    max_rss_bytes: int
    peak_pss_bytes: int

    def answer(self) -> Any:
        """Return the JSON document that the process printed."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Place:
    """A store and a fold cache that nobody has used before, and the settings of a user of that name."""

    folder: Path

    @property
    def store(self) -> Path:
        """Return the store's folder."""
        return self.folder / "store"

    def environment(self) -> dict[str, str]:
        """Return an environment with one BLAS thread, as both sides run; equal scores need it."""
        own = {
            "FOLDFLEET_STORE": str(self.store),
            "FOLDFLEET_CACHE": str(self.folder / "cache"),
            "FOLDFLEET_CONFIG": str(self._config()),
            "NO_COLOR": "1",
        }
        return {**os.environ, **numeric_environment("native"), **own}

    def _config(self) -> Path:
        path = self.folder / "config.toml"
        path.write_text(f'[modules]\nallowed = ["read_only"]\npath = ["{HERE / "models"}"]\n', encoding="utf-8")
        return path


@contextmanager
def new_place() -> Iterator[Place]:
    """Give a `Place` on the disk of the checkout, removed afterwards: /tmp may be memory."""
    parent = data_folder()
    folder = Path(tempfile.mkdtemp(prefix="place-", dir=parent))
    try:
        yield Place(folder)
    finally:
        shutil.rmtree(folder)


def data_folder() -> Path:
    """Return the folder of generated data, which git ignores and `make clean` removes."""
    folder = HERE / "data"
    folder.mkdir(exist_ok=True)
    return folder


def submit_command(*arguments: object) -> list[str]:
    """Return the command line of `submit`, as a user of this environment would start it."""
    return [str(Path(sys.executable).with_name("submit")), *map(str, arguments)]


def peer_command(*arguments: object) -> list[str]:
    """Return the command line that runs a search with GridSearchCV."""
    return [sys.executable, str(HERE / "peers.py"), *map(str, arguments)]


def run_process(
    command: Sequence[str], environment: Mapping[str, str], *, weigh: bool = False, allowed: Sequence[int] = (0,)
) -> Finished:
    """Run a command to its end and return what it took.

    Args:
        command: program and arguments.
        environment: all of its environment.
        weigh: sample the memory of the whole process tree, which costs it a little time.
        allowed: exit codes that are no failure.

    Raises:
        RuntimeError: another exit code; the message holds what the process said.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as talk:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=talk)
        scales = Scales(Family(process.pid)) if weigh else None
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = scales.stop() if scales else 0
        output.seek(0)
        talk.seek(0)
        if process.returncode not in allowed:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()}{talk.read()}")
        return Finished(seconds, output.read(), usage.ru_maxrss * 1024, peak)


class Scales:
    """Sample the proportional set size of some processes in a thread.

    A page that n processes map counts 1/n in each, so that the sum counts every page once:
    https://docs.kernel.org/filesystems/proc.html (smaps_rollup).

    Args:
        find: gives the processes that are to be weighed at this moment.
    """

    def __init__(self, find: Callable[[], Iterable[int]]) -> None:
        self._find = find
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop sampling and return the peak in bytes."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._peak = max(self._peak, sum(map(read_pss, self._find())))


class Family:
    """A process and all its descendants; those whose parent has died stay in."""

    def __init__(self, root: int) -> None:
        self._tree = {root}

    def __call__(self) -> set[int]:
        """Return who lives of them now."""
        parents = dict(_parents())
        self._tree &= parents.keys()
        while found := {pid for pid, parent in parents.items() if parent in self._tree} - self._tree:
            self._tree |= found
        return self._tree


def read_pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes, 0 if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The name in parentheses may hold anything; the parent is the second field behind it.
            yield int(entry.name), int(text.rpartition(")")[2].split()[1])


def map_npz(path: Path, name: str) -> NDArray[Any]:
    """Map one array of an uncompressed NPZ read-only, where numpy itself would read it into memory."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            header = stream.tell()
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # lengths of the name and of the extra field (APPNOTE.TXT, 4.3.7)
        lengths = int.from_bytes(file.read(2), "little") + int.from_bytes(file.read(2), "little")
    offset = member.header_offset + 30 + lengths + header
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def make_table(name: str, num_rows: int, num_columns: int) -> Path:
    """Write normal numbers and a noisy linear yes or no as an uncompressed NPZ, once."""
    path = data_folder() / f"{name}-{num_rows}x{num_columns}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        X = rng.standard_normal((num_rows, num_columns))
        y = (X @ rng.standard_normal(num_columns) + rng.standard_normal(num_rows) > 0).astype(np.int64)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, X=X, y=y)
        partial.rename(path)
    return path


def compare_scores(answer: Mapping[str, Any], peer: Path) -> int:
    """Compare a finished run with a peer's `cv_results_`, bit for bit, and return the number of columns compared.

    Raises:
        RuntimeError: a column is missing or differs; timings after that would mean nothing.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(answer["files"]["cv_results"])
    with np.load(peer) as expected:
        for name in expected.files:
            if name not in table.column_names:
                raise RuntimeError(f"foldfleet's table has no column {name}")
            ours = np.asarray(table[name].to_pylist(), dtype=np.float64)
            if not np.array_equal(ours, expected[name].astype(np.float64), equal_nan=True):
                raise RuntimeError(f"{name} differs: {ours} against {expected[name]}")
        return len(expected.files)


def middle(values: Sequence[float]) -> float:
    """Return the median."""
    return float(median(values))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table under its title."""
    print(f"\n{title}\n")
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def describe_machine() -> str:
    """Return the machine and the versions that a figure depends on, in one line."""
    from importlib.metadata import version

    names = ("foldfleet", "scikit-learn", "numpy", "joblib")
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU not known")
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{len(os.sched_getaffinity(0))} usable CPUs ({model}), Python {python}, {packages}"
