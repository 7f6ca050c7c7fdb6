"""Measurement 2: peak memory with 2, 4 and 8 workers on 1 GB, for an estimator that only reads X."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from common import (
    MIB,
    Place,
    compare_scores,
    describe_machine,
    make_table,
    middle,
    new_place,
    peer_command,
    print_table,
    run_process,
    submit_command,
)

NUM_COLUMNS = 100
SPLITS = 3
PASSES = 4
CANDIDATES_PER_WORKER = 4

SPEC = """\
name: read-only
data: {{path: "{path}", target: y}}
cv: {{kind: KFold, n_splits: {splits}}}
candidates:
  - estimator: read_only.ReadOnly
    params: {{passes: {passes}}}
    grid: {{tag: {{range: [{candidates}]}}}}
refit: false
"""

WEIGH_BARE = (
    "import sklearn.model_selection\n"
    "text = open('/proc/self/smaps_rollup').read()\n"
    "print(next(line.split()[1] for line in text.splitlines() if line.startswith('Pss:')))\n"
)


def weigh_bare_interpreter() -> float:
    """Return the memory of an interpreter that has imported scikit-learn and nothing else, in MiB.

    Its libraries' pages are its own here, as nobody else maps them; so this is a generous yardstick only while no
    other Python with scikit-learn runs on the machine.
    """
    done = subprocess.run([sys.executable, "-c", WEIGH_BARE], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def weigh_pair(data: Path, workers: int, most: int) -> tuple[float, float]:
    """Return the peaks of both sides in MiB, after comparing their scores."""
    candidates = CANDIDATES_PER_WORKER * most
    with new_place() as place:
        ours = weigh_ours(place, data, workers, candidates)
        scores = place.folder / "scores.npz"
        sizes = ("--candidates", candidates, "--splits", SPLITS, "--passes", PASSES)
        command = peer_command("memory", "--data", data, "--n-jobs", workers, "--out", scores, *sizes)
        peer = run_process(command, place.environment() | {"TMPDIR": str(place.folder)}, weigh=True)
        compare_scores(ours[1], scores)
        return ours[0], peer.peak_pss_bytes / MIB


def weigh_ours(place: Place, data: Path, workers: int, candidates: int) -> tuple[float, dict[str, object]]:
    """Run foldfleet on the table; return its peak in MiB and its answer."""
    spec = place.folder / "spec.yaml"
    text = SPEC.format(path=data, splits=SPLITS, passes=PASSES, candidates=candidates)
    spec.write_text(text, encoding="utf-8")
    command = submit_command("run", spec, "--workers", workers, "--json")
    finished = run_process(command, place.environment(), weigh=True)
    return finished.peak_pss_bytes / MIB, finished.answer()


def main() -> None:
    """Print peaks by number of workers, then what one more worker costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    data = make_table("memory", options.megabytes * 1_000_000 // (8 * NUM_COLUMNS), NUM_COLUMNS)
    counts = sorted(options.workers)
    peaks = {workers: [weigh_pair(data, workers, counts[-1]) for _ in range(options.repeats)] for workers in counts}
    bare = middle([weigh_bare_interpreter() for _ in range(options.repeats)])
    middles = {n: (middle([ours for ours, _ in both]), middle([peer for _, peer in both])) for n, both in peaks.items()}
    rows = [[n, f"{ours:.0f}", f"{peer:.0f}", f"{peer / ours:.2f}x"] for n, (ours, peer) in middles.items()]
    title = f"Peak memory (sum of PSS, MiB) on {options.megabytes} MB, medians of {options.repeats}"
    print_table(f"{title}; {describe_machine()}", ["workers", "foldfleet", "GridSearchCV", "less"], rows)
    few, many = counts[0], counts[-1]
    if many > few:
        marginal = [(middles[many][side] - middles[few][side]) / (many - few) for side in (0, 1)]
        print_table(
            f"One more worker (from {few} to {many}), MiB; page size {os.sysconf('SC_PAGESIZE')} bytes",
            ["foldfleet", "GridSearchCV", "bare interpreter with scikit-learn", "allowed"],
            [[*(f"{value:.0f}" for value in marginal), f"{bare:.0f}", f"{1.1 * bare:.0f}"]],
        )


if __name__ == "__main__":
    main()
