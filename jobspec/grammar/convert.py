"""Turn YAML's mappings into value nodes: the grammar of ``params``, ``grid`` and ``distributions``.

One rule: a string is a string, an object is a mapping whose first key is reserved, every other mapping is
a plain dict. Bare class names stand only where a class must stand: `step` and a candidate's ``estimator``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobspec.grammar import tables
from jobspec.grammar.dangers import find_danger
from jobspec.grammar.generators import GENERATOR_KINDS, convert_generator
from jobspec.grammar.problems import Problem, kind_of, shorten
from jobspec.grammar.resolve import Place, Resolver
from jobspec.grammar.values import (
    EstimatorNode,
    FunctionNode,
    NamedList,
    ObjectNode,
    PipelineNode,
    SplitterNode,
    Value,
)
from jobspec.names import closest

RESERVED = (
    "estimator",
    "pipeline",
    "columns",
    "union",
    "function",
    "tuple",
    "object",
    "literal",
    *GENERATOR_KINDS,
)
_NAMED_LISTS = ("estimators", "transformer_list")
_PIPELINE_PARAMS = ("steps", "memory", "verbose", "transform_input")
_UNION = "sklearn.pipeline.FeatureUnion"


class Converter:
    """Convert values of one spec, looking names up with ``resolver``."""

    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self._objects: dict[str, Callable[[dict[Any, Any], Place], Value]] = {
            "estimator": self.estimator,
            "pipeline": self._pipeline_object,
            "columns": self._columns,
            "union": self._union,
            "function": self._function,
            "tuple": self._tuple,
            "object": self._object,
            "literal": self._literal,
        }

    # --- parameters -----------------------------------------------------------------------------------

    def params(self, given: Any, path: Place) -> dict[str, Value]:
        """Convert a mapping of constructor parameters."""
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise Problem(path, f"`params` is {kind_of(given)}; write a mapping, such as {{C: 1.0}}.")
        return {self._param_name(key, path): self.param(key, v, (*path, key)) for key, v in given.items()}

    def param(self, name: str, given: Any, path: Place) -> Value:
        """Convert one value of one parameter; its name decides about tuples, named lists and dangers."""
        short = name.rpartition("__")[2]
        value = self._by_name(short, given, path)
        if danger := find_danger(name, value):
            raise Problem(path, danger)
        return value

    def _by_name(self, name: str, given: Any, path: Place) -> Value:
        if name == "cv" and isinstance(given, dict) and next(iter(given), None) == "kind":
            return self.splitter(given, path)
        if isinstance(given, list) and name in _NAMED_LISTS:
            return NamedList(self.steps(given, path, words=("drop", "passthrough")))
        if isinstance(given, list) and name in tables.tuple_params():
            return tuple(self.value(item, (*path, index)) for index, item in enumerate(given))
        return self.value(given, path)

    def _param_name(self, key: Any, path: Place) -> str:
        if not isinstance(key, str):
            raise Problem((*path, key), f"{kind_of(key)} is no parameter name.", at_key=True)
        if "__" in key:
            raise Problem(
                (*path, key),
                f"`{key}` is a nested name; in `params` write the inner estimator as a mapping "
                "({estimator: ..., params: {...}}), or move the name to `grid`.",
                at_key=True,
            )
        return key

    def value(self, given: Any, path: Place) -> Value:
        """Convert any value."""
        if isinstance(given, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(given)]
        if isinstance(given, dict):
            return self._mapping(given, path)
        if isinstance(given, str) and given in tables.estimators():
            raise Problem(
                path,
                f"{given!r} is a text here, not a class; write {{estimator: {given}}} "
                f"(or {{literal: {given}}} for the text).",
            )
        return given  # type: ignore[no-any-return]

    def _mapping(self, given: dict[Any, Any], path: Place) -> Value:
        first = next(iter(given), None)
        if first in GENERATOR_KINDS:
            return convert_generator(given, path)
        if isinstance(first, str) and first in self._objects:
            return self._objects[first](given, path)
        late = next((key for key in given if isinstance(key, str) and key in RESERVED), None)
        if late is not None:
            raise Problem(
                (*path, late),
                f"`{late}` makes an object only as the first key of its mapping; put it first, or write "
                "{literal: {...}} for a plain mapping.",
                at_key=True,
            )
        return {key: self.value(item, (*path, key)) for key, item in given.items()}

    # --- objects --------------------------------------------------------------------------------------

    def estimator(self, given: dict[Any, Any], path: Place) -> EstimatorNode:
        """Convert ``{estimator: PATH, params: {...}}``."""
        _allow_keys(given, ("estimator", "params"), path)
        class_path = self.resolver.estimator(given["estimator"], (*path, "estimator"))
        node = EstimatorNode(class_path, self.params(given.get("params"), (*path, "params")))
        check_param_names(node, path)
        return node

    def steps(
        self, given: Any, path: Place, words: tuple[str, ...] = ("passthrough",)
    ) -> tuple[tuple[str, Value], ...]:
        """Convert a list of one-key mappings, name to step; ``words`` may stand for a step."""
        if not isinstance(given, list) or not given:
            raise Problem(path, f"here stands {kind_of(given)}; write a list of steps, each as `- name: class`.")
        pairs = tuple(self._step(item, (*path, index), words) for index, item in enumerate(given))
        names = [name for name, _ in pairs]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise Problem((*path, index), f"the step name {name!r} stands twice; give each its own.")
        return pairs

    def _step(self, item: Any, path: Place, words: tuple[str, ...]) -> tuple[str, Value]:
        if not isinstance(item, dict) or len(item) != 1:
            raise Problem(
                path,
                f"a step is a mapping of one name to one class, as `- scale: CLASS`, not {kind_of(item)}.",
            )
        name, given = next(iter(item.items()))
        if not isinstance(name, str) or not name or "__" in name or name in _PIPELINE_PARAMS:
            raise Problem(
                path,
                f"{name!r} cannot name a step: use a text without `__` that is none of {', '.join(_PIPELINE_PARAMS)}.",
            )
        return name, self.step(given, (*path, name), words)

    def step(self, given: Any, path: Place, words: tuple[str, ...]) -> Value:
        """Convert what stands as a step: a bare class path, an object or one of the words."""
        if given is None or (isinstance(given, str) and given in words):
            return given
        if isinstance(given, str):
            return self.estimator({"estimator": given}, path)
        made = self.value(given, path)
        if isinstance(made, EstimatorNode | PipelineNode):
            return made
        raise Problem(
            path,
            f"here stands {kind_of(given)}; write a class path, {{estimator: ..., params: ...}} "
            f"or {' or '.join(words)}.",
        )

    def _pipeline_object(self, given: dict[Any, Any], path: Place) -> PipelineNode:
        _allow_keys(given, ("pipeline",), path)
        return PipelineNode(self.steps(given["pipeline"], (*path, "pipeline")))

    def _union(self, given: dict[Any, Any], path: Place) -> EstimatorNode:
        _allow_keys(given, ("union", "params"), path)
        parts = self.steps(given["union"], (*path, "union"), words=("drop", "passthrough"))
        params = self.params(given.get("params"), (*path, "params"))
        node = EstimatorNode(_UNION, {**params, "transformer_list": NamedList(parts)})
        check_param_names(node, path)
        return node

    def _columns(self, _given: dict[Any, Any], path: Place) -> Value:
        raise Problem(
            (*path, "columns"),
            "`columns` (ColumnTransformer) is not yet supported; every numeric column is a feature today.",
            at_key=True,
        )

    def _function(self, given: dict[Any, Any], path: Place) -> FunctionNode:
        _allow_keys(given, ("function",), path)
        return FunctionNode(self.resolver.function(given["function"], (*path, "function")))

    def _tuple(self, given: dict[Any, Any], path: Place) -> tuple[Value, ...]:
        _allow_keys(given, ("tuple",), path)
        items = given["tuple"]
        if not isinstance(items, list):
            raise Problem((*path, "tuple"), f"`tuple` holds {kind_of(items)}; write a list, such as [1, 2].")
        return tuple(self.value(item, (*path, "tuple", index)) for index, item in enumerate(items))

    def _literal(self, given: dict[Any, Any], path: Place) -> Value:
        _allow_keys(given, ("literal",), path)
        return given["literal"]  # type: ignore[no-any-return]

    def _object(self, given: dict[Any, Any], path: Place) -> ObjectNode:
        _allow_keys(given, ("object", "args", "params"), path)
        class_path = self.resolver.object(given["object"], (*path, "object"))
        args = given.get("args", [])
        if not isinstance(args, list):
            raise Problem((*path, "args"), f"`args` is {kind_of(args)}; write a list.")
        params = self.params(given.get("params"), (*path, "params"))
        _allow_params(class_path, params, tables.objects().get(class_path), (*path, "params"))
        values = tuple(self.value(item, (*path, "args", index)) for index, item in enumerate(args))
        return ObjectNode(class_path, values, params)

    def splitter(self, given: dict[Any, Any], path: Place) -> SplitterNode:
        """Convert ``{kind: KFold, n_splits: 5}``: the parameters stand beside ``kind``."""
        if "kind" not in given:
            raise Problem(path, "a splitter needs `kind`, such as {kind: KFold, n_splits: 5}.")
        kind = self.resolver.splitter(given["kind"], (*path, "kind"))
        params = {key: item for key, item in given.items() if key != "kind"}
        _allow_params(kind, params, tables.splitters()[kind].params, path)
        for key, item in params.items():
            if isinstance(item, list | dict) or (isinstance(item, str) and key != "test_fold"):
                raise Problem((*path, key), f"`{key}` is {kind_of(item)}; write a number, true, false or null.")
        return SplitterNode(kind, params)


def check_param_names(node: EstimatorNode, path: Place) -> None:
    """Refuse constructor parameters that scikit-learn's class does not have, and missing required ones."""
    entry = tables.estimators().get(node.path)
    if entry is None:
        return
    _allow_params(node.path, node.params, entry.params, (*path, "params"))
    missing = [name for name in entry.required if name not in node.params]
    if missing:
        name = node.path.rpartition(".")[2]
        raise Problem(path, f"{name} cannot be made without `{missing[0]}`; add it under `params`.")


def _allow_params(owner: str, params: dict[str, Value], allowed: tuple[str, ...] | None, path: Place) -> None:
    for key in params if allowed is not None else ():
        if key not in (allowed or ()):
            raise Problem((*path, key), unknown_param(owner, key, allowed or ()), at_key=True)


def unknown_param(owner: str, key: Any, allowed: tuple[str, ...]) -> str:
    """Say that a class has no such parameter, and which it has."""
    told = ", ".join(allowed) if allowed else "none"
    name = owner.rpartition(".")[2]
    return f"{name} has no parameter {shorten(str(key))}.{closest(str(key), allowed)} It takes: {told}."


def _allow_keys(given: dict[Any, Any], allowed: tuple[str, ...], path: Place) -> None:
    for key in given:
        if key not in allowed:
            raise Problem(
                (*path, key),
                f"`{key}` does not go with `{allowed[0]}` here.{closest(str(key), allowed)} "
                f"Allowed: {', '.join(allowed)}.",
                at_key=True,
            )
