"""Parameters that reach further than a search may: files, processes, caches, in-place changes.

Checked by name at every depth, in ``params`` and in the values of grids and distributions alike.
The n_jobs and copy rules keep scores exact: `docs/exactness.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jobspec.grammar import tables
from jobspec.grammar.values import Distribution, Generator, Value
from jobspec.names import closest

_SEARCH_SPACES = ("param_grid", "param_distributions")  # of a search used as an estimator
_INNER_SCORINGS = {"loss"}  # HistGradientBoosting's word for its own loss


def find_danger(param: str, value: Value) -> str | None:
    """Return why this value of this parameter is refused, or None.

    Args:
        param: the parameter, nested or not; its last part decides.
        value: one value of it.
    """
    name = param.rpartition("__")[2]
    if name in _SEARCH_SPACES:
        return next(_in_search_space(value), None)
    rule = _RULES.get(name)
    if rule is None:
        return None
    if isinstance(value, Generator | Distribution):
        return f"`{param}` cannot be varied by a generator; {rule.remedy}"
    return None if rule.allows(value) else f"`{param}: {_short(value)}` is refused: {rule.remedy}"


def _in_search_space(value: Any) -> Iterator[str]:
    spaces = value if isinstance(value, list | tuple) else [value]
    for space in spaces:
        for key, choices in space.items() if isinstance(space, dict) else ():
            for choice in choices if isinstance(choices, list | tuple) else [choices]:
                if isinstance(key, str) and (danger := find_danger(key, choice)):
                    yield danger


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, None | bool | int | float | str) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


class _Rule:
    """What a parameter may be, and what to do instead."""

    def __init__(self, allows: Callable[[Any], bool], remedy: str) -> None:
        self.allows = allows
        self.remedy = remedy


def _is_one_or_none(value: Any) -> bool:
    return value is None or (type(value) is int and value == 1)


def _is_known_scoring(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_known_scoring(item) for item in value)
    return value is None or (isinstance(value, str) and value in tables.scorers() | _INNER_SCORINGS)


def _is_own_attribute(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier() and not value.startswith("_")


_NO_COPY = _Rule(
    lambda value: value is not False,
    "without a copy the estimator would write into data that other cells read. Leave it at true.",
)
_RULES: dict[str, _Rule] = {
    "n_jobs": _Rule(
        _is_one_or_none,
        "foldfleet runs one cell per CPU with one thread each, which also keeps scores exact. "
        "Remove it, and set the number of workers with `resources: {vcpus: N}` or --workers.",
    ),
    "copy": _NO_COPY,
    "copy_X": _NO_COPY,
    "copy_x": _NO_COPY,
    "copy_X_train": _NO_COPY,
    "memory": _Rule(lambda value: value is None, "it reads and writes pickles at a path of the spec. Remove it."),
    "warm_start": _Rule(lambda value: value is False, "a fit must not depend on the fit before it. Remove it."),
    "pre_dispatch": _Rule(lambda _: False, "it is evaluated as an expression. Remove it."),
    "input": _Rule(
        lambda value: value == "content", "it would read any file of the machine. Only `content` is allowed."
    ),
    "importance_getter": _Rule(
        _is_own_attribute, "allowed are auto, or the name of one attribute such as coef_, without dots."
    ),
    "scoring": _Rule(
        _is_known_scoring, "an inner scoring is null or one of scikit-learn's scorer names, such as accuracy."
    ),
}


def suggest_scorer(name: str) -> str:
    """Suggest the scorer that was probably meant."""
    return closest(name, tables.scorers())
