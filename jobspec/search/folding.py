"""Write a candidate's assignments into its definition, as ``set_params`` would.

Only where that is a pure rewriting of nodes: ``svc__C`` into the node of step ``svc``. An assignment
below something that is not a node here (an estimator's own default, say) stays an assignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from jobspec.grammar.values import EstimatorNode, NamedList, PipelineNode, Value

_Composite: TypeAlias = EstimatorNode | PipelineNode

# The parameter that holds the named parts of scikit-learn's composite estimators.
NAMED_PARAMS = ("estimators", "transformer_list", "transformers", "steps")


def fold_assignments(definition: _Composite, assignments: Mapping[str, Value]) -> tuple[_Composite, dict[str, Value]]:
    """Return the rewritten definition and the assignments that could not be written into it.

    Direct assignments come before nested ones, as in ``BaseEstimator.set_params``: a step that is replaced
    then gets the nested parameters.
    """
    direct = {key: value for key, value in assignments.items() if "__" not in key}
    nested: dict[str, dict[str, Value]] = {}
    for key, value in assignments.items():
        outer, delimiter, inner = key.partition("__")
        if delimiter:
            nested.setdefault(outer, {})[inner] = value
    definition, rest = _set_direct(definition, direct)
    for outer, inner_assignments in nested.items():
        part = _part(definition, outer)
        if isinstance(part, EstimatorNode | PipelineNode) and outer not in rest:
            part, left = fold_assignments(part, inner_assignments)
            definition = _replace(definition, outer, part)
        else:
            left = inner_assignments
        rest.update({f"{outer}__{inner}": value for inner, value in left.items()})
    return definition, rest


def _set_direct(definition: _Composite, direct: Mapping[str, Value]) -> tuple[_Composite, dict[str, Value]]:
    rest: dict[str, Value] = {}
    # A whole new list of parts comes before the parts by name, as in scikit-learn's _BaseComposition.
    for key in sorted(direct, key=lambda name: name not in NAMED_PARAMS):
        if isinstance(definition, PipelineNode) and key not in dict(definition.steps):
            rest[key] = direct[key]
        else:
            definition = _replace(definition, key, direct[key])
    return definition, rest


def _named(definition: EstimatorNode, name: str) -> str | None:
    """Return the parameter whose named list holds a part of this name.

    Only scikit-learn's composites are known to set a part by its name.
    """
    for param in NAMED_PARAMS if definition.path.startswith("sklearn.") else ():
        value = definition.params.get(param)
        if isinstance(value, NamedList) and name in dict(value.items):
            return param
    return None


def _part(definition: EstimatorNode | PipelineNode, name: str) -> Value:
    if isinstance(definition, PipelineNode):
        return dict(definition.steps).get(name)
    param = _named(definition, name)
    if param is None:
        return definition.params.get(name)
    named = definition.params[param]
    return dict(named.items).get(name) if isinstance(named, NamedList) else None


def _replace(definition: _Composite, name: str, value: Value) -> _Composite:
    if isinstance(definition, PipelineNode):
        return PipelineNode(_with(definition.steps, name, value))
    param = _named(definition, name)
    if param is None:
        return EstimatorNode(definition.path, {**definition.params, name: value})
    named = definition.params[param]
    items = named.items if isinstance(named, NamedList) else ()
    return EstimatorNode(definition.path, {**definition.params, param: NamedList(_with(items, name, value))})


def _with(pairs: tuple[tuple[str, Value], ...], name: str, value: Value) -> tuple[tuple[str, Value], ...]:
    return tuple((key, value if key == name else item) for key, item in pairs)
