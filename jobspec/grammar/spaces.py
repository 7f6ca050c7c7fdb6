"""Candidate entries: ``grid`` and ``distributions``, and whether their names fit the definition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobspec.grammar import tables
from jobspec.grammar.convert import Converter, check_param_names, unknown_param
from jobspec.grammar.dangers import find_danger
from jobspec.grammar.generators import DISTRIBUTION_KINDS, GENERATOR_KINDS, convert_distribution, convert_generator
from jobspec.grammar.problems import Problem, Problems, kind_of
from jobspec.grammar.resolve import Place
from jobspec.grammar.spec import CandidateEntry, Definition
from jobspec.grammar.values import EstimatorNode, NamedList, PipelineNode, Value
from jobspec.names import closest

_PIPELINE_SWITCHES = ("verbose", "transform_input")  # constructor parameters of a Pipeline that may be set
_KEYS = ("name", "estimator", "pipeline", "params", "grid", "distributions")


def convert_entry(
    given: Any, path: Place, converter: Converter, problems: Problems, *, random: bool
) -> CandidateEntry | None:
    """Convert one item under ``candidates``; problems are collected, None says that there were any.

    Args:
        given: the item as YAML has it.
        path: where it stands.
        converter: converts the values in it.
        problems: takes what is wrong.
        random: whether the search draws from distributions.
    """
    definition: Definition | None = None
    with problems.collect():
        _check_keys(given, path, random=random)
        definition = _definition(given, path, converter)
    if definition is None:
        return None
    axes_key = "distributions" if random else "grid"
    spaces: list[dict[str, Any]] = []
    written = given.get(axes_key)
    listed = written if isinstance(written, list) else [{} if written is None else written]
    if not listed:
        problems.add(Problem((*path, axes_key), f"`{axes_key}` is an empty list; remove it for one candidate."))
    for index, space in enumerate(listed):
        place = (*path, axes_key, index) if isinstance(written, list) else (*path, axes_key)
        spaces.append(_convert_space(space, place, converter, problems, definition, random=random))
    with problems.collect():
        _check_final_step(definition, spaces, path)
    frozen = tuple(spaces)
    return CandidateEntry(
        name=given.get("name"),
        definition=definition,
        spaces=() if random else frozen,
        distributions=frozen if random else (),
    )


def _check_keys(given: Any, path: Place, *, random: bool) -> None:
    if not isinstance(given, dict):
        raise Problem(path, f"a candidate is {kind_of(given)}; write a mapping that begins `- estimator: ...`.")
    for key in given:
        if key in ("columns", "union"):
            raise Problem((*path, key), f"`{key}` is no candidate by itself; put it into a `pipeline`.", at_key=True)
        if key not in _KEYS:
            raise Problem(
                (*path, key),
                f"unknown key {key!r} in a candidate.{closest(str(key), _KEYS)} Allowed: {', '.join(_KEYS)}.",
                at_key=True,
            )
    unfit = "grid" if random else "distributions"
    if unfit in given:
        remedy = (
            "write `distributions` instead, where lists are allowed too, or `search: {kind: grid}`"
            if random
            else "write `grid` instead, or ask for `search: {kind: random, n_iter: 50, random_state: 0}`"
        )
        raise Problem((*path, unfit), f"`{unfit}` does not go with this `search`; {remedy}.", at_key=True)
    name = given.get("name")
    if name is not None and (not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable()):
        raise Problem((*path, "name"), f"`name` is {kind_of(name)}; write a text of 1 to 100 characters.")


def _definition(given: dict[str, Any], path: Place, converter: Converter) -> Definition:
    if ("estimator" in given) == ("pipeline" in given):
        told = "both `estimator` and `pipeline`" if "estimator" in given else "neither `estimator` nor `pipeline`"
        raise Problem(path, f"a candidate has {told}; give exactly one.")
    if "pipeline" in given:
        if given.get("params") is not None:
            raise Problem(
                (*path, "params"),
                "`params` does not go with `pipeline`; give each step its own: "
                "`- svc: {estimator: sklearn.svm.SVC, params: {C: 1}}`.",
                at_key=True,
            )
        return PipelineNode(converter.steps(given["pipeline"], (*path, "pipeline")))
    if isinstance(given["estimator"], dict):
        raise Problem((*path, "estimator"), "a candidate's `estimator` is a class path; write its `params` beside it.")
    class_path = converter.resolver.estimator(given["estimator"], (*path, "estimator"))
    node = EstimatorNode(class_path, converter.params(given.get("params"), (*path, "params")))
    check_param_names(node, path)
    return node


# --- one space --------------------------------------------------------------------------------------------


def _convert_space(
    given: Any, path: Place, converter: Converter, problems: Problems, definition: Definition, *, random: bool
) -> dict[str, Any]:
    if not isinstance(given, dict):
        problems.add(Problem(path, f"here stands {kind_of(given)}; write a mapping of parameters to lists."))
        return {}
    space: dict[str, Any] = {}
    for key, axis in given.items():
        with problems.collect():
            if not isinstance(key, str):
                raise Problem((*path, key), f"{kind_of(key)} is no parameter name.", at_key=True)
            space[key] = _convert_axis(key, axis, (*path, key), converter, random=random)
    for key in space:
        if message := check_key(definition, key, space):
            problems.add(Problem((*path, key), message, at_key=True))
    return space


def _convert_axis(key: str, given: Any, path: Place, converter: Converter, *, random: bool) -> Any:
    first = next(iter(given), None) if isinstance(given, dict) else None
    if random and first == "choice":
        given, path = _choices(given, path), (*path, "choice")
    if isinstance(given, list):
        if not given:
            raise Problem(path, f"`{key}` has an empty list, which leaves no candidate; give it a value.")
        return [converter.param(key, item, (*path, index)) for index, item in enumerate(given)]
    if first in GENERATOR_KINDS:
        axis: Value = convert_generator(given, path)
    elif first in DISTRIBUTION_KINDS and random:
        axis = convert_distribution(given, path)
    else:
        raise Problem(path, _no_axis(key, given, first))
    if danger := find_danger(key, axis):
        raise Problem(path, danger)
    return axis


def _choices(given: dict[str, Any], path: Place) -> list[Any]:
    choices = given["choice"]
    if len(given) > 1 or not isinstance(choices, list):
        raise Problem(path, "`choice` takes one list, such as {choice: [a, b, c]}.")
    return choices


def _no_axis(key: str, given: Any, first: Any) -> str:
    if first in DISTRIBUTION_KINDS:
        return f"`{first}` needs `search: {{kind: random, n_iter: 50, random_state: 0}}` and `distributions`."
    example = f"{key}: [{given}]" if isinstance(given, int | float | str) else f"{key}: [...]"
    return (
        f"`{key}` is {kind_of(given)}; write a list, such as `{example[:80]}`, or a generator "
        f"({', '.join(GENERATOR_KINDS)})."
    )


# --- names against the definition -------------------------------------------------------------------------


def check_key(definition: Value, key: str, space: dict[str, Any], prefix: str = "") -> str | None:
    """Return why a key cannot be set on the definition, or None if it can or if nobody knows before import.

    Args:
        definition: the node that ``key`` is relative to.
        key: parameter name, nested with ``__``.
        space: the whole space; it may replace the parts that ``key`` goes through.
        prefix: what stands before ``key`` in the space's keys.
    """
    outer, delimiter, inner = key.partition("__")
    if isinstance(definition, PipelineNode):
        parts = dict(definition.steps)
        if outer not in parts:
            known = outer in _PIPELINE_SWITCHES and not delimiter
            return None if known else _no_step(prefix + key, definition, outer)
    elif isinstance(definition, EstimatorNode):
        parts = _named_parts(definition)
        entry = tables.estimators().get(definition.path)
        if entry is not None and outer not in entry.params and outer not in parts:
            return unknown_param(definition.path, outer, (*entry.params, *parts))
        parts = {**definition.params, **parts}
    else:
        return None
    if not delimiter:
        return None
    return _check_inner(outer, inner, parts.get(outer), space, prefix)


def _check_inner(outer: str, inner: str, part: Value, space: dict[str, Any], prefix: str) -> str | None:
    replacing = space.get(prefix + outer)
    parts = replacing if isinstance(replacing, list) else [part]
    nodes = [item for item in parts if isinstance(item, EstimatorNode | PipelineNode)]
    if not nodes:
        if part in ("passthrough", "drop") and isinstance(part, str):
            return f"`{prefix}{outer}__{inner}` sets a parameter of a step that is {part!r}; name a class there."
        return None
    told = [check_key(node, inner, space, f"{prefix}{outer}__") for node in nodes]
    return told[0] if all(told) else None


def _named_parts(definition: EstimatorNode) -> dict[str, Value]:
    return {
        name: part for value in definition.params.values() if isinstance(value, NamedList) for name, part in value.items
    }


def _no_step(key: str, definition: PipelineNode, outer: str) -> str:
    names = [name for name, _ in definition.steps]
    takers = [
        name
        for name, step in definition.steps
        if isinstance(step, EstimatorNode)
        and step.path in tables.estimators()
        and outer in tables.estimators()[step.path].params
    ]
    hint = f" Did you mean '{takers[-1]}__{outer}'?" if takers else closest(outer, names)
    return f"`{key}` names no step of the pipeline.{hint} Its steps: {', '.join(names)}."


# --- the final step ---------------------------------------------------------------------------------------


def _check_final_step(definition: Definition, spaces: list[dict[str, Any]], path: Place) -> None:
    """Refuse what can neither predict nor score as the last step, wherever it comes from."""
    for final in _final_steps(definition, spaces):
        name = final.path if isinstance(final, EstimatorNode) else repr(final)
        entry = tables.estimators().get(name)
        if isinstance(final, EstimatorNode) and (entry is None or entry.predict or entry.score):
            continue
        raise Problem(
            (*path, "pipeline" if isinstance(definition, PipelineNode) else "estimator"),
            f"the last step is {name}, which has neither predict nor score, so that it has no score; "
            "end with a classifier, a regressor or another estimator that predicts.",
        )


def _final_steps(definition: Value, spaces: list[dict[str, Any]]) -> Iterator[Value]:
    if not isinstance(definition, PipelineNode):
        yield definition
        return
    name, last = definition.steps[-1]
    for space in spaces or [{}]:
        replacing = space.get(name)
        for value in replacing if isinstance(replacing, list) else [last]:
            # A pipeline inside a pipeline ends where it ends; nested keys rarely replace its last step.
            inner = {key.removeprefix(f"{name}__"): axis for key, axis in space.items() if key.startswith(name)}
            yield from _final_steps(value, [inner])
