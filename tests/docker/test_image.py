"""The image: what is in it, what is not, how it ends, and what it says of itself."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobspec.engine import current_engine, describe_engine
from jobspec.errors import NotFoundError, UsageError
from jobspec.runs.answers import read_answer
from jobspec.settings import load_settings
from jobspec.stores.base import open_store
from submitter.images import check_modules, image_parts, parts
from submitter.images.build import ImageOptions
from tests.conftest import Submit
from tests.docker.fixtures import REPOSITORY, build
from tests.planner.desk import make_site

if TYPE_CHECKING:
    from docker import DockerClient

UNPRIVILEGED: dict[str, Any] = {"network_mode": "none", "read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"]}

MODULE = """
import ctypes
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Stuck(ClassifierMixin, BaseEstimator):
    def __init__(self, level=0):
        self.level = level

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        print("fit begins", flush=True)
        ctypes.PyDLL(None).sleep(600)  # compiled code that holds the interpreter's lock
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[self.level])
"""

SPEC = """
name: own
data: {path: table.csv, target: kind}
cv: {kind: KFold, n_splits: 2}
candidates:
- estimator: own_models.Stuck
  grid: {level: [0, 1]}
scoring: accuracy
"""

IDENTITY = {"candidates": [{"definition": {"$estimator": "own_models.Stuck", "params": {}}}]}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a user who allows one module of his own, and a spec that names it; return the module's folder."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_models.py").write_text(MODULE)
    (tmp_path / "own.yaml").write_text(SPEC)
    (tmp_path / "table.csv").write_text("\n".join(["x,kind", *(f"{i * 37 % 101},{'ab'[i % 2]}" for i in range(40))]))
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "own_models")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(folder))
    return folder


@pytest.fixture
def own_image(docker_engine: DockerClient, image: str, base_image: str, own: Path) -> Iterator[str]:
    """Build an image with the user's module."""
    tag = f"{image}-own-{os.getpid()}"
    build(docker_engine, ImageOptions(tag=tag, base=base_image), ("own_models",), own)
    yield tag
    docker_engine.images.remove(tag, force=True)


def run_python(client: DockerClient, image: str, code: str, **options: Any) -> str:
    """Run code in an image as a stranger without rights and return what it prints."""
    answer: bytes = client.containers.run(
        image, ["-c", code], entrypoint="/opt/foldfleet/bin/python", remove=True, **UNPRIVILEGED, **options
    )
    return answer.decode()


