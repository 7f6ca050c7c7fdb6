"""Cells that are counted from a spec alone: as many as there are, and never one too many."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import model_selection

from containers.scikit.freeze import freeze
from jobspec.errors import LimitError
from jobspec.grammar import tables
from jobspec.grammar.load import load, parse
from jobspec.grammar.spec import CvSpec, Spec
from jobspec.search.candidates import CandidateSpace
from jobspec.search.counting import CellCount, count_candidates, count_cells
from jobspec.search.planning import check_cells

ROOT = Path(__file__).parents[2]
SPECS = [*sorted((ROOT / "examples").glob("*.yaml")), *sorted((ROOT / "tests/specs/valid").glob("*.yaml"))]
RANDOM = "search: {kind: random, n_iter: 20, random_state: 0}\n"
SVC = "estimator: sklearn.svm.SVC"


def spec_of(candidates: str, more: str = "") -> Spec:
    head = "name: counted\ndata: {builtin: iris}\n"
    return parse(f"{head}{more}candidates: [{candidates}]\n".encode(), "s.yaml").spec


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.stem))
def test_the_candidates_of_every_spec_here_are_counted_as_they_are_frozen(path: Path) -> None:
    spec = load(path).spec
    assert count_candidates(spec) == CandidateSpace(freeze(spec, seed=0).space).num_candidates


@pytest.mark.parametrize(
    ("candidates", "more"),
    [
        (f"{{{SVC}}}", ""),
        (f"{{{SVC}, grid: {{C: [1, 2, 2], kernel: [rbf, linear]}}}}, {{{SVC}}}", ""),
        (f"{{{SVC}, grid: [{{kernel: [linear]}}, {{C: {{logspace: [0, 2, 7]}}, gamma: {{arange: [1, 7, 2]}}}}]}}", ""),
        (f"{{{SVC}, grid: {{max_iter: {{range: [100, 5, -7]}}, C: {{linspace: [1, 9]}}}}}}", ""),
        (f"{{{SVC}, grid: {{max_iter: {{arange: [1, 10, 0.3], dtype: int}}}}}}", ""),
        (f"{{{SVC}, distributions: {{C: {{uniform: [1, 2]}}}}}}, {{{SVC}}}", RANDOM),
        (f"{{{SVC}, distributions: {{C: [1, 2, 3], kernel: {{choice: [rbf, linear]}}}}}}", RANDOM),
        (f"{{{SVC}, distributions: {{C: {{geomspace: [1, 100, 50]}}, kernel: [rbf, linear]}}}}", RANDOM),
        (f"{{{SVC}, distributions: [{{C: [1, 2]}}, {{gamma: {{loguniform: [0.1, 1]}}}}]}}", RANDOM),
    ],
)  # fmt: skip
def test_grids_and_draws_are_counted_as_scikit_learn_counts(candidates: str, more: str) -> None:
    spec = spec_of(candidates, more)
    assert count_candidates(spec) == CandidateSpace(freeze(spec, seed=0).space).num_candidates


ARGUMENTS: dict[str, dict[str, Any]] = {
    "PredefinedSplit": {"test_fold": np.array([0, 1, 0, 1])},
    "LeavePOut": {"p": 2},
    "LeavePGroupsOut": {"n_groups": 2},
}


@pytest.mark.parametrize("kind", sorted(tables.splitters()))
def test_splits_are_counted_as_scikit_learn_counts_or_not_at_all(kind: str) -> None:
    given = ARGUMENTS.get(kind, {})
    rows, groups = np.zeros((40, 1)), np.arange(40) % 20
    count = count_cells(spec_of(f"{{{SVC}}}").model_copy(update={"cv": CvSpec(kind=kind, params=given)}))
    splits = getattr(model_selection, kind)(**given).get_n_splits(rows, np.arange(40) % 2, groups)
    assert count.num_cells == (splits if count.is_exact else 1)
    assert count.is_exact == (not kind.startswith(("Leave", "Predefined")))


def test_given_numbers_of_splits_are_multiplied() -> None:
    repeated = spec_of(f"{{{SVC}}}", "cv: {kind: RepeatedKFold, n_splits: 3, n_repeats: 4}\n")
    assert count_cells(repeated) == CellCount(12)
    assert count_cells(spec_of(f"{{{SVC}}}", "cv: 7\n")) == CellCount(7)


@pytest.mark.parametrize("wrong", ["0", "-3", "true", "2.5", "null"])
def test_what_is_no_number_of_splits_counts_for_one(wrong: str) -> None:
    spec = spec_of(f"{{{SVC}}}", f"cv: {{kind: KFold, n_splits: {wrong}}}\n")
    assert count_cells(spec) == CellCount(1, is_exact=False)


def test_a_space_that_nobody_could_walk_is_counted_at_once_and_told_in_few_words() -> None:
    names = [f"s{number}" for number in range(450)]
    steps = ", ".join(f"{{{name}: sklearn.kernel_approximation.RBFSampler}}" for name in names)
    keys = [f"{name}__{param}" for name in names for param in ("gamma", "n_components")]
    axes = ", ".join(f"{key}: {{range: [0, 100000]}}" for key in keys)
    spec = spec_of(f"{{pipeline: [{steps}, {{svc: sklearn.svm.SVC}}], grid: {{{axes}, svc__C: [1, 2]}}}}", "cv: 5\n")
    started = time.process_time()
    count = count_cells(spec)
    assert count.num_cells == 10**4501
    with pytest.raises(LimitError) as caught:
        check_cells(count, 1_000_000)
    assert time.process_time() - started < 1
    assert "about 10^4501 cells" in caught.value.message
    assert len(caught.value.message) < 400
    assert "--max-cells N" in caught.value.message


def test_a_lower_bound_says_so() -> None:
    with pytest.raises(LimitError, match=r"at least 9 cells .* at most 8 .* --max-cells N\.$"):
        check_cells(CellCount(9, is_exact=False), 8)
    with pytest.raises(LimitError, match=r"has 9 cells .* --max-cells 9\.$"):
        check_cells(CellCount(9), 8)
    check_cells(CellCount(8), 8)
