"""Parameter values without numpy: nodes for live objects, and one exact, tagged JSON encoding.

Plain values are Python's own (None, bool, int, float, str, list, tuple, dict). What `containers` turns into
live objects is a frozen node. The encoding keeps ``1``, ``1.0`` and ``true`` apart, and NaN, infinities,
``-0.0``, tuples and keys that are not strings intact, so that it can carry both identity and work.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

FIRST_TAG_CHARACTER = "$"


@dataclass(frozen=True, slots=True)
class EstimatorNode:
    """An estimator to construct: public dotted path and constructor parameters."""

    path: str
    params: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineNode:
    """A scikit-learn Pipeline; a step is an estimator node, ``"passthrough"`` or None."""

    steps: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class NamedList:
    """A list of (name, estimator) tuples, as Voting, Stacking and FeatureUnion take."""

    items: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class FunctionNode:
    """A function of the closed table, by its public path."""

    path: str


@dataclass(frozen=True, slots=True)
class ObjectNode:
    """Another object to construct, such as a Gaussian process kernel."""

    path: str
    args: tuple[Value, ...] = ()
    params: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SplitterNode:
    """A splitter of ``sklearn.model_selection`` inside a parameter (``cv`` of a stacking, say)."""

    kind: str
    params: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NumpyScalar:
    """One numpy scalar: what GridSearchCV hands to an estimator when the axis is a numpy array."""

    dtype: str
    value: bool | int | float


@dataclass(frozen=True, slots=True)
class Generator:
    """A call of linspace, logspace, geomspace, arange (numpy) or range (Python), positional arguments."""

    kind: str
    args: tuple[Value, ...]
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution to draw from: uniform, loguniform, randint or choice."""

    kind: str
    args: tuple[Value, ...]


Node: TypeAlias = (
    EstimatorNode
    | PipelineNode
    | NamedList
    | FunctionNode
    | ObjectNode
    | SplitterNode
    | NumpyScalar
    | Generator
    | Distribution
)
Value: TypeAlias = "bool | int | float | str | list[Value] | tuple[Value, ...] | dict[Any, Value] | Node | None"


# --- JSON -------------------------------------------------------------------------------------------------


def encode(value: Value) -> Any:
    """Turn a value into JSON-able data that `decode` turns back exactly.

    Raises:
        TypeError: the object is not a `Value`.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is None:
        raise TypeError(f"{type(value).__name__} is no parameter value")
    return encoder(value)


def decode(document: Any) -> Value:
    """Rebuild the value that `encode` wrote.

    Raises:
        ValueError: the document carries an unknown tag.
    """
    if isinstance(document, list):
        return [decode(item) for item in document]
    if not isinstance(document, dict):
        return document  # type: ignore[no-any-return]
    tag = next((key for key in document if key.startswith(FIRST_TAG_CHARACTER)), None)
    if tag is None:
        return {key: decode(item) for key, item in document.items()}
    decoder = _DECODERS.get(tag)
    if decoder is None:
        raise ValueError(f"unknown tag {tag!r} in an encoded value")
    return decoder(document)


def canonical_json(document: Any) -> bytes:
    """Write JSON-able data in its one canonical spelling: sorted keys, no spaces, ASCII."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii")


