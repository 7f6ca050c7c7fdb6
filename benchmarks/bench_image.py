"""Measurements of the image: from a container's start to its first fit, and what it weighs."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import HERE, describe_machine, middle, new_place, print_table, run_process, submit_command

from jobspec.settings import Settings
from submitter.backends.docker.engine import connect
from submitter.images.build import ImageOptions, build_image

if TYPE_CHECKING:
    from docker import DockerClient

MARK = "fit begins at "
"""What `models/first_fit.py` writes in front of the time."""

TAG = "foldfleet-bench:first-fit"
BASE = "foldfleet-base:bookworm"
WORK = "foldfleet.kind=work"
PEER = "foldfleet-bench=import"

SPEC = """\
name: first-fit
data: {builtin: digits}
cv: {kind: KFold, n_splits: 2}
candidates:
  - estimator: first_fit.FirstFit
    grid: {level: [0, 1]}
resources: {vcpus: 1, memory_gib: 1}
refit: false
"""

IMPORT = "import sklearn.ensemble, time; print(time.time())"

# Sizes as pip installed them stand in each RECORD, also of files that the image does without.
WEIGH = """
import csv, importlib.metadata as m, json, os, sysconfig
top = sysconfig.get_path("purelib")
there = sum(os.lstat(os.path.join(p, f)).st_size for p, _, fs in os.walk(top) for f in fs)
code = sum(os.lstat(os.path.join(p, f)).st_size for p, _, fs in os.walk(top) for f in fs if f.endswith(".pyc"))
rows = [row for d in m.distributions() for row in csv.reader((d.read_text("RECORD") or "").splitlines())]
print(json.dumps({"there": there, "code": code, "recorded": sum(int(row[2]) for row in rows if row[2])}))
"""


def build(client: DockerClient, base: str | None) -> None:
    """Make the image with the estimator that writes down when its fit begins."""
    settings = Settings(
        store="", cache=Path(), workers=None, allowed_modules=("first_fit",), module_path=(str(HERE / "models"),)
    )
    build_image(client, ImageOptions(tag=TAG, base=base), settings, lambda line: print(line, file=sys.stderr))


def time_import(client: DockerClient) -> tuple[float, float]:
    """Return the seconds from the creation of a container to the end of its import, and of all of `docker run`."""
    command = ["docker", "run", "--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--cpus", "1"]
    command += ["--label", PEER]
    begun = time.time()
    done = subprocess.run(
        [*command, "--entrypoint", "python", TAG, "-c", IMPORT], capture_output=True, text=True, check=True
    )
    ended = time.time()
    return float(done.stdout) - first_creation(client, PEER, begun), ended - begun


def time_first_fit(client: DockerClient, environment: dict[str, str], spec: Path) -> float:
    """Return the seconds from the creation of a run's first task container to its first fit."""
    begun = time.time()
    command = submit_command("run", spec, "--on", "docker", "--workers", 1, "--fresh", "--json")
    answer = json.loads(run_process(command, environment).stdout)
    created = first_creation(client, WORK, begun)
    logs = run_process(submit_command("logs", answer["run_id"], "--lines", 1000), environment).stdout
    return min(float(text) for text in re.findall(rf"{MARK}(\S+)", logs) if float(text) > begun) - created


def first_creation(client: DockerClient, label: str, begun: float) -> float:
    """Return when the first container with a label was created since then, in seconds since 1970."""
    filters = {"type": "container", "event": "create", "label": label}
    events: Any = client.events(decode=True, filters=filters, since=int(begun), until=int(time.time()) + 1)
    return min(float(event["timeNano"]) / 1e9 for event in events if event["timeNano"] / 1e9 > begun)


def measure_start(client: DockerClient, repeats: int) -> None:
    """Print measurement 2; the two sides take turns."""
    fits, imports, ends = [], [], []
    with new_place() as place, tempfile.TemporaryDirectory() as folder:
        spec = Path(folder, "first-fit.yaml")
        spec.write_text(SPEC, encoding="utf-8")
        own = {"FOLDFLEET_ALLOWED_MODULES": "first_fit", "FOLDFLEET_MODULE_PATH": str(HERE / "models")}
        environment = place.environment() | own | {"FOLDFLEET_IMAGE": TAG}
        for turn in range(repeats + 1):
            imported, ended = time_import(client)
            fitted = time_first_fit(client, environment, spec)
            if turn:  # the first warms the page cache and prepares the data
                imports.append(imported)
                ends.append(ended)
                fits.append(fitted)
    rows = [
        ["task container created, to its first fit", f"{middle(fits):.2f}", ""],
        ["container created, to the end of `import sklearn.ensemble`", f"{middle(imports):.2f}", ratio(fits, imports)],
        ["all of `docker run` with that import", f"{middle(ends):.2f}", ratio(fits, ends)],
    ]
    title = f"From nothing to the first fit, medians of {repeats}, taking turns; 1 CPU each; {describe_machine()}"
    print_table(title, ["", "seconds", "first fit against it"], rows)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return how the medians compare."""
    return f"{middle(ours) / middle(theirs):.2f}x"


def measure_size(client: DockerClient, image: str) -> None:
    """Print measurement 4."""
    api: Any = client.api
    total = int(api.inspect_image(image)["Size"])
    body = client.containers.run(image, ["-c", WEIGH], entrypoint="python", network_mode="none", remove=True)
    sizes = json.loads(body)
    yardsticks = {
        "its packages as they are there, with byte code": sizes["there"],
        "the same packages as pip installs them, without byte code": sizes["recorded"],
        "byte code, made while building": sizes["code"],
    }
    rows = [[name, megabytes(size), f"{total / size:.2f}x"] for name, size in yardsticks.items()]
    print_table("Size", ["", "MB", "image against it"], [["the image", megabytes(total), ""], *rows])


def megabytes(num_bytes: int) -> str:
    """Return a size in units of 10^6 bytes."""
    return f"{num_bytes / 1e6:.0f}"


def main() -> None:
    """Build the image, measure both, remove it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", help="base image [default: the Dockerfile's]")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    client = connect().client
    build(client, options.base or local_base(client))
    try:
        measure_size(client, TAG)
        measure_start(client, options.repeats)
    finally:
        client.images.remove(TAG, force=True)


def local_base(client: DockerClient) -> str | None:
    """Return the base that `.ci/base-image` has made, or None for the Dockerfile's own."""
    return BASE if client.images.list(BASE) else None


if __name__ == "__main__":
    main()
