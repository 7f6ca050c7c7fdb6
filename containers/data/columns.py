"""Which columns of a source become features, target, weights and groups, and in which types the latter come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobspec.errors import DataError
from jobspec.grammar.spec import DataSpec
from jobspec.names import closest

MISSING_WORDS = ("", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null", "-nan", "-NaN")
"""What pandas.read_csv takes for a missing value, so that a table reads the same here."""

_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_INTEGER = r"^\s*[+-]?[0-9]+\s*$"
_SHOWN = 12


@dataclass(frozen=True)
class Offer:
    """The columns of an opened source.

    ``columns`` can be features, ``sides`` can be target, weights, groups (in a table, the same ones).
    ``unlisted`` maps columns that become features only when the spec names them to the reason.
    """

    columns: tuple[str, ...]
    sides: tuple[str, ...]
    default_target: str | None = None
    unlisted: Mapping[str, str] | None = None
    hint: str = ""


@dataclass(frozen=True)
class Selection:
    """The columns to read: features in the order of X, and one name for each role (or None)."""

    features: tuple[str, ...]
    target: str
    weights: str | None
    groups: str | None
    extra: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def sides(self) -> tuple[str, ...]:
        """Return the columns to read beside X, each once."""
        named = (self.target, self.weights, self.groups, *self.extra)
        return tuple(dict.fromkeys(name for name in named if name is not None))


def select_columns(offer: Offer, data: DataSpec, extra: tuple[str, ...], file: str) -> Selection:
    """Resolve the spec's column names against what the source has.

    Raises:
        DataError: a name that the source has not, a name twice, or no feature left.
    """
    _refuse_duplicates(offer.columns, file)
    target = data.target or offer.default_target
    if target is None:
        raise DataError(f"`data.target` is missing: {file} has {_listing(offer.sides)}. Name the one to predict.")

    def find(name: str, key: str) -> str:
        return _find(name, offer.sides, key, file, offer.hint)

    target = find(target, "data.target")
    weights = find(data.weights, "data.weights") if data.weights else None
    groups = find(data.groups, "data.groups") if data.groups else None
    others = tuple(find(name, "cv.test_fold") for name in extra)
    for name in data.types:
        _find(name, (*offer.columns, *offer.sides), "data.types", file, offer.hint)
    roles = {name for name in (target, weights, groups, *others) if name is not None}
    features, warnings = _select_features(offer, data, roles, file)
    return Selection(features, target, weights, groups, others, warnings)


def _select_features(
    offer: Offer, data: DataSpec, roles: set[str], file: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    dropped = {_find(name, (*offer.columns, *offer.sides), "data.drop", file, offer.hint) for name in data.drop}
    # In an NPZ the arrays beside X are no columns of X: a side never takes a column away there.
    roles = roles if offer.sides == offer.columns else set()
    warnings: tuple[str, ...] = ()
    if data.features is not None:
        features = tuple(_find(name, offer.columns, "data.features", file, offer.hint) for name in data.features)
        _refuse_twice(features, roles, dropped)
    else:
        unlisted = {name: why for name, why in (offer.unlisted or {}).items() if name not in roles | dropped}
        warnings = tuple(unlisted.values())
        features = tuple(n for n in offer.columns if n not in roles and n not in dropped and n not in unlisted)
    if not features:
        raise DataError(f"{file}: no feature column is left. It has {_listing(offer.columns)}; drop fewer of them.")
    return features, warnings


def _refuse_twice(features: tuple[str, ...], roles: set[str], dropped: set[str]) -> None:
    for name, count in Counter(features).items():
        if count > 1:
            raise DataError(f"`data.features` names the column {name!r} {count} times. Name it once.")
        if name in roles or name in dropped:
            role = "target, weights, groups or test_fold" if name in roles else "drop"
            raise DataError(f"The column {name!r} stands under `data.features` and as {role}. Keep it in one place.")


def _refuse_duplicates(columns: tuple[str, ...], file: str) -> None:
    twice = {name: count for name, count in Counter(columns).items() if count > 1 and name}
    if twice:
        name = next(iter(twice))
        places = [str(place) for place, column in enumerate(columns, 1) if column == name]
        more = f" ({len(twice)} names are repeated in all)" if len(twice) > 1 else ""
        raise DataError(
            f"{file} has the column name {name!r} at the positions {', '.join(places[:_SHOWN])}{more}. "
            "Every column needs a name of its own: rename them in the file."
        )


def _find(name: str, allowed: tuple[str, ...], key: str, file: str, hint: str) -> str:
    """Return the name of a column; columns that are numbered can be counted from the end, as ``-1``."""
    if name in allowed:
        return name
    if name.startswith("-") and name[1:].isdigit() and 0 < int(name[1:]) <= len(allowed):
        counted = allowed[-int(name[1:])]
        if counted == str(len(allowed) - int(name[1:])):
            return counted
    raise DataError(
        f"`{key}`: {file} has no column {name!r}. It has {_listing(allowed)}.{closest(name, allowed)}{hint}"
    )


def _listing(names: tuple[str, ...]) -> str:
    if not names:
        return "no columns"
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def finish_side(name: str, chunks: Iterable[pa.Array], declared: str | None, untyped: bool) -> NDArray[Any]:
    """Turn the pieces of a target, weight or group column into one array of its own type.

    Args:
        name: the column, for messages.
        chunks: its values in order of rows; texts if ``untyped``.
        declared: the spec's `types` entry for it.
        untyped: the source is text (CSV): the type is found by looking at ALL values.

    Returns:
        An array of int, float, bool or ``<U``; never with a missing value.

    Raises:
        DataError: a missing or infinite value, or a type that has no place in an array.
    """
    column = pa.chunked_array(list(chunks))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if untyped:
        column = _infer(name, column, declared)
    _refuse_missing(name, column, "")
    return _to_numpy(name, column, declared)


def _infer(name: str, column: pa.ChunkedArray, declared: str | None) -> pa.ChunkedArray:
    if declared == "string":
        return pc.if_else(pc.equal(column, ""), None, column)
    words = pc.utf8_trim_whitespace(column)
    known = pc.if_else(pc.is_in(words, pa.array(MISSING_WORDS)), None, words)
    present = known.drop_null()
    if len(present) == 0:
        raise DataError(f"The column {name!r} has no values at all.")
    kind = declared or _guess(name, present)
    if kind == "string":
        _refuse_missing(name, known, f" If such words are labels, say so: `types: {{{name}: string}}`.")
        return column
    return _convert(name, known, kind)


def _guess(name: str, present: pa.ChunkedArray) -> str:
    if pc.all(pc.match_substring_regex(present, _INTEGER)).as_py():
        if _casts(present, pa.int64()):
            return "int"
        raise DataError(
            f"The column {name!r} holds whole numbers beyond 64 bits. Read them as text: `types: {{{name}: string}}`."
        )
    if _casts(present, pa.float64()):
        return "float"
    return "bool" if pc.all(pc.is_in(present, pa.array(_TRUE + _FALSE))).as_py() else "string"


def _casts(column: pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        column.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _convert(name: str, column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    if kind == "bool":
        known = pc.is_in(column, pa.array((*_TRUE, *_FALSE, "0", "1")))
        bad = pc.and_(column.is_valid(), pc.invert(known))
        values = pc.if_else(column.is_valid(), pc.is_in(column, pa.array((*_TRUE, "1"))), None)
    else:
        bad = _find_unconvertible(column, pa.int64() if kind == "int" else pa.float64())
        values = None if bad is not None else column.cast(pa.int64() if kind == "int" else pa.float64())
    row = _first_true(bad)
    if row is not None or values is None:
        shown = column[row or 0].as_py()
        raise DataError(
            f"The column {name!r} is declared {kind}, but row {(row or 0) + 1} holds {shown!r}. "
            f"Mend the file, or change `types: {{{name}: {kind}}}`."
        )
    return values


def _find_unconvertible(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray | None:
    if _casts(column, kind):
        return None
    good = [value is None or _casts(pa.chunked_array([[value]]), kind) for value in column.to_pylist()]
    return pa.chunked_array([[not flag for flag in good]])


def _first_true(flags: pa.ChunkedArray | None) -> int | None:
    if flags is None:
        return None
    row = int(pc.index(flags, True).as_py())
    return None if row < 0 else row


def _refuse_missing(name: str, column: pa.ChunkedArray, remedy: str) -> None:
    row = _first_true(column.is_null(nan_is_null=True))
    if row is not None:
        raise DataError(
            f"The column {name!r} has no value in row {row + 1}. Targets, weights, groups and test folds must be "
            f"complete: fill the value in, or remove the row.{remedy}"
        )


def _to_numpy(name: str, column: pa.ChunkedArray, declared: str | None) -> NDArray[Any]:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.asarray(column.to_numpy()).astype(np.str_)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        values = np.ascontiguousarray(column.to_numpy())
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise DataError(
                f"The column {name!r} holds {values[row]} in row {row + 1}. Infinite values cannot be used."
            )
        return _as_declared(values, declared)
    raise DataError(
        f"The column {name!r} has the type {kind}; targets, weights and groups are numbers, booleans or text. "
        "Convert it in the file."
    )


def _as_declared(values: NDArray[Any], declared: str | None) -> NDArray[Any]:
    if declared == "string":
        return values.astype(np.str_)
    wanted = {"int": "iu", "float": "f", "bool": "b"}.get(declared or "", values.dtype.kind)
    if values.dtype.kind in wanted:
        return values
    target = np.dtype({"int": np.int64, "float": np.float64, "bool": np.bool_}[declared or ""])
    converted = values.astype(target)
    if not np.array_equal(converted, values):
        raise DataError(f"A column declared {declared} holds values of type {values.dtype} that are none of these.")
    return converted
