"""Find wrong parameters before anything runs: every name, and every distinct value of every axis, once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils._param_validation import validate_parameter_constraints

from containers.scikit.build import build, load_class
from containers.scikit.shapes import View, assign, views
from jobspec.errors import SpecError
from jobspec.grammar.values import EstimatorNode, NamedList, ObjectNode, PipelineNode, Value, show
from jobspec.names import closest
from jobspec.search.candidates import FrozenEntry

Where = tuple[str | int, ...]

MAX_LISTED_NAMES = 40


@dataclass(frozen=True)
class Problem:
    """Something wrong with a spec, at a path in it such as ``("candidates", 0, "grid", 0, "C")``.

    Steps of a path that the file does not have, as the 0 of a grid that is no list, are passed over.
    """

    where: Where
    text: str


def check_entries(entries: Sequence[FrozenEntry], random: bool) -> list[Problem]:
    """Return all that is wrong with the parameters of a search, without data and without fitting.

    Args:
        entries: the frozen entries, in the order of the spec.
        random: the axes stand under ``distributions``, not under ``grid``.
    """
    found: dict[Problem, None] = {}
    for index, entry in enumerate(entries):
        for problem in _check_entry(entry, ("candidates", index), "distributions" if random else "grid"):
            found[problem] = None
    return list(found)


def _check_entry(entry: FrozenEntry, where: Where, section: str) -> Iterator[Problem]:
    wrong = list(_check_definition(entry.definition, where))
    yield from wrong
    if wrong:
        return
    base = build(entry.definition)
    yield from _check_steps(base, where)
    for number, view in enumerate(views(entry)):
        for axis in view.axes:
            yield from _check_axis(base, view, axis, (*where, section, number, axis))


# --- what is written in definitions and values --------------------------------------------------------------


def _check_definition(value: Value, where: Where) -> Iterator[Problem]:
    """Check names and values of every object in a value, the outermost first."""
    match value:
        case EstimatorNode() | ObjectNode():
            yield from _check_object(value, where)
        case PipelineNode():
            for index, (name, step) in enumerate(value.steps):
                yield from _check_definition(step, (*where, "pipeline", index, name))
        case NamedList():
            for index, (name, item) in enumerate(value.items):
                yield from _check_definition(item, (*where, index, name))
        case list() | tuple():
            for index, item in enumerate(value):
                yield from _check_definition(item, (*where, index))


def _check_object(node: EstimatorNode | ObjectNode, where: Where) -> Iterator[Problem]:
    try:
        cls = load_class(node.path)
    except SpecError as error:
        yield Problem(where, error.message)
        return
    valid = _constructor_names(cls)
    for name, value in node.params.items():
        place = (*where, "params", name)
        if valid is not None and name not in valid:
            yield Problem(place, _unknown_name(cls.__name__, name, valid))
            continue
        wrong = list(_check_definition(value, place))
        yield from wrong
        if not wrong:
            yield from _check_value(cls, name, value, place)
    yield from _check_construction(node, cls, where)


def _check_construction(node: EstimatorNode | ObjectNode, cls: Any, where: Where) -> Iterator[Problem]:
    """Report what the constructor itself refuses, such as a missing parameter."""
    signature = inspect.signature(cls)
    required = [
        name
        for name, parameter in list(signature.parameters.items())[len(getattr(node, "args", ())) :]
        if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
    ]
    missing = [name for name in required if name not in node.params]
    if missing:
        yield Problem(where, f"{cls.__name__} needs {', '.join(missing)}; write it under `params`.")


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _constructor_names(cls: Any) -> list[str] | None:
    """Return a class's parameters, or None if it takes any."""
    parameters = inspect.signature(cls).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _check_value(cls: Any, name: str, value: Value, where: Where) -> Iterator[Problem]:
    """Ask the class's own constraints; classes without any take everything until they are fitted."""
    try:
        live = build(value)
    except Exception as error:  # noqa: BLE001  # constructors of the user's own classes raise anything
        yield Problem(where, f"{show(value)} cannot be made: {error}")
        return
    constraints = getattr(cls, "_parameter_constraints", None)
    if not isinstance(constraints, dict) or name not in constraints:
        return
    try:
        validate_parameter_constraints({name: constraints[name]}, {name: live}, caller_name=cls.__name__)
    except ValueError as error:
        yield Problem(where, str(error).replace(f"Got {live!r} instead", f"Got {show(value)} instead"))