def digest(document: Any) -> str:
    """Return 32 hexadecimal characters of the SHA-256 over the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()[:32]


def _encode_float(value: float) -> Any:
    return value if math.isfinite(value) else {"$float": str(value)}


def _encode_dict(value: dict[Any, Value]) -> Any:
    if all(isinstance(key, str) and not key.startswith(FIRST_TAG_CHARACTER) for key in value):
        return _encode_named(value)
    return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}


def _encode_named(params: Mapping[str, Value]) -> dict[str, Any]:
    return {key: encode(item) for key, item in params.items()}


def _encode_all(values: tuple[Value, ...] | list[Value]) -> list[Any]:
    return [encode(item) for item in values]


def _encode_pairs(pairs: tuple[tuple[str, Value], ...]) -> list[Any]:
    return [[name, encode(item)] for name, item in pairs]


_ENCODERS: dict[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    int: lambda value: value,
    str: lambda value: value,
    float: _encode_float,
    list: _encode_all,
    tuple: lambda value: {"$tuple": _encode_all(value)},
    dict: _encode_dict,
    EstimatorNode: lambda node: {"$estimator": node.path, "params": _encode_named(node.params)},
    PipelineNode: lambda node: {"$pipeline": _encode_pairs(node.steps)},
    NamedList: lambda node: {"$named": _encode_pairs(node.items)},
    FunctionNode: lambda node: {"$function": node.path},
    ObjectNode: lambda node: {
        "$object": node.path,
        "args": _encode_all(node.args),
        "params": _encode_named(node.params),
    },
    SplitterNode: lambda node: {"$splitter": node.kind, "params": _encode_named(node.params)},
    NumpyScalar: lambda node: {"$numpy": node.dtype, "value": encode(node.value)},
    Generator: lambda node: {"$generator": node.kind, "args": _encode_all(node.args), "dtype": node.dtype},
    Distribution: lambda node: {"$distribution": node.kind, "args": _encode_all(node.args)},
}


def _decode_named(document: dict[str, Any]) -> dict[str, Value]:
    return {key: decode(item) for key, item in document.items()}


def _decode_all(documents: list[Any]) -> tuple[Value, ...]:
    return tuple(decode(item) for item in documents)


def _decode_pairs(documents: list[Any]) -> tuple[tuple[str, Value], ...]:
    return tuple((name, decode(item)) for name, item in documents)


def _decode_scalar(document: dict[str, Any]) -> NumpyScalar:
    value = decode(document["value"])
    if not isinstance(value, bool | int | float):
        raise ValueError(f"a numpy scalar holds a number, not {value!r}")
    return NumpyScalar(document["$numpy"], value)


_DECODERS: dict[str, Callable[[dict[str, Any]], Value]] = {
    "$float": lambda document: float(document["$float"]),
    "$tuple": lambda document: _decode_all(document["$tuple"]),
    "$dict": lambda document: {decode(key): decode(item) for key, item in document["$dict"]},
    "$estimator": lambda document: EstimatorNode(document["$estimator"], _decode_named(document["params"])),
    "$pipeline": lambda document: PipelineNode(_decode_pairs(document["$pipeline"])),
    "$named": lambda document: NamedList(_decode_pairs(document["$named"])),
    "$function": lambda document: FunctionNode(document["$function"]),
    "$object": lambda document: ObjectNode(
        document["$object"], _decode_all(document["args"]), _decode_named(document["params"])
    ),
    "$splitter": lambda document: SplitterNode(document["$splitter"], _decode_named(document["params"])),
    "$numpy": _decode_scalar,
    "$generator": lambda document: Generator(document["$generator"], _decode_all(document["args"]), document["dtype"]),
    "$distribution": lambda document: Distribution(document["$distribution"], _decode_all(document["args"])),
}


# --- text for people --------------------------------------------------------------------------------------


def class_name(path: str) -> str:
    """Return the last part of a dotted path."""
    return path.rpartition(".")[2]


def show(value: Value) -> str:
    """Write a value as short text for a leaderboard; long floats are rounded to six digits."""
    shower = _SHOWERS.get(type(value))
    return repr(value) if shower is None else shower(value)


def _show_call(path: str, args: list[str], params: Mapping[str, Value]) -> str:
    parts = args + [f"{name}={show(item)}" for name, item in sorted(params.items())]
    return f"{class_name(path)}({', '.join(parts)})" if parts else class_name(path)


def _show_float(value: float) -> str:
    text = repr(value)
    return text if len(text) <= 8 else f"{value:.6g}"


def _show_all(values: Iterable[Value]) -> str:
    return ", ".join(show(item) for item in values)


def _show_dict(value: dict[Any, Value]) -> str:
    return "{" + ", ".join(f"{key!r}: {show(item)}" for key, item in value.items()) + "}"


def _show_step(step: Value) -> str:
    return step if isinstance(step, str) else show(step)


_SHOWERS: dict[type, Callable[[Any], str]] = {
    float: _show_float,
    list: lambda value: f"[{_show_all(value)}]",
    tuple: lambda value: f"({_show_all(value)}{',' if len(value) == 1 else ''})",
    dict: _show_dict,
    NumpyScalar: lambda node: show(node.value),
    EstimatorNode: lambda node: _show_call(node.path, [], node.params),
    ObjectNode: lambda node: _show_call(node.path, [show(item) for item in node.args], node.params),
    SplitterNode: lambda node: _show_call(node.kind, [], node.params),
    PipelineNode: lambda node: " > ".join(_show_step(step) for _, step in node.steps),
    NamedList: lambda node: "[" + ", ".join(f"{name}: {_show_step(item)}" for name, item in node.items) + "]",
    FunctionNode: lambda node: class_name(node.path),
    Generator: lambda node: f"{node.kind}({_show_all(node.args)})",
    Distribution: lambda node: f"{node.kind}({_show_all(node.args)})",
}


def plain(value: Value) -> Any:
    """Turn a value into plain JSON-able data for the ``params`` of cv_results.

    Numpy scalars become numbers, objects the text of `show`, NaN and infinities strings.
    """
    match value:
        case NumpyScalar():
            return plain(value.value)
        case float():
            return value if math.isfinite(value) else str(value)
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {key if isinstance(key, str) else show(key): plain(item) for key, item in value.items()}
        case None | bool() | int() | str():
            return value
        case _:
            return show(value)
