from __future__ import annotations

import functools
import json
import os
import re
import shutil
import socket
from collections import defaultdict
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from docker.errors import DockerException

from jobspec.errors import (
    AccessError,
    DataError,
    FoldfleetError,
    InterruptedRun,
    LimitError,
    NotFoundError,
    SpecError,
    TryLaterError,
    UsageError,
)
from jobspec.grammar.data_models import Resources
from jobspec.grammar.load import parse
from jobspec.hostlock import HostLock
from jobspec.runs.rounds import RoundPlan, draft_round
from jobspec.search.planning import Task
from jobspec.settings import Settings
from jobspec.stores.base import Store, open_store
from submitter.backends.base import Backend, BackendContext, Ending, Presence, backend_module
from submitter.backends.docker import end_orphans, engine, is_working, presence, read_log
from submitter.backends.docker.backend import DockerBackend
from submitter.backends.docker.engine import DockerEngine, EngineGoneError, Machine, explained
from submitter.backends.docker.shape import GIB, Shape, make_shape, slots_beside
from submitter.backends.local import StepCrashedError
from tests.conftest import Submit
from tests.unit.fakedocker import IMAGE_ID, FakeApi, FakeClient, Play, refusal
from tests.unit.plans import plan_fields

RUN = "letters-0123456789ab"
SPEC = """
name: letters
data: {{builtin: iris}}
candidates: [{{estimator: sklearn.svm.SVC}}]
resources: {resources}
"""
PINS = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
    ),
    "1",
)


class Bucket:
    """A store that is no folder."""

    url = "s3://bucket/prefix"

    def local_path(self, key: str) -> Path | None:
        return None


class Desk:
    """A backend on a pretended engine, and what it is made from."""

    def __init__(self, folder: Path, resources: str = "{vcpus: 2}", image: str = "mine:1") -> None:
        self.api = FakeApi()
        self.client = FakeClient(self.api, image)
        self.settings = Settings("store", folder / "cache", None, (), (), image)
        self.store: Store = open_store(str(folder / "store"))
        self.spec = parse(SPEC.format(resources=resources).encode(), "spec.yaml").spec

    def connect(self) -> DockerEngine:
        return DockerEngine(cast("Any", self.client))

    def backend(self, workers: int | None = None) -> DockerBackend:
        context = BackendContext(self.settings, self.store, self.spec, workers, "letters")
        return DockerBackend(context, self.connect, now=self.api.now, sleep=self.api.sleep)

    @property
    def presence(self) -> Presence:
        return Presence(self.settings, self.store, RUN)

    def play(self, plays: dict[int, list[Play]]) -> None:
        """Have the attempts at each task go as listed; what is not listed goes well."""
        left: dict[int, list[Play]] = defaultdict(list, {task: list(rest) for task, rest in plays.items()})

        def script(_name: str, config: dict[str, Any]) -> Play:
            rest = left[int(config["labels"].get("foldfleet.task", -1))]
            return rest.pop(0) if rest else Play()

        self.api.script = script

    def made(self, kind: str = "create") -> list[str]:
        """Return the last word of the names of the containers that were made, in order."""
        return [call.rpartition("-")[0].rpartition("-")[2] + "-" + call.rpartition("-")[2] for call in self.calls(kind)]

    def calls(self, kind: str) -> list[str]:
        return [call.partition(" ")[2] for call in self.api.calls if call.startswith(f"{kind} ")]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def make_plan(num_tasks: int = 2) -> RoundPlan:
    return draft_round(plan_fields(run_id=RUN), [Task(i, ((0, 2),)) for i in range(num_tasks)], None).plan


def send(backend: DockerBackend, num_tasks: int = 2) -> list[dict[str, Any]]:
    return [backend.submit(array) for array in backend.build_request(make_plan(num_tasks)).arrays]


def wait(backend: DockerBackend) -> list[Ending]:
    for _ in range(1000):
        if (endings := backend.wait(0.3)) is not None:
            return endings
    raise AssertionError("it does not end")


def error_of(backend: DockerBackend) -> FoldfleetError:
    (ending,) = wait(backend)
    assert ending.error is not None
    return ending.error


# --- what a task gets ---