def _check_steps(estimator: Any, where: Where) -> Iterator[Problem]:
    """Report steps of a pipeline that cannot transform, which scikit-learn would tell only when it fits."""
    while isinstance(estimator, Pipeline):
        for index, (name, step) in enumerate(estimator.steps[:-1]):
            if step is not None and step != "passthrough" and not hasattr(step, "transform"):
                yield Problem(
                    (*where, "pipeline", index, name),
                    f"The step {name!r} is a {type(step).__name__}, which cannot transform; only the last step of a "
                    "pipeline predicts. Move it to the end, or put a transformer there.",
                )
        estimator = estimator.steps[-1][1]
    if not hasattr(type(estimator), "predict") and not hasattr(type(estimator), "score"):
        yield Problem(
            where,
            f"The last step is {_named(estimator)}, which has neither `predict` nor `score`. End with a classifier or "
            "a regressor.",
        )


# --- axes ---------------------------------------------------------------------------------------------------


def _check_axis(base: Any, view: View, axis: str, where: Where) -> Iterator[Problem]:
    sound = []
    for index, value in enumerate(view.axes[axis]):
        wrong = list(_check_definition(value, (*where, index)))
        yield from wrong
        sound += [] if wrong else [value]
    for objects in view.combinations(view.prefixes(axis)):
        yield from _check_assignment(base, objects, axis, sound, where)


def _check_assignment(
    base: Any, objects: dict[str, Value], axis: str, values: Sequence[Value], where: Where
) -> Iterator[Problem]:
    """Check one axis on the object that the axes before it put in its place."""
    try:
        owner, name = _find_owner(assign(base, objects), axis)
    except LookupError as error:
        yield Problem(where, str(error.args[0]))
        return
    except Exception:  # noqa: BLE001  # the axes before this one are wrong and have their own problem
        return
    for value in values:
        yield from _check_value(type(owner), name, value, where)
        if isinstance(owner, Pipeline) and name in owner.named_steps:
            yield from _check_steps(assign(owner, {name: value}), where)


def _find_owner(estimator: Any, axis: str) -> tuple[Any, str]:
    """Return the object whose parameter an axis sets, and that parameter's name.

    Raises:
        LookupError: no such parameter; the text says which are there.
    """
    name, separator, rest = axis.partition("__")
    valid = estimator.get_params(deep=True)
    if name not in valid:
        top = [key for key in valid if "__" not in key]
        raise LookupError(_unknown_name(type(estimator).__name__, name, top, estimator))
    if not separator:
        return estimator, name
    if not hasattr(valid[name], "get_params"):
        raise LookupError(
            f"{axis}: {name!r} of {type(estimator).__name__} is {valid[name]!r} here, which has no parameters. Use a "
            "list of mappings under `grid` to vary it only where it exists."
        )
    return _find_owner(valid[name], rest)


# --- words --------------------------------------------------------------------------------------------------


def _unknown_name(owner: str, name: str, valid: Sequence[str], estimator: Any = None) -> str:
    steps = list(getattr(estimator, "named_steps", {})) if isinstance(estimator, Pipeline) else []
    names = steps or sorted(valid)
    listed = ", ".join(names[:MAX_LISTED_NAMES]) + (", ..." if len(names) > MAX_LISTED_NAMES else "")
    kind = "step" if steps else "parameter"
    return f"{owner} has no {kind} {name!r}.{closest(name, names)} It has: {listed}."


def _named(estimator: Any) -> str:
    return repr(estimator) if isinstance(estimator, str) or estimator is None else f"a {type(estimator).__name__}"
