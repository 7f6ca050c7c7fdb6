"""A stack that listens for uploads, and what became of each: executions, outcomes, events, metrics."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from jobspec.stores.base import Store, open_store
from tests.aws.fixtures import Deployed, expect

PATIENCE_S = 300.0
LOOK_S = 0.2
Found = TypeVar("Found")
SPECS, DATA = "incoming/", "nightly/"

SPEC = """
name: {name}
data: {{builtin: iris}}
cv: {{kind: StratifiedKFold, n_splits: 2, shuffle: true, random_state: 0}}
candidates:
  - estimator: sklearn.svm.SVC
    grid: {{C: {values}}}
scoring: accuracy
resources: {{vcpus: 2, memory_gib: 1}}
"""


def write_spec(name: str, values: str = "[0.1, 1]") -> str:
    return SPEC.format(name=name, values=values)


def until(condition: Callable[[], Found]) -> Found:
    """Wait for something, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(LOOK_S)
    return found


@dataclass
class House:
    """The stack as its users and its uploaders see it, from the moment on at which a test began."""

    deployed: Deployed
    folder: Path
    uploader: dict[str, str]
    """The environment of somebody who may put objects under the watched prefixes, and nothing else."""

    def __post_init__(self) -> None:
        self.cloud = self.deployed.cloud
        self.outputs = self.deployed.outputs
        self.bucket = self.outputs["BucketName"]
        self.env = {**self.deployed.environment, "FOLDFLEET_STORE": self.outputs["StoreUrl"]}
        self._known = {one["executionArn"] for one in self._listed("Search") + self._listed("Intake")}
        self._published = len(self.cloud.published())
        self._metrics = len(self.cloud.metrics())
        self._began = dt.datetime.now(dt.UTC)

    # --- what is done ------------------------------------------------------------------------------------------------

    def upload(self, key: str, body: str | bytes) -> None:
        """Put an object by a plain S3 client."""
        data = body.encode() if isinstance(body, str) else body
        self.cloud.client("s3", self.uploader).put_object(Bucket=self.bucket, Key=key, Body=data)

    def start(self, given: Any, name: str) -> str:
        """Start the search machine, as another workflow would, and return the execution."""
        states = self.cloud.client("stepfunctions", self.env)
        machine = self.outputs["SearchMachineArn"]
        told = states.start_execution(stateMachineArn=machine, name=name, input=json.dumps(given))
        return str(told["executionArn"])

    def submit(self, *arguments: object) -> dict[str, Any]:
        """Run a command line that must end well, and return its answer."""
        done = expect(self.deployed.submit(*arguments, "--json", env=self.env))
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def spec(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    # --- what became of it -------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        return open_store(self.outputs["StoreUrl"])

    def _listed(self, machine: str) -> list[dict[str, Any]]:
        arn = self.outputs.get(f"{machine}MachineArn")
        states = self.cloud.client("stepfunctions")
        return states.list_executions(stateMachineArn=arn)["executions"] if arn else []

    def executions(self, machine: str = "Search") -> list[dict[str, Any]]:
        """Return the executions since the test began, the oldest first."""
        states = self.cloud.client("stepfunctions")
        found = [one["executionArn"] for one in self._listed(machine) if one["executionArn"] not in self._known]
        return [states.describe_execution(executionArn=arn) for arn in reversed(found)]

    def ended(self, count: int = 1, machine: str = "Search") -> list[dict[str, Any]]:
        """Wait until so many executions have ended, and return all there are."""

        def over() -> list[dict[str, Any]]:
            found = self.executions(machine)
            return found if len(found) >= count and all(one["status"] != "RUNNING" for one in found) else []

        return until(over)

    def answer(self, execution: dict[str, Any]) -> dict[str, Any]:
        """Return what an execution that must have ended well answers."""
        assert execution["status"] == "SUCCEEDED", self.explain(execution)
        told: dict[str, Any] = json.loads(execution["output"])
        return told

    def explain(self, execution: dict[str, Any]) -> str:
        """Return how an execution ended, with the errors on its way."""
        history = self.cloud.client("stepfunctions").get_execution_history(executionArn=execution["executionArn"])
        errors = [
            f"{event['id']} {event['type']} {details.get('error')}: {str(details.get('cause'))[:1500]}"
            for event in history["events"]
            for details in event.values()
            if isinstance(details, dict) and "error" in details
        ]
        return "\n".join([f"{execution['status']} {execution.get('error')}: {execution.get('cause')}", *errors])

    def jobs(self, run_id: str) -> list[str]:
        """Return the last part of the name of everything that was sent for a run, sorted."""
        names = (job["jobName"] for job in self.cloud.jobs() if ":" not in job["jobId"])
        return sorted(name.rpartition("-")[2] for name in names if name.startswith(run_id))

    def keys(self, prefix: str) -> list[str]:
        """Return the keys in the bucket that begin so."""
        s3 = self.cloud.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the outcomes that were written since the test began."""
        s3, found = self.cloud.client("s3"), []
        for key in self.keys(f"{self.outputs['StorePrefix']}/outcomes/"):
            answer = s3.get_object(Bucket=self.bucket, Key=key)
            told = json.loads(answer["Body"].read())
            if dt.datetime.fromisoformat(told["started"]) >= self._began:
                found.append(told)
        return found

    def told(self) -> list[dict[str, Any]]:
        """Return our own events since the test began."""
        return [one for one in self.cloud.published(self._published) if one["source"] == "foldfleet"]

    def kinds(self) -> list[str]:
        """Return what our own events say, without the name they begin with."""
        return [one["detail-type"].removeprefix("foldfleet ") for one in self.told()]

    def refusals(self) -> list[dict[str, Any]]:
        """Return the metrics since the test began."""
        return self.cloud.metrics()[self._metrics :]


def write_table(shift: int = 0) -> str:
    """Return a CSV file with a target ``y``."""
    rows = "\n".join(f"{(i + shift) % 7},{i % 5},{'ab'[i % 2]}" for i in range(60))
    return f"x,z,y\n{rows}\n"


def run_ids(answers: Iterable[dict[str, Any]]) -> set[str]:
    return {str(answer["run_id"]) for answer in answers}
