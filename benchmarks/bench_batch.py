"""Measurement 8: what the command line asks of AWS for large arrays, and how long it takes to the first fit.

Both on the stand-in of the tests. The first part sends arrays whose tasks end at once without a container: what is
counted is the desk's share. The second one runs real containers.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench_image import local_base
from common import REPOSITORY, describe_machine, middle, new_place, print_table

from jobspec.settings import Settings
from submitter.backends.docker.engine import connect
from submitter.images.build import ImageOptions, build_image

sys.path.insert(0, str(REPOSITORY))

from tests.aws.fixtures import Deployed, deploy, expect
from tests.aws.standin.cloud import running_cloud

TAG = "foldfleet-bench:batch"
NUM_FOLDS = 5
NUM_TASKS = (1_000, 10_000, 20_000)

SPEC = """
name: wide
data: {{builtin: iris}}
cv: {folds}
candidates:
- estimator: sklearn.naive_bayes.GaussianNB
  grid: {{var_smoothing: {{logspace: [-12, 0, {candidates}]}}}}
scoring: accuracy
resources: {{vcpus: 1, memory_gib: 2}}
"""

FIRST_FIT = """
name: first
data: {builtin: digits}
cv: 2
candidates:
- estimator: sklearn.naive_bayes.GaussianNB
  grid: {var_smoothing: [1.0e-9]}
scoring: accuracy
refit: false
resources: {vcpus: 1, memory_gib: 2}
"""


@dataclass(frozen=True)
class Asked:
    """What a command took: CPU seconds, and requests by service."""

    cpu_s: float
    batch: int
    s3: int
    others: int

    def row(self, name: str, num_tasks: int) -> list[str]:
        """Return the cells of a table's row."""
        per = 1000 / num_tasks
        return [
            f"{num_tasks:,}",
            name,
            str(self.batch),
            str(self.s3),
            str(self.others),
            f"{self.cpu_s:.2f}",
            f"{(self.batch + self.others) * per:.2f}",
            f"{self.cpu_s * per:.3f}",
        ]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="of the time to the first fit")
    options = parser.parse_args()
    print(describe_machine())
    with deployed() as place:
        print_table(
            "What the desk asks of AWS",
            ["tasks", "command", "Batch", "S3", "other AWS", "CPU s", "Batch and other per 1,000", "CPU s per 1,000"],
            [row for count in NUM_TASKS for row in ask(place, count)],
        )
        parts = [time_to_first_fit(place) for _ in range(options.repeats)]
        names = list(parts[0])
        rows = [[name, f"{middle([part[name] for part in parts]):.2f}"] for name in names]
        print_table("To the first fit", ["from `submit run` to", "s after the one before"], rows)


@contextmanager
def deployed() -> Iterator[Deployed]:
    """Give a stack with an image in a stand-in."""
    with new_place() as place, running_cloud(place.folder / "cloud") as cloud:
        client = connect().client
        settings = Settings(str(place.store), place.folder / "cache", None, (), ())
        build_image(client, ImageOptions(TAG, base=local_base(client)), settings, lambda _text: None)
        made = deploy(cloud, place.folder / "home", "foldfleet", "--max-vcpus", max(NUM_TASKS) // 2)
        expect(made.submit("image", "push", "--image", TAG))
        yield made


def ask(place: Deployed, num_tasks: int) -> Iterator[list[str]]:
    """Yield a row for each command that a large array meets."""
    cloud = place.cloud
    place.empty_store()
    cloud.simulate(True)
    cloud.hold()
    spec = place.home / "wide.yaml"
    spec.write_text(SPEC.format(folds=NUM_FOLDS, candidates=num_tasks // NUM_FOLDS))
    count(place, "plan", spec, "--on", "aws")  # data, splits and checks: the same for any number of tasks
    yield count(place, "run", spec, "--on", "aws", "--detach").row("run --detach", num_tasks)
    yield count(place, "status", "latest").row("status", num_tasks)
    cloud.release()
    yield count(place, "watch", "latest", codes=(0, 1, 130)).row("watch to the end", num_tasks)
    cloud.simulate(False)


def count(place: Deployed, *arguments: object, codes: tuple[int, ...] = (0,)) -> Asked:
    """Run a command and count what it asked for."""
    cloud = place.cloud
    cloud.forget_calls()
    before = os.times()
    expect(place.submit(*arguments, env={"FOLDFLEET_STORE": place.outputs["StoreUrl"]}), *codes)
    after = os.times()
    requests = {call.number: call.action.partition(":")[0] for call in cloud.calls() if call.principal == "user/desk"}
    found = collections.Counter(requests.values())
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Asked(cpu_s, found["batch"], found["s3"], found.total() - found["batch"] - found["s3"])


def time_to_first_fit(place: Deployed) -> dict[str, float]:
    """Run a search of two tasks and return the seconds of each part up to its first fitted cell."""
    place.empty_store()
    spec = place.home / "first.yaml"
    spec.write_text(FIRST_FIT)
    seen = {job["jobId"] for job in place.cloud.jobs()}
    started = time.time()
    done = place.submit("run", spec, "--on", "aws", "--json", env={"FOLDFLEET_STORE": place.outputs["StoreUrl"]})
    run_id = json.loads(expect(done).stdout)["run_id"]
    jobs = [job for job in place.cloud.jobs() if job["jobId"] not in seen and ":" in job["jobId"]]
    part = first_part(place, run_id)
    marks = {
        "the plan is committed": read(place, f"runs/{run_id}/rounds/000/plan.json")["created"],
        "the array is accepted": min(job["createdAt"] for job in jobs) / 1000,
        "the first container runs": min(job["startedAt"] for job in jobs) / 1000,
        "its task has read the plan": part["start"]["time"],
        "the first part is durable, fits in it": part["time"],
    }
    seconds, last = {}, started
    for name, moment in marks.items():
        seconds[name] = moment - last
        last = moment
    return seconds | {"all of these": last - started}


def first_part(place: Deployed, run_id: str) -> Mapping[str, Any]:
    """Return the earliest part of a log that holds a row, with the start of its task."""
    bucket, prefix = place.outputs["BucketName"], f"{place.outputs['StorePrefix']}/"
    s3 = place.cloud.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}runs/{run_id}/rounds/000/log/")["Contents"]
    parts = [read(place, entry["Key"].removeprefix(prefix))["part"] for entry in listed]
    starts = {part["attempt"]: part["start"] for part in parts if part["start"]}
    first: dict[str, Any] = min((part for part in parts if part["rows"]), key=lambda part: part["time"])
    return first | {"start": starts[first["attempt"]]}


def read(place: Deployed, key: str) -> dict[str, Any]:
    """Return a document of the store."""
    name = f"{place.outputs['StorePrefix']}/{key}"
    body = place.cloud.client("s3").get_object(Bucket=place.outputs["BucketName"], Key=name)["Body"].read()
    document: dict[str, Any] = json.loads(body)
    return document


if __name__ == "__main__":
    main()
