"""Runs with `--on aws` through the real command line: requests, containers, S3 and registry of the stand-in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import ExitCode
from tests.aws.fixtures import Deployed, expect, run_submit

pytestmark = pytest.mark.docker

SPEC = """
name: {name}
data: {{builtin: iris}}
cv: {{kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 0}}
candidates:
  - estimator: sklearn.svm.SVC
    grid: {{C: {values}}}
scoring: accuracy
resources: {{vcpus: 2, memory_gib: 1}}
"""

SLOW = """
name: {name}
data: {{builtin: digits}}
cv: 3
candidates:
  - estimator: sklearn.ensemble.RandomForestClassifier
    params: {{random_state: {values}}}
    grid: {{n_estimators: [600, 601, 602, 603, 604, 605, 606, 607]}}
scoring: accuracy
resources: {{vcpus: 1, memory_gib: 1}}
"""

PATIENCE_S = 300.0


class Gate:
    """The submitter's desk: specs of its own, and what the commands answer."""

    def __init__(self, deployed: Deployed, folder: Path) -> None:
        self.deployed = deployed
        self.cloud = deployed.cloud
        self.folder = folder
        self.env = {"FOLDFLEET_STORE": deployed.outputs["StoreUrl"], **deployed.environment}

    def spec(self, name: str, values: str = "[0.1, 1, 10]", text: str = SPEC) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(text.format(name=name, values=values))
        return path

    def submit(self, *arguments: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        place = home or self.deployed.home
        place.mkdir(parents=True, exist_ok=True)
        return run_submit(place, self.env, *arguments)

    def json(self, *arguments: object, codes: tuple[int, ...] = (0,), home: Path | None = None) -> dict[str, Any]:
        done = expect(self.submit(*arguments, "--json", home=home), *codes)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def sent(self, run_id: str) -> list[str]:
        """Return the last part of the name of everything that was sent for a run, sorted."""
        batch, queue = self.cloud.client("batch"), self.deployed.outputs["QueueArn"]
        filters = [{"name": "JOB_NAME", "values": [f"{run_id}*"]}]
        found = batch.list_jobs(jobQueue=queue, filters=filters)["jobSummaryList"]
        return sorted(summary["jobName"].rpartition("-")[2] for summary in found)

    def wait(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.5)

    def state(self, run_id: str) -> str:
        return str(self.json("status", run_id)["state"])


@pytest.fixture
def gate(pushed: Deployed, tmp_path: Path) -> Iterator[Gate]:
    yield Gate(pushed, tmp_path)
    pushed.cloud.no_faults()


def test_a_run_is_planned_worked_on_reduced_and_refitted_in_the_cloud(gate: Gate) -> None:
    spec = gate.spec("whole")
    plan = gate.json("plan", spec, "--on", "aws")
    assert plan["arrays"] == 1
    assert not gate.sent(plan["run_id"])
    answer = gate.json("run", spec, "--on", "aws")
    assert (answer["state"], answer["fits"], answer["cells"]["done"]) == ("finished", 9, 9)
    assert answer["run_id"] == plan["run_id"]
    assert answer["files"]["model"].startswith(gate.env["FOLDFLEET_STORE"])
    assert gate.sent(answer["run_id"]) == ["a0", "reduce"]
    again = gate.json("run", spec, "--on", "aws")
    assert (again["fits"], again["cells"]["reused"], again["best"]) == (0, 9, answer["best"])
    assert gate.sent(answer["run_id"]) == ["a0", "reduce"]
    logs = gate.json("logs", answer["run_id"])
    assert logs["streams"]
    assert all(stream["log"].startswith("work/") for stream in logs["streams"])
    assert gate.json("results", answer["run_id"])["complete"]


def test_one_task_is_a_plain_request(gate: Gate) -> None:
    spec = gate.spec("single", "[1]")
    spec.write_text(spec.read_text().replace("n_splits: 3", "n_splits: 2") + "\ntrain_score: true\n")
    answer = gate.json("run", spec, "--on", "aws", "--workers", 2)
    assert answer["cells"]["done"] == 2


def test_a_detached_run_ends_without_its_desk_and_another_one_tells_its_answer(gate: Gate, tmp_path: Path) -> None:
    spec = gate.spec("detached", "[0.2, 2]")
    sent = gate.json("run", spec, "--on", "aws", "--detach")
    assert sent["state"] == "running"
    elsewhere = tmp_path / "another home"
    watched = gate.json("watch", sent["run_id"], home=elsewhere)
    assert watched["state"] == "finished"
    answer = gate.json("run", spec, "--on", "aws", home=elsewhere)
    assert (answer["fits"], answer["cells"]["done"], answer["cells"]["reused"]) == (0, 6, 6)
    assert answer["files"]["model"] is not None
    assert gate.sent(sent["run_id"]) == ["a0", "reduce"]


def test_a_lost_acknowledgement_gives_no_second_array(gate: Gate) -> None:
    gate.cloud.fault("batch:SubmitJob", "lost_ack", times=1)
    answer = gate.json("run", gate.spec("lost", "[0.3, 3]"), "--on", "aws")
    assert answer["cells"]["done"] == 6
    assert gate.sent(answer["run_id"]) == ["a0", "reduce"]


def test_two_terminals_at_once_make_one_plan_and_one_table(gate: Gate, tmp_path: Path) -> None:
    spec = gate.spec("twice", "[0.4, 4]")
    homes = [tmp_path / "one", tmp_path / "two"]
    both = [_begin(gate, home, "run", spec, "--on", "aws", "--json") for home in homes]
    told = [json.loads(child.communicate(timeout=PATIENCE_S)[0]) for child in both]
    assert [child.returncode for child in both] == [0, 0]
    assert told[0]["best"] == told[1]["best"]
    assert told[0]["run_id"] == told[1]["run_id"]
    assert gate.sent(told[0]["run_id"]) == ["a0", "reduce"]


def test_a_cancelled_run_keeps_what_is_finished_and_is_resumed(gate: Gate, tmp_path: Path) -> None:
    spec = gate.spec("stopped", "0", SLOW)
    run_id = gate.json("run", spec, "--on", "aws", "--detach")["run_id"]
    gate.wait(lambda: gate.json("status", run_id)["cells"]["done"] >= 1)
    status = gate.json("status", run_id)
    assert status["sent"]["requests"][0]["tasks"]
    cancelled = gate.json("cancel", run_id)
    assert cancelled["state"] == "cancelled"
    assert 0 < cancelled["cells"]["done"] < 24
    assert cancelled["files"]["cv_results"] is not None
    resumed = gate.json("resume", run_id, home=tmp_path / "another home")
    assert (resumed["state"], resumed["cells"]["done"]) == ("finished", 24)
    assert resumed["cells"]["reused"] >= cancelled["cells"]["done"]


def test_ctrl_c_ends_the_following_alone(gate: Gate) -> None:
    spec = gate.spec("followed", "1", SLOW)  # another seed, so that no other run's cells are reused
    run_id = gate.json("plan", spec, "--on", "aws")["run_id"]
    child = _begin(gate, gate.deployed.home, "run", spec, "--on", "aws", "--json")
    gate.wait(lambda: gate.sent(run_id) == ["a0", "reduce"] and gate.json("status", run_id)["cells"]["done"])
    child.send_signal(signal.SIGINT)
    told = json.loads(child.communicate(timeout=60)[0])
    assert child.returncode == ExitCode.INTERRUPTED
    assert "goes on without this terminal" in told["error"]["message"]
    assert gate.state(run_id) == "running"
    assert gate.json("watch", run_id)["state"] == "finished"


def test_data_in_s3_are_prepared_in_the_cloud_and_planned_nowhere_else(gate: Gate) -> None:
    bucket = gate.deployed.outputs["BucketName"]
    rows = "\n".join(f"{i % 7},{i % 5},{'ab'[i % 2]}" for i in range(60))
    key = "foldfleet/uploads/table/table.csv"
    gate.cloud.client("s3").put_object(Bucket=bucket, Key=key, Body=f"x,z,y\n{rows}\n".encode(), IfNoneMatch="*")
    spec = gate.spec("remote", "[1, 2]")
    spec.write_text(spec.read_text().replace("{builtin: iris}", f"{{path: 's3://{bucket}/{key}', target: 'y'}}"))
    assert gate.json("plan", spec, "--on", "aws")["run_id"] is None
    answer = gate.json("run", spec, "--on", "aws")
    assert answer["cells"]["done"] == 6
    assert gate.json("plan", spec, "--on", "aws")["run_id"] == answer["run_id"]


def test_a_missing_image_is_refused_before_anything_is_sent(gate: Gate) -> None:
    done = run_submit(
        gate.deployed.home, {**gate.env, "FOLDFLEET_IMAGE": "foldfleet:none"}, "run", gate.spec("none"), "--on", "aws"
    )
    assert done.returncode == ExitCode.NOT_FOUND
    assert "submit image push" in done.stderr


def _begin(gate: Gate, home: Path, *arguments: object) -> subprocess.Popen[str]:
    home.mkdir(parents=True, exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOLDFLEET_"))}
    own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "FOLDFLEET_CACHE": str(home / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "submitter", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=home,
        env={**clean, **own, **gate.env},
    )