@pytest.mark.parametrize(
    ("vcpus", "memory_gib", "asked", "there", "shape"),
    [
        (None, None, None, (8, 32), Shape(4, int(0.45 * 32 * GIB), 2)),
        (None, None, None, (1, 2), Shape(1, int(0.9 * 2 * GIB), 1)),
        (None, None, None, (3, 30), Shape(1, 9 * GIB, 3)),
        (2, None, None, (8, 40), Shape(2, 9 * GIB, 4)),
        (2, 8, None, (8, 20), Shape(2, 8 * GIB, 2)),
        (8, 8, None, (8, 20), Shape(8, 8 * GIB, 1)),
        (None, 20, None, (8, 22), Shape(8, 20 * GIB, 1)),
        (None, None, 4, (8, 40), Shape(2, 18 * GIB, 2)),
        (4, None, 1, (8, 40), Shape(1, 36 * GIB, 1)),
        (1, 1, 16, (2, 8), Shape(1, GIB, 8)),
        (8, None, 16, (2, 40), Shape(2, int(0.9 * 40 * GIB / 8), 8)),
    ],
)
def test_the_machine_is_divided_among_tasks(
    vcpus: int | None, memory_gib: float | None, asked: int | None, there: tuple[int, int], shape: Shape
) -> None:
    machine = Machine(there[0], there[1] * GIB)
    made = make_shape(machine, Resources(vcpus=vcpus, memory_gib=memory_gib), asked)
    assert (made.vcpus, made.memory_bytes, made.slots) == (shape.vcpus, shape.memory_bytes, shape.slots)
    assert made.workers == shape.slots * shape.vcpus
    again = make_shape(machine, Resources(vcpus=vcpus, memory_gib=memory_gib), made.workers)
    assert (again.vcpus, again.slots) == (made.vcpus, made.slots)  # what a detached resume is told


def test_more_cpus_than_there_are_is_said(desk: Desk) -> None:
    warning = make_shape(Machine(2, 8 * GIB), Resources(vcpus=16), None).warning
    assert warning is not None
    assert "16" in warning and "has 2" in warning


@pytest.mark.parametrize(("memory_gib", "words"), [(64.0, "64 GiB.*has 8 GiB"), (1e-6, "at least")])
def test_memory_that_cannot_be_given_is_refused(memory_gib: float, words: str) -> None:
    with pytest.raises(LimitError, match=words):
        make_shape(Machine(2, 8 * GIB), Resources(memory_gib=memory_gib), None)


# --- what is sent ---


def test_the_request_of_a_round(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgroups", lambda: [2, os.getgid(), 1])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")  # what `describe` is not told, a task is not told either
    backend = desk.backend()
    store, cache = desk.store.url, str(desk.settings.cache)
    digest = backend.build_request(make_plan()).arrays[0].name.split("-")[3]
    (array,) = backend.build_request(make_plan()).to_json()["arrays"]
    assert array == {
        "name": f"foldfleet-{RUN}-{digest}-r2-a0",
        "array_index": 0,
        "first_task": 0,
        "size": 2,
        "command": ("containers", "work", "--store", store, "--run", RUN, "--round", "2", "--first-task", "0"),
        "environment": {
            "HOME": "/tmp",
            **PINS,
            "FOLDFLEET_CACHE": cache,
            "FOLDFLEET_WORKERS": "2",
            "FOLDFLEET_FLUSH_SECONDS": "1",
        },
        "container": {
            "image": "mine:1",
            "user": f"{os.getuid()}:{os.getgid()}",
            "network": "none",
            "vcpus": 2,
            "memory_bytes": int(0.9 * 16 * GIB / 2),
            "mounts": (
                {"source": store, "target": store, "writable": True},
                {"source": cache, "target": cache, "writable": True},
            ),
            "passed_on": (),
            "groups": (1, 2),
        },
    }
    assert desk.api.calls == ["info"]
    assert not Path(cache).exists()


def test_a_container_may_do_no_more_than_it_needs(desk: Desk) -> None:
    backend = desk.backend()
    send(backend)
    wait_once = backend.wait(0.0)
    assert wait_once is None
    config = desk.api.containers_by_name[desk.calls("create")[0]].config
    host = config["host_config"]
    assert config["image"] == IMAGE_ID  # not the name: another image may get it meanwhile
    assert config["hostname"] == re.sub(r"[^a-zA-Z0-9.-]", "-", socket.gethostname())[:63]
    assert config["use_config_proxy"] is False
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert host["CapAdd"] == (["DAC_OVERRIDE"] if os.getuid() == 0 else [])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["NanoCpus"], host["PidsLimit"]) == (2 * 10**9, 4096)
    assert host["Memory"] == host["MemorySwap"] == int(0.9 * 16 * GIB / 2)
    assert host["Tmpfs"] == {"/tmp": "mode=1777"}
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in host["Mounts"]] == [
        (desk.store.url, desk.store.url, False),
        (str(desk.settings.cache), str(desk.settings.cache), False),
    ]
    assert "OomKillDisable" not in host
    backend.stop()
    backend.close()


