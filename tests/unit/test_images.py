from __future__ import annotations

import fcntl
import hashlib
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from docker.types import HostConfig

from jobspec.engine import EngineParts, Numerics, current_engine, describe_engine
from jobspec.errors import LimitError, NotFoundError, SpecError, TryLaterError, UsageError
from jobspec.settings import load_settings
from submitter.images import context
from submitter.images.build import TARGETS, ImageOptions, _follow
from submitter.images.context import assemble
from submitter.images.parts import describe_image
from tests.conftest import REPOSITORY, Submit

IDENTITY = {"candidates": [{"definition": {"$estimator": "mine.Model", "params": {}}}]}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import helper\nclass Model: pass\n")
    (tmp_path / "mine" / "words.txt").write_text("a b c\n")
    (tmp_path / "mine" / ".secret").write_text("no\n")
    (tmp_path / "helper.py").write_text("FACTOR = 1\n")
    (tmp_path / "stranger.py").write_text("")
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "mine")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("numerics", ["native", "portable"])
@pytest.mark.parametrize("identity", [None, IDENTITY])
def test_a_description_gives_the_engine_of_any_spec(mine: Path, numerics: Numerics, identity: object) -> None:
    told = EngineParts.model_validate_json(describe_engine().model_dump_json())
    assert told.engine(numerics, identity) == current_engine(numerics, identity)
    assert told.whole_engine(numerics) == current_engine(numerics, IDENTITY)


def test_a_description_refuses_an_allowed_module_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "not_there")
    with pytest.raises(SpecError, match="'not_there' cannot be found"):
        describe_engine()


def test_a_context_holds_foldfleet_and_the_users_own_and_nothing_else(mine: Path) -> None:
    found = assemble(load_settings(), None)
    own = {name for name in found.files if name.startswith("modules/")}
    assert own == {"modules/mine/__init__.py", "modules/mine/words.txt", "modules/helper.py"}
    tops = {name.partition("/")[0] for name in found.files}
    assert tops == {
        *("Dockerfile", "requirements.lock", "requirements-h2o.lock", "pyproject.toml", "README.md", "LICENSE"),
        *("jobspec", "containers", "submitter", "modules"),
    }
    assert not [name for name in found.files if name.endswith(".pyc") or "images/context/" in name]
    assert found.modules == current_engine("native", IDENTITY).modules
    assert found.lock_digest == hashlib.sha256((REPOSITORY / "requirements.lock").read_bytes()).hexdigest()


def test_the_same_files_are_packed_into_the_same_bytes(mine: Path, tmp_path: Path) -> None:
    found = assemble(load_settings(), None)
    with found.packed() as one, found.packed() as two:
        assert one.read() == two.read()
        one.seek(0)
        with tarfile.open(fileobj=one) as archive:
            assert set(archive.getnames()) == set(found.files)


def test_modules_are_code_not_data(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "MAX_MODULE_BYTES", 10)
    with pytest.raises(LimitError, match="Move data out of the packages' folders"):
        assemble(load_settings(), None)


@pytest.mark.parametrize(
    "line",
    [
        *("-r other.txt", "-rother.txt", "--requirement=other.txt", "-c limits.txt", "-e .", "--find-links wheels"),
        *("./mine", "../mine.whl", "/tmp/x", "wheels/x-1.0-py3-none-any.whl", "x.tar.gz", "mine @ file:///tmp/x"),
    ],
)
def test_requirements_of_this_machine_are_refused_by_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(f"# packages\ntoolz\n{line}\n")
    with pytest.raises(UsageError, match=r"mine\.txt:3: .* names a file of this machine.*`modules` in the config"):
        assemble(load_settings(), path)