@contextmanager
def started(client: DockerClient, image: str, code: str) -> Iterator[Any]:
    """Start code as the first process of a container."""
    container = client.containers.run(
        image, ["-P", "-c", code], entrypoint="/opt/foldfleet/bin/python", detach=True, **UNPRIVILEGED
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def first_line(container: Any) -> bytes:
    """Wait for the first line that a container writes."""
    with following(container.logs(stream=True, follow=True)) as lines:
        line: bytes = next(lines)
    return line


@contextmanager
def following(stream: Any) -> Iterator[Any]:
    """Close a stream of the SDK whole: it would leave its connection to the garbage collector."""
    try:
        yield stream
    finally:
        stream.close()
        stream._response.close()


def empty_image(tag: str, architecture: str) -> bytes:
    """Return an image without files for some kind of machine, as ``docker save`` writes it."""
    layer = packed({})
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    return packed({"layer.tar": layer, "config.json": config, "manifest.json": manifest})


def packed(files: dict[str, bytes]) -> bytes:
    """Return a tar file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return archive.getvalue()


# --- what is in it --------------------------------------------------------------------------------------------


def test_it_runs_as_nobody_and_as_anybody_on_a_read_only_file_system(docker_engine: DockerClient, image: str) -> None:
    code = (
        "import os, pathlib, tempfile\n"
        "import numpy, scipy.stats, sklearn.ensemble, pyarrow.parquet, pyarrow.csv, pyarrow.orc, pyarrow.feather\n"
        "import boto3, containers.tasks.work, containers.views.refit\n"
        "try:\n    pathlib.Path('/opt/foldfleet/x').touch()\n"
        "except OSError as error:\n    print(os.getuid(), os.environ['HOME'], error.strerror, tempfile.gettempdir())\n"
    )
    expected = "/tmp Read-only file system /tmp\n"
    assert run_python(docker_engine, image, code) == f"10001 {expected}"
    assert run_python(docker_engine, image, code, user="4321:4321") == f"4321 {expected}"


def test_nothing_that_builds_or_installs_is_left(docker_engine: DockerClient, image: str) -> None:
    code = (
        "import importlib.util as u, shutil\n"
        "tools = [n for n in ('gcc', 'cc', 'g++', 'make', 'ld', 'pip', 'pip3', 'git', 'curl') if shutil.which(n)]\n"
        "print(tools, [n for n in ('pip', 'setuptools', 'wheel', 'pytest', 'sklearn.tests') if u.find_spec(n)])\n"
    )
    assert run_python(docker_engine, image, code) == "[] []\n"


def test_byte_code_is_there_already(docker_engine: DockerClient, image: str) -> None:
    code = (
        "import pathlib, importlib.util as u, sysconfig\n"
        "top = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "files = [p for n in ('sklearn', 'containers', 'jobspec', 'pyarrow') for p in (top / n).rglob('*.py')]\n"
        "print(len(files) > 100, [str(p) for p in files if not pathlib.Path(u.cache_from_source(p)).is_file()])\n"
    )
    assert run_python(docker_engine, image, code) == "True []\n"


def test_it_says_on_its_labels_what_it_is(docker_engine: DockerClient, image: str, cache: Path) -> None:
    attributes = docker_engine.images.get(image).attrs
    labels = attributes["Config"]["Labels"]
    lock = (REPOSITORY / "requirements.lock").read_bytes()
    assert labels["foldfleet.lock"] == hashlib.sha256(lock).hexdigest()
    assert labels["foldfleet.engine_id"] == image_parts(docker_engine, image, cache).whole_engine("portable").engine_id
    assert labels["org.opencontainers.image.title"] == "foldfleet"
    assert labels["org.opencontainers.image.version"] == describe_engine().foldfleet
    assert attributes["Config"]["User"] == "10001:10001"
    assert attributes["Config"]["Entrypoint"] == ["/opt/foldfleet/bin/python", "-P", "-m"]
    assert (attributes["Os"], attributes["Architecture"]) == ("linux", "amd64")


# --- what it computes with ------------------------------------------------------------------------------------


def test_it_describes_what_its_tasks_find(docker_engine: DockerClient, own_image: str, own: Path, cache: Path) -> None:
    found = image_parts(docker_engine, own_image, cache)
    code = f"from jobspec.engine import current_engine as e\nfor n in ('native', 'portable'): print(e(n, {IDENTITY!r}))"
    told = "".join(f"{found.engine(numerics, IDENTITY)}\n" for numerics in ("native", "portable"))
    assert run_python(docker_engine, own_image, code) == told
    assert found.packages == describe_engine().packages
    assert found.modules == describe_engine().modules  # the user's own, bit by bit as here
    assert found.engine("native").modules == {}


def test_an_image_is_asked_once(
    docker_engine: DockerClient, image: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image_parts(docker_engine, image, cache)
    monkeypatch.setattr(parts, "describe_image", lambda *_arguments, **_options: pytest.fail("asked again"))
    assert image_parts(docker_engine, image, cache) == first
    (remembered,) = (cache / "images").iterdir()
    remembered.write_text("{")
    with pytest.raises(pytest.fail.Exception, match="asked again"):
        image_parts(docker_engine, image, cache)


def test_another_architecture_is_refused_and_both_are_told(docker_engine: DockerClient, cache: Path) -> None:
    tag = f"foldfleet-test-arm64:{os.getpid()}"
    docker_engine.images.load(empty_image(tag, "arm64"))
    try:
        with pytest.raises(UsageError, match=r"made for arm64, .* is amd64: .*image build --platform linux/amd64"):
            image_parts(docker_engine, tag, cache)
    finally:
        docker_engine.images.remove(tag)


def test_an_image_that_is_absent_or_not_ours_is_refused(
    docker_engine: DockerClient, base_image: str, cache: Path
) -> None:
    with pytest.raises(NotFoundError, match=r"no image no-such:image\. `submit image build` makes it"):
        image_parts(docker_engine, "no-such:image", cache)
    with pytest.raises(UsageError, match="does not answer as foldfleet's"):
        image_parts(docker_engine, base_image, cache)


# --- the user's own -------------------------------------------------------------------------------------------


def test_an_own_module_is_inside_and_an_edit_is_noticed(
    docker_engine: DockerClient, image: str, own_image: str, own: Path, cache: Path
) -> None:
    check_modules(image_parts(docker_engine, own_image, cache), IDENTITY, load_settings(), own_image)
    with pytest.raises(NotFoundError, match=r"own_models, .* the image \S+ lacks\. `submit image build`"):
        check_modules(image_parts(docker_engine, image, cache), IDENTITY, load_settings(), image)
    (own / "own_models.py").write_text(MODULE + "# edited\n")
    with pytest.raises(NotFoundError, match="own_models was edited after the image"):
        check_modules(image_parts(docker_engine, own_image, cache), IDENTITY, load_settings(), own_image)


@pytest.mark.parametrize("with_module", [True, False])
def test_only_what_the_image_allows_can_be_named(
    docker_engine: DockerClient, image: str, own_image: str, own: Path, tmp_path: Path, with_module: bool
) -> None:
    binds = {str(tmp_path): {"bind": str(tmp_path), "mode": "rw"}}
    made = docker_engine.containers.run(
        own_image if with_module else image,
        ["containers", "prepare", "--store", str(tmp_path / "store"), "--spec", str(tmp_path / "own.yaml")],
        user=f"{os.getuid()}:{os.getgid()}",
        volumes=binds,
        detach=True,
        **(UNPRIVILEGED | {"cap_drop": []}),
    )
    try:
        exit_code = made.wait()["StatusCode"]
        answer = json.loads(made.logs(stdout=True, stderr=False))
    finally:
        made.remove(force=True)
    assert exit_code == (0 if with_module else 2), answer
    assert ("own_models.Stuck" in json.dumps(answer.get("error", {}))) is not with_module


def test_the_same_image_plans_for_a_state_machine(docker_engine: DockerClient, image: str, tmp_path: Path) -> None:
    """With nothing to write on but its store; what it refuses is an answer."""
    site = make_site(store=str(tmp_path / "store")).model_dump_json()
    ask = json.dumps({"execution": "arn:aws:states:r:1:execution:m:e", "run": "nothing-0123456789ab"})
    logged: bytes = docker_engine.containers.run(
        image,
        ["submitter.planner", "--site", site, "--ask", ask, "--answer", "e-p1"],
        user=f"{os.getuid()}:{os.getgid()}",
        volumes={str(tmp_path): {"bind": str(tmp_path), "mode": "rw"}},
        stderr=True,
        remove=True,
        **(UNPRIVILEGED | {"cap_drop": []}),
    )
    assert b"planned next=refuse" in logged
    answer = read_answer(open_store(str(tmp_path / "store")), "e-p1")
    assert answer is not None and answer.answer is not None
    assert answer.answer["error"]["exit"] == 5


def test_requirements_that_contradict_the_lock_are_refused_in_pips_words(
    docker_engine: DockerClient, image: str, base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("numpy==1.26.0\n")
    with pytest.raises(UsageError, match=r"(?s)mine\.txt cannot .* numpy==1\.26\.0 .*constraint.*numpy==\d") as refused:
        build(docker_engine, ImageOptions(tag="never", base=base_image, requirements=tmp_path / "mine.txt"))
    assert "\n" not in refused.value.message


def test_requirements_are_added_beside_the_lock(
    docker_engine: DockerClient, image: str, base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("# one small package\ntoolz==1.0.0\nnumpy\n")
    tag = f"{image}-toolz-{os.getpid()}"
    report = build(docker_engine, ImageOptions(tag=tag, base=base_image, requirements=tmp_path / "mine.txt"))
    try:
        assert report.added == {"toolz": "1.0.0"}
        assert report.packages == describe_engine().packages
        assert report.engine_id == docker_engine.images.get(tag).labels["foldfleet.engine_id"]
        assert run_python(docker_engine, tag, "import toolz; print(toolz.__version__)") == "1.0.0\n"
    finally:
        docker_engine.images.remove(tag)


# --- how it ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "exit_code"),
    [("ctypes.PyDLL(None).sleep(600)", 143), ("sys.exit(5)", 5), ("os.kill(os.getpid(), signal.SIGKILL)", 137)],
    ids=["asked to end inside compiled code", "ends by itself", "is killed"],
)
def test_a_plain_container_ends_as_its_step_does(
    docker_engine: DockerClient, image: str, body: str, exit_code: int
) -> None:
    code = (
        "import ctypes, os, signal, sys\n"
        "from containers.firstprocess import run_in_child\n"
        f"def step():\n    print('begun', flush=True)\n    {body}\n"
        "sys.exit(run_in_child(step))\n"
    )
    with started(docker_engine, image, code) as container:
        assert first_line(container) == b"begun\n"
        if exit_code == 143:
            container.stop(timeout=120)  # after which it would be killed: 137
        assert container.wait()["StatusCode"] == exit_code


def test_the_first_process_reaps_orphans(docker_engine: DockerClient, image: str) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from containers.firstprocess import run_in_child\n"
        "def step():\n"
        "    ends, begins = os.pipe()\n"
        "    if (child := os.fork()) == 0:\n"
        "        if os.fork() == 0:\n"
        "            os.close(ends)\n"
        "            os._exit(0)\n"  # an orphan, by now or soon
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    os.close(begins)\n"
        "    os.read(ends, 1)\n"  # until every copy of the other end is closed: the orphan has ended
        "    while len([p for p in pathlib.Path('/proc').iterdir() if p.name.isdigit()]) > 2:\n"
        "        os.sched_yield()\n"
        "    return 0\n"
        "sys.exit(run_in_child(step))\n"
    )
    with started(docker_engine, image, code) as container:
        assert container.wait()["StatusCode"] == 0


# --- where it is built from -----------------------------------------------------------------------------------


def test_an_installed_wheel_builds_the_same_image(tmp_path: Path) -> None:
    source = tmp_path / "source"  # setuptools writes beside the sources
    shutil.copytree(
        REPOSITORY,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            *(".*", "foldfleet", "foldfleet.egg-info", "build", "data", "tests", "benchmarks"),
            "__pycache__",  # in which files come and go
        ),
    )
    # `data` above leaves out the benchmarks' data, and a package of ours by the same name.
    data = REPOSITORY / "containers" / "data"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(data, source / "containers" / "data", dirs_exist_ok=True, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    subprocess.run([*command, tmp_path / "wheels", source], check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert context_digests(tmp_path / "installed", tmp_path) == context_digests(source, tmp_path)


def context_digests(top: Path, working_folder: Path) -> Any:
    """Return what foldfleet in some folder would build an image from."""
    code = (
        "import hashlib, json, submitter\n"
        "from submitter.images.context import assemble\n"
        "from jobspec.settings import load_settings\n"
        "files = assemble(load_settings(), None).files\n"
        "digests = {n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()}\n"
        "print(json.dumps([submitter.__file__, digests]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(top)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=working_folder
    )
    place, digests = json.loads(done.stdout)
    assert Path(place).is_relative_to(top) and "Dockerfile" in digests
    return digests


# --- the command line -----------------------------------------------------------------------------------------


def test_the_command_says_what_it_built(
    docker_engine: DockerClient, image: str, base_image: str, own: Path, submit: Submit
) -> None:
    tag = f"{image}-said-{os.getpid()}"
    done = submit("image", "build", "--base", base_image, "--tag", tag, "--json")
    assert done.returncode == 0, done.stderr
    try:
        answer = json.loads(done.stdout)
        found = docker_engine.images.get(tag)
        assert (answer["image"], answer["image_id"], answer["base"]) == (tag, found.id, base_image)
        assert answer["modules"] == current_engine("native", IDENTITY).modules
        assert answer["engine_id"] == found.labels["foldfleet.engine_id"]
        assert answer["size_bytes"] > 10**8
        assert answer["added"] == {}
        assert "Step 1/" in done.stderr
    finally:
        docker_engine.images.remove(tag)


def test_a_task_that_fits_ends_at_once(
    docker_engine: DockerClient, own_image: str, own: Path, submit: Submit, tmp_path: Path
) -> None:
    run = ("run", tmp_path / "own.yaml", "--on", "docker", "--store", tmp_path / "store", "--workers", 1)
    environment = {"FOLDFLEET_IMAGE": own_image}
    with ThreadPoolExecutor(1) as threads, watching(docker_engine, own_image, "foldfleet.kind=work") as events:
        running = threads.submit(submit, *run, env=environment)
        container = docker_engine.containers.get(next(e["id"] for e in events if e["status"] == "start"))
        with following(container.logs(stream=True, follow=True)) as lines:
            assert any(b"fit begins" in line for line in lines)
        container.stop(timeout=120)  # after which it would be killed: 137
        death = next(e for e in events if e["status"] == "die" and e["id"] == container.id)
        submit("cancel", "latest", "--store", tmp_path / "store", env=environment)
        running.result()
    assert death["Actor"]["Attributes"]["exitCode"] == "130"


@contextmanager
def watching(client: DockerClient, image: str, label: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Watch what happens to an image's containers; for five minutes, so that a test ends in any case."""
    image_id = client.images.get(image).id
    events = client.events(decode=True, filters={"type": "container", "label": label}, until=int(time.time()) + 300)
    with following(events):
        yield (event for event in events if event["Actor"]["Attributes"]["image"] in (image, image_id))