def test_each_task_is_told_who_it_is(desk: Desk) -> None:
    backend = desk.backend()
    seen: dict[str, dict[str, Any]] = {}

    def script(name: str, config: dict[str, Any]) -> Play:
        seen[name] = config
        return Play(exit_code=75 if name.endswith("t1-1") else 0)

    desk.api.script = script
    (handle,) = send(backend)
    assert [ending.error for ending in wait(backend)] == [None]
    own = ("AWS_BATCH_JOB_ARRAY_INDEX", "AWS_BATCH_JOB_ATTEMPT", "FOLDFLEET_LOG_STREAM", "FOLDFLEET_NUM_TASKS")
    assert handle["backend"] == "docker"
    pattern = handle["containers"].removesuffix("*")
    assert [[config["environment"].get(name) for name in own] for config in seen.values()] == [
        ["0", "1", f"{pattern}0-1", None],
        ["1", "1", f"{pattern}1-1", None],
        ["1", "2", f"{pattern}1-2", None],
    ]
    labels = seen[f"{pattern}1-2"]["labels"]
    assert {key: labels[f"foldfleet.{key}"] for key in ("kind", "run", "store", "round", "task")} == {
        "kind": "work",
        "run": RUN,
        "store": desk.store.url,
        "round": "2",
        "task": "1",
    }
    assert (desk.settings.cache / "logs" / f"{pattern}1-2.log").exists()
    backend.close()


def test_credentials_reach_the_container_and_nothing_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home() / ".aws"
    home.mkdir(parents=True)
    bundle = Path.home() / "bundle.pem"
    bundle.write_text("")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    desk.store = cast("Any", Bucket())
    backend = desk.backend()
    request = backend.build_request(make_plan())
    shown = json.dumps(request.to_json())
    assert "hush" not in shown
    container = request.to_json()["arrays"][0]["container"]
    assert container["network"] == "host"
    assert container["passed_on"] == ("AWS_CA_BUNDLE", "AWS_SECRET_ACCESS_KEY")
    assert [(mount["target"], mount["writable"]) for mount in container["mounts"]] == [
        (str(bundle), False),
        ("/tmp/.aws", False),
        (str(desk.settings.cache), True),
    ]
    send(backend)
    backend.wait(0.0)
    config = desk.api.containers_by_name[desk.calls("create")[0]].config
    assert config["environment"]["AWS_SECRET_ACCESS_KEY"] == "hush"
    assert "FOLDFLEET_FLUSH_SECONDS" not in config["environment"]
    assert "hush" not in json.dumps(config["labels"])
    assert "hostname" not in config
    backend.stop()
    backend.close()


def mounts_on_s3(desk: Desk) -> dict[str, dict[str, Any]]:
    """Return by target what a task that talks to S3 is given, without the cache."""
    desk.store = cast("Any", Bucket())
    (array,) = desk.backend().build_request(make_plan()).to_json()["arrays"]
    found = {mount["target"]: mount for mount in array["container"]["mounts"]}
    del found[str(desk.settings.cache)]
    return found


