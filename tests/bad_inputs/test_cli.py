"""Bad input at the command line: the stated exit code, one paragraph, no traceback, nothing started, nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Submit

HEAD = "data: {builtin: iris}\ncv: 3\n"
SVC = "candidates: [{estimator: sklearn.svm.SVC}]\n"
HUGE = "candidates: [{{estimator: sklearn.svm.SVC, grid: {{C: {{range: [1, {0}]}}, max_iter: {{range: [1, {0}]}}}}}}]\n"


def refused(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def runs_in(folder: Path) -> list[Path]:
    return list((folder / "foldfleet" / "runs").glob("*"))


def test_a_huge_grid_is_counted_but_not_run(submit: Submit, tmp_path: Path) -> None:  # item 7
    (tmp_path / "huge.yaml").write_text("name: huge\n" + HEAD + HUGE.format(30_001))
    planned = submit("plan", "huge.yaml", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["cells"] == 30_000 * 30_000 * 3
    message = refused(submit("run", "huge.yaml"), 7)
    assert "2,700,000,000 cells" in message
    assert "--max-cells" in message
    assert not runs_in(tmp_path)


def test_a_huge_grid_is_refused_before_the_data_are_looked_for(submit: Submit, tmp_path: Path) -> None:  # item 7
    (tmp_path / "huge.yaml").write_text("name: huge\ndata: {path: gone.csv, target: y}\n" + HUGE.format(30_001))
    message = refused(submit("run", "huge.yaml"), 7)
    assert "4,500,000,000 cells" in message
    assert not (tmp_path / "foldfleet").exists()
    refused(submit("run", "huge.yaml", "--max-cells", str(10**10)), 3)


def test_exactly_one_cell_works(submit: Submit, tmp_path: Path) -> None:  # item 9
    (tmp_path / "one.yaml").write_text(
        "name: one\ndata: {builtin: iris}\ncv: {kind: ShuffleSplit, n_splits: 1, random_state: 0}\n" + SVC
    )
    done = submit("run", "one.yaml", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["cells"]["total"], answer["fits"], answer["best"]["candidate"]) == (1, 1, 0)


def test_a_candidate_given_twice_has_both_rows_and_one_fit(submit: Submit, tmp_path: Path) -> None:  # item 15
    twice = "candidates: [{estimator: sklearn.svm.SVC, grid: {C: [1, 10, 1]}}]\n"
    (tmp_path / "twice.yaml").write_text("name: twice\n" + HEAD + twice)
    done = submit("run", "twice.yaml", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["cells"]["total"], answer["cells"]["done"], answer["fits"]) == (9, 9, 6)
    assert "1 candidate repeats an earlier one" in done.stderr
    rows = json.loads(submit("results", "latest", "--json").stdout)["rows"]
    scores = {row["candidate"]: row["mean_test"] for row in rows}
    assert scores[0] == scores[2]


@pytest.mark.parametrize("name", ["../escape", "two words", "a" * 300, "", "käse"])
def test_names_that_cannot_be_part_of_a_path(submit: Submit, tmp_path: Path, name: str) -> None:  # item 17
    (tmp_path / "named.yaml").write_text(f"name: {json.dumps(name)}\n" + HEAD + SVC)
    message = refused(submit("run", "named.yaml"), 2)
    assert "named.yaml:1:" in message
    assert not (tmp_path / "foldfleet").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("name: a\nname: b\n", 2),
        ("name: a\n" + HEAD + "candidates: [{estimator: os.system}]\n", 2),
        ("name: a\n" + HEAD + "candidates: [{estimator: sklearn.svm.SVC, grid: {c: [1]}}]\n", 2),
        ("name: a\n" + HEAD + "candidates: [{estimator: sklearn.svm.SVC, grid: {C: [1, -1]}}]\n", 2),
        ("name: a\ndata: {path: missing.csv, target: y}\n" + SVC, 3),
        ("name: a\ndata: {builtin: iris}\ncv: 60\n" + SVC, 2),
    ],
)
def test_a_refused_spec_starts_nothing_under_any_command(submit: Submit, tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    for command in ("validate", "plan", "run"):
        done = submit(command, "bad.yaml", "--json")
        document = json.loads(done.stdout)
        assert (done.returncode, document["error"]["exit"]) == (code, code), document
        assert "Traceback" not in done.stderr
    assert not runs_in(tmp_path)


def test_a_module_beside_the_spec_is_not_imported(submit: Submit, tmp_path: Path) -> None:  # item 4
    (tmp_path / "numpy.py").write_text("raise SystemExit('this must not run')")
    (tmp_path / "spec.yaml").write_text("name: beside\n" + HEAD + SVC)
    script = Path(sys.executable).with_name("submit")
    done = subprocess.run([script, "run", "spec.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert submit("list").returncode == 0


def test_a_cache_that_cannot_be_made_is_told(submit: Submit, tmp_path: Path) -> None:  # item 36
    (tmp_path / "spec.yaml").write_text("name: cache\n" + HEAD + SVC)
    (tmp_path / "file").write_text("")
    message = refused(submit("run", "spec.yaml", env={"FOLDFLEET_CACHE": str(tmp_path / "file")}), 4)
    assert "FOLDFLEET_CACHE" in message


def test_a_store_that_cannot_be_made_is_told(submit: Submit, tmp_path: Path) -> None:  # item 36
    (tmp_path / "spec.yaml").write_text("name: store\n" + HEAD + SVC)
    (tmp_path / "file").write_text("")
    message = refused(submit("run", "spec.yaml", "--store", tmp_path / "file"), 4)
    assert "--store" in message
