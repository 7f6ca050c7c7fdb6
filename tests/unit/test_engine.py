from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobspec import modules
from jobspec.engine import Engine, current_engine, numeric_environment
from jobspec.errors import SpecError, UsageError
from jobspec.settings import load_settings

IDENTITY = {"candidates": [{"definition": {"$estimator": "mine.Model", "params": {}}}]}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text("import helper\nclass Model: pass\n")
    (tmp_path / "helper.py").write_text("FACTOR = 1\n")
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "mine")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    return tmp_path


def test_the_same_machine_gives_the_same_id_without_importing_numpy() -> None:
    code = "import sys; from jobspec.engine import current_engine as e; "
    code += "print(e('native').engine_id, 'numpy' in sys.modules)"
    answers = {subprocess.check_output([sys.executable, "-c", code], text=True) for _ in range(2)}
    assert answers == {f"{current_engine('native').engine_id} False\n"}


def test_numerics_are_told_apart_and_portable_ones_do_not_depend_on_pins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    native, portable = current_engine("native"), current_engine("portable")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Sandybridge")
    assert current_engine("native").engine_id != native.engine_id
    assert current_engine("portable").engine_id == portable.engine_id != native.engine_id
    assert "kernel" in native.difference(portable)


def test_one_thread_is_set_for_every_numeric_library() -> None:
    assert numeric_environment("native")["OMP_NUM_THREADS"] == "1"
    assert numeric_environment("portable")["OPENBLAS_CORETYPE"] == "Haswell"


@pytest.mark.parametrize("edited", ["mine.py", "helper.py"])
def test_an_edited_module_or_one_that_it_imports_is_another_engine(mine: Path, edited: str) -> None:
    before = current_engine("native", IDENTITY)
    assert before.modules.keys() == {"mine"}
    (mine / edited).write_text((mine / edited).read_text() + "# edited\n")
    assert current_engine("native", IDENTITY).engine_id != before.engine_id


def test_a_package_is_digested_with_all_its_files(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mine / "pack" / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/model.py"):
        (mine / "pack" / name).write_text("")
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "pack.deep")
    identity = {"x": "pack.deep.Model"}
    before = current_engine("native", identity)
    (mine / "pack/deep/model.py").write_text("x = 1\n")
    assert current_engine("native", identity) != before


@pytest.mark.parametrize("statement", ["from .helper import x", "from . import helper", "import helper.sub as s"])
@pytest.mark.parametrize("sibling", ["helper.py", "helper/__init__.py", "helper/deep/a.py", "helper.so"])
def test_whatever_a_module_imports_from_beside_it_counts(mine: Path, statement: str, sibling: str) -> None:
    (mine / "helper.py").unlink()
    (mine / "mine.py").write_text(f"class Model:\n    def fit(self):\n        {statement}\n")
    path = mine / sibling
    path.parent.mkdir(parents=True, exist_ok=True)
    assert_counts(path, IDENTITY)


def test_imports_are_followed_through_packages_and_back_out(mine: Path) -> None:
    (mine / "mine.py").write_text("import pack.a\n")
    (mine / "pack" / "inner").mkdir(parents=True)
    for name, text in {"__init__": "", "a": "from .inner import b", "inner/b": "from outside import x"}.items():
        (mine / "pack" / f"{name}.py").write_text(text)
    (mine / "outside.py").write_text("import farther")
    for counts in ("pack/inner/b.py", "pack/inner/unused.so", "outside.py", "farther.py"):
        assert_counts(mine / counts, IDENTITY)
    before = current_engine("native", IDENTITY)
    (mine / "other.py").write_text("never imported")
    assert current_engine("native", IDENTITY) == before


def assert_counts(path: Path, identity: object) -> None:
    """Of the same size each time: content counts."""
    seen, before = set(), path.read_text() if path.exists() else ""
    for text in ("x = 1\n", "x = 2\n"):
        path.write_text(f"{before}\n{text}")
        seen.add(current_engine("native", identity).engine_id)
    assert len(seen) == 2, path


def test_neighbours_may_lie_in_another_folder_of_the_module_path(
    mine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (mine / "helper.py").unlink()
    (tmp_path / "second").mkdir()
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", f"{mine}:{tmp_path / 'second'}")
    assert_counts(tmp_path / "second" / "helper.py", IDENTITY)


def test_an_installed_package_counts_as_a_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "bought.models")
    folder = tmp_path / "site-packages"
    (folder / "bought").mkdir(parents=True)
    for name in ("bought/__init__.py", "bought/models.py", "neighbour.py"):
        (folder / name).write_text("import neighbour\n")
    monkeypatch.syspath_prepend(folder)
    seen = []
    for name, text in (("bought/a.so", "1"), ("bought/a.so", "2"), ("neighbour.py", "")):
        (folder / name).write_text(text)
        modules._installed_digests.cache_clear()
        seen.append(current_engine("native", {"x": "bought.models.A"}).engine_id)
    assert seen[0] != seen[1] == seen[2]
    (folder / "bought/models.py").unlink()
    modules._installed_digests.cache_clear()
    with pytest.raises(SpecError, match=r"'bought\.models' cannot be found"):
        current_engine("native", {"x": "bought.models.A"})


def test_a_namespace_folder_is_a_package_too(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "ours.models")
    (mine / "ours").mkdir()
    assert_counts(mine / "ours" / "models.py", {"x": "ours.models.A"})


def test_modules_that_the_spec_does_not_name_do_not_count(mine: Path) -> None:
    assert current_engine("native", {"x": "sklearn.svm.SVC"}).modules == {}


def test_a_module_that_cannot_be_found_is_told(mine: Path) -> None:
    (mine / "mine.py").unlink()
    with pytest.raises(SpecError, match=r"'mine' cannot be found.*modules\.path"):
        current_engine("native", IDENTITY)


def test_an_engine_survives_json() -> None:
    engine = current_engine("native")
    assert Engine.model_validate_json(engine.model_dump_json()) == engine


def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    monkeypatch.setenv("FOLDFLEET_CONFIG", str(path))
    return path


def test_the_environment_goes_before_the_configuration_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _config(tmp_path, monkeypatch, 'store = "/a"\nworkers = 3\n[modules]\nallowed = ["mine"]\npath = ["src"]\n')
    monkeypatch.delenv("FOLDFLEET_STORE", raising=False)
    settings = load_settings()
    assert (settings.store, settings.workers, settings.allowed_modules) == ("/a", 3, ("mine",))
    assert settings.module_path == (str(tmp_path / "config" / "src"),)
    monkeypatch.setenv("FOLDFLEET_STORE", "/b")
    monkeypatch.setenv("FOLDFLEET_WORKERS", "5")
    assert (load_settings().store, load_settings().workers) == ("/b", 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stroe = '/a'", "Did you mean 'store'"),
        ("workers = '4'", "must be a int"),
        ("workers = true", "must be a int"),
        ("[modules]\nallow = []", "modules.allowed"),
        ("[modules]\nallowed = [1]", "list of strings"),
        ("store = ", "is not TOML"),
    ],
)
def test_a_wrong_configuration_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    path = _config(tmp_path, monkeypatch, text)
    with pytest.raises(UsageError) as caught:
        load_settings()
    assert told in caught.value.message and str(path) in caught.value.message


def test_a_configuration_file_that_was_named_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDFLEET_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(UsageError, match="does not exist"):
        load_settings()


def test_a_wrong_number_of_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDFLEET_WORKERS", "0")
    with pytest.raises(UsageError, match="whole number from 1"):
        load_settings()