def test_refreshed_tokens_of_a_login_can_be_written_down(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    home = Path.home() / ".aws"
    for name in ("sso/cache", "login"):
        (home / name).mkdir(parents=True)
    elsewhere = Path.home() / "elsewhere"
    elsewhere.mkdir()
    (home / "login" / "cache").symlink_to(elsewhere)
    own = Path.home() / "logins" / "mine"
    own.mkdir(parents=True)
    monkeypatch.setenv("AWS_LOGIN_CACHE_DIRECTORY", str(own))
    assert [(name, mount["writable"]) for name, mount in mounts_on_s3(desk).items()] == [
        ("/tmp/.aws", False),
        ("/tmp/.aws/sso/cache", True),
        (str(own), True),
    ]


def test_a_files_folder_is_mounted_so_that_its_successor_is_seen(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tmp_path / "tokens"
    (tokens / "..now").mkdir(parents=True)
    (tokens / "..now" / "token").write_text("")
    (tokens / "token").symlink_to("..now/token")  # as Kubernetes replaces tokens
    lonely = Path.home() / "bundle.pem"
    lonely.write_text("")
    linked = tmp_path / "links" / "config"
    linked.parent.mkdir()
    linked.symlink_to(lonely)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", f"{tmp_path}/links/../tokens/token")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(lonely))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(linked))
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ssl/../passwd")
    found = mounts_on_s3(desk)
    assert {name: mount["source"] for name, mount in found.items()} == {
        str(tokens): str(tokens),
        str(lonely): str(lonely),
        str(linked): str(lonely),
        "/etc/passwd": "/etc/passwd",
    }
    assert not any(mount["writable"] for mount in found.values())
    (array,) = desk.backend().build_request(make_plan()).arrays
    assert array.environment["AWS_WEB_IDENTITY_TOKEN_FILE"] == str(tokens / "token")
    assert array.environment["REQUESTS_CA_BUNDLE"] == str(lonely)


@pytest.mark.parametrize("rootless", [False, True])
def test_a_task_is_in_the_groups_of_its_user(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, rootless: bool
) -> None:
    monkeypatch.setattr(os, "getgroups", lambda: [7, os.getgid()])
    desk.api.security = ["name=rootless"] if rootless else []
    backend = desk.backend()
    send(backend)
    assert backend.wait(0.0) is None
    config = desk.api.containers_by_name[desk.calls("create")[0]].config
    assert config["host_config"].get("GroupAdd") == (None if rootless else ["7"])
    backend.stop()
    backend.close()


def test_a_step_reads_what_it_is_given(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    data = tmp_path / "table.csv"
    (folder / "spec.yaml").write_text("")
    data.write_text("")
    desk.api.script = lambda name, config: Play(stdout=json.dumps(config["host_config"]["Mounts"]).encode())
    backend = desk.backend()
    reads = [folder / "spec.yaml", folder / ".." / "table.csv", folder / "absent.csv"]
    mounts = cast("list[dict[str, Any]]", backend.step(["prepare"], reads))
    assert [(mount["Source"], mount["Target"]) for mount in mounts if mount["ReadOnly"]] == [
        (str(folder / "spec.yaml"), str(folder / "spec.yaml")),
        (str(data), str(data)),
    ]
    assert Path(desk.store.url).is_dir()
    backend.close()
    assert not list((desk.settings.cache / "locks").iterdir())
    assert not list(desk.settings.cache.glob("logs/*"))  # it had nothing to say


@pytest.mark.parametrize("folder", ["/", "/opt", "/opt/foldfleet/", "/usr", "/tmp"])
def test_a_folder_that_hides_the_image_is_refused(desk: Desk, folder: str) -> None:
    desk.store = open_store(folder)
    with pytest.raises(UsageError, match="--store DIR"):
        desk.backend().build_request(make_plan())


# --- steps ---


def test_a_refusal_comes_back_as_the_error_it_was(desk: Desk) -> None:
    answer = json.dumps({"error": {"exit": 3, "message": "no such column"}}).encode()
    desk.api.script = lambda name, config: Play(3, answer, b"words\n")
    backend = desk.backend()
    with pytest.raises(DataError, match="no such column"):
        backend.step(["prepare"])
    assert [path.read_text() for path in desk.settings.cache.glob("logs/*")] == ["words\n"]
    backend.close()
    assert not desk.api.containers_by_name


@pytest.mark.parametrize(
    ("plays", "error", "words"),
    [
        ([Play(137)] * 4 + [Play(stdout=b"{}")], None, ""),
        ([Play(137)] * 5, TryLaterError, "exit code 137"),
        ([Play(vanishes=True), Play(stdout=b"{}")], None, ""),
        ([Play(vanishes=True)] * 5, TryLaterError, "removed"),
        ([Play(137, out_of_memory=True)], TryLaterError, "lack of memory: it has 14.4 GiB"),
        ([Play(1)], StepCrashedError, "exit code 1"),
        ([Play(143)], InterruptedRun, "asked to stop"),
    ],
)
def test_a_killed_step_is_started_again(
    desk: Desk, plays: list[Play], error: type[Exception] | None, words: str
) -> None:
    rest = list(plays)
    desk.api.script = lambda name, config: rest.pop(0)
    backend = desk.backend()
    if error is None:
        assert backend.step(["reduce"]) == {}
    else:
        with pytest.raises(error, match=words):
            backend.step(["reduce"])
    assert not rest
    backend.close()
    assert not desk.api.containers_by_name


# --- tasks ---


def test_as_many_run_at_once_as_there_are_slots(desk: Desk) -> None:
    desk.play({0: [Play(seconds=5)]})
    backend = desk.backend()
    send(backend, 7)
    assert [ending.error for ending in wait(backend)] == [None]
    assert desk.api.most_alive == 2
    assert desk.made() == [f"t{i}-1" for i in range(7)]
    assert not desk.api.containers_by_name
    backend.close()


def test_waiting_takes_no_longer_than_it_may(desk: Desk) -> None:
    desk.play({0: [Play(seconds=1000)]})
    backend = desk.backend()
    send(backend, 1)
    assert backend.wait(0.3) is None
    assert desk.api.clock == pytest.approx(0.3)
    assert len([call for call in desk.api.calls if call == "list"]) <= 4
    backend.stop()
    backend.close()


@pytest.mark.parametrize(
    ("plays", "made"),
    [
        ({0: [Play(75)]}, ["t0-1", "t1-1", "t0-2"]),
        ({0: [Play(137)], 1: [Play(137, out_of_memory=True)]}, ["t0-1", "t1-1", "t1-2", "t0-2"]),
        ({1: [Play(139), Play(137), Play(75), Play(134)]}, ["t0-1", "t1-1", "t1-2", "t1-3", "t1-4", "t1-5"]),
        ({0: [Play(vanishes=True)]}, ["t0-1", "t1-1", "t0-2"]),
        ({0: [Play(fails=refusal(500, "oci runtime error"))]}, ["t0-1", "t0-2", "t1-1"]),
        ({0: [Play(0, out_of_memory=True)]}, ["t0-1", "t1-1"]),  # a worker was killed, its parent was not
    ],
)
def test_infrastructure_is_tried_again(desk: Desk, plays: dict[int, list[Play]], made: list[str]) -> None:
    for play in plays.values():
        for one in play:
            if one.exit_code == 75:
                one.stdout = json.dumps({"error": {"exit": 75, "message": "disk full"}}).encode()
    desk.play(plays)
    backend = desk.backend()
    send(backend)
    assert [ending.error for ending in wait(backend)] == [None]
    assert sorted(desk.made()) == sorted(made)
    assert not desk.api.containers_by_name
    backend.close()


def test_a_refused_start_is_tried_again_later(desk: Desk) -> None:
    desk.play({0: [Play(fails=refusal(500, "device or resource busy")) for _ in range(3)]})
    backend = desk.backend()
    send(backend, 1)
    assert backend.wait(0.0) is None
    assert desk.made("start") == ["t0-1"]
    assert [ending.error for ending in wait(backend)] == [None]
    assert desk.made("start") == ["t0-1", "t0-2", "t0-3", "t0-4"]
    assert desk.api.clock >= 0.6
    backend.close()


# --- beside other runs ---


@pytest.mark.parametrize(
    ("taken", "by_cpus", "slots"),
    [
        ((0, 0), True, 4),
        ((2, 16), True, 3),
        ((2, 16), False, 3),
        ((5, 1), True, 1),
        ((5, 1), False, 4),
        ((8, 40), True, 1),
        ((99, 999), True, 1),
    ],
)
def test_others_leave_less_room(taken: tuple[int, int], by_cpus: bool, slots: int) -> None:
    machine = Machine(8, 40 * GIB)
    shape = make_shape(machine, Resources(vcpus=2, memory_gib=8), None)
    assert shape.slots == 4
    assert slots_beside(shape, machine, (taken[0], taken[1] * GIB), by_cpus=by_cpus) == slots


def test_two_runs_share_a_machine(desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk.play({task: [Play(seconds=20)] for task in range(2)})
    first = desk.backend()
    send(first)
    assert first.wait(0.1) is None
    other = Desk(tmp_path / "other")
    other.api, other.client = desk.api, desk.client
    second = other.backend()
    (array,) = second.build_request(make_plan(9)).arrays
    assert second.tasks_per_fold(5) == first.tasks_per_fold(5)
    second.submit(array)
    assert second.wait(0.1) is None
    assert len(desk.api.alive()) == 3
    assert second.wait(3) is None
    assert len(desk.api.alive()) == 3
    desk.api.sleep(30)
    assert [ending.error for ending in wait(first)] == [None]
    assert second.wait(0.1) is None
    assert len(desk.api.alive()) == 2  # both are its own
    assert [ending.error for ending in wait(second)] == [None]
    (warning,) = caplog.messages
    assert "take 14.4 GiB and 4 vCPUs" in warning and "1 of its tasks at work at once instead of 2" in warning
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (Play(137), "5 times.*exit code 137.*its log is .*t0-5.log.*submit resume"),
        (Play(137, out_of_memory=True), "lack of memory: a task has 7.2 GiB; resources.memory_gib"),
        (Play(75, json.dumps({"error": {"exit": 75, "message": "disk full."}}).encode()), "disk full; its log"),
        (Play(fails=refusal(500, "no space left")), "no space left"),
    ],
)
def test_the_fifth_death_is_told(desk: Desk, play: Play, words: str) -> None:
    desk.play({0: [play] * 5})
    backend = desk.backend()
    send(backend)
    error = error_of(backend)
    assert isinstance(error, TryLaterError)
    assert not isinstance(error, EngineGoneError)
    with pytest.raises(TryLaterError, match=words):
        raise error
    backend.close()


@pytest.mark.parametrize(
    ("code", "kind"), [(2, SpecError), (3, DataError), (4, AccessError), (5, NotFoundError), (7, LimitError)]
)
def test_a_persons_error_ends_the_run_and_stops_the_others(desk: Desk, code: int, kind: type[FoldfleetError]) -> None:
    answer = json.dumps({"error": {"exit": code, "message": "this is why"}}).encode()
    desk.play({0: [Play(code, answer)], 1: [Play(seconds=1000)]})
    backend = desk.backend()
    send(backend, 4)
    error = error_of(backend)
    assert type(error) is kind
    assert error.message == "this is why"
    assert desk.made() == ["t0-1", "t1-1"]  # no third one was begun
    assert desk.made("SIGTERM") == ["t1-1"]
    assert desk.api.clock < 10
    backend.close()


def test_a_task_that_was_asked_to_stop_ends_the_run(desk: Desk) -> None:
    desk.play({0: [Play(130)], 1: [Play(seconds=1000)]})
    backend = desk.backend()
    send(backend, 4)
    assert isinstance(error_of(backend), InterruptedRun)
    assert desk.made() == ["t0-1", "t1-1"]
    backend.close()


def test_a_bug_ends_the_run_with_its_log(desk: Desk) -> None:
    desk.play({1: [Play(1, stderr=b"Traceback\n")]})
    backend = desk.backend()
    send(backend)
    with pytest.raises(StepCrashedError, match=r"task 1 .*t1-1\.log"):
        wait(backend)
    backend.close()


@pytest.mark.parametrize("deaf", [False, True])
def test_stopping_is_gentle_and_ends(desk: Desk, deaf: bool) -> None:
    desk.play({task: [Play(seconds=1000, deaf=deaf, stderr=b"words\n")] for task in range(2)})
    backend = desk.backend()
    send(backend, 4)
    assert backend.wait(0.1) is None
    backend.stop()
    assert not desk.api.alive()
    assert set(desk.made("SIGKILL")) == ({"t0-1", "t1-1"} if deaf else set())
    assert desk.api.clock < 20
    backend.close()
    assert not desk.api.containers_by_name
    assert len(list(desk.settings.cache.glob("logs/*"))) == 2


def test_a_second_interrupt_kills(desk: Desk) -> None:
    desk.play({task: [Play(seconds=1000, deaf=True)] for task in range(2)})
    backend = desk.backend()
    send(backend)
    backend.wait(0.1)

    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    backend._sleep = interrupted
    assert backend._crew is not None
    backend._crew._sleep = interrupted
    backend.stop()
    backend.close()
    assert not desk.api.containers_by_name


# --- an engine that is silent ---


def test_a_restarted_engine_costs_an_attempt(desk: Desk) -> None:
    desk.play({0: [Play(130, seconds=2)]})  # whoever ends the engine ends what runs in it
    backend = desk.backend()
    send(backend, 1)
    backend.wait(0.1)
    desk.api.silent_until = desk.api.clock + 20
    assert [ending.error for ending in wait(backend)] == [None]
    assert desk.made() == ["t0-1", "t0-2"]
    backend.close()


def test_an_engine_that_stays_silent_is_told(desk: Desk) -> None:
    backend = desk.backend()
    send(backend, 1)
    backend.wait(0.1)
    desk.api.silent_until = float("inf")
    with pytest.raises(TryLaterError, match="has not answered for 60 s"):
        raise error_of(backend)
    assert not is_working(desk.presence, desk.connect)
    backend.close()
    desk.api.silent_until = 0
    backend = desk.backend()
    backend.warm()
    assert not desk.api.containers_by_name
    backend.close()


def test_an_absent_image_is_told_before_anything_is_made(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.client.images.names.clear()
    with pytest.raises(NotFoundError, match=r"no image mine:1\. `submit image build`"):
        desk.backend().warm()
    assert not (tmp_path / "store").exists()


def test_no_engine_is_told(submit: Submit, examples: Path, tmp_path: Path) -> None:
    done = submit(
        "plan", examples / "digits.yaml", "--on", "docker", env={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    )
    assert done.returncode == 75
    assert "systemctl start docker" in done.stderr


@pytest.mark.parametrize("error", [EngineGoneError("It is gone."), AccessError("You may not.")])
def test_where_no_engine_answers_nothing_is_known_to_be_alive(
    desk: Desk, caplog: pytest.LogCaptureFixture, error: FoldfleetError
) -> None:
    def refuse() -> DockerEngine:
        raise error

    presence._warn.cache_clear()
    for _ in range(3):
        assert not is_working(desk.presence, refuse)
    (warning,) = caplog.messages
    assert error.message in warning
    assert "cannot be read here" in read_log(desk.presence, "name", 5, refuse)[0]


def test_an_engine_out_of_reach_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def reach(**_options: object) -> None:
        tries.append(1)
        raise DockerException("Connection refused")

    monkeypatch.setattr(docker, "from_env", reach)
    monkeypatch.setattr(engine, "_try_connect", functools.cache(engine._try_connect.__wrapped__))
    for _ in range(3):
        with pytest.raises(EngineGoneError):
            engine.connect()
    assert len(tries) == 1


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("Error while fetching server API version: PermissionError(13, 'Permission denied')", AccessError, "usermod"),
        ("Error while fetching server API version: FileNotFoundError(2, 'None')", EngineGoneError, "--on local"),
    ],
)
def test_an_engine_out_of_reach_is_told(words: str, kind: type[FoldfleetError], remedy: str) -> None:
    def reach() -> None:
        with explained():
            raise DockerException(words)

    with pytest.raises(kind, match=remedy):
        reach()


# --- processes that were killed ---


def killed(desk: Desk) -> DockerBackend:
    """Return a backend whose process is dead: its lock is free."""
    backend = desk.backend()
    send(backend)
    assert backend.wait(0.1) is None
    backend._owner._lock.release()
    return backend


def test_a_name_that_runs_already_is_taken_for_the_attempt(desk: Desk) -> None:
    desk.play({task: [Play(seconds=3)] for task in range(2)})
    killed(desk)
    second = desk.backend()
    (array,) = second.build_request(make_plan()).arrays
    second._opened = True  # no sweep: as if both were sent at once
    second.submit(array)
    assert [ending.error for ending in wait(second)] == [None]
    assert len(desk.calls("start")) == 2
    assert not desk.api.containers_by_name


def test_a_name_that_has_ended_is_begun_anew(desk: Desk) -> None:
    desk.play({task: [Play(130)] for task in range(2)})
    killed(desk)
    desk.api.sleep(10)
    second = desk.backend()
    second._opened = True
    (array,) = second.build_request(make_plan()).arrays
    second.submit(array)
    assert [ending.error for ending in wait(second)] == [None]
    assert len(desk.calls("start")) == 4


def test_orphans_end_and_are_buried_at_the_next_start(desk: Desk) -> None:
    desk.play({0: [Play(seconds=1000, stderr=b"so far\n")]})
    first = killed(desk)
    name = desk.calls("create")[0]
    assert is_working(desk.presence, desk.connect)
    assert read_log(desk.presence, name, 5, desk.connect) == ["so far"]
    second = desk.backend()
    second.warm()
    assert name in desk.calls("SIGTERM")
    assert not is_working(desk.presence, desk.connect)
    second.close()
    assert not desk.api.containers_by_name
    assert read_log(desk.presence, name, 5, desk.connect) == ["so far"]
    assert not first._owner._lock.path.exists()


def test_a_step_without_its_process_is_removed_at_once(desk: Desk) -> None:
    desk.api.script = lambda name, config: Play(seconds=1000, deaf=True)
    first = desk.backend()
    first.warm()
    first._begin("foldfleet-prepare-1", first._launch(["prepare"]), {}, {"foldfleet.kind": "step"})
    second = desk.backend()
    second.warm()
    assert desk.api.alive() == ["foldfleet-prepare-1"]
    first._owner._lock.release()
    third = desk.backend()
    third.warm()
    assert not desk.api.containers_by_name
    for backend in (second, third):
        backend.close()


def test_a_runs_orphans_are_ended_for_its_next_driver(desk: Desk) -> None:
    desk.play({task: [Play(seconds=1000, deaf=True)] for task in range(2)})
    killed(desk)
    end_orphans(desk.presence, desk.connect, now=desk.api.now, sleep=desk.api.sleep)
    assert not desk.api.containers_by_name
    assert set(desk.made("SIGKILL")) == {"t0-1", "t1-1"}
    assert not is_working(desk.presence, desk.connect)


def test_who_lives_is_left_alone(desk: Desk) -> None:
    desk.play({task: [Play(seconds=1000)] for task in range(2)})
    first = desk.backend()
    send(first)
    first.wait(0.1)
    second = desk.backend()
    second.warm()
    second.close()
    assert len(desk.api.alive()) == 2
    first.stop()
    first.close()


def test_who_lost_his_lock_file_is_left_alone(desk: Desk) -> None:
    desk.play({0: [Play(seconds=1000)], 1: [Play(seconds=1)]})
    first = desk.backend()
    send(first, 3)
    assert first.wait(0.1) is None
    shutil.rmtree(desk.settings.cache)
    desk.api.sleep(2)
    second = desk.backend()
    second.warm()
    second.close()
    assert not desk.calls("SIGTERM")
    assert desk.made("remove") == ["t1-1"]  # it has ended
    assert first.wait(0.1) is None
    assert len(desk.api.alive()) == 2
    for container in desk.api.containers_by_name.values():
        container.created -= 2 * 86400
    second = desk.backend()
    second.warm()
    second.close()
    assert not desk.api.alive()


def test_a_lock_stays_until_its_last_container_is_buried(desk: Desk) -> None:
    desk.play({0: [Play(seconds=1000, deaf=True)], 1: [Play(130, seconds=1)]})
    first = killed(desk)
    desk.api.sleep(2)
    second = desk.backend()
    second.warm()
    assert [name for name in desk.api.alive() if name.endswith("t0-1")]
    assert first._owner._lock.path.exists()
    second.close()
    desk.api.kill(desk.api.alive()[0], "SIGKILL")
    third = desk.backend()
    third.warm()
    third.close()
    assert not desk.api.containers_by_name
    assert not first._owner._lock.path.exists()


def test_another_desks_containers_are_left_alone(desk: Desk, tmp_path: Path) -> None:
    desk.play({task: [Play(seconds=1000)] for task in range(2)})
    killed(desk)
    other = Desk(tmp_path / "other")
    other.api, other.client = desk.api, desk.client
    backend = other.backend()
    backend.warm()
    backend.close()
    assert len(desk.api.alive()) == 2
    assert not is_working(other.presence, other.connect)  # the same run, in another store


def test_in_a_bucket_only_tasks_of_dead_processes_are_ended(desk: Desk) -> None:
    desk.store = cast("Any", Bucket())
    desk.play({task: [Play(seconds=1000)] for task in range(2)})
    first = desk.backend()
    send(first)
    first.wait(0.1)
    end_orphans(desk.presence, desk.connect, now=desk.api.now, sleep=desk.api.sleep)
    assert len(desk.api.alive()) == 2
    first._owner._lock.release()
    end_orphans(desk.presence, desk.connect, now=desk.api.now, sleep=desk.api.sleep)
    assert not desk.api.containers_by_name


def test_locks_of_the_dead_do_not_pile_up(desk: Desk) -> None:
    locks = desk.settings.cache / "locks"
    locks.mkdir(parents=True)
    old, young, held = (locks / f"docker-{name}.lock" for name in ("old", "young", "held"))
    for path in (old, young, held):
        path.touch()
    for path in (old, held):
        os.utime(path, (0, 0))
    holder = HostLock(held)
    holder.acquire()
    os.utime(held, (0, 0))
    backend = desk.backend()
    backend.warm()
    backend.close()
    assert sorted(locks.iterdir()) == sorted([young, held])
    holder.release()


def test_a_log_that_is_nowhere_says_so(desk: Desk) -> None:
    (line,) = read_log(desk.presence, "../../etc/passwd", 5, desk.connect)
    assert "cannot be read here" in line


def test_the_table_of_backends_leads_here(desk: Desk) -> None:
    context = BackendContext(desk.settings, desk.store, desk.spec, None, "letters", image="theirs:1")
    named: Backend = backend_module("docker").make_backend(context)
    assert named.image == "mine:1"
    context = replace(context, settings=replace(desk.settings, image=None))
    assert backend_module("docker").make_backend(context).image == "theirs:1"
    context = replace(context, image=None)
    assert backend_module("docker").make_backend(context).image == f"foldfleet:{version('foldfleet')}"


def checks_as_a_backend(desk: Desk) -> Backend:
    return desk.backend()
