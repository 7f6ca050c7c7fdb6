"""Runs in containers of a real engine: the same scores, nothing left behind, whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from jobspec.grammar.load import load
from jobspec.protocol import prepare_arguments
from jobspec.settings import Settings
from jobspec.stores.base import open_store
from submitter.backends.base import BackendContext
from submitter.backends.docker.backend import DockerBackend
from tests.docker.dockgate import DockerGate, build_gated, config_of
from tests.e2e.gate import read_until

SPEC = """
name: flowers
data: {builtin: iris}
cv: {kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 0}
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {random_state: 0}
  grid: {n_estimators: [3, 5], max_features: [1, 2]}
- pipeline:
  - scale: sklearn.preprocessing.StandardScaler
  - svc: sklearn.svm.SVC
  grid: {svc__C: [0.1, 1]}
scoring: [accuracy, f1_macro]
refit: accuracy
"""


@pytest.fixture(scope="session")
def gated_image(docker_engine: DockerClient, image: str) -> str:
    return build_gated(docker_engine, image)


@pytest.fixture
def gate(tmp_path: Path, docker_engine: DockerClient, gated_image: str) -> Iterator[DockerGate]:
    gate = DockerGate(tmp_path, docker_engine, gated_image)
    yield gate
    gate.clear()


_UNDISTURBED: list[list[dict[str, str]]] = []


def undisturbed(gate: DockerGate) -> list[dict[str, str]]:
    """Return the table of the same spec, made on this machine without containers."""
    if not _UNDISTURBED:
        store, gate.store = gate.store, gate.folder / "undisturbed"
        _UNDISTURBED.append(gate.table(gate.json(*gate.run(on="local"))["run_id"]))
        gate.store = store
    return _UNDISTURBED[0]


def test_a_run_in_containers_is_confined_and_leaves_nothing(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run("--json")) as process:
        read_until(process, "2/9 cells")
        (container,) = gate.alive()
        config = config_of(container)
        assert config["NetworkMode"] == "none"
        assert config["ReadonlyRootfs"] is True
        assert config["CapDrop"] == ["ALL"]
        assert config["NanoCpus"] == 10**9
        assert config["Memory"] == config["MemorySwap"] > 0
        assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
        assert {mount["Destination"]: mount["RW"] for mount in container.attrs["Mounts"]} == {
            str(gate.store): True,
            str(gate.cache): True,
        }
        live = gate.json("logs", "latest")
        assert [stream["log"] for stream in live["streams"]] == [container.name]
        gate.open()
        out, _ = process.communicate()
        assert process.returncode == 0
    answer = json.loads(out)
    assert (answer["fits"], answer["state"]) == (9, "finished")
    assert gate.table(answer["run_id"]) == undisturbed(gate)
    assert not gate.containers()
    assert not list((gate.cache / "locks").iterdir())
    assert len(gate.json("logs", "latest")["streams"]) == 3
    assert {path.stat().st_uid for path in gate.files()} == {os.getuid()}


def test_files_belong_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    if os.getuid() == 0:  # elsewhere every run is the proof
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        monkeypatch.setattr(os, "getgid", lambda: 12345)
    spec = tmp_path / "flowers.yaml"
    spec.write_text(SPEC)
    made = [tmp_path / "store", tmp_path / "cache"]
    for folder in made:
        folder.mkdir()
        os.chown(folder, os.getuid(), os.getgid())
    settings = Settings("", made[1], None, (), (), image)
    store = open_store(str(made[0]))
    backend = DockerBackend(BackendContext(settings, store, load(spec).spec, None, "flowers"))
    with contextlib.closing(backend):
        arguments = prepare_arguments(
            store.url, spec, max_folds=10, allow_small_classes=False, numerics=backend.engine(None).numerics
        )
        assert backend.step(arguments, [spec])["num_rows"] == 150
    files = [Path(place) / name for place, _, names in os.walk(made[0]) for name in names]
    assert len(files) > 3
    assert {path.stat().st_uid for path in files} == {os.getuid()}


@pytest.mark.thorough
def test_a_killed_command_line_leaves_work_that_goes_on_and_is_cleaned_up(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run()) as process:
        read_until(process, "2/9 cells")
        process.kill()
        process.wait()
    (orphan,) = gate.alive()
    assert gate.json("status", "latest")["state"] == "running"
    with gate.started(*gate.run("--json")) as second:
        read_until(second, "waiting for it")
        gate.open()
        out, err = second.communicate()
        assert second.returncode == 0, err
    answer = json.loads(out)
    assert answer["cells"]["reused"] in {2, 3}  # the third may have ended before it was told to stop
    assert answer["cells"]["reused"] + answer["fits"] == 9
    assert gate.table(answer["run_id"]) == undisturbed(gate)
    assert not gate.containers()
    assert (gate.cache / "logs" / f"{orphan.name}.log").exists()
    assert not list((gate.cache / "locks").iterdir())


@pytest.mark.thorough
def test_another_run_cleans_up_too(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run()) as process:
        read_until(process, "2/9 cells")
        process.kill()
        process.wait()
    assert gate.alive()
    other = gate.folder / "other.yaml"
    other.write_text("name: other\ndata: {builtin: iris}\ncandidates: [{estimator: sklearn.naive_bayes.GaussianNB}]\n")
    assert gate.call("run", other, "--on", "docker").returncode == 0
    assert not gate.containers()
    assert gate.json("status", "gated")["state"] == "interrupted"


def test_a_killed_container_is_started_again(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run("--json")) as process:
        read_until(process, "2/9 cells")
        (first,) = gate.alive()
        first.kill()
        gate.open()
        out, err = process.communicate()
        assert process.returncode == 0, err
    answer = json.loads(out)
    assert gate.table(answer["run_id"]) == undisturbed(gate)
    streams = [stream["log"] for stream in gate.json("logs", "latest")["streams"]]
    assert [name.rpartition("-t")[2] for name in streams] == ["0-1", "0-2", "1-1", "2-1"]
    assert not gate.containers()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough)])
def test_an_interrupted_run_stops_its_containers(gate: DockerGate, number: signal.Signals) -> None:
    gate.close()
    with gate.started(*gate.run("--json")) as process:
        read_until(process, "2/9 cells")
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == 130
    assert "submit resume gated-" in err
    assert not gate.containers()
    assert gate.json("status", "latest")["state"] == "interrupted"
    gate.open()
    answer = gate.json("resume", "latest")
    assert (answer["fits"], answer["cells"]["reused"]) == (7, 2)
    assert gate.table(answer["run_id"]) == undisturbed(gate)


@pytest.mark.thorough
def test_cancelling_from_another_terminal(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run("--json")) as process:
        read_until(process, "2/9 cells")
        cancelled = gate.json("cancel", "latest")
        process.communicate()
        assert process.returncode == 130
    assert (cancelled["state"], cancelled["cells"]["done"]) == ("cancelled", 2)
    assert not gate.containers()
    assert gate.json("results", "latest")["complete"] is False


@pytest.mark.thorough
def test_cancelling_what_was_killed(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run()) as process:
        read_until(process, "2/9 cells")
        process.kill()
        process.wait()
    assert gate.alive()
    cancelled = gate.json("cancel", "latest")
    assert (cancelled["state"], cancelled["cells"]["done"]) == ("cancelled", 2)
    assert not gate.containers()


@pytest.mark.thorough
def test_two_terminals_make_one_table(gate: DockerGate) -> None:
    gate.close()
    with gate.started(*gate.run("--json")) as first:
        read_until(first, "2/9 cells")
        with gate.started(*gate.run("--json")) as second:
            read_until(second, "watching")
            gate.open()
            answers = [json.loads(process.communicate()[0]) for process in (first, second)]
            assert [process.returncode for process in (first, second)] == [0, 0]
    assert [answer["fits"] for answer in answers] == [9, 0]
    assert gate.table(answers[0]["run_id"]) == undisturbed(gate)


def test_a_detached_run_goes_on(gate: DockerGate) -> None:
    gate.close()
    done = gate.call(*gate.run("--detach"))
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.strip()
    assert gate.json("status", run_id)["state"] == "running"
    gate.open()
    watched = gate.call("watch", run_id)
    assert watched.returncode == 0, watched.stderr
    assert gate.table(run_id) == undisturbed(gate)
    assert not gate.containers()


@pytest.mark.thorough
def test_what_eats_too_much_is_lost_and_the_rest_is_kept(gate: DockerGate) -> None:
    gate.spec.write_text(
        """