@pytest.mark.parametrize(
    "line",
    [
        *("toolz==1.0.0", "toolz[extra]>=1 ; python_version > '3'", "", "  # text", "--index-url https://host/simple"),
        *("https://host/x-1.0-py3-none-any.whl", "mine @ https://host/mine.whl", "--no-binary toolz", "-i https://host"),
    ],
)
def test_other_requirements_pass(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(f"{line}\n")
    assert assemble(load_settings(), path).files["requirements.txt"] == path


def test_requirements_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no file"):
        assemble(load_settings(), tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("error", "step", "kind", "words"),
    [
        ("manifest for x:1 not found", "Step 2/9 : FROM x:1", NotFoundError, "--base IMAGE"),
        ("write /x: no space left on device", "Step 5/9 : COPY a b", TryLaterError, "docker image prune"),
        ("returned a non-zero code: 1", "Step 5/9 : RUN pip install", TryLaterError, "ended with: ERROR: no network"),
        ("returned a non-zero code: 1", "Step 9/9 : RUN pip -r requirements.txt", UsageError, "pip says: ERROR: no"),
    ],
)
def test_what_stands_in_the_way_of_a_build_is_said(
    error: str, step: str, kind: type[Exception], words: str
) -> None:
    events = [{"stream": f"{step}\n"}, {"stream": "ERROR: no network\n"}, {"error": error}]
    with pytest.raises(kind, match=words) as refused:
        _follow(events, ImageOptions(tag="x", requirements=Path("mine.txt")), lambda _line: None)
    assert "\n" not in str(refused.value)


def test_pips_words_are_found_in_whatever_pieces_and_colours_they_come() -> None:
    pieces = ["Step 9/9 : RUN pip -r requirements.txt\n", " ---> Running in 1\n", "Collecting numpy\n"]
    pieces += ["\x1b[91mERR", "OR: Cannot install a\n\x1b[0m"]
    pieces += ["\x1b[91m\nThe conflict is caused by:\n    you\n\nTo "]
    pieces += ["fix this you could try to:\n1. nothing\n", "ERROR: ResolutionImpossible: for help visit a page\n"]
    events = [*({"stream": piece} for piece in pieces), {"error": "returned a non-zero code: 1"}]
    with pytest.raises(UsageError, match=r"pip says: ERROR: Cannot install a The conflict is caused by: you Change"):
        _follow(events, ImageOptions(tag="x", requirements=Path("mine.txt")), lambda _line: None)


class Asked:
    """The low-level client, for one container."""

    def __init__(self, lock_folder: Path, wait: Exception | None = None) -> None:
        self.folder = lock_folder
        self.error = wait
        self.made: dict[str, Any] = {}
        self.removed: list[str] = []

    def create_host_config(self, **keywords: Any) -> HostConfig:
        return HostConfig(version="1.41", **keywords)

    def create_container(self, *_arguments: object, **config: Any) -> dict[str, str]:
        self.made = config
        (lock,) = (self.folder / "locks").iterdir()
        assert config["labels"]["foldfleet.owner-lock"] == str(lock)
        with pytest.raises(BlockingIOError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return {"Id": "c1"}

    def start(self, container: str) -> None:
        pass

    def inspect_container(self, container: str) -> None:
        pass

    def wait(self, container: str, timeout: float) -> dict[str, int]:
        if self.error is not None:
            raise self.error
        return {"StatusCode": 0}

    def logs(self, container: str, *, stdout: bool, stderr: bool, tail: int = 0) -> bytes:
        return b'{"python": "3"}' if stdout else b""

    def remove_container(self, container: str, *, force: bool, v: bool) -> None:
        self.removed.append(container)


def test_an_image_is_asked_in_a_container_that_has_an_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    api = Asked(tmp_path)
    assert describe_image(cast("Any", SimpleNamespace(api=api)), "sha256:1", tmp_path) == {"python": "3"}
    assert api.made["labels"]["foldfleet.kind"] == "step"
    assert api.made["name"].startswith("foldfleet-describe-")
    assert not api.made.get("environment")
    host = api.made["host_config"]
    assert (host["NetworkMode"], host["PidsLimit"], host["Memory"]) == ("none", 256, 1 << 30)
    assert api.removed == ["c1"]
    assert not list((tmp_path / "locks").iterdir())


def test_an_image_that_says_nothing_is_told(tmp_path: Path) -> None:
    api = Asked(tmp_path, requests.ReadTimeout("timed out"))
    with pytest.raises(TryLaterError, match="image mine:1 has not said within 120 s"):
        describe_image(cast("Any", SimpleNamespace(api=api)), "sha256:1", tmp_path, name="mine:1")
    assert api.removed == ["c1"]


def test_without_an_engine_an_image_is_built_later(submit: Submit, tmp_path: Path) -> None:
    done = submit("image", "build", env={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert done.returncode == 75
    assert "The Docker engine does not answer" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_dockerfile_has_the_targets_and_every_copy_is_in_the_context() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    for target in TARGETS:
        assert f" AS {target}\n" in text
    assert text.rstrip().endswith("\nFROM sklearn")  # what a plain `docker build .` makes
    ignored = (REPOSITORY / ".dockerignore").read_text()
    for name in assemble(replace(load_settings(), allowed_modules=()), None).files:
        top = name.partition("/")[0]
        assert top == "Dockerfile" or f"!{top}\n" in ignored
