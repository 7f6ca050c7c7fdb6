"""The frozen tables: every public name of scikit-learn that a spec may use, as plain data.

``python -m containers.scikit.freeze_tables --write`` makes them; a test compares them with the installed
scikit-learn. Looking a name up imports nothing.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

_FOLDER = Path(__file__).parent / "tables"

Kind = Literal["classifier", "regressor", "transformer", "cluster", "outlier", "other"]


@dataclass(frozen=True, slots=True)
class EstimatorEntry:
    """One estimator class: what it is and what its constructor takes.

    ``enable`` names the ``sklearn.experimental`` module to import first, if the class needs one.
    """

    kind: Kind
    predict: bool
    score: bool
    params: tuple[str, ...]
    required: tuple[str, ...]
    enable: str | None


@dataclass(frozen=True, slots=True)
class SplitterEntry:
    """One splitter class of ``sklearn.model_selection``."""

    params: tuple[str, ...]
    groups: bool


@cache
def estimators() -> dict[str, EstimatorEntry]:
    """Return scikit-learn's estimators by public path."""
    return {
        path: EstimatorEntry(
            kind=entry["kind"],
            predict=entry["predict"],
            score=entry["score"],
            params=tuple(entry["params"]),
            required=tuple(entry["required"]),
            enable=entry.get("enable"),
        )
        for path, entry in _read("estimators").items()
    }


@cache
def splitters() -> dict[str, SplitterEntry]:
    """Return the splitters of ``sklearn.model_selection`` by class name."""
    return {name: SplitterEntry(tuple(entry["params"]), entry["groups"]) for name, entry in _read("splitters").items()}


@cache
def scorers() -> frozenset[str]:
    """Return scikit-learn's scorer names."""
    return frozenset(_read("scorers"))


@cache
def metrics() -> dict[str, tuple[str, ...]]:
    """Return the functions of ``sklearn.metrics`` for make_scorer, with their further parameters."""
    return {name: tuple(entry["params"]) for name, entry in _read("metrics").items()}


@cache
def functions() -> dict[str, str]:
    """Return the closed table of functions: full path by short name and by full path."""
    paths: list[str] = _read("functions")
    return {path.rpartition(".")[2]: path for path in paths} | {path: path for path in paths}


@cache
def objects() -> dict[str, tuple[str, ...]]:
    """Return the classes for ``object:`` (Gaussian process kernels) with their parameters."""
    return {path: tuple(entry["params"]) for path, entry in _read("objects").items()}


@cache
def datasets() -> dict[str, str]:
    """Return scikit-learn's built-in data sets: loader path by short name."""
    return dict(_read("datasets"))


@cache
def tuple_params() -> frozenset[str]:
    """Return the parameters that take tuples only, so that a YAML list stands for one."""
    return frozenset(_read("tuple_params"))


def in_allowed_module(path: str, allowed: Iterable[str]) -> bool:
    """Tell whether the path lies in a module that the user's settings allow."""
    return any(path.startswith(f"{module}.") for module in allowed)


def closest_path(path: str, paths: Iterable[str]) -> str:
    """Suggest a dotted path: the same class elsewhere first, then the nearest spelling."""
    known = list(paths)
    name = path.rpartition(".")[2]
    same = sorted(item for item in known if item.rpartition(".")[2].lower() == name.lower())
    if same:
        return f" Did you mean {same[0]!r}?"
    by_name = {item.rpartition(".")[2].lower(): item for item in known}
    # A stricter cutoff than for keys: `os.system` must not suggest an estimator.
    found = difflib.get_close_matches(name.lower(), by_name, n=1, cutoff=0.8)
    return f" Did you mean {by_name[found[0]]!r}?" if found else ""


def _read(name: str) -> Any:
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
