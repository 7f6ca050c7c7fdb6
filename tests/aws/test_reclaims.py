"""Spot hosts reclaimed at moments drawn from a seed, tasks lost for good, and desks that are closed on the way."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient

from jobspec.errors import ExitCode
from jobspec.stores.layout import Layout
from tests.aws.fixtures import Deployed, expect
from tests.aws.reclaiming import FLUSH_S, SLOW_SPEC, SPEC, WORKERS, Hunt, Strike, build_witness, draw, until
from tests.conformance.places import Place
from tests.conftest import Submit
from tests.docker.witness import NUM_CELLS

pytestmark = [pytest.mark.docker, pytest.mark.faults, pytest.mark.slow]

logger = logging.getLogger(__name__)

LATER = int(ExitCode.TRY_LATER)


@pytest.fixture(scope="session")
def witness_image(docker_engine: DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_witness(docker_engine, image, tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="session")
def ground(stack: Deployed, witness_image: str) -> Deployed:
    """Return the stack with an image that tells which fits begin."""
    expect(stack.submit("image", "push", "--image", witness_image))
    return stack


MakeHunt = Callable[[str], Hunt]


@pytest.fixture
def make_hunt(
    ground: Deployed, witness_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeHunt]:
    ground.empty_store()
    for name, value in ground.environment.items():
        monkeypatch.setenv(name, value)  # the store is read in this process, too
    monkeypatch.syspath_prepend(tmp_path / "modules")  # a model is loaded here

    yield lambda name: Hunt(ground, witness_image, tmp_path, name)
    ground.cloud.no_faults()
    ground.cloud.events(hold=False, copies=1)
    ground.cloud.options(usual_vcpus=4)


_UNDISTURBED: dict[str, dict[str, str]] = {}


def undisturbed(hunt: Hunt, submit: Submit, text: str = SPEC) -> dict[str, str]:
    """Return the digest of an undisturbed run on this machine, a folder as its store."""
    if text not in _UNDISTURBED:
        here = {**hunt.environment, "FOLDFLEET_CACHE": str(hunt.folder / "here"), "FOLDFLEET_WORKERS": "2"}
        spec = hunt.folder / "undisturbed.yaml"
        spec.write_text(text.replace("NAME", "undisturbed") + "numerics: portable\n")
        place = Place("local", str(hunt.folder / "undisturbed"), submit, here)
        _UNDISTURBED[text] = place.digest(place.run(spec)["run_id"], hunt.folder)
    return _UNDISTURBED[text]


def check(hunt: Hunt, run_id: str, submit: Submit, text: str = SPEC) -> int:
    """See that a run has lost nothing but what it may; return how many cells were computed again."""
    place = Place("aws", hunt.store_url, submit)
    assert place.digest(run_id, hunt.folder) == undisturbed(hunt, submit, text)
    evidence = hunt.evidence(run_id)
    evidence.check_rows(hunt.durable.items())
    evidence.check_loss(FLUSH_S, workers=2)
    return len([note for note in evidence.notes if note.cell is not None]) - NUM_CELLS


def each(num: int, strikes: int, *marks: pytest.MarkDecorator) -> list[Any]:
    return [pytest.param(seed, strikes, marks=marks) for seed in range(num)]


@pytest.mark.parametrize(
    ("seed", "num"),
    [
        *each(5, 4, pytest.mark.thorough),  # 20 moments
        *each(10, 5, pytest.mark.soak),
    ],
)
def test_hosts_reclaimed_at_random_moments_cost_only_what_was_in_flight(
    make_hunt: MakeHunt, submit: Submit, seed: int, num: int
) -> None:
    hunt = make_hunt(f"reclaimed-{num}-{seed}")
    strikes = draw(random.Random(seed), num)
    with hunt.started("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--json") as cli:
        for strike in strikes:
            strike.fall(hunt, cli)
        answer = hunt.finish(cli)
    assert (answer["state"], answer["fits"], answer["cells"]["lost"]) == ("finished", NUM_CELLS, 0), strikes
    assert len(hunt.taken) == num
    assert {code for code, _ in hunt.endings()} <= {0, LATER, None}
    again = check(hunt, answer["run_id"], submit)
    logger.info("seed=%d tries=%d cells_again=%d strikes=%s", seed, len(hunt.endings()), again, strikes)


@pytest.mark.parametrize(
    "seed", [pytest.param(0, marks=pytest.mark.thorough), pytest.param(1, marks=pytest.mark.soak)]
)
def test_a_second_host_may_go_while_the_first_ones_tasks_are_tried_again(
    make_hunt: MakeHunt, submit: Submit, seed: int
) -> None:
    chance = random.Random(seed)
    hunt = make_hunt(f"recovering-{seed}")
    with hunt.started("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--json") as cli:
        Strike("puts", chance.randrange(3, 10), chance.random()).fall(hunt, cli)
        wanted = hunt.count("calls") + chance.randrange(1, 30)

        def retried() -> list[dict[str, Any]]:
            again = {job_id for job_id, task in hunt.tasks().items() if task["attempts"]}
            return hunt.victims(again.__contains__)

        until(lambda: hunt.count("calls") >= wanted and any(map(hunt.take, retried()[:1])), cli)
        answer = hunt.finish(cli)
    assert (answer["fits"], answer["cells"]["lost"]) == (NUM_CELLS, 0)
    assert max(len(task["attempts"]) for task in hunt.tasks().values()) >= 3
    check(hunt, answer["run_id"], submit)


@pytest.mark.thorough
def test_a_host_that_gives_notice_loses_nothing_that_is_finished_and_batch_tries_again(
    make_hunt: MakeHunt, submit: Submit
) -> None:
    """A task sees the notice within 5 s; one task for each fold, and slow fits, last longer on any machine."""
    hunt = make_hunt("warned")
    with hunt.started("run", hunt.write_spec(SLOW_SPEC), "--on", "aws", "--workers", 1, "--json") as cli:
        until(hunt.rows, cli)
        Strike("puts", 1, 0.0, notice_s=40.0).fall(hunt, cli)
        answer = hunt.finish(cli)
    ended = hunt.endings()
    assert (LATER, "Essential container in task exited") in ended
    assert {code for code, _ in ended} <= {0, LATER}  # nobody was killed: they left in time
    assert all(task["status"] == "SUCCEEDED" for task in hunt.tasks().values())
    again = check(hunt, answer["run_id"], submit, SLOW_SPEC)
    assert again == 0, "a notice of 40 s is long enough for fits of some seconds"


# --- lost for good ---------------------------------------------------------------------------------------------------


def lose_by_reclaims(hunt: Hunt, job_id: str) -> None:
    """Take away every host on which a task is begun."""

    def gone() -> bool:
        task = hunt.tasks()[job_id]
        if task["status"] != "FAILED" and (host := hunt.host_of(job_id)) is not None:
            hunt.take(host)
        return bool(task["status"] == "FAILED")

    until(gone)


def lose_by_kill(hunt: Hunt, job_id: str, client: DockerClient) -> None:
    """Kill a task's container as the kernel does, without its host."""
    until(lambda: hunt.tasks()[job_id]["status"] == "RUNNING")
    arn = hunt.tasks()[job_id]["container"]["taskArn"]
    (container,) = client.api.containers(filters={"label": f"com.amazonaws.ecs.task-arn={arn}"})
    client.api.kill(container["Id"], "SIGKILL")
    until(lambda: hunt.tasks()[job_id]["status"] == "FAILED")


