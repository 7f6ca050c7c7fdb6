"""Find estimators whose scores depend on NumPy's global generator, by a table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal, TypeAlias

from sklearn.decomposition import PCA
from sklearn.ensemble import BaseEnsemble
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from containers.scikit.build import build
from containers.scikit.shapes import View, assign, views
from jobspec.search.candidates import FrozenEntry

Kind: TypeAlias = Literal["estimator", "splitter", "function"]

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


# They give as many columns as they take, whatever their parameters are.
_KEEPS_COLUMNS = (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)


@dataclass(frozen=True)
class Shapes:
    """The matrices that candidates are fitted on: their numbers of rows, their columns, the NaN among all rows."""

    rows: tuple[int, ...]
    columns: int
    num_missing: int


@dataclass(frozen=True)
class Draw:
    """Something that draws from the global generators: what it is called, and the names that lead to it.

    ``kind`` says where a seed is written; functions take none.
    """

    name: str
    path: tuple[str, ...] = ()
    kind: Kind = "estimator"
    in_pipeline: bool = False

    def text(self) -> str:
        """Return the words for a person, such as ``PCA in step pca``."""
        if not self.path:
            return self.name
        return (
            f"{self.name} in step {self.path[-1]}" if self.in_pipeline else f"{self.name} under {'__'.join(self.path)}"
        )

    def remedy(self) -> str:
        """Return how to seed it, in the words of a spec."""
        if self.kind == "function":
            return f"{self.name} takes no seed there: f_classif and f_regression draw nothing"
        if self.kind == "splitter":
            return "Write `random_state: 0` beside the splitter's `kind`"
        if not self.path:
            return "Set `random_state: 0` under its `params`"
        place = f"{self.path[-1]}: " if self.in_pipeline else ""
        what = "step" if self.in_pipeline else "inner estimator"
        return f"Write the {what} as `{place}{{estimator: ..., params: {{random_state: 0}}}}`"


def find_draws(entry: FrozenEntry, shapes: Shapes | None = None) -> list[Draw]:
    """Return what draws from the global generators in any candidate of an entry, each once.

    Args:
        entry: the candidates.
        shapes: what they are fitted on, if it is known; some estimators draw for some shapes only.
    """
    base = build(entry.definition)
    found = (
        draw
        for view in views(entry)
        for objects in view.combinations(_object_axes(base, view))
        for draw in _draws(assign(base, objects), view, (), shapes)
    )
    return list(dict.fromkeys(found))


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


def _draws(
    estimator: Any, view: View, path: tuple[str, ...], shapes: Shapes | None, in_pipeline: bool = False
) -> Iterator[Draw]:
    """Look at an estimator and all inside it; ``path`` leads to it, ``shapes`` are those that reach it, if certain."""
    possible = _Possible(estimator, view, path)
    if possible.has("random_state") and possible.can_be("random_state", lambda value: value is None):
        parameter, draws = RULES.get(type(estimator).__name__, ("random_state", lambda value: value is None))
        if possible.can_be(parameter, draws) or _may_choose_random_pca(estimator, possible, shapes):
            kind: Kind = "estimator" if hasattr(estimator, "get_params") else "splitter"
            yield Draw(type(estimator).__name__, path, kind, in_pipeline)
    for name in possible.functions():
        for function in possible.values(name):
            if _is_drawing_function(function):
                yield Draw(function.__name__, path, "function", in_pipeline)
    steps = isinstance(estimator, Pipeline)
    # Pipelines of other packages may change the rows, too.
    shapes = shapes if type(estimator) is Pipeline else None
    for name, child in _children(estimator):
        yield from _draws(child, view, (*path, name), shapes, steps)
        if shapes is not None and not _keeps_columns(child, _Possible(child, view, (*path, name)), shapes):
            shapes = None


def _may_choose_random_pca(estimator: Any, possible: _Possible, shapes: Shapes | None) -> bool:
    """Say whether a PCA may draw: ``svd_solver: auto`` does for some shapes, if ``n_components`` is a whole number."""

    def is_random(components: Any) -> bool:
        if not isinstance(components, Integral):
            return False
        return (
            shapes is None
            or type(estimator) is not PCA
            or any(_chooses_random_pca(rows, shapes.columns, int(components)) for rows in shapes.rows)
        )

    return (
        type(estimator).__name__ == "PCA"
        and possible.can_be("svd_solver", _one_of("auto"))
        and possible.can_be("n_components", is_random)
    )


def _chooses_random_pca(rows: int, columns: int, components: int) -> bool:
    """Decide as ``PCA._fit`` of scikit-learn 1.9 does for ``svd_solver="auto"``; a test compares the two."""
    if columns <= 1000 and rows >= 10 * columns:
        return False
    return max(rows, columns) > 500 and 1 <= components < 0.8 * min(rows, columns)


def _keeps_columns(step: Any, possible: _Possible, shapes: Shapes) -> bool:
    """Say whether a step certainly gives as many columns as it takes."""
    if type(step) is SimpleImputer:
        # It leaves columns out that have no value in the rows it is fitted on.
        no_empty_column = shapes.num_missing < min(shapes.rows) or not possible.can_be(
            "keep_empty_features", lambda value: value is not True
        )
        return no_empty_column and not possible.can_be("add_indicator", lambda value: value is not False)
    return type(step) in _KEEPS_COLUMNS


def _is_drawing_function(value: Any) -> bool:
    return any(value is function for function in _DRAWING_FUNCTIONS)


class _Possible:
    """The values a parameter takes: those of its axis if it has one, else the one it has."""

    def __init__(self, estimator: Any, view: View, path: tuple[str, ...]) -> None:
        self._params = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else vars(estimator)
        self._view = view
        self._prefix = "".join(f"{name}__" for name in path)

    def has(self, name: str) -> bool:
        return name in self._params

    def functions(self) -> list[str]:
        return [name for name, value in self._params.items() if callable(value) and not hasattr(value, "get_params")]

    def values(self, name: str) -> list[Any]:
        axis = self._view.axes.get(self._prefix + name)
        return [self._params.get(name)] if axis is None else [build(value) for value in axis]

    def can_be(self, name: str, condition: Callable[[Any], bool]) -> bool:
        return any(condition(value) for value in self.values(name))


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
