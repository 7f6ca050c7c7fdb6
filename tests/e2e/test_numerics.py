"""`numerics`: one search under two sets of CPU kernels, forced as another machine's CPU would choose them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobspec.engine import numeric_environment
from tests.conftest import Submit

SPEC = """
name: kernels
data: {{builtin: breast_cancer}}
cv: {{kind: StratifiedKFold, n_splits: 3, shuffle: true, random_state: 0}}
candidates:
- pipeline:
  - scale: sklearn.preprocessing.StandardScaler
  - model: sklearn.linear_model.LogisticRegression
  grid: {{model__C: [0.01, 1, 100]}}
- pipeline:
  - scale: sklearn.preprocessing.StandardScaler
  - pca: {{estimator: sklearn.decomposition.PCA, params: {{n_components: 5, random_state: 0}}}}
  - model: {{estimator: sklearn.neural_network.MLPClassifier, params: {{max_iter: 40, random_state: 0}}}}
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {{random_state: 0, n_estimators: 20}}
- estimator: sklearn.naive_bayes.GaussianNB
scoring: neg_log_loss
numerics: {numerics}
"""

# As on a CPU with everything, and on one of ten years ago. Each is what a person could have in the environment.
FORCED = {
    "new": {},
    "old": {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    },
}

TELL = (
    "import json, numpy, scipy.linalg, threadpoolctl\n"
    "from numpy._core._multiarray_umath import __cpu_features__ as features\n"
    "blas = {lib['architecture'] for lib in threadpoolctl.threadpool_info() if lib['user_api'] == 'blas'}\n"
    "used = [features.get(new, features[old]) for new, old in (('X86_V3', 'AVX2'), ('X86_V4', 'AVX512_SKX'))]\n"
    "print(json.dumps([sorted(blas), *used]))"
)


def kernels(environment: dict[str, str]) -> list[object]:
    """Return the kernels of BLAS, and whether NumPy uses AVX2 and AVX512, in a process with this environment."""
    done = subprocess.run(
        [sys.executable, "-c", TELL], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_the_pins_reach_numpy_and_both_of_its_blas_libraries() -> None:
    if not kernels({})[1]:
        pytest.skip("this CPU has no AVX2, so nothing is to be pinned down to it")
    for forced in FORCED.values():
        assert kernels(forced | numeric_environment("portable")) == [["Haswell"], True, False]
    assert kernels(FORCED["old"]) == [["Nehalem"], False, False]


def search(submit: Submit, folder: Path, numerics: str, forced: str) -> tuple[str, list[dict[str, str]]]:
    """Run the search into a store of its own; return the run's id and its table without times."""
    spec = folder / f"{numerics}.yaml"
    spec.write_text(SPEC.format(numerics=numerics))
    store = folder / f"{numerics}-{forced}"
    environment = FORCED[forced] | {"FOLDFLEET_CACHE": str(folder / f"cache-{forced}")}
    done = submit("run", spec, "--json", "--store", store, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    with Path(answer["files"]["cv_results_csv"]).open(newline="", encoding="utf-8") as file:
        rows = [{k: v for k, v in row.items() if "_time" not in k} for row in csv.DictReader(file)]
    return answer["run_id"], rows


@pytest.mark.slow
def test_portable_scores_are_equal_under_any_kernels_and_native_ones_are_told_apart(
    submit: Submit, tmp_path: Path
) -> None:
    found = {
        (numerics, forced): search(submit, tmp_path, numerics, forced)
        for numerics in ("portable", "native")
        for forced in FORCED
    }
    assert found["portable", "new"] == found["portable", "old"]
    ids = {run_id for run_id, _ in found.values()}
    assert len(ids) == 3, "the run's id holds the engine's: portable is one, native two"
    if kernels({}) != kernels(FORCED["old"]):  # else this CPU is as old as the one that is forced
        assert found["native", "new"][1] != found["native", "old"][1], "the search must be one that kernels can change"