def reduces(hunt: Hunt) -> list[dict[str, Any]]:
    return [job for job in hunt.jobs() if "first_task" not in job["parameters"]]


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["reclaims", "kill"])
def test_a_task_lost_for_good_is_named_and_resume_completes(
    make_hunt: MakeHunt, docker_engine: DockerClient, submit: Submit, way: str
) -> None:
    hunt = make_hunt(f"lost-by-{way}")
    hunt.cloud.options(usual_vcpus=2)  # each task has a host to itself
    hunt.cloud.events(hold=True, copies=2)
    lost_before = hunt.cloud.undelivered()
    place = Place("aws", hunt.store_url, submit, hunt.environment)
    sent = place.call("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--detach")
    run_id = sent["run_id"]
    until(hunt.tasks)
    victim = sorted(hunt.tasks())[1]
    if way == "reclaims":
        lose_by_reclaims(hunt, victim)
    else:
        lose_by_kill(hunt, victim, docker_engine)
    until(lambda: all(job["status"] == "FAILED" for job in reduces(hunt)))
    (dependent,) = reduces(hunt)
    assert (dependent["statusReason"], dependent["attempts"]) == ("Dependent Job failed", [])
    assert {task["status"] for task in hunt.tasks().values()} == {"SUCCEEDED", "FAILED"}
    assert place.open().get_or_none(Layout.view(run_id, "best.json")) is None

    hunt.cloud.events(hold=False, copies=2)
    until(lambda: sum(job["status"] == "SUCCEEDED" for job in reduces(hunt)) == 2)
    assert sorted(job["jobName"].partition("-")[0] for job in reduces(hunt)) == ["conclude", "conclude", hunt.name[:4]]
    assert hunt.cloud.undelivered() == lost_before
    best = json.loads(place.open().get(Layout.view(run_id, "best.json")))
    cells = best["cells"]
    assert (best["complete"], cells["done"] + cells["missing"]) == (False, NUM_CELLS)
    assert cells["missing"] > 0
    assert sum(stop - first for entry in best["missing"] for first, stop in entry["candidates"]) == cells["missing"]

    status = place.call("status", run_id)
    assert status["state"] == "interrupted"
    (note,) = status["sent"]["notes"]
    assert ("its host was reclaimed at every try" if way == "reclaims" else "it was killed") in note
    assert f"submit resume {run_id}" in note if way == "reclaims" else "resources.memory_gib" in note
    rows = hunt.rows()
    resumed = place.call("resume", run_id)
    assert (resumed["state"], resumed["fits"]) == ("finished", cells["missing"])
    assert place.digest(run_id, hunt.folder) == undisturbed(hunt, submit)
    evidence = hunt.evidence(run_id)
    evidence.check_rows(rows.items())


