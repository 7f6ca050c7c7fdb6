"""Executions of the search machine: what others start, tasks killed for good, and hosts reclaimed on the way."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from docker import DockerClient

from jobspec.runs.rounds import latest_round
from jobspec.stores.layout import Layout
from submitter.images.build import ImageOptions
from submitter.machines.stuck import explain
from tests.aws.fixtures import Deployed, expect
from tests.aws.house import House, until, write_spec
from tests.aws.standin.cloud import ACCOUNT, REGION, REPOSITORY, Refused
from tests.aws.test_standin_stepfunctions import allow, end_of, make_role, output, start
from tests.conformance.places import Place
from tests.conftest import Submit
from tests.docker.fixtures import BASE, build

pytestmark = pytest.mark.docker

DEADLY = """
import os, signal
from sklearn.base import BaseEstimator, ClassifierMixin

class Deadly(ClassifierMixin, BaseEstimator):
    \"\"\"Guesses one class; at level 1 its process is killed, at every try.\"\"\"

    def __init__(self, level=0):
        self.level = level

    def fit(self, X, y):
        if self.level == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.classes_ = sorted(set(y))
        return self

    def predict(self, X):
        return [self.classes_[0]] * len(X)
"""

SEARCH_IN_EXAMPLE = "arn:aws:states:REGION:ACCOUNT:stateMachine:foldfleet-search"
ENDS = ("Describe", "Stop")

SLOW = """
name: {name}
data: {{builtin: digits}}
cv: {{kind: StratifiedKFold, n_splits: 2, shuffle: true, random_state: 0}}
candidates:
  - estimator: sklearn.ensemble.RandomForestClassifier
    params: {{random_state: 0}}
    grid: {{n_estimators: [400, 500, 600]}}
