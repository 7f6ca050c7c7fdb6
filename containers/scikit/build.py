"""Turn frozen values into live scikit-learn objects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from jobspec.errors import SpecError
from jobspec.grammar.tables import estimators, functions, in_allowed_module, objects
from jobspec.grammar.values import (
    EstimatorNode,
    FunctionNode,
    Generator,
    NamedList,
    NumpyScalar,
    ObjectNode,
    PipelineNode,
    SplitterNode,
    Value,
)
from jobspec.settings import load_settings

if TYPE_CHECKING:
    from jobspec.search.candidates import Candidate


def build(value: Value) -> Any:
    """Return the live object of a value; nothing is shared between two calls.

    Raises:
        SpecError: a path that may not be imported or is no estimator, or a generator that numpy refuses.
    """
    builder = _BUILDERS.get(type(value))
    return value if builder is None else builder(value)


def make_estimator(candidate: Candidate) -> Any:
    """Return the unfitted estimator of a candidate, made as GridSearchCV makes it.

    That is ``clone(base).set_params(**clone(params, safe=False))``: parameters may be estimators themselves.
    """
    estimator = clone(build(candidate.definition))
    params = {name: build(value) for name, value in candidate.assignments.items()}
    return estimator.set_params(**clone(params, safe=False))


def weight_parameter(estimator: Any) -> str:
    """Return the fit parameter that carries sample weights to the last step of nested pipelines."""
    prefix = ""
    while isinstance(estimator, Pipeline):
        name, estimator = estimator.steps[-1]
        prefix += f"{name}__"
    return prefix + "sample_weight"


def final_step(estimator: Any) -> Any:
    """Return what predicts: the last step of nested pipelines."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return estimator


def load_class(path: str) -> Any:
    """Import a class or function by its public path.

    The loader has let the path through, perhaps on another machine; it is checked once more against the frozen tables
    and this machine's settings, since a spec must not widen what the machine that runs it trusts.

    Raises:
        SpecError: the path is not allowed here, cannot be imported, or is no estimator.
    """
    if path in estimators() or path in functions() or path in objects():
        return _import_object(path)
    settings = load_settings()
    if not in_allowed_module(path, settings.allowed_modules):
        raise SpecError(
            f"{path!r} is neither in foldfleet's table nor in a module that this machine allows "
            f"({', '.join(settings.allowed_modules) or 'none'}). Allow its module under [modules] in the configuration "
            "file or in FOLDFLEET_ALLOWED_MODULES."
        )
    _extend_path(settings.module_path)
    found = _import_object(path)
    if not (isinstance(found, type) and issubclass(found, BaseEstimator)):
        raise SpecError(f"{path!r} is no estimator: a class derived from sklearn.base.BaseEstimator is needed.")
    return found


def generate(node: Generator) -> Any:
    """Evaluate a generator once, by numpy; ``range`` gives a list of Python's integers.

    Raises:
        SpecError: numpy refuses the arguments.
    """
    try:
        if node.kind == "range":
            return list(range(*_numbers(node.args)))
        dtype = None if node.dtype is None else np.dtype(node.dtype)
        return _NUMPY_GENERATORS[node.kind](*_numbers(node.args), dtype=dtype)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        arguments = ", ".join(map(str, node.args))
        raise SpecError(f"{node.kind}: [{arguments}] cannot be evaluated: {error}.") from None


def freeze_array(values: Any) -> tuple[Value, ...]:
    """Return generated values one by one, numpy's as typed scalars: that is what GridSearchCV hands on."""
    return tuple(freeze_scalar(item) for item in values)


def freeze_scalar(item: Any) -> Value:
    """Return one drawn or generated value as a `Value`."""
    return NumpyScalar(item.dtype.name, item.item()) if isinstance(item, np.generic) else item


def _numbers(args: tuple[Value, ...]) -> list[Any]:
    return [build(argument) for argument in args]


def _import_object(path: str) -> Any:
    module, _, name = path.rpartition(".")
    entry = estimators().get(path)
    try:
        if entry is not None and entry.enable is not None:
            importlib.import_module(entry.enable)
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"{path!r} cannot be imported: {error}. Check the name, and that its package is installed here."
        ) from None


def _extend_path(folders: tuple[str, ...]) -> None:
    """Search the user's module folders first; they are named by the configuration, never by a spec."""
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _build_named(params: Mapping[str, Value]) -> dict[str, Any]:
    return {name: build(value) for name, value in params.items()}


def _build_scalar(node: NumpyScalar) -> Any:
    return np.dtype(node.dtype).type(node.value)


def _build_splitter(node: SplitterNode) -> Any:
    return _import_object(f"sklearn.model_selection.{node.kind}")(**_build_named(node.params))


_NUMPY_GENERATORS: dict[str, Callable[..., Any]] = {
    "linspace": np.linspace,
    "logspace": np.logspace,
    "geomspace": np.geomspace,
    "arange": np.arange,
}

_BUILDERS: dict[type, Callable[[Any], Any]] = {
    list: lambda items: [build(item) for item in items],
    tuple: lambda items: tuple(build(item) for item in items),
    dict: lambda items: {build(key): build(item) for key, item in items.items()},
    EstimatorNode: lambda node: load_class(node.path)(**_build_named(node.params)),
    PipelineNode: lambda node: Pipeline([(name, build(step)) for name, step in node.steps]),
    NamedList: lambda node: [(name, build(item)) for name, item in node.items],
    FunctionNode: lambda node: load_class(node.path),
    ObjectNode: lambda node: load_class(node.path)(*map(build, node.args), **_build_named(node.params)),
    SplitterNode: _build_splitter,
    NumpyScalar: _build_scalar,
    Generator: generate,
}
