"""Peak memory of 4 containers that work on one fold against 1: the fold is there once."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from bench_image import local_base
from bench_memory import CANDIDATES_PER_WORKER, NUM_COLUMNS, PASSES, SPEC, SPLITS
from common import (
    HERE,
    MIB,
    Scales,
    describe_machine,
    make_table,
    middle,
    new_place,
    print_table,
    run_process,
    submit_command,
)

from jobspec.settings import Settings
from submitter.backends.docker.engine import connect
from submitter.images.build import ImageOptions, build_image

TAG = "foldfleet-bench:read-only"
COUNTS = (1, 4)
RESOURCES = "resources: {vcpus: 1, memory_gib: 3}\n"


def find_workers() -> Iterator[int]:
    """Yield the processes of this machine that run the work step, parents and workers."""
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if b"containers" in words and b"work" in words:
            yield int(entry.name)


def weigh(data: Path, containers: int) -> float:
    """Return the peak in MiB of a run with so many containers at once."""
    with new_place() as place:
        spec = place.folder / "spec.yaml"
        text = SPEC.format(path=data, splits=SPLITS, passes=PASSES, candidates=CANDIDATES_PER_WORKER * max(COUNTS))
        spec.write_text(text + RESOURCES, encoding="utf-8")
        scales = Scales(find_workers)
        command = submit_command("run", spec, "--on", "docker", "--workers", containers, "--json")
        run_process(command, place.environment() | {"FOLDFLEET_IMAGE": TAG})
        return scales.stop() / MIB


def main() -> None:
    """Print the peaks and what one more container costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base", help="base image [default: the Dockerfile's]")
    options = parser.parse_args()
    settings = Settings(
        store="", cache=Path(), workers=None, allowed_modules=("read_only",), module_path=(str(HERE / "models"),)
    )
    client = connect().client
    build_image(client, ImageOptions(tag=TAG, base=options.base or local_base(client)), settings, lambda _line: None)
    data = make_table("memory", options.megabytes * 1_000_000 // (8 * NUM_COLUMNS), NUM_COLUMNS)
    turns = [[weigh(data, count) for count in COUNTS] for _ in range(options.repeats)]
    one, four = (middle([turn[side] for turn in turns]) for side in (0, 1))
    title = f"Peak memory of work containers (sum of PSS, MiB), {options.megabytes} MB, medians of {options.repeats}"
    more = (four - one) / (COUNTS[1] - COUNTS[0])
    rows = [[f"{one:.0f}", f"{four:.0f}", f"{four / one:.2f}x", f"{more:.0f}"]]
    print_table(f"{title}; {describe_machine()}", ["1 container", "4 containers", "ratio", "one more"], rows)


if __name__ == "__main__":
    main()
