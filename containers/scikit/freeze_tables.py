"""Write the frozen tables of `jobspec` from the installed scikit-learn.

``python -m containers.scikit.freeze_tables --write`` replaces ``jobspec/grammar/tables/*.json`` after a new
scikit-learn; without the flag the tables are printed. The tables hold names only: a spec is checked against them before
anything is imported, so that no path of a spec decides what Python imports.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "jobspec" / "grammar" / "tables"

# numpy functions that are safe and useful inside FunctionTransformer and TransformedTargetRegressor.
_NUMPY_FUNCTIONS = ("exp", "expm1", "log", "log1p", "sqrt", "square")
_SELECTION_FUNCTIONS = (
    "chi2",
    "f_classif",
    "f_regression",
    "mutual_info_classif",
    "mutual_info_regression",
    "r_regression",
)
_DATASETS = ("breast_cancer", "diabetes", "digits", "iris", "wine")
_EXPERIMENTAL = {
    "HalvingGridSearchCV": "sklearn.experimental.enable_halving_search_cv",
    "HalvingRandomSearchCV": "sklearn.experimental.enable_halving_search_cv",
    "IterativeImputer": "sklearn.experimental.enable_iterative_imputer",
}
_METRIC_NAME = re.compile(r".*_(score|loss|error|deviance|corrcoef|ratio)$|brier_score_loss")


def freeze_tables() -> dict[str, Any]:
    """Return every table, as JSON-able data, by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classes = _public_estimators()
        return {
            "estimators": {path: _describe_estimator(made) for path, made in sorted(classes.items())},
            "splitters": _splitters(),
            "scorers": _scorers(),
            "metrics": _metrics(),
            "functions": [f"numpy.{name}" for name in _NUMPY_FUNCTIONS]
            + [f"sklearn.feature_selection.{name}" for name in _SELECTION_FUNCTIONS],
            "objects": _kernels(),
            "datasets": {name: f"sklearn.datasets.load_{name}" for name in _DATASETS},
            "tuple_params": _tuple_params(list(classes.values())),
        }


def write_tables(folder: Path = FOLDER) -> None:
    """Replace the stored tables; one line for each name, so that a new version reads as a diff."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in freeze_tables().items():
        (folder / f"{name}.json").write_text(format_table(table), encoding="utf-8")


def format_table(table: Any) -> str:
    """Write one table with an entry a line."""
    if isinstance(table, dict):
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in table.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"
    return "[\n" + ",\n".join(f"  {json.dumps(value)}" for value in table) + "\n]\n"


def _public_estimators() -> dict[str, type]:
    """Map public paths to classes; the public module is the path before the first private part."""
    from sklearn.utils import all_estimators

    found: dict[str, type] = {}
    listed: list[tuple[str, type]] = all_estimators()
    for name, made in listed:
        parts = made.__module__.split(".")
        private = next((index for index, part in enumerate(parts) if part.startswith("_")), len(parts))
        module = ".".join(parts[:private])
        if getattr(importlib.import_module(module), name, None) is made:
            found[f"{module}.{name}"] = made
    return found


def _describe_estimator(made: type) -> dict[str, Any]:
    parameters = _parameters(made)
    described: dict[str, Any] = {
        "kind": _kind(made),
        "predict": hasattr(made, "predict"),
        "score": hasattr(made, "score"),
        "params": [item.name for item in parameters],
        "required": [item.name for item in parameters if item.default is item.empty],
    }
    if made.__name__ in _EXPERIMENTAL:
        described["enable"] = _EXPERIMENTAL[made.__name__]
    return described


def _kind(made: type) -> str:
    from sklearn import base

    for kind, mixin in (
        ("classifier", base.ClassifierMixin),
        ("regressor", base.RegressorMixin),
        ("outlier", base.OutlierMixin),
        ("cluster", base.ClusterMixin),
        ("transformer", base.TransformerMixin),
    ):
        if issubclass(made, mixin):
            return kind
    return "other"


def _parameters(made: type) -> list[inspect.Parameter]:
    if made.__init__ is object.__init__:  # type: ignore[misc]
        return []
    listed = list(inspect.signature(made).parameters.values())
    return [item for item in listed if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD)]


def _splitters() -> dict[str, Any]:
    from sklearn import model_selection
    from sklearn.model_selection import BaseCrossValidator, BaseShuffleSplit

    found: dict[str, Any] = {}
    for name in sorted(model_selection.__all__):
        made = vars(model_selection).get(name)
        if not inspect.isclass(made) or made in (BaseCrossValidator, BaseShuffleSplit):
            continue
        if hasattr(made, "split") and hasattr(made, "get_n_splits"):
            found[name] = {"params": [item.name for item in _parameters(made)], "groups": "Group" in name}
    return found


def _scorers() -> list[str]:
    from sklearn.metrics import get_scorer_names

    return sorted(get_scorer_names())


def _metrics() -> dict[str, Any]:
    """List the functions (truth, prediction) -> one number that make_scorer can wrap."""
    from sklearn import metrics

    found = {}
    for name in sorted(metrics.__all__):
        made = getattr(metrics, name)
        if not inspect.isfunction(made) or not _METRIC_NAME.match(name):
            continue
        params = list(inspect.signature(made).parameters)
        if params[0] in ("y_true", "labels_true", "y1"):
            further = [param for param in params[2:] if param not in ("sample_weight", "y_pred")]
            found[name] = {"params": further}
    return found


def _kernels() -> dict[str, Any]:
    from sklearn.gaussian_process import kernels

    found = {}
    for name, made in sorted(vars(kernels).items()):
        if inspect.isclass(made) and issubclass(made, kernels.Kernel) and not inspect.isabstract(made):
            found[f"sklearn.gaussian_process.kernels.{name}"] = {"params": [item.name for item in _parameters(made)]}
    return found


def _tuple_params(classes: list[type]) -> list[str]:
    """Name the parameters whose constraints, in every estimator that has them, take tuples and no lists."""
    verdicts: dict[str, set[bool]] = defaultdict(set)
    for made in classes:
        for name, constraints in getattr(made, "_parameter_constraints", {}).items():
            if not isinstance(constraints, str):
                lists = any(item is list or "array-like" in str(item) for item in constraints)
                verdicts[name].add(tuple in constraints and not lists)
    return sorted(name for name, verdict in verdicts.items() if verdict == {True})


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write_tables()
    else:
        sys.stdout.write(json.dumps(freeze_tables(), indent=1) + "\n")
