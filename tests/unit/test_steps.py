"""The steps as processes: what they answer, where they leave it, and what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from containers import commands
from containers.prepare import PrepareOptions
from jobspec.engine import Engine, current_engine
from jobspec.errors import DataError, ExitCode, FoldfleetError, NotFoundError, TryLaterError, UsageError
from jobspec.grammar import load as loading
from jobspec.grammar.load import load
from jobspec.grammar.yamlfile import MAX_BYTES
from jobspec.protocol import NO_ANSWER, prepare_arguments, reduce_arguments, refit_arguments
from jobspec.runs.answers import Answer, check_token, read_answer, write_answer
from jobspec.runs.rounds import commit_round
from jobspec.runs.views import LONGEST_NAME, short
from jobspec.search.memo import recall
from jobspec.stores.base import Store, open_store
from jobspec.stores.folder import FolderStore
from jobspec.stores.layout import Layout
from submitter.search import draft_next, keep
from tests.unit.pretend import PretendBackend, make_pretended_search

IRIS = """
name: i
data: {builtin: iris}
cv: 3
candidates: [{estimator: sklearn.tree.DecisionTreeClassifier, params: {random_state: 0}}]
"""


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(IRIS)
    return path


def prepare(store: Store, spec: Path | str, **options: Any) -> list[str]:
    told: dict[str, Any] = {"max_folds": 1000, "allow_small_classes": False, "numerics": "native"} | options
    return prepare_arguments(store.url, spec, **told)


def run_step(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capfd.readouterr()
    output = os.dup(1)  # a step keeps its own for the answer alone, to the end of its process
    try:
        exit_code = commands.main(arguments)
    finally:
        os.dup2(output, 1)
        os.close(output)
    return exit_code, json.loads(capfd.readouterr().out)


def test_parameters_too_long_for_an_execution_are_not_in_an_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = {f"class {i}": i for i in range(2000)}
    best = {"candidate": 3, "estimator": f"SVC(class_weight={weights})", "params": {"class_weight": weights}}
    monkeypatch.setattr("containers.views.reduce.reduce_run", lambda _store, _run: {"best": dict(best), "files": {}})
    arguments = reduce_arguments(store.url, "r-1")
    assert run_step(arguments, capfd)[1]["best"] == best
    assert run_step([*arguments, "--answer", "t"], capfd)[0] == 0
    answer = read_answer(store, "t")
    assert answer is not None and answer.answer is not None
    told = answer.answer["best"]
    assert (told["candidate"], told["params"], len(told["estimator"])) == (3, None, LONGEST_NAME + 4)
    long = {"candidate": 0, "estimator": "x" * 7_900, "params": {"a": "x" * 7_900}}
    assert short(long) == long
    assert short(None) is None and short(told | {"params": {"C": 1}})["params"] == {"C": 1}  # type: ignore[index]


# --- answers in the store -----------------------------------------------------------------------------------


def test_an_answer_is_read_as_it_was_written(store: Store) -> None:
    assert read_answer(store, "t") is None
    told = Answer(0, {"a": 1, "b": {"c": [1.5, None], "10": 1, "9": 2}}, None)
    write_answer(store, "t", told)
    assert read_answer(store, "t") == told
    document = json.loads(store.get(Layout.answer("t")))
    assert (document["format_version"], document["exit"]) == (1, 0)


def test_the_first_answer_stays_unless_it_asked_to_try_again(store: Store) -> None:
    later = Answer(75, None, {"exit": 75, "message": "full"})
    write_answer(store, "t", later)
    assert read_answer(store, "t") == later
    write_answer(store, "t", Answer(0, {"n": 1}, None))
    write_answer(store, "t", Answer(3, None, {"exit": 3, "message": "no"}))
    assert read_answer(store, "t") == Answer(0, {"n": 1}, None)


def test_a_damaged_answer_is_told_and_written_anew(store: Store) -> None:
    write_answer(store, "t", Answer(0, {"n": 1}, None))
    store.put(Layout.answer("t"), store.get(Layout.answer("t")).replace(b'"n": 1', b'"n": 2'))
    with pytest.raises(DataError, match="damaged"):
        read_answer(store, "t")
    write_answer(store, "t", Answer(0, {"n": 3}, None))
    assert read_answer(store, "t") == Answer(0, {"n": 3}, None)


def test_an_answer_of_another_format_names_both_numbers(store: Store) -> None:
    store.create(Layout.answer("t"), b'{"format_version": 2}')
    with pytest.raises(DataError, match=r"format 2, this foldfleet reads 1.*image push"):
        read_answer(store, "t")


@pytest.mark.parametrize("token", ["", "../x", "a/b", "-a", "a" * 129])
def test_tokens_that_cannot_be_part_of_a_key_are_refused(token: str) -> None:
    with pytest.raises(UsageError, match="--answer"):
        check_token(token)
    assert check_token(NO_ANSWER) is None and check_token("a-1.b_2") == "a-1.b_2"


def test_command_lines_are_those_that_the_steps_read(store: Store) -> None:
    engine = current_engine("portable")
    full = prepare(store, "s3://b/s.yaml", engine=engine, answer="t", allow_small_classes=True)
    assert full[3:5] == ["--spec", "s3://b/s.yaml"] and full[-2:] == ["--answer", "t"]
    assert Engine.model_validate_json(full[full.index("--engine") + 1]) == engine
    assert reduce_arguments("s", "r") == ["reduce", "--store", "s", "--run", "r"]
    assert reduce_arguments("s", "r", refit=True, answer="t")[5:] == ["--refit", "--answer", "t"]
    assert refit_arguments("s", "r", answer="t")[5:] == ["--answer", "t"]


# --- what steps leave there ---------------------------------------------------------------------------------


def test_prepare_leaves_what_it_prints(store: Store, spec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, printed = run_step(prepare(store, spec, answer="t"), capfd)
    assert exit_code == 0 and printed["num_rows"] == 150
    assert read_answer(store, "t") == Answer(0, printed, None)


def test_a_refusal_is_left_with_its_exit_code(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, printed = run_step(prepare(store, tmp_path / "none.yaml", answer="t"), capfd)
    assert exit_code == ExitCode.SPEC and "There is no spec" in printed["error"]["message"]
    found = read_answer(store, "t")
    assert found == Answer(2, None, printed["error"])
    assert found.error is not None and FoldfleetError.from_json(found.error).exit_code == ExitCode.SPEC


@pytest.mark.parametrize("token", [None, NO_ANSWER])
def test_nothing_is_left_where_nobody_asked(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], token: str | None
) -> None:
    run_step(prepare(store, tmp_path / "none.yaml", answer=token), capfd)
    assert list(store.keys(Layout.answers())) == []


def test_a_crash_leaves_no_answer(store: Store, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr("containers.prepare.prepare", crash)
    with pytest.raises(RuntimeError, match="oops"):
        commands.main(prepare(store, spec, answer="t"))
    assert read_answer(store, "t") is None


def test_an_answer_that_cannot_be_written_is_no_success(
    store: Store, spec: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TryLaterError("SlowDown")

    monkeypatch.setattr(commands, "write_answer", refuse)
    assert run_step(prepare(store, spec, answer="t"), capfd)[0] == ExitCode.TRY_LATER
    assert run_step(prepare(store, spec / "none", answer="t"), capfd)[0] == ExitCode.SPEC


# --- reduce and refit at once -------------------------------------------------------------------------------


def finished_run(store: Store, *, partial: bool = False) -> str:
    search = keep(store, make_pretended_search("[1]"))
    judge = (lambda _, split: None if split else "ok") if partial else (lambda _, __: "ok")
    backend = PretendBackend(store, judge)
    plan = commit_round(store, draft_next(store, search, None, backend, reuse=True))
    for array in backend.build_request(plan).arrays:
        backend.submit(array)
    backend.wait(0)
    return search.run_id


def test_a_partial_table_is_reduced_and_not_refitted(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    run_id = finished_run(store, partial=True)
    exit_code, printed = run_step(reduce_arguments(store.url, run_id, refit=True, answer="t"), capfd)
    assert (exit_code, printed["complete"], printed["cells"]["missing"]) == (0, False, 1)
    assert printed["refit"]["model"] is None and "incomplete" in printed["refit"]["reason"]
    assert "model" not in printed["files"]
    assert read_answer(store, "t") == Answer(0, printed, None)


def test_a_whole_table_is_refitted_once(
    store: Store, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from containers.views import refit

    asked: list[str] = []

    def fit(_: Store, winner: Any) -> dict[str, Any]:
        asked.append(winner.plan.run_id)
        return {"model": "there", "reason": None, "seconds": 1.0}

    monkeypatch.setattr(refit, "_fit_and_write", fit)
    monkeypatch.setattr(refit, "_is_done", lambda *_: bool(asked))
    run_id = finished_run(store)
    _, printed = run_step(reduce_arguments(store.url, run_id, refit=True), capfd)
    assert printed["complete"] and printed["refit"] == {"model": "there", "reason": None, "seconds": 1.0}
    assert printed["files"]["model"] == "there"
    _, printed = run_step(reduce_arguments(store.url, run_id, refit=True), capfd)
    assert printed["refit"]["reason"] is None and asked == [run_id]
    assert "refit" not in run_step(reduce_arguments(store.url, run_id), capfd)[1]


# --- the engine of others -----------------------------------------------------------------------------------


def test_prepare_tells_and_remembers_the_engine_of_the_tasks(
    store: Store, spec: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = current_engine("portable")
    engine = own.model_copy(update={"python": "3.99.0", "kernel": "portable-2-x86_64-other"})
    exit_code, printed = run_step(prepare(store, spec, numerics="portable", engine=engine), capfd)
    assert exit_code == 0 and Engine.model_validate(printed["engine"]) == engine
    options = PrepareOptions(numerics="portable")
    found = recall(load(spec), store, engine, options)
    assert found is not None and found.engine == engine
    assert recall(load(spec), store, own, options) is None


def test_prepare_refuses_where_its_libraries_are_not_those_of_the_tasks(
    store: Store, spec: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = current_engine("native")
    engine = own.model_copy(update={"packages": own.packages | {"scikit-learn": "9.9.9"}})
    exit_code, printed = run_step(prepare(store, spec, engine=engine), capfd)
    message = printed["error"]["message"]
    assert exit_code == NotFoundError.exit_code
    assert f"scikit-learn {own.packages['scikit-learn']} here" in message and "numpy" not in message
    assert "pip install scikit-learn==9.9.9" in message
    assert not (Path(store.url) / "datasets").exists()


def test_an_engine_that_is_none_is_refused(store: Store, spec: Path, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, printed = run_step([*prepare(store, spec), "--engine", '{"python": "3"}'], capfd)
    assert exit_code == ExitCode.SPEC and "--engine is no engine (packages:" in printed["error"]["message"]


# --- specs in S3 --------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return what stands behind every s3:// URL of a spec."""
    behind = FolderStore(tmp_path / "bucket")

    def open_there(url: str) -> tuple[Store, str]:
        return behind, url.removeprefix("s3://").partition("/")[2]

    monkeypatch.setattr(loading, "open_object", open_there)
    return behind


