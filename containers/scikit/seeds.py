"""Find estimators whose scores depend on NumPy's global generator, by a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

from sklearn.ensemble import BaseEnsemble
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from containers.scikit.build import build
from containers.scikit.shapes import View, assign, views
from jobspec.search.candidates import FrozenEntry

Rule = tuple[str, Callable[[Any], bool]]
"""A parameter, and whether one of its values makes the estimator draw."""


def _one_of(*values: object) -> Callable[[Any], bool]:
    return lambda value: any(value is option or (type(value) is type(option) and value == option) for option in values)


_STOCHASTIC_SOLVER: Rule = ("solver", _one_of("sag", "saga"))
_LOGISTIC_SOLVER: Rule = ("solver", _one_of("sag", "saga", "liblinear"))
_PROBABILITY: Rule = ("probability", _one_of(True))
_SELECTION: Rule = ("selection", _one_of("random"))
_RESTARTS: Rule = ("n_restarts_optimizer", lambda value: value != 0)
_JITTER: Rule = ("jitter", lambda value: value is not None)
_SHUFFLE: Rule = ("shuffle", lambda value: value is not False)

# scikit-learn's documentation of each class's `random_state`. A class that is not listed always draws.
RULES: dict[str, Rule] = {
    "SVC": _PROBABILITY,
    "NuSVC": _PROBABILITY,
    "LogisticRegression": _LOGISTIC_SOLVER,
    "LogisticRegressionCV": _LOGISTIC_SOLVER,
    "Ridge": _STOCHASTIC_SOLVER,
    "RidgeClassifier": _STOCHASTIC_SOLVER,
    **dict.fromkeys(
        (
            "Lasso",
            "LassoCV",
            "ElasticNet",
            "ElasticNetCV",
            "MultiTaskLasso",
            "MultiTaskLassoCV",
            "MultiTaskElasticNet",
            "MultiTaskElasticNetCV",
        ),
        _SELECTION,
    ),
    "PCA": ("svd_solver", _one_of("randomized", "arpack")),
    "TruncatedSVD": ("algorithm", _one_of("randomized", "arpack")),
    "KernelPCA": ("eigen_solver", _one_of("auto", "randomized", "arpack")),
    "FactorAnalysis": ("svd_method", _one_of("randomized")),
    "DummyClassifier": ("strategy", _one_of("stratified", "uniform")),
    "GaussianProcessClassifier": _RESTARTS,
    "GaussianProcessRegressor": _RESTARTS,
    "Lars": _JITTER,
    "LassoLars": _JITTER,
    "KFold": _SHUFFLE,
    "StratifiedKFold": _SHUFFLE,
    "GroupKFold": _SHUFFLE,
    "StratifiedGroupKFold": _SHUFFLE,
}

# These seed the estimators inside them from their own random_state.
_SEEDING_CLASSES = ("RANSACRegressor", "IterativeImputer")

# They draw noise through their own `random_state=None`, which a selector cannot set.
_DRAWING_FUNCTIONS = (mutual_info_classif, mutual_info_regression)


def is_unseeded(entry: FrozenEntry) -> bool:
    """Say whether any candidate of an entry draws from the global generators."""
    base = build(entry.definition)
    return any(
        _draws(assign(base, objects), view, "")
        for view in views(entry)
        for objects in view.combinations(_object_axes(base, view))
    )


def _object_axes(base: Any, view: View) -> list[str]:
    """Return the axes that are more than a number, a string or None: they can bring or remove what draws."""
    live = base.get_params(deep=True)
    return [
        name
        for name, values in view.axes.items()
        if not _is_plain(live.get(name)) or any(not _is_plain(build(value)) for value in values)
    ]


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _draws(estimator: Any, view: View, prefix: str) -> bool:
    """Look at an estimator and all inside it; ``prefix`` leads to it, such as ``clf__``."""
    possible = _Possible(estimator, view, prefix)
    if possible.has("random_state") and possible.can_be("random_state", lambda value: value is None):
        parameter, draws = RULES.get(type(estimator).__name__, ("random_state", lambda value: value is None))
        if possible.can_be(parameter, draws) or _may_choose_random_pca(estimator, possible):
            return True
    if any(possible.can_be(name, _is_drawing_function) for name in possible.functions()):
        return True
    return any(_draws(child, view, f"{prefix}{name}__") for name, child in _children(estimator))


def _may_choose_random_pca(estimator: Any, possible: _Possible) -> bool:
    """Say whether a PCA may draw: ``svd_solver: auto`` does for some shapes, if ``n_components`` is a whole number."""
    return (
        type(estimator).__name__ == "PCA"
        and possible.can_be("svd_solver", _one_of("auto"))
        and possible.can_be("n_components", lambda value: isinstance(value, Integral))
    )


def _is_drawing_function(value: Any) -> bool:
    return any(value is function for function in _DRAWING_FUNCTIONS)


class _Possible:
    """The values a parameter takes: those of its axis if it has one, else the one it has."""

    def __init__(self, estimator: Any, view: View, prefix: str) -> None:
        self._params = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else vars(estimator)
        self._view = view
        self._prefix = prefix

    def has(self, name: str) -> bool:
        return name in self._params

    def functions(self) -> list[str]:
        return [name for name, value in self._params.items() if callable(value) and not hasattr(value, "get_params")]

    def can_be(self, name: str, condition: Callable[[Any], bool]) -> bool:
        axis = self._view.axes.get(self._prefix + name)
        values = [self._params.get(name)] if axis is None else [build(value) for value in axis]
        return any(condition(value) for value in values)


def _children(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the estimators and splitters directly inside an estimator, by the name that leads to them."""
    params = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    seeds_inner = isinstance(estimator, BaseEnsemble) or type(estimator).__name__ in _SEEDING_CLASSES
    for name, value in params.items():
        if name == "estimator" and seeds_inner:
            continue
        if _can_draw(value):
            yield name, value
        elif isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, tuple) and len(item) >= 2 and _can_draw(item[1]):
                    yield item[0], item[1]


def _can_draw(value: Any) -> bool:
    """Say whether a parameter's value is an estimator, or a splitter that can shuffle."""
    return not isinstance(value, type) and (hasattr(value, "get_params") or hasattr(value, "random_state"))