# --- a desk that is closed -------------------------------------------------------------------------------------------


def kill_desk(process: subprocess.Popen[str]) -> None:
    """End a command line and everything that it has started as a machine does that is switched off."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def see_from_elsewhere(hunt: Hunt, run_id: str, submit: Submit) -> None:
    """See that a run ends without its desk, and that another one, with a cache of its own, tells its answer."""
    until(lambda: hunt.cloud.jobs() and all(job["status"] in {"SUCCEEDED", "FAILED"} for job in hunt.jobs()))
    elsewhere = {**hunt.environment, "FOLDFLEET_CACHE": str(hunt.folder / "elsewhere")}
    place = Place("aws", hunt.store_url, submit, elsewhere)
    assert place.open().get_or_none(Layout.view(run_id, "model/model.joblib")) is not None
    assert place.call("status", run_id)["state"] == "finished"
    calls = len(hunt.cloud.calls())
    answer = place.call("run", hunt.folder / f"{hunt.name}.yaml", "--on", "aws", "--workers", WORKERS)
    assert (answer["run_id"], answer["fits"], answer["cells"]["reused"]) == (run_id, 0, NUM_CELLS)
    assert not [call for call in hunt.cloud.calls(start=calls) if call.action == "batch:SubmitJob"]
    assert place.digest(run_id, hunt.folder) == undisturbed(hunt, submit)
    hunt.evidence(run_id).check_loss(FLUSH_S, workers=2)


@pytest.mark.thorough
def test_a_desk_closed_after_detaching_is_not_missed(make_hunt: MakeHunt, submit: Submit) -> None:
    hunt = make_hunt("detached")
    with hunt.started("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--detach", "--json") as cli:
        run_id = hunt.finish(cli)["run_id"]
        assert not hunt.processes(), "something of the desk was left running"
    see_from_elsewhere(hunt, run_id, submit)


@pytest.mark.thorough
def test_a_desk_killed_once_all_is_sent_is_not_missed(make_hunt: MakeHunt, submit: Submit) -> None:
    hunt = make_hunt("killed")
    with hunt.started("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--json") as cli:
        until(lambda: reduces(hunt), cli)
        kill_desk(cli)
    (job, *_) = hunt.jobs()
    see_from_elsewhere(hunt, job["parameters"]["run"], submit)


@pytest.mark.thorough
def test_a_desk_killed_between_array_and_reduce_is_completed_by_another(make_hunt: MakeHunt, submit: Submit) -> None:
    hunt = make_hunt("halfway")
    hunt.cloud.fault("batch:SubmitJob", "throttle", times=20, after=1, principal="user/desk")
    with hunt.started("run", hunt.write_spec(), "--on", "aws", "--workers", WORKERS, "--json") as cli:
        until(hunt.tasks, cli)
        kill_desk(cli)
    hunt.cloud.no_faults()
    (job, *_) = hunt.jobs()
    run_id = job["parameters"]["run"]
    until(lambda: all(task["status"] == "SUCCEEDED" for task in hunt.tasks().values()))
    elsewhere = {**hunt.environment, "FOLDFLEET_CACHE": str(hunt.folder / "elsewhere")}
    place = Place("aws", hunt.store_url, submit, elsewhere)
    assert place.call("status", run_id)["state"] == "finished"
    answer = place.call("run", hunt.folder / f"{hunt.name}.yaml", "--on", "aws", "--workers", WORKERS)
    assert (answer["run_id"], answer["state"], answer["fits"]) == (run_id, "finished", 0)
    assert place.digest(run_id, hunt.folder) == undisturbed(hunt, submit)
    hunt.evidence(run_id).check_rows(())
