"""kill -9 of containers at moments drawn from a seed: nothing durable is lost, the answer is the undisturbed one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from tests.conformance.places import Place
from tests.conftest import Submit
from tests.docker.dockgate import build_with
from tests.docker.hunting import Hunt, Strike, draw, kill_step, strike_all, until
from tests.docker.witness import ESTIMATOR, MODULE, NUM_CELLS, NUM_SPLITS, Evidence, write_spec

pytestmark = pytest.mark.faults

FOLDER_FLUSH_S = 1.0
S3_FLUSH_S = 5.0
REST_S = 0.5
"""On S3 a fit rests, so that a task takes longer than a flush."""

TASKS_PER_FOLD = {1: 2, 2: 1}
"""By the vCPUs of a task, with two CPUs given to the run."""

SEEDS = [pytest.param(0, marks=pytest.mark.thorough), pytest.param(1, marks=pytest.mark.soak)]

MakeHunt = Callable[..., Hunt]


@pytest.fixture(scope="session")
def witness_image(docker_engine: DockerClient, image: str) -> str:
    return build_with(docker_engine, image, MODULE, ESTIMATOR)


@pytest.fixture(scope="session")
def resting_image(docker_engine: DockerClient, image: str) -> str:
    return build_with(docker_engine, image, MODULE, ESTIMATOR, {"WITNESS_REST": str(REST_S)})


@pytest.fixture(scope="session")
def waiting_image(docker_engine: DockerClient, image: str) -> str:
    """Return the image whose first refit waits until it is killed."""
    return build_with(docker_engine, image, MODULE, ESTIMATOR, {"WITNESS_REFIT": "waits"})


@pytest.fixture
def make_hunt(tmp_path: Path, docker_engine: DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeHunt]:
    hunts = []
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{MODULE}.py").write_text(ESTIMATOR)
    monkeypatch.syspath_prepend(tmp_path / "modules")  # a model is loaded here

    def make(image: str, store: str) -> Hunt:
        hunts.append(Hunt(tmp_path, docker_engine, image, store))
        return hunts[-1]

    yield make
    for hunt in hunts:
        hunt.clear()


_UNDISTURBED: list[dict[str, str]] = []


def undisturbed(hunt: Hunt, submit: Submit) -> dict[str, str]:
    """Return the digest of an undisturbed run on this machine, without containers."""
    if not _UNDISTURBED:
        environment = {**hunt.environment, "FOLDFLEET_CACHE": str(hunt.folder / "undisturbed-cache")}
        place = Place("local", str(hunt.folder / "undisturbed"), submit, environment)
        answer = place.run(write_spec(hunt.folder))
        _UNDISTURBED.append(place.digest(answer["run_id"], hunt.folder))
    return _UNDISTURBED[0]


def check(hunt: Hunt, run_id: str, submit: Submit, *, flush_s: float = FOLDER_FLUSH_S, vcpus: int = 1) -> None:
    """See that a run after four kills has lost nothing but what it may, and left nothing behind."""
    place = Place("docker", hunt.store_url, submit)
    assert place.digest(run_id, hunt.folder) == undisturbed(hunt, submit)
    evidence = Evidence(hunt.store, hunt.cache, run_id)
    evidence.check_rows(hunt.durable.items())
    evidence.check_loss(flush_s, workers=vcpus)
    assert not hunt.left()
    assert not list((hunt.cache / "locks").glob("docker-*"))
    assert len(hunt.killed) == 4


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.thorough) for seed in range(5)])
def test_containers_killed_at_random_moments_cost_only_what_was_in_flight(
    make_hunt: MakeHunt, witness_image: str, submit: Submit, store_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    vcpus = 1 + seed % 2
    hunt = make_hunt(witness_image, store_url)
    strikes = draw(chance, NUM_SPLITS * TASKS_PER_FOLD[vcpus], 3, row=seed % 3)
    hunt.hold(strikes[0])
    with hunt.started("run", write_spec(hunt.folder, vcpus), "--on", "docker", "--json") as cli:
        strike_all(hunt, strikes, cli)
        answer = hunt.finish(cli)
    assert (answer["fits"], answer["cells"]["lost"]) == (NUM_CELLS, 0), strikes
    check(hunt, answer["run_id"], submit, vcpus=vcpus)


@pytest.mark.thorough
def test_every_step_may_be_killed(make_hunt: MakeHunt, waiting_image: str, submit: Submit, store_url: str) -> None:
    hunt = make_hunt(waiting_image, store_url)
    with hunt.started("run", write_spec(hunt.folder), "--on", "docker", "--json") as cli:
        kill_step(hunt, "prepare", cli, lambda: hunt.store.folders("datasets/"))
        draw(random.Random(7), 2 * NUM_SPLITS, 1)[0].fall(hunt, cli)
        kill_step(hunt, "reduce", cli, lambda: True)
        kill_step(hunt, "refit", cli, hunt.refit_begun)
        answer = hunt.finish(cli)
    assert answer["fits"] == NUM_CELLS
    check(hunt, answer["run_id"], submit)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_command_line_and_its_recovery_may_be_killed(
    make_hunt: MakeHunt, witness_image: str, submit: Submit, store_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    hunt = make_hunt(witness_image, store_url)
    spec = write_spec(hunt.folder)
    first, second = sorted(chance.sample(range(1, 35), 2))
    with hunt.started("run", spec, "--on", "docker") as cli:
        Strike("begun", first, chance.random()).fall(hunt, cli)
        until(lambda: hunt.begun() >= second, cli)
        cli.kill()
        cli.communicate()
    for arguments in (("resume", "latest"), ("run", spec, "--on", "docker")):
        kill_recovery(hunt, arguments, chance)
    with hunt.started("resume", "latest", "--json") as cli:
        Strike("begun", chance.randrange(36, 50), chance.random()).fall(hunt, cli)
        answer = hunt.finish(cli)
    assert answer["cells"]["reused"] + answer["fits"] == NUM_CELLS
    check(hunt, answer["run_id"], submit)


def kill_recovery(hunt: Hunt, arguments: tuple[object, ...], chance: random.Random) -> None:
    """Kill a command line and its first new container, in either order, while it cleans up after the one before."""
    before = len(hunt.events.started)

    def new() -> list[str]:
        return [name for name in hunt.alive() if name in hunt.events.started[before:]]

    with hunt.started(*arguments) as cli:
        until(new, cli)
        driver_first = chance.random() < 0.5
        if driver_first:
            cli.kill()
            cli.wait()
        assert hunt.kill(new()[-1])
        cli.kill()
        cli.communicate()


@pytest.mark.parametrize("seed", SEEDS)
def test_on_s3_at_most_a_flush_and_the_cells_in_flight_are_lost(
    make_hunt: MakeHunt, resting_image: str, submit: Submit, s3_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    vcpus = 2
    hunt = make_hunt(resting_image, s3_url)
    with hunt.started("run", write_spec(hunt.folder, vcpus), "--on", "docker", "--json") as cli:
        Strike("rows", 1, 0).fall(hunt, cli)
        Strike("begun", chance.randrange(20, 38), 0, times=2).fall(hunt, cli)
        Strike("begun", chance.randrange(40, 55), 0).fall(hunt, cli)
        answer = hunt.finish(cli)
    assert answer["fits"] == NUM_CELLS
    check(hunt, answer["run_id"], submit, flush_s=S3_FLUSH_S, vcpus=vcpus)
