"""Measurement 1: wall time of a whole `submit run` against a program that calls GridSearchCV(n_jobs=2)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from common import (
    REPOSITORY,
    compare_scores,
    describe_machine,
    middle,
    new_place,
    peer_command,
    print_table,
    run_process,
    submit_command,
)

WORKERS = 2


@dataclass(frozen=True)
class Pair:
    """One run of each side; ``fit_s`` is the time foldfleet's fits and scores took, over all workers."""

    ours_s: float
    peer_s: float
    fit_s: float
    fits: int

    @property
    def overhead_s(self) -> float:
        """Return what the command takes beyond its fits, ideally spread."""
        return self.ours_s - self.fit_s / WORKERS


def measure_pair(grid: str, *, peer_first: bool) -> Pair:
    """Run both sides once, each in a fresh process with nothing stored, and compare their scores."""
    with new_place() as place:
        scores = place.folder / "scores.npz"
        spec = REPOSITORY / "examples" / f"{grid}.yaml"
        peer = peer_command(grid, "--n-jobs", WORKERS, "--out", scores)
        ours = submit_command("run", spec, "--workers", WORKERS, "--json")
        environment = place.environment()
        before = run_process(peer, environment) if peer_first else None
        finished = run_process(ours, environment)
        after = before or run_process(peer, environment)
        answer = finished.answer()
        compare_scores(answer, scores)
        return Pair(finished.seconds, after.seconds, answer["seconds"]["fit"], answer["fits"])


def table_row(grid: str, pairs: list[Pair]) -> list[str]:
    """Return the medians; the ratio is the median of the pairs' ratios, since they ran next to each other."""
    ideal = middle([pair.fit_s / WORKERS for pair in pairs])
    return [
        f"{grid}.yaml",
        str(pairs[0].fits),
        f"{middle([pair.ours_s for pair in pairs]):.2f}",
        f"{middle([pair.peer_s for pair in pairs]):.2f}",
        f"{middle([pair.peer_s / pair.ours_s for pair in pairs]):.2f}x",
        f"{ideal:.2f}",
        f"{middle([pair.overhead_s for pair in pairs]):.2f}",
        f"{0.1 * ideal + 3:.2f}",
    ]


def main() -> None:
    """Print one row for each grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grids", nargs="+", default=["digits", "letters"], choices=["digits", "letters"])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for grid in options.grids:
        pairs = [measure_pair(grid, peer_first=bool(turn % 2)) for turn in range(options.repeats)]
        rows.append(table_row(grid, pairs))
    print_table(
        f"Wall time, medians of {options.repeats}, scores equal bit for bit; {describe_machine()}",
        ["grid", "fits", "foldfleet s", "GridSearchCV s", "faster", "fits / cores s", "overhead s", "allowed s"],
        rows,
    )


if __name__ == "__main__":
    main()
