"""The command line in this process: exit codes, one JSON object, one paragraph; what needs no helper process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from jobspec.errors import LimitError
from jobspec.hostlock import HostLock
from jobspec.runs.rounds import commit_round
from jobspec.settings import load_settings
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout
from submitter.__main__ import main
from submitter.cli.guard import BUG_EXIT, explain, guarded
from submitter.cli.spec_commands import _fresh_warnings
from submitter.detach import start_detached
from submitter.liveness import Liveness
from submitter.preparation import Desk, Preparation
from submitter.search import draft_next, keep
from tests.unit.pretend import PretendBackend, make_pretended_search

COMMANDS = (
    "init",
    "validate",
    "plan",
    "run",
    "status",
    "watch",
    "logs",
    "cancel",
    "resume",
    "results",
    "list",
    "schema",
)

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Return a function that runs a command line here and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["submit", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def planned(store_url: str) -> str:
    """Return the id of a run that was planned but never started."""
    store = open_store(store_url)
    search = keep(store, make_pretended_search())
    store.create("datasets/d-1/manifest.json", b"{}")
    commit_round(store, draft_next(store, search, None, PretendBackend(store), reuse=True))
    return search.run_id


def test_help_names_every_command(call: Call) -> None:
    code, out, _ = call("--help")
    assert code == 0
    assert all(f"  {command} " in out for command in COMMANDS)
    assert "Exit codes: 0 done" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(call: Call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "--json" in out


def test_help_is_fast_because_it_imports_little() -> None:
    code = (
        "import sys; sys.argv = ['submit', '--help']; from submitter.__main__ import main; main(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pydantic", "rich", "ruamel", "ruamel.yaml", "numpy", "sklearn", "boto3", "pyarrow"}


def test_no_command_shows_the_help_and_is_a_usage_error(call: Call) -> None:
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "Commands:" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["run"], "Missing argument 'SPEC'"),
        (["run", "x.yaml", "--worker", "2"], "--workers"),
        (["run", "x.yaml", "--workers", "0"], "greater than or equal to 1"),
        (["results", "latest", "--top", "many"], "--top"),
        (["run", "x.yaml", "--on", "stepfunction"], "Did you mean 'stepfunctions'"),
        (["plan", "x.yaml", "--on", "awz"], "Did you mean 'aws'"),
        (["run", "nothing.yaml"], "There is no spec nothing.yaml"),
        (["list", "--store", "gs://bucket"], "gs"),
    ],
)
def test_usage_errors_are_one_paragraph_and_exit_2(call: Call, arguments: list[str], words: str) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_errors_are_one_json_object_too(call: Call) -> None:
    code, out, err = call("run", "nothing.yaml", "--json")
    document = json.loads(out)
    assert document == {"error": {"exit": code, "message": err.strip()}}
    assert json.loads(call("run", "--wrong", "--json")[1])["error"]["exit"] == 2


def test_a_missing_run_is_exit_5(call: Call, store_url: str, planned: str) -> None:
    code, _, err = call("status", "nothing", "--store", store_url)
    assert code == 5
    assert "submit list" in err


def test_debug_adds_a_traceback_wherever_it_stands(call: Call) -> None:
    for arguments in (["--debug", "run", "nothing.yaml"], ["run", "nothing.yaml", "--debug"]):
        code, _, err = call(*arguments)
        assert code == 2
        assert "Traceback" in err


def test_init_writes_a_spec_and_never_overwrites_one(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("init", "new/folder", "--json")
    path = tmp_path / json.loads(out)["spec"]
    assert code == 0
    assert path.read_text().startswith("# A foldfleet spec")
    path.write_text("mine")
    code, _, err = call("init", "new/folder")
    assert code == 2
    assert "stays as it is" in err
    assert path.read_text() == "mine"


def test_init_in_a_place_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call("init", "file/below")
    assert code == 4
    assert "Name another folder" in err


def test_the_schema_is_json(call: Call) -> None:
    code, out, _ = call("schema")
    assert code == 0
    assert json.loads(out)["title"] == "foldfleet spec"


def test_an_empty_store_has_no_runs(call: Call, store_url: str) -> None:
    assert call("list", "--store", store_url)[0] == 0
    assert json.loads(call("list", "--store", store_url, "--json")[1]) == {"store": store_url, "runs": []}
    assert not Path(store_url).exists()


def test_the_store_comes_from_the_environment_and_a_flag_overrides_it(
    call: Call, store_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert json.loads(call("list", "--json")[1])["store"] == str(tmp_path / "foldfleet")
    monkeypatch.setenv("FOLDFLEET_STORE", str(tmp_path / "other"))
    assert json.loads(call("list", "--json")[1])["store"] == str(tmp_path / "other")
    assert json.loads(call("list", "--json", "--store", store_url)[1])["store"] == store_url


def test_status_of_a_planned_run(call: Call, store_url: str, planned: str) -> None:
    code, out, _ = call("status", "latest", "--store", store_url)
    assert code == 0
    assert out.split() == [*f"run {planned} state planned cells 0 of 6 done next submit resume {planned}".split()]
    document = json.loads(call("status", "latest", "--store", store_url, "--json")[1])
    assert (document["state"], document["cells"]["total"], document["best"]) == ("planned", 6, None)


def test_list_shows_runs(call: Call, store_url: str, planned: str) -> None:
    out = call("list", "--store", store_url)[1]
    assert planned in out
    assert "0/6" in out


@pytest.mark.parametrize("command", ["logs", "results"])
def test_what_is_not_there_yet_is_not_found(call: Call, store_url: str, planned: str, command: str) -> None:
    code, _, err = call(command, planned, "--store", store_url)
    assert code == 5
    assert "yet" in err


def test_watching_what_does_not_run_tells_its_state(call: Call, store_url: str, planned: str) -> None:
    code, out, _ = call("watch", planned, "--store", store_url)
    assert code == 130
    assert "planned" in out


def test_resume_refuses_another_engine(
    call: Call, store_url: str, planned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    code, _, err = call("resume", planned, "--store", store_url)
    assert code == 5
    assert "here," in err
    assert "planned" in err


def test_resume_without_the_data_says_what_to_type(call: Call, store_url: str, planned: str) -> None:
    open_store(store_url).delete("datasets/d-1/manifest.json")
    code, _, err = call("resume", planned, "--store", store_url)
    assert code == 5
    assert "submit run SPEC" in err


@pytest.fixture
def broken(store_url: str, planned: str) -> dict[str, str]:
    """Return runs that cannot be read, beside one that can: id -> what their reason says."""
    store = open_store(store_url)
    search = keep(store, make_pretended_search("[7, 8]"))
    commit_round(store, draft_next(store, search, None, PretendBackend(store), reuse=True))
    store.put(Layout.space(search.run_id), b'{"format_version": 99, "entries": []}')
    other = "newer-0123456789ab"
    text = store.get(Layout.plan(planned, 0)).decode()
    store.create(Layout.plan(other, 0), text.replace('"format_version": 1', '"format_version": 99').encode())
    return {search.run_id: "format 99", other: "format_version"}


def test_a_run_that_cannot_be_read_does_not_hide_the_others(
    call: Call, store_url: str, planned: str, broken: dict[str, str]
) -> None:
    code, out, _ = call("list", "--store", store_url, "--json")
    rows = {row["run_id"]: row for row in json.loads(out)["runs"]}
    assert code == 0
    assert {run_id: row["state"] for run_id, row in rows.items()} == {
        planned: "planned",
        **dict.fromkeys(broken, "unreadable"),
    }
    assert rows[planned]["reason"] is None
    code, out, _ = call("list", "--store", store_url)
    assert code == 0
    assert out.count("unreadable") == 2


@pytest.mark.parametrize("command", ["status", "watch", "logs", "cancel", "resume"])
def test_a_document_of_another_format_is_one_paragraph(
    call: Call, store_url: str, broken: dict[str, str], command: str
) -> None:
    for run_id in broken:
        code, _, err = call(command, run_id, "--store", store_url)
        assert (code in (3, 5), err.count("\n")) == (True, 1), err


@pytest.mark.parametrize(("command", "expected"), [("status", 0), ("watch", 130), ("logs", 5), ("results", 5)])
def test_looking_at_a_run_needs_no_data(call: Call, store_url: str, planned: str, command: str, expected: int) -> None:
    open_store(store_url).delete("datasets/d-1/manifest.json")
    code, _, err = call(command, planned, "--store", store_url)
    assert code == expected
    assert "d-1" not in err


def test_cancelling_needs_no_data(call: Call, store_url: str, planned: str) -> None:
    open_store(store_url).delete("datasets/d-1/manifest.json")
    code, out, err = call("cancel", planned, "--store", store_url)
    assert (code, "cancelled" in out) == (0, True), err
    assert call("results", planned, "--store", store_url)[0] == 0


def test_the_default_store_is_no_strangers_folder(
    call: Call, planned: str, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "foldfleet"
    folder.mkdir()
    assert call("list")[0] == 0
    (folder / "README.md").write_text("a clone")
    code, _, err = call("list")
    assert (code, err.count("\n")) == (2, 1)
    assert "README.md" in err and "--store DIR" in err
    assert call("list", "--store", "foldfleet")[0] == 0  # asked for by name
    (folder / "runs").mkdir()
    assert call("list")[0] == 0


def test_fresh_on_a_finished_run_says_which_table_is_shown(
    store_url: str, planned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(load_settings(), open_store(store_url))
    prepared = SimpleNamespace(search=SimpleNamespace(run_id=planned))
    told: list[list[str]] = []
    for name in ("cv_results.parquet", "cv_results.csv"):
        desk.store.put(Layout.view(planned, name), b"")
    for view in (None, b'{"complete": false, "cells": {}}', b'{"complete": true, "cells": {}}'):
        if view is not None:
            desk.store.put(Layout.view(planned, "best.json"), view)
        told.append(_fresh_warnings(desk, cast("Preparation", prepared)))
    assert told[:2] == [[], []]
    assert "stays as it is until the fresh round is as complete" in told[2][0]


def _pretend_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    real = subprocess.Popen
    monkeypatch.setattr("submitter.detach.START_SECONDS", 300.0)  # it catches a hang, and no slow machine
    monkeypatch.setattr(
        "submitter.detach.subprocess.Popen", lambda _command, **rest: real([sys.executable, "-c", code], **rest)
    )


def test_a_background_process_that_dies_is_no_running_run(
    planned: str, store_url: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(load_settings(), open_store(store_url))
    _pretend_child(monkeypatch, "import sys; print('starting'); sys.stderr.write('No room.\\n'); sys.exit(75)")
    child = start_detached(desk, Liveness(desk.settings, desk.store, planned), 1)
    assert (child.exit_code, child.last_words()) in [(75, "No room."), (75, "starting")]


def test_a_background_process_is_running_once_it_drives(
    planned: str, store_url: str, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk = Desk(load_settings(), open_store(store_url))
    live = Liveness(desk.settings, desk.store, planned)
    lock, gate = str(live.driver().path), str(tmp_path / "gate")
    code = f"driver = HostLock(Path({lock!r})); driver.acquire(); HostLock(Path({gate!r})).acquire(blocking=True)"
    _pretend_child(monkeypatch, f"from jobspec.hostlock import *; {code}")
    with HostLock(tmp_path / "gate"):  # at which the child waits
        assert start_detached(desk, live, 1).exit_code is None
        assert live.is_driven()


def test_the_core_does_not_import_the_command_line() -> None:
    core = ["runner", "watching", "preparation", "standing", "runs", "search", "detach", "showing", "backends.local"]
    code = f"import sys; [__import__('submitter.' + name) for name in {core}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith("submitter.cli")]


def test_an_unknown_exception_is_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise ZeroDivisionError("by zero")

    assert guarded(fail, ["run"]) == BUG_EXIT
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("This is a bug in foldfleet: ZeroDivisionError: by zero.")
    assert "--debug" in err


def test_exceptions_become_codes() -> None:
    assert explain(LimitError("too many")) == (7, "too many")
    assert explain(KeyboardInterrupt())[0] == 130
    assert explain(OSError(28, "No space left on device", "/tmp/x"))[0] == 75
    assert explain(OSError(13, "Permission denied", "/tmp/x"))[0] == 4


def test_a_reader_that_closes_early_is_no_error(store_url: str, planned: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "submitter", "list", "--store", store_url]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    command = [sys.executable, "-m", "submitter", "--show-completion", shell]
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "_SUBMIT_COMPLETE" in done.stdout
