"""Generators and distributions as they are written; numpy and scipy evaluate them later, in `prepare`.

The checks here are arithmetic on the arguments, so that an endless or empty axis is refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from jobspec.grammar.problems import Problem, kind_of
from jobspec.grammar.values import Distribution, Generator
from jobspec.names import closest

MAX_AXIS = 100_000  # axes are frozen value by value; a grid multiplies them without cost

# The positional arguments of numpy's and Python's own functions; None marks one without a default.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "linspace": {"start": None, "stop": None, "num": 50, "endpoint": True},
    "logspace": {"start": None, "stop": None, "num": 50, "endpoint": True, "base": 10.0},
    "geomspace": {"start": None, "stop": None, "num": 50, "endpoint": True},
    "arange": {"start": None, "stop": None, "step": None},
    "range": {"start": None, "stop": None, "step": None},
}
GENERATOR_KINDS = tuple(_ARGUMENTS)
DISTRIBUTION_KINDS = ("uniform", "loguniform", "randint", "choice")

_EXAMPLES = {
    "linspace": "[0, 1, 5]",
    "logspace": "[-1, 2, 4]",
    "geomspace": "[1, 100, 3]",
    "arange": "[1, 10, 2]",
    "range": "[1, 10, 2]",
}


def convert_generator(given: dict[Any, Any], path: tuple[Any, ...]) -> Generator:
    """Convert ``{logspace: [-1, 2, 4]}``; numpy's further arguments may stand beside it by name.

    Raises:
        Problem: an argument has the wrong type, or the axis would be empty or too long.
    """
    kind = next(iter(given))
    known = _ARGUMENTS[kind]
    further = [name for name, default in known.items() if default is not None]
    allowed = (kind, *further, *(("dtype",) if kind != "range" else ()))
    for key in given:
        if key not in allowed:
            raise Problem(
                (*path, key),
                f"`{key}` is no argument of `{kind}`.{closest(str(key), allowed)} "
                f"Allowed beside it: {', '.join(allowed[1:]) or 'nothing'}.",
                at_key=True,
            )
    args = given[kind]
    if not isinstance(args, list):
        raise Problem((*path, kind), f"`{kind}` is {kind_of(args)}; write its arguments as {_EXAMPLES[kind]}.")
    complete = _complete(kind, args, {key: given[key] for key in further if key in given}, path)
    _check_arguments(kind, complete, path)
    length = axis_length(kind, complete)
    if not 1 <= length <= MAX_AXIS:
        told = "no value" if length < 1 else f"{length:,} values"
        raise Problem((*path, kind), f"this `{kind}` gives {told}; an axis has 1 to {MAX_AXIS:,}.")
    return Generator(kind, tuple(complete), _dtype(given, path))


def _complete(kind: str, args: list[Any], named: dict[str, Any], path: tuple[Any, ...]) -> list[Any]:
    """Append arguments given by name at their position, with numpy's defaults between."""
    known = list(_ARGUMENTS[kind].items())
    fewest = 1 if kind in ("range", "arange") else 2
    if not fewest <= len(args) <= len(known):
        raise Problem(
            (*path, kind),
            f"`{kind}` has {len(args)} arguments; it takes {fewest} to {len(known)} "
            f"({', '.join(name for name, _ in known)}), such as {_EXAMPLES[kind]}.",
        )
    complete = list(args)
    for position, (name, default) in enumerate(known):
        if name in named and position < len(args):
            raise Problem((*path, name), f"`{name}` is given twice: in the list and by name.", at_key=True)
        if position >= len(complete) and any(key in named for key, _ in known[position:]):
            complete.append(named.get(name, default))
    return complete


def _check_arguments(kind: str, args: list[Any], path: tuple[Any, ...]) -> None:
    for position, (name, value) in enumerate(zip(_ARGUMENTS[kind], args, strict=False)):
        place = (*path, kind, position)
        whole = name == "num" or kind == "range"
        if name == "endpoint":
            if not isinstance(value, bool):
                raise Problem(place, f"`endpoint` of `{kind}` is {kind_of(value)}; write true or false.")
        elif whole and type(value) is not int:
            raise Problem(place, f"`{name}` of `{kind}` is {kind_of(value)}; write a whole number.")
        elif type(value) not in (int, float) or not _is_finite(value):
            raise Problem(place, f"`{name}` of `{kind}` is {kind_of(value)}; write a finite number.")
        if name == "step" and value == 0:
            raise Problem(place, f"the step of `{kind}` is 0; it must not be.")
        if kind == "geomspace" and name in ("start", "stop") and value == 0:
            raise Problem(place, f"`{name}` of `geomspace` is 0; a geometric series needs another number.")
    if kind == "geomspace" and (args[0] < 0) != (args[1] < 0):
        raise Problem((*path, kind), "start and stop of `geomspace` have different signs.")
    if kind == "logspace" and len(args) == 5 and args[4] <= 0:
        raise Problem((*path, kind), f"the base of `logspace` is {args[4]}; it must be above 0.")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no double holds
        return False


def axis_length(kind: str, args: list[Any]) -> int:
    """Count the values without making them, as numpy and Python count."""
    if kind not in ("range", "arange"):
        return int(args[2]) if len(args) > 2 else 50
    start, stop = (0, args[0]) if len(args) == 1 else (args[0], args[1])
    step = args[2] if len(args) > 2 else 1
    if kind == "range":
        # Python's own len() stops at 2**63.
        return max(0, -((int(start) - int(stop)) // int(step)))
    estimate = (stop - start) / step
    return max(0, math.ceil(estimate)) if math.isfinite(estimate) else MAX_AXIS + 1


def _dtype(given: dict[Any, Any], path: tuple[Any, ...]) -> str | None:
    dtype = given.get("dtype")
    if dtype not in (None, "int", "float"):
        raise Problem((*path, "dtype"), f"`dtype` is {kind_of(dtype)}; write int or float.")
    return None if dtype is None else str(dtype)


# --- distributions ----------------------------------------------------------------------------------------


def convert_distribution(given: dict[Any, Any], path: tuple[Any, ...]) -> Distribution:
    """Convert ``{uniform: [low, high]}``, ``{loguniform: ...}`` or ``{randint: ...}``.

    ``choice`` is a plain list to scikit-learn and is converted by the caller.

    Raises:
        Problem: the bounds are not two numbers in order.
    """
    kind = next(iter(given))
    if len(given) > 1:
        extra = list(given)[1]
        raise Problem((*path, extra), f"`{extra}` does not go with `{kind}`; remove it.", at_key=True)
    bounds = given[kind]
    place = (*path, kind)
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise Problem(place, f"`{kind}` is {kind_of(bounds)}; write [low, high].")
    types: tuple[type, ...] = (int,) if kind == "randint" else (int, float)
    for index, bound in enumerate(bounds):
        if type(bound) not in types or not _is_finite(bound):
            wanted = "a whole number" if kind == "randint" else "a finite number"
            raise Problem((*place, index), f"a bound of `{kind}` is {kind_of(bound)}; write {wanted}.")
    low, high = bounds
    if not _ORDERED[kind](low, high):
        raise Problem(place, f"the bounds of `{kind}` are {low} and {high}; {_ORDER_WANTED[kind]}.")
    return Distribution(kind, (low, high))


_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "uniform": lambda low, high: low < high,
    "loguniform": lambda low, high: 0 < low < high,
    "randint": lambda low, high: low < high,
}
_ORDER_WANTED = {
    "uniform": "the first must be below the second",
    "loguniform": "both must be above 0, the first below the second",
    "randint": "the first must be below the second, which is never drawn",
}