scoring: accuracy
resources: {{vcpus: 2, memory_gib: 1}}
"""


@pytest.fixture(scope="session")
def deadly(
    listening: Deployed, docker_engine: DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Deployed:
    """Push an image that has an estimator which kills its process, and afterwards is the newest."""
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "deadly.py").write_text(DEADLY)
    name, _, tag = image.partition(":")
    whole = f"{name}-deadly:{tag}"
    build(docker_engine, ImageOptions(tag=whole, base=BASE), ("deadly",), folder)
    expect(listening.submit("image", "push", "--image", whole))
    return listening


def test_an_execution_takes_a_spec_as_text_or_object_and_others_nest_it(house: House, tmp_path: Path) -> None:
    text = write_spec("inline", "[0.5, 5]")  # no other test of the stack has these cells, which would be reused
    document = {
        "name": "inline",
        "data": {"builtin": "iris"},
        "cv": {"kind": "StratifiedKFold", "n_splits": 2, "shuffle": True, "random_state": 0},
        "candidates": [{"estimator": "sklearn.svm.SVC", "grid": {"C": [0.5, 5]}}],
        "scoring": "accuracy",
        "resources": {"vcpus": 2, "memory_gib": 1},
    }
    for at, spec in enumerate((text, json.dumps(document))):
        house.start({"spec": spec}, f"inline-{at}")
    first, second = (house.answer(execution) for execution in house.ended(2))
    assert first["best"] == second["best"]
    house.start({"run": first["run_id"]}, "by-run")
    assert house.answer(house.ended(3)[-1])["run_id"] == first["run_id"]
    nested = nest(house, {"spec": text, "threshold": 0.5})
    assert (nested["deployed"], nested["params"]) == (first["run_id"], first["best"]["params"])
    assert nested["files"] == house.answer(house.ended(4)[-1])["files"]
    assert house.jobs(first["run_id"]).count("a0") == 1


def nest(house: House, given: Any) -> Any:
    """Return what the workflow of the examples answers, under a role that may do what the example says and no more."""
    search = house.outputs["SearchMachineArn"]
    example = (REPOSITORY / "examples" / "nested-workflow.json").read_text()
    rule = f"arn:aws:events:{REGION}:{ACCOUNT}:rule/StepFunctionsGetEventsForStepFunctionsExecutionRule"
    rights = [
        allow("states:StartExecution", search),
        *(allow(f"states:{what}Execution", f"{search.replace(':stateMachine:', ':execution:')}:*") for what in ENDS),
        *(allow(f"events:{action}", rule) for action in ("PutTargets", "PutRule", "DescribeRule")),
    ]
    cloud = house.cloud
    machine = cloud.client("stepfunctions").create_state_machine(
        name="workflow", definition=example.replace(SEARCH_IN_EXAMPLE, search), roleArn=make_role(cloud, rights)
    )["stateMachineArn"]
    execution = start(cloud, machine, given)
    states = cloud.client("stepfunctions")
    until(lambda: states.describe_execution(executionArn=execution)["status"] != "RUNNING")
    return output(end_of(cloud, execution))


@pytest.mark.parametrize(
    "given", [{}, {"spec": 3}, {"spec": ""}, {"upload": {}}, [], {"spec": "s3://elsewhere/a.yaml"}]
)
def test_an_execution_without_a_spec_is_refused_in_words(
    house: House, given: Any, request: pytest.FixtureRequest
) -> None:
    house.start(given, f"empty-{abs(hash(request.node.name))}")
    [execution] = house.ended()
    assert execution["error"] == "foldfleet.Refused", house.explain(execution)
    assert len(execution["cause"]) > 40


def test_a_run_on_stepfunctions_is_followed_from_any_desk(house: House, tmp_path: Path) -> None:
    spec = house.spec("desk", write_spec("desk", "[0.4, 4]"))
    sent = house.submit("run", spec, "--on", "stepfunctions", "--detach")
    assert sent["state"] == "running"
    [execution] = house.ended()
    assert house.answer(execution)["run_id"] == sent["run_id"]
    again = house.submit("run", spec, "--on", "aws")
    assert (again["run_id"], again["fits"], again["cells"]["reused"]) == (sent["run_id"], 0, 4)
    assert house.submit("status", sent["run_id"])["state"] == "finished"


def test_a_task_that_is_killed_at_every_try_is_named_and_ends_the_execution(house: House, deadly: Deployed) -> None:
    text = write_spec("deadly").replace("sklearn.svm.SVC", "deadly.Deadly").replace("C: [0.1, 1]", "level: [0, 1]")
    house.start({"spec": text}, "deadly")
    [execution] = house.ended()
    assert (execution["status"], execution["error"]) == ("FAILED", "foldfleet.Incomplete"), house.explain(execution)
    [failed] = [event["detail"] for event in house.told() if event["detail-type"].endswith("Run Failed")]
    assert failed["cells"]["done"] == 2
    assert failed["cells"]["lost"] + failed["cells"]["missing"] == 2
    assert failed["run_id"] in execution["cause"]
    results = json.loads(house.deployed.submit("results", failed["run_id"], "--json", env=house.env).stdout)
    assert (results["complete"], results["best"]) == (False, None)
    errors = {row["params"]["level"]: row["error"] for row in results["rows"]}
    assert errors[0] is None
    assert "killed" in errors[1]
    assert house.kinds() == ["Run Started", "Run Failed"]


def test_what_a_killed_task_leaves_is_done_by_another_round(house: House, docker_engine: DockerClient) -> None:
    house.start({"spec": SLOW.format(name="rounds")}, "rounds")

    def kill() -> str:
        """Kill one task's container as the kernel does; no rule tries it again."""
        for job in house.cloud.jobs():
            if job["status"] == "RUNNING" and "first_task" in job["parameters"] and ":" in job["jobId"]:
                label = f"com.amazonaws.ecs.task-arn={job['container']['taskArn']}"
                for container in docker_engine.api.containers(filters={"label": label}):
                    docker_engine.api.kill(container["Id"], "SIGKILL")
                    return str(job["jobId"])
        return ""

    killed = until(kill)
    [execution] = house.ended()
    answer = house.answer(execution)
    assert (answer["cells"]["done"], answer["cells"]["total"]) == (6, 6)
    parents = [
        job for job in house.cloud.jobs() if job["jobName"].startswith(answer["run_id"]) and ":" not in job["jobId"]
    ]
    arrays = [job for job in parents if job["jobName"].endswith("-a0")]
    assert [job["status"] for job in arrays] == ["FAILED", "SUCCEEDED"]
    assert killed.startswith(arrays[0]["jobId"])
    first, second = (job.get("arrayProperties", {}).get("size", 1) for job in arrays)
    assert second < first, "the second round is of the unfinished alone"
    assert house.kinds() == ["Run Started", "Run Finished"]


