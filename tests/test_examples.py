"""Every example runs through the real command line, and gives what its comments promise."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobspec.grammar.load import load, parse

Submit = Callable[..., "subprocess.CompletedProcess[str]"]

SMALLER = {
    "letters.yaml": ("rows: 4000", "rows: 1000"),
    "letters-full.yaml": ("target: lettr", "target: lettr\n  rows: 800"),
}
"""What is replaced in an example so that it takes seconds here."""

CELLS = {
    "digits.yaml": 20 * 5,
    "groups.yaml": 13 * 6,
    "letters.yaml": 36 * 5,
    "letters-full.yaml": 36 * 5,
    "own-estimator/spec.yaml": 9 * 5,
    "random.yaml": 40 * 5,
    "regression.yaml": 30 * 10,
}

CONFIG = "own-estimator/config.toml"


@pytest.fixture
def copied(examples: Path, tmp_path: Path) -> Path:
    """Return a copy of the examples, the large ones made smaller."""
    folder = tmp_path / "examples"
    shutil.copytree(examples, folder, ignore=shutil.ignore_patterns("__pycache__", "foldfleet"))
    for name, (old, new) in SMALLER.items():
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    return folder


def run_example(submit: Submit, folder: Path, name: str) -> dict[str, Any]:
    done = submit("run", folder / name, "--json", "--workers", 2, env={"FOLDFLEET_CONFIG": str(folder / CONFIG)})
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_all_examples_are_listed(examples: Path) -> None:
    found = {path.relative_to(examples).as_posix() for path in examples.rglob("*.yaml")}
    assert found == set(CELLS)
    page = (examples / "README.md").read_text(encoding="utf-8")
    for name, cells in CELLS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| [`{name.removesuffix('spec.yaml')}`]"))
        candidates, splits = map(int, re.findall(r"(\d+) x (\d+) \|$", row)[0])
        assert candidates * splits == cells


def check_digits(answer: dict[str, Any]) -> None:
    """The tutorial's best, and train scores."""
    assert answer["best"]["params"] == {"C": 1.0, "gamma": 0.001}
    assert answer["best"]["mean_test_score"] == pytest.approx(0.9902222, abs=1e-7)
    assert {"mean_test_score", "mean_train_score", "split4_train_score"} <= set(read_rows(answer)[0])


def check_groups(answer: dict[str, Any]) -> None:
    """What the comment at the top of groups.yaml says of 15 neighbours."""
    fifteen = {"n_neighbors": 15, "weights": "uniform"}
    row = next(row for row in read_rows(answer) if json.loads(row["params"]) == fifteen)
    assert round(row["mean_test_score"], 2) == 0.82
    assert answer["best"]["params"] != fifteen


def read_rows(answer: dict[str, Any]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(answer["files"]["cv_results"]).to_pylist()
    return rows


PROMISES: dict[str, Callable[[dict[str, Any]], None]] = {"digits.yaml": check_digits, "groups.yaml": check_groups}


TWICE = "letters-full.yaml"
"""The same search as `letters.yaml` on more rows, as a test below makes sure."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] if name == TWICE else []) for name in sorted(CELLS)]
)
def test_example_runs_and_is_reused(name: str, copied: Path, submit: Submit, tmp_path: Path) -> None:
    answer = run_example(submit, copied, name)
    assert answer["cells"]["total"] == answer["cells"]["done"] == answer["fits"] == CELLS[name]
    assert answer["cells"]["failed"] == answer["cells"]["reused"] == 0
    assert math.isfinite(answer["best"]["mean_test_score"])
    for file in ("cv_results", "best", "model"):
        assert (tmp_path / answer["files"][file]).exists()

    if name in PROMISES:
        PROMISES[name](answer)

    again = run_example(submit, copied, name)
    assert again["fits"] == 0
    assert again["cells"]["reused"] == CELLS[name]
    assert (again["run_id"], again["best"]) == (answer["run_id"], answer["best"])


def test_full_letters_differ_in_rows_alone(examples: Path) -> None:
    small, full = (load(examples / name).spec for name in ("letters.yaml", "letters-full.yaml"))
    assert small.identity() == full.identity()
    assert small.data.rows == 4000
    assert full.data == small.data.model_copy(update={"rows": None})


def test_benchmarks_search_what_letters_searches(examples: Path) -> None:
    """benchmarks/peers.py spells the grid out, as a user of GridSearchCV would."""
    text = (examples.parent / "benchmarks" / "peers.py").read_text(encoding="utf-8")
    forest = load(examples / "letters.yaml").spec.candidates[0]
    for key, values in forest.spaces[0].items():
        assert f'"model__{key}": {list(values)}' in text


def test_own_estimator_needs_the_configuration(examples: Path, submit: Submit) -> None:
    done = submit("validate", examples / "own-estimator" / "spec.yaml")
    assert done.returncode == 2
    assert "configuration" in done.stderr
    assert "Traceback" not in done.stderr


def test_activity_is_what_its_script_writes(examples: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_activity", examples / "make_activity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.make_csv() == (examples / "activity.csv").read_text(encoding="utf-8")


def test_readme_shows_a_spec_that_loads(examples: Path) -> None:
    text = (examples.parent / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        parse(block.encode(), "README.md")
