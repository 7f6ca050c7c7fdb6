"""Measurement 4: `submit plan` of 10^7 cells on a dataset that is prepared already."""

from __future__ import annotations

import argparse

from common import MIB, describe_machine, middle, new_place, print_table, run_process, submit_command

SPEC = """\
name: vast
data: {{builtin: digits}}
cv: {{kind: ShuffleSplit, n_splits: 5, test_size: 0.25, random_state: 42}}
candidates:
  - estimator: sklearn.svm.SVC
    grid:
      C: {{geomspace: [0.01, 1000, {values}]}}
      gamma: {{logspace: [-6, 0, 1000]}}
"""


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with new_place() as place:
        spec = place.folder / "vast.yaml"
        spec.write_text(SPEC.format(values=options.cells // 5000), encoding="utf-8")
        command = submit_command("plan", spec, "--json")
        first = run_process(command, place.environment())
        runs = [run_process(command, place.environment()) for _ in range(options.repeats)]
        counted = {run.answer()["cells"] for run in runs}
        if counted != {options.cells}:
            raise RuntimeError(f"the plan counts {counted} cells, expected are {options.cells}")
    row = [
        f"{options.cells:,}",
        f"{middle([run.seconds for run in runs]):.2f}",
        f"{max(run.max_rss_bytes for run in runs) / MIB:.0f}",
        f"{first.seconds:.2f}",
    ]
    print_table(
        f"`submit plan`, median of {options.repeats}; {describe_machine()}",
        ["cells", "seconds", "peak MiB", "first time, data read too, s"],
        [row],
    )


if __name__ == "__main__":
    main()