def test_a_spec_is_read_from_s3(store: Store, bucket: Store, capfd: pytest.CaptureFixture[str]) -> None:
    key = Layout.upload("0" * 64, "spec.yaml")
    bucket.create(key, IRIS.encode())
    exit_code, printed = run_step(prepare(store, f"s3://bucket/{key}"), capfd)
    assert exit_code == 0 and printed["num_rows"] == 150


@pytest.mark.parametrize("path", ["table.csv", "/data/table.csv", "~/table.csv", "file:///data/table.csv"])
def test_a_spec_from_s3_can_name_no_file(
    store: Store, bucket: Store, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.create("spec.yaml", IRIS.replace("builtin: iris", f"path: {path}, target: y").encode())
    exit_code, printed = run_step(prepare(store, "s3://bucket/spec.yaml", answer="t"), capfd)
    message = printed["error"]["message"]
    assert exit_code == ExitCode.SPEC and message.startswith("s3://bucket/spec.yaml:3:")
    assert repr(path) in message and "path: s3://BUCKET/FOLDER/FILE" in message
    assert read_answer(store, "t") == Answer(2, None, printed["error"])


def test_a_spec_that_is_not_there_is_told(store: Store, bucket: Store, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, printed = run_step(prepare(store, "s3://bucket/none.yaml"), capfd)
    assert exit_code == ExitCode.SPEC and "There is no spec s3://bucket/none.yaml" in printed["error"]["message"]


def test_a_spec_that_is_no_object_is_told(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    exit_code, printed = run_step(prepare(store, "s3://bucket"), capfd)
    assert exit_code == ExitCode.SPEC and "--spec s3://BUCKET/FOLDER/SPEC.yaml" in printed["error"]["message"]


def test_a_spec_from_s3_is_not_read_beyond_what_a_spec_may_have(
    store: Store, bucket: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.create("huge.yaml", b"#" * (MAX_BYTES + 10_000))
    exit_code, printed = run_step(prepare(store, "s3://bucket/huge.yaml"), capfd)
    assert exit_code == ExitCode.SPEC and "bytes" in printed["error"]["message"]