name: greedy
data: {path: table.csv, target: kind}
cv: 2
candidates: [{estimator: gated_estimator.Greedy, grid: {level: [1, 4000]}}]
scoring: accuracy
resources: {vcpus: 1, memory_gib: 0.4}
"""
    )
    answer = gate.json(*gate.run())
    assert answer["cells"] == {"total": 4, "done": 2, "failed": 0, "lost": 2, "reused": 0} | answer["cells"]
    assert (answer["cells"]["done"], answer["cells"]["lost"]) == (2, 2)
    assert not gate.containers()


def test_what_cannot_run_is_told_in_one_paragraph(gate: DockerGate, image: str, gated_image: str) -> None:
    good = gate.spec.read_text()
    gate.spec.write_text(good.replace("target: kind", "target: knid"))
    done = gate.call(*gate.run())
    assert done.returncode == 3
    assert "kind" in done.stderr and "Traceback" not in done.stderr
    gate.spec.write_text(good)

    gate.image = "foldfleet-no-such-image:1"
    done = gate.call(*gate.run())
    assert done.returncode == 5
    assert "submit image build" in done.stderr

    gate.image = image
    done = gate.call(*gate.run())
    assert done.returncode == 5
    assert "gated_estimator" in done.stderr and "submit image build" in done.stderr

    gate.spec.write_text(good + "resources: {memory_gib: 90000}\n")
    gate.image = gated_image
    done = gate.call(*gate.run())
    assert done.returncode == 7
    assert "90000" in done.stderr or "9e+04" in done.stderr
    assert not gate.containers()


def test_a_dry_run_shows_what_would_be_sent_and_starts_nothing(gate: DockerGate) -> None:
    (array,) = gate.json(*gate.run("--dry-run"))["request"]["arrays"]
    assert array["container"]["image"] == gate.image
    assert array["container"]["network"] == "none"
    assert array["command"][:2] == ["containers", "work"]
    assert not (gate.store / "runs").exists()
    assert not gate.containers()
