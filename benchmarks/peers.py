"""GridSearchCV on the benchmarks' grids: a program such as a user would write, run in a process of its own."""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, REPOSITORY, map_npz
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

Options = argparse.Namespace
LETTER_ROWS = 4000


def search_digits(options: Options) -> Any:
    """Search examples/digits.yaml's grid."""
    X, y = load_digits(return_X_y=True)
    grid = {"C": np.logspace(-1, 2, 4), "gamma": np.logspace(-4, 0, 5)}
    cv = ShuffleSplit(5, test_size=0.25, random_state=42)
    return GridSearchCV(SVC(), grid, cv=cv, n_jobs=options.n_jobs, return_train_score=True).fit(X, y)


def search_letters(options: Options) -> Any:
    """Search examples/letters.yaml's two grids."""
    X, y = read_letters()
    forest = RandomForestClassifier(random_state=0)
    scaled = Pipeline([("scale", StandardScaler()), ("svc", SVC())])
    grids = [
        {
            "model": [forest],
            "model__n_estimators": [10, 25, 50],
            "model__max_features": [2, 4, 8],
            "model__min_samples_leaf": [1, 2, 4],
        },
        {
            "model": [scaled],
            "model__svc__C": np.logspace(1, 2, 3),
            "model__svc__gamma": np.linspace(0.01, 0.05, 3),
        },
    ]
    return GridSearchCV(
        Pipeline([("model", forest)]),
        grids,
        cv=StratifiedKFold(5, shuffle=True, random_state=42),
        scoring=["accuracy", "f1_macro"],
        refit="accuracy",
        n_jobs=options.n_jobs,
    ).fit(X, y)


def read_letters() -> tuple[Any, Any]:
    """Return the first rows of the letters: rows x 16 numbers, and letters."""
    with gzip.open(REPOSITORY / "examples" / "letter-recognition.csv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(",") for line, _ in zip(file, range(LETTER_ROWS + 1), strict=False)][1:]
    return np.array([row[1:] for row in rows], dtype=np.float64), np.array([row[0] for row in rows])


def search_memory(options: Options) -> Any:
    """Search what bench_memory.py's spec searches, from the mapped file."""
    sys.path.insert(0, str(HERE / "models"))
    from read_only import ReadOnly

    grid = {"tag": list(range(options.candidates))}
    model = ReadOnly(passes=options.passes)
    search = GridSearchCV(model, grid, cv=KFold(options.splits), n_jobs=options.n_jobs, refit=False)
    return search.fit(map_npz(options.data, "X"), np.asarray(map_npz(options.data, "y")))


def search_cheap(options: Options) -> Any:
    """Search what bench_cheap_fit.py's spec searches, from the mapped file."""
    grid = {"alpha": np.logspace(-6, -2, options.candidates // 3), "penalty": ["l2", "l1", "elasticnet"]}
    model = SGDClassifier(max_iter=options.passes, tol=None, random_state=0)
    search = GridSearchCV(model, grid, cv=StratifiedKFold(options.splits), n_jobs=options.n_jobs, refit=False)
    return search.fit(map_npz(options.data, "X"), np.asarray(map_npz(options.data, "y")))


SEARCHES: dict[str, Callable[[Options], Any]] = {
    "digits": search_digits,
    "letters": search_letters,
    "memory": search_memory,
    "cheap": search_cheap,
}


def main() -> None:
    """Run one search and save the numeric columns of its results, but for times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", choices=SEARCHES)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--splits", type=int)
    parser.add_argument("--passes", type=int)
    options = parser.parse_args()
    results = SEARCHES[options.search](options).cv_results_
    kinds = ("split", "mean_t", "std_t", "rank_t")
    if options.out is not None:
        np.savez(options.out, **{name: column for name, column in results.items() if name.startswith(kinds)})


if __name__ == "__main__":
    main()
