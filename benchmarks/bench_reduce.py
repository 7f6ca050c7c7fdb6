"""Measurement 5: the reduce step on 10^6 cells from 10^4 tasks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import HERE, MIB, Place, describe_machine, middle, new_place, print_table, run_process

SPLITS = 5

SPEC = """\
name: synthetic
data: {{builtin: digits}}
cv: {{kind: ShuffleSplit, n_splits: {splits}, test_size: 0.25, random_state: 42}}
candidates:
  - estimator: sklearn.svm.SVC
    grid:
      C: {{geomspace: [0.01, 1000, {values}]}}
      gamma: {{logspace: [-6, 0, 400]}}
"""


def step(*arguments: object) -> list[str]:
    """Return the command line of a step."""
    return [sys.executable, "-P", "-m", "containers", *map(str, arguments)]


def make_run(place: Place, cells: int, tasks: int) -> str:
    """Write a finished run and return its id.

    In processes of its own: Linux counts a parent's memory into the peak of a process it has just started.
    """
    spec = place.folder / "spec.yaml"
    spec.write_text(SPEC.format(splits=SPLITS, values=cells // (400 * SPLITS)), encoding="utf-8")
    prepared = run_process(step("prepare", "--store", place.store, "--spec", spec), place.environment())
    inspection = place.folder / "inspection.json"
    inspection.write_text(prepared.stdout, encoding="utf-8")
    command = [sys.executable, str(HERE / "synthetic_run.py"), "--tasks", str(tasks)]
    places = ["--store", str(place.store), "--spec", str(spec), "--inspection", str(inspection)]
    return run_process([*command, *places], place.environment()).stdout.strip()


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with new_place() as place:
        run_id = make_run(place, options.cells, options.tasks)
        runs = []
        for _ in range(options.repeats):
            folded = place.store / "runs" / run_id / "rounds" / "000" / "all.parquet"
            Path(folded).unlink(missing_ok=True)  # else a second reduce would read one object instead of every task's
            runs.append(run_process(step("reduce", "--store", place.store, "--run", run_id), place.environment()))
        done = {run.answer()["cells"]["done"] for run in runs}
        if done != {options.cells}:
            raise RuntimeError(f"the reducer counts {done} cells, expected are {options.cells}")
    row = [
        f"{options.cells:,}",
        f"{options.tasks:,}",
        f"{middle([run.seconds for run in runs]):.2f}",
        f"{max(run.max_rss_bytes for run in runs) / MIB:.0f}",
    ]
    print_table(
        f"`containers reduce`, median of {options.repeats}; {describe_machine()}",
        ["cells", "tasks", "seconds", "peak MiB"],
        [row],
    )


if __name__ == "__main__":
    main()
