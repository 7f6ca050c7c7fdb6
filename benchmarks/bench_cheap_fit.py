"""Measurement 3: a cheap fit on 600 MB, where copying rows would cost more than fitting; the store is empty."""

from __future__ import annotations

import argparse
from pathlib import Path

from common import (
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
CANDIDATES = 24
EPOCHS = 1
WORKERS = 2

SPEC = """\
name: cheap-fit
data: {{path: "{path}", target: y}}
cv: {{kind: StratifiedKFold, n_splits: {splits}}}
candidates:
  - estimator: sklearn.linear_model.SGDClassifier
    params: {{max_iter: {epochs}, tol: null, random_state: 0}}
    grid:
      alpha: {{logspace: [-6, -2, {alphas}]}}
      penalty: [l2, l1, elasticnet]
refit: false
"""


def measure_pair(data: Path, *, peer_first: bool) -> tuple[float, float, float]:
    """Return the seconds of both sides, and those of foldfleet's fits and scores; staging is included."""
    with new_place() as place:
        spec = place.folder / "spec.yaml"
        text = SPEC.format(path=data, splits=SPLITS, epochs=EPOCHS, alphas=CANDIDATES // 3)
        spec.write_text(text, encoding="utf-8")
        scores = place.folder / "scores.npz"
        sizes = ("--candidates", CANDIDATES, "--splits", SPLITS, "--passes", EPOCHS)
        peer = peer_command("cheap", "--data", data, "--n-jobs", WORKERS, "--out", scores, *sizes)
        ours = submit_command("run", spec, "--workers", WORKERS, "--json")
        environment = place.environment() | {"TMPDIR": str(place.folder)}
        before = run_process(peer, environment) if peer_first else None
        finished = run_process(ours, environment)
        after = before or run_process(peer, environment)
        answer = finished.answer()
        compare_scores(answer, scores)
        return finished.seconds, after.seconds, answer["seconds"]["fit"]


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    data = make_table("cheap", options.megabytes * 1_000_000 // (8 * NUM_COLUMNS), NUM_COLUMNS)
    pairs = [measure_pair(data, peer_first=bool(turn % 2)) for turn in range(options.repeats)]
    row = [
        f"SGD, {options.megabytes} MB, {CANDIDATES} x {SPLITS}",
        f"{middle([ours for ours, _, _ in pairs]):.2f}",
        f"{middle([peer for _, peer, _ in pairs]):.2f}",
        f"{middle([peer / ours for ours, peer, _ in pairs]):.2f}x",
        f"{middle([fit / WORKERS for _, _, fit in pairs]):.2f}",
    ]
    print_table(
        f"A cheap fit, medians of {options.repeats}, scores equal bit for bit; {describe_machine()}",
        ["search", "foldfleet s", "GridSearchCV s", "faster", "fits / cores s"],
        [row],
    )


if __name__ == "__main__":
    main()