def test_hosts_reclaimed_on_the_way_change_nothing(
    house: House, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough that the second host is taken before the last cell is done, on a fast machine, too.
    text = SLOW.format(name="reclaimed").replace("[400, 500, 600]", str(list(range(810, 890, 10))))
    house.start({"spec": text}, "reclaimed")
    taken: list[str] = []

    def take() -> bool:
        """Take a host away while tasks of the array work on it."""
        working = {job["jobId"] for job in house.cloud.jobs() if "first_task" in job["parameters"]}
        busy = [host for host in house.cloud.hosts() if working & set(host["jobs"])]
        if busy:
            try:
                house.cloud.reclaim(busy[0]["instance_id"])
            except Refused:
                return False
            taken.append(busy[0]["instance_id"])
        return bool(busy)

    for _ in range(2):
        until(take)
    [execution] = house.ended()
    answer = house.answer(execution)
    assert (answer["state"], answer["cells"]["lost"], len(taken)) == ("finished", 0, 2)
    for name, value in house.env.items():
        monkeypatch.setenv(name, value)  # the store is read in this process, too
    here = Place(
        "local", str(tmp_path / "undisturbed"), submit, {**house.env, "FOLDFLEET_CACHE": str(tmp_path / "here")}
    )
    spec = house.spec("undisturbed", text + "numerics: portable\n")
    undisturbed = here.digest(here.run(spec)["run_id"], tmp_path)
    assert (
        Place("stepfunctions", house.outputs["StoreUrl"], submit, house.env).digest(answer["run_id"], tmp_path)
        == undisturbed
    )


def test_a_round_of_several_arrays_is_sent_whole_and_reduced_once(
    house: House, submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The desk's arrays hold two tasks here, for AWS's 10,000; the plan, the machine and the containers do not know."""
    (tmp_path / "sitecustomize.py").write_text("from jobspec.search import planning\n\nplanning.MAX_ARRAY = 2\n")
    text = write_spec("arrays", "[0.0107, 0.107, 1.07]")  # cells that no neighbour has computed
    text = text.replace("n_splits: 2", "n_splits: 3").replace("vcpus: 2", "vcpus: 8")
    command = ("run", house.spec("arrays", text), "--on", "stepfunctions", "--json")
    done = expect(house.deployed.submit(*command, env={**house.env, "PYTHONPATH": str(tmp_path)}))
    answer = json.loads(done.stdout)
    run_id = answer["run_id"]
    [execution] = house.ended()
    house.answer(execution)
    assert house.kinds() == ["Run Started", "Run Finished"]
    assert house.jobs(run_id) == ["a0", "a1", "reduce"]
    sent = [job for job in house.cloud.jobs() if job["jobName"].startswith(run_id) and ":" not in job["jobId"]]
    sizes = {job["jobName"].rpartition("-")[2]: job.get("arrayProperties", {}).get("size") for job in sent}
    assert sizes == {"a0": None, "a1": 2, "reduce": None}

    for name, value in house.env.items():
        monkeypatch.setenv(name, value)  # the store is read in this process, too
    plan = latest_round(house.store, run_id)
    assert plan is not None
    assert (plan.round, plan.arrays) == (0, ((0, 1), (1, 2)))
    tables = [house.store.get(Layout.done(run_id, 0, task)) for task in range(plan.num_tasks)]
    rows = [row for table in tables for row in pq.read_table(io.BytesIO(table)).to_pylist()]
    cells = sorted((row["candidate"], row["split"]) for row in rows)
    assert cells == [(candidate, split) for candidate in range(3) for split in range(3)]
    assert (answer["fits"], answer["cells"]["done"], answer["cells"]["total"]) == (9, 9, 9)

    here = Place("local", str(tmp_path / "here"), submit, {**house.env, "FOLDFLEET_CACHE": str(tmp_path / "cache")})
    undivided = here.run(house.spec("undivided", text + "numerics: portable\n"))
    there = Place("stepfunctions", house.outputs["StoreUrl"], submit, house.env)
    assert there.digest(run_id, tmp_path) == here.digest(undivided["run_id"], tmp_path)


def test_what_no_host_can_ever_run_ends_decoded(house: House) -> None:
    """300 GiB: instances of these families have them, but none of so few vCPUs as the stack may start."""
    text = write_spec("stuck", "[7]").replace("memory_gib: 1", "memory_gib: 300")
    code = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    batch = house.cloud.client("batch")

    def limit() -> bool:
        """Do what the queue does after half an hour, in its own words, to whatever it says that of."""
        for job in house.cloud.jobs():
            if job["status"] == "RUNNABLE" and str(job.get("statusReason")).startswith(code):
                reason = f"Canceled by JobStateTimeLimit action due to reason: {code}"
                batch.cancel_job(jobId=job["jobId"], reason=reason)
        found = house.executions()
        return bool(found) and all(one["status"] != "RUNNING" for one in found)

    sent = house.submit("run", house.spec("stuck", text), "--on", "stepfunctions", "--detach")
    until(limit)
    [execution] = house.executions()
    assert execution["error"] == "foldfleet.Stuck", house.explain(execution)
    assert execution["cause"] == explain(code)
    assert house.kinds() == ["Run Started", "Run Failed"]
    [outcome] = house.outcomes()
    assert (outcome["run_id"], outcome["state"], outcome["message"]) == (sent["run_id"], "failed", execution["cause"])
    assert not [job for job in house.cloud.jobs() if job["jobName"].startswith(sent["run_id"]) and job.get("attempts")]


def test_the_printed_definition_is_the_one_that_runs(house: House) -> None:
    told = expect(house.deployed.submit("stepfunctions", "template", env=house.env)).stdout
    states = house.cloud.client("stepfunctions")
    deployed = states.describe_state_machine(stateMachineArn=house.outputs["SearchMachineArn"])["definition"]
    assert json.loads(told) == json.loads(deployed)
