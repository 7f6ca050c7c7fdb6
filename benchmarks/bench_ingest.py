"""Measurement 6: from S3 to a fold that is ready, against `s5cmd` and boto3 with `np.load` and `X[train]`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import HERE, MIB, REPOSITORY, data_folder, describe_machine, make_table, middle, print_table, run_process

from jobspec.engine import numeric_environment

NUM_COLUMNS = 100
SIDES = ("foldfleet", "s5cmd", "boto3")
MEMORY = Path("/dev/shm")

sys.path.insert(0, str(REPOSITORY))


@contextmanager
def new_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ingest-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class Bench:
    """A server with one stored table; each side runs as a process with a folder of its own."""

    def __init__(self, environment: dict[str, str], parent: Path, store: str, data: Path) -> None:
        self._environment = environment
        self._parent = parent
        self._store = store
        self.stored = self.run("stage", "--data", data)

    def run(self, side: str, *arguments: object) -> dict[str, Any]:
        """Return the answer of one side."""
        with new_folder(self._parent) as folder:
            options = ["--store", self._store, "--folder", folder, *arguments]
            command = [sys.executable, str(HERE / "ingest_sides.py"), side, *map(str, options)]
            environment = self._environment | {"FOLDFLEET_CACHE": str(folder / "cache")}
            answer: dict[str, Any] = run_process(command, environment).answer()
            return answer

    def ask(self, side: str) -> dict[str, Any]:
        """Return the answer of one side about the stored table."""
        return self.run(side, "--dataset", self.stored["dataset"], "--splits", self.stored["splits"])


def compare(answers: dict[str, dict[str, Any]]) -> None:
    """Compare the arrays of all sides, byte for byte.

    Raises:
        RuntimeError: they differ; timings after that would mean nothing.
    """
    if len({tuple(answer["arrays"]) for answer in answers.values()}) != 1:
        raise RuntimeError(f"the sides made other arrays: {answers}")


def print_speed(rounds: list[dict[str, dict[str, Any]]], megabytes: float) -> None:
    """Print medians of wall and CPU seconds, and each side's against foldfleet's."""
    walls = {side: middle([found[side]["seconds"] for found in rounds]) for side in SIDES}
    cpus = {side: middle([found[side]["cpu_seconds"] for found in rounds]) for side in SIDES}
    rows = [
        [
            side,
            f"{walls[side]:.2f}",
            f"{megabytes / walls[side]:.0f}",
            f"{walls[side] / walls['foldfleet']:.2f}x",
            f"{cpus[side]:.2f}",
            f"{cpus[side] / cpus['foldfleet']:.2f}x",
        ]
        for side in SIDES
    ]
    title = f"S3 to one fold of a shuffled StratifiedKFold(5), {megabytes:.0f} MiB, medians of {len(rounds)}"
    header = ["side", "wall s", "MiB/s", "wall / ours", "CPU s", "CPU / ours"]
    print_table(f"{title}; {describe_machine()}", header, rows)


def main() -> None:
    """Print speed, then bytes stored and fetched."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where server and caches lie; memory if there is any")
    options = parser.parse_args()
    from tests.servers.seaweed import running_seaweed

    parent = options.folder or (MEMORY if MEMORY.is_dir() else data_folder())
    data = make_table("ingest", options.megabytes * 1_000_000 // (8 * NUM_COLUMNS), NUM_COLUMNS)
    with new_folder(parent) as folder, running_seaweed(folder) as server:
        bench = Bench(numeric(server.environment), parent, server.fresh_url(), data)
        rounds = []
        for _ in range(options.repeats):
            rounds.append({side: bench.ask(side) for side in SIDES})
            compare(rounds[-1])
        counted = bench.ask("count")
    stored = bench.stored
    print_speed(rounds, stored["data_bytes"] / MIB)
    ratios = [
        f"{stored['stored_bytes'] / stored['data_bytes']:.4f}",
        f"{counted['fetched_bytes'] / counted['array_bytes']:.4f}",
        f"{stored['seconds']:.1f}",
    ]
    print_table("Bytes", ["stored / data", "fetched / stored arrays, 4 processes", "seconds to store"], [ratios])


def numeric(environment: dict[str, str]) -> dict[str, str]:
    """Return the whole environment of a side: one BLAS thread, and the way to the server."""
    return {**os.environ, **numeric_environment("native"), **environment}


if __name__ == "__main__":
    main()
