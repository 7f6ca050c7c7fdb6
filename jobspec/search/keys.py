"""Keys of candidates: a digest over the folded definition, made of kept pieces where only leaves change."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TypeAlias

from jobspec.grammar.values import EstimatorNode, NumpyScalar, PipelineNode, Value, canonical_json, digest, encode
from jobspec.search.folding import NAMED_PARAMS, fold_assignments

Definition: TypeAlias = EstimatorNode | PipelineNode

MAX_KEPT = 100_000
"""Spellings of values that a maker keeps; the values of a random search hardly ever come again."""

_SLOT = re.compile(rb'"<<slot ([0-9]+) of this candidate>>"')


def make_key(definition: Definition, rest: Mapping[str, Value]) -> str:
    """Return 32 hexadecimal characters over a folded definition and the assignments that are not in it."""
    return digest({"definition": encode(definition), "rest": {key: encode(value) for key, value in rest.items()}})


class KeyMaker:
    """Make the keys of one entry's candidates, equal to `make_key` over the folded candidate.

    Where no assignment can change what another one means, the canonical JSON of all candidates with the same
    parameters differs in the values alone: it is folded and written once with slots, and the values, each written
    once, are put between its pieces. Other candidates are folded one by one.
    """

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._templates: dict[tuple[str, ...], _Template | None] = {}
        self._kept: dict[tuple[str | None, type, Value], bytes] = {}

    def key(self, assignments: Mapping[str, Value]) -> str:
        """Return the key of the candidate with these assignments."""
        names = tuple(assignments)
        if names not in self._templates:
            self._templates[names] = _make_template(self._definition, names)
        template = self._templates[names]
        if template is None:
            return make_key(*fold_assignments(self._definition, assignments))
        pieces, order = template
        text = [pieces[0]]
        for name, piece in zip(order, pieces[1:], strict=True):
            text += (self._spell(assignments[name]), piece)
        return hashlib.sha256(b"".join(text)).hexdigest()[:32]

    def _spell(self, value: Value) -> bytes:
        number, dtype = (value.value, value.dtype) if isinstance(value, NumpyScalar) else (value, None)
        # Only these: they are hashable, and -0.0, which equals 0.0, is spelled otherwise.
        if not isinstance(number, bool | int | str) and not (isinstance(number, float) and number):
            return canonical_json(encode(value))
        kept = (dtype, type(number), number)
        spelled = self._kept.get(kept)
        if spelled is None:
            spelled = canonical_json(encode(value))
            if len(self._kept) < MAX_KEPT:
                self._kept[kept] = spelled
        return spelled


_Template: TypeAlias = tuple[list[bytes], list[str]]
"""Pieces of canonical JSON, and the parameters whose values stand between them."""


def _make_template(definition: Definition, names: tuple[str, ...]) -> _Template | None:
    """Return the JSON of candidates that set these parameters, or None where values change its shape."""
    if any(is_nested(other, name) for name in names for other in names):
        return None  # what is set below a parameter depends on what stands there
    if any(name.rpartition("__")[2] in NAMED_PARAMS for name in names):
        return None  # a list of named parts brings names that other parameters may mean
    slots = {name: f"<<slot {number} of this candidate>>" for number, name in enumerate(names)}
    folded, rest = fold_assignments(definition, slots)
    parts = _SLOT.split(canonical_json({"definition": encode(folded), "rest": {k: encode(v) for k, v in rest.items()}}))
    order = [int(number) for number in parts[1::2]]
    if sorted(order) != list(range(len(names))):
        return None
    return parts[::2], [names[number] for number in order]


def is_nested(key: str, outer: str) -> bool:
    """Say whether one parameter is set below another."""
    return key.startswith(f"{outer}__")
