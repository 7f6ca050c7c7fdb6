"""The reference of the spec and its JSON schema, both made from the models and the frozen tables.

``python -m jobspec.grammar.reference > docs/spec.md`` writes the page; a test compares it with this module.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobspec.grammar import tables
from jobspec.grammar.data_models import DataSpec, GridSearch, Limits, RandomSearch, Resources
from jobspec.grammar.document import SpecDocument
from jobspec.grammar.generators import MAX_AXIS
from jobspec.grammar.yamlfile import MAX_BYTES, MAX_DEPTH, MAX_NODES


def make_json_schema() -> dict[str, Any]:
    """Return the JSON schema of a spec file, for editors; `load` checks more than a schema can."""
    schema = SpecDocument.model_json_schema()
    properties = schema["properties"]
    properties["cv"].update(_CV)
    properties["scoring"].update(_scoring_schema())
    properties["candidates"].update({"type": "array", "minItems": 1, "items": _CANDIDATE})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "foldfleet spec",
    }


_SPLITTER = {
    "type": "object",
    "properties": {"kind": {"enum": list(tables.splitters())}},
    "required": ["kind"],
}
_CV = {"anyOf": [{"type": "integer", "minimum": 2}, _SPLITTER]}
_PARAMS = {"type": ["object", "null"], "propertyNames": {"type": "string"}}
_AXES = {"type": "object", "additionalProperties": {"type": ["array", "object"], "minItems": 1}}
_STEP = {"type": "object", "minProperties": 1, "maxProperties": 1}
_CANDIDATE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "Shown in the leaderboard."},
        "estimator": {"type": "string", "description": "A class by its public path."},
        "pipeline": {"type": "array", "minItems": 1, "items": _STEP},
        "params": {**_PARAMS, "description": "Constructor parameters."},
        "grid": {"anyOf": [_AXES, {"type": "array", "minItems": 1, "items": _AXES}, {"type": "null"}]},
        "distributions": {"anyOf": [_AXES, {"type": "array", "minItems": 1, "items": _AXES}, {"type": "null"}]},
    },
    "oneOf": [{"required": ["estimator"]}, {"required": ["pipeline"]}],
    "additionalProperties": False,
}


def _scoring_schema() -> dict[str, Any]:
    name = {"enum": sorted(tables.scorers())}
    metric = {
        "type": "object",
        "properties": {
            "metric": {"enum": list(tables.metrics())},
            "greater_is_better": {"type": "boolean", "default": True},
            "response_method": {"type": ["string", "array"], "default": "predict"},
        },
        "required": ["metric"],
    }
    mapping = {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [name, metric]}}
    listed = {"type": "array", "minItems": 1, "uniqueItems": True, "items": name}
    return {"anyOf": [{"type": "null"}, name, listed, mapping]}


# --- docs/spec.md -----------------------------------------------------------------------------------------

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The whole", SpecDocument),
    ("`data`", DataSpec),
    ("`search` of kind `grid`", GridSearch),
    ("`search` of kind `random`", RandomSearch),
    ("`resources`", Resources),
    ("`limits`", Limits),
)

_INTRODUCTION = f"""\
# The spec

*Made by `python -m jobspec.grammar.reference` from the models in `jobspec/`; do not edit.*

A spec is one YAML 1.2 file (`no` is a text, `1e-3` a number; `1`, `1.0` and `true` are three values).
Unknown keys, duplicate keys, wrong types, tabs, tags and merge keys are errors, told with file, line and
column. A file may hold {MAX_BYTES // 1024} KiB, {MAX_NODES:,} values with aliases expanded, {MAX_DEPTH} levels.
Relative paths start at the spec's folder.

```yaml
name: letters-forest
data: {{path: letter-recognition.csv.gz, target: lettr}}
cv: {{kind: StratifiedKFold, n_splits: 5, shuffle: true, random_state: 42}}
candidates:
- estimator: sklearn.ensemble.RandomForestClassifier
  params: {{random_state: 0}}
  grid: {{n_estimators: [50, 100, 200], max_features: [2, 4, 8]}}
- pipeline:
  - scale: sklearn.preprocessing.StandardScaler
  - svc: sklearn.svm.SVC
  grid:
    svc__C: {{logspace: [-1, 2, 4]}}
    svc__gamma: {{logspace: [-4, 0, 5]}}
scoring: [accuracy, f1_macro]
refit: accuracy
```
"""

_TUPLE_PARAMS = ", ".join(f"`{name}`" for name in sorted(tables.tuple_params()))
_GRAMMAR = f"""\
## Candidates

An item has `estimator` (a class path, with `params` beside it) or `pipeline` (a list of one-key mappings,
name to step), and `grid` or, in a random search, `distributions`. Without either it is one candidate.
`name` is shown in the leaderboard. A list of mappings under `grid` is a conditional space: the candidates
of each mapping, one after the other. The order is that of scikit-learn's `ParameterGrid`.

## Values

In `params`, `grid` and `distributions` a text is always a text. An object is a mapping whose **first** key
is reserved; every other mapping is a plain dict whose keys keep their types (`class_weight: {{0: 1, 1: 5}}`).

| first key | makes |
|---|---|
| `estimator` (with `params`) | an estimator: `{{estimator: sklearn.svm.SVC, params: {{C: 10}}}}` |
| `pipeline` | a Pipeline: `{{pipeline: [{{scale: sklearn.preprocessing.StandardScaler}}, ...]}}` |
| `union` (with `params`) | a FeatureUnion: `{{union: [{{pca: sklearn.decomposition.PCA}}, ...]}}` |
| `function` | a function of the table below: `{{function: log1p}}` |
| `object` (with `args`, `params`) | a Gaussian process kernel of the table below |
| `tuple` | a tuple: `{{tuple: [1, 2]}}`; not needed for {_TUPLE_PARAMS} |
| `literal` | exactly what stands in it, as a plain value |
| `linspace`, `logspace`, `geomspace`, `arange`, `range` | a series: `{{logspace: [-1, 2, 4], dtype: int}}` |
| `columns` | a ColumnTransformer: not yet supported |

Bare class paths stand only where a class must stand: a candidate's `estimator`, a step of a pipeline or
union, a named part of a voting or stacking estimator (`estimators: [{{rf: sklearn...}}, {{nb: sklearn...}}]`).
A step may be `passthrough`. `cv: {{kind: KFold, n_splits: 3}}` inside `params` is a splitter.
A series has at most {MAX_AXIS:,} values.

In a random search an axis is a list, a series, or a distribution: `uniform: [low, high]`,
`loguniform: [low, high]`, `randint: [low, high]` (high is never drawn), `choice: [a, b, c]`.

## Scoring

A scorer's name, a list of names, or a mapping of your names to scorers. A scorer is a name or a metric with
make_scorer's own words: `{{metric: fbeta_score, beta: 2, greater_is_better: true, response_method: predict}}`.
With several scorers `refit` names the one that decides.

## What a spec may not set

Refused at every depth, because it reaches files, processes or other cells: `n_jobs` other than 1 or null,
`copy: false`, `copy_X: false`, `memory`, `warm_start`, `pre_dispatch`, `input` other than `content`,
a dotted `importance_getter`, an inner `scoring` that is no scorer's name, and functions outside the table.
Classes outside the tables must lie in modules that your own configuration allows.
"""


def render_reference() -> str:
    """Return the text of ``docs/spec.md``."""
    parts = [_INTRODUCTION]
    parts += [_render_model(title, model) for title, model in _SECTIONS]
    parts += [_GRAMMAR, _render_tables()]
    return "\n".join(parts)


def _render_model(title: str, model: type[BaseModel]) -> str:
    lines = [f"## {title}", "", "| key | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        lines.append(f"| `{name}` | {_default(field)} | {field.description or _meaning(name)} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default()
    if default is None or default in ((), {}) or isinstance(default, BaseModel):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _meaning(name: str) -> str:
    return "Names this kind of search." if name == "kind" else ""


def _render_tables() -> str:
    lines = ["## Splitters", "", "| kind | parameters |", "|---|---|"]
    for name, splitter in tables.splitters().items():
        groups = " (needs `data.groups`)" if splitter.groups else ""
        lines.append(f"| `{name}` | {_listed(splitter.params)}{groups} |")
    lines += ["", "## Scorers", "", _listed(sorted(tables.scorers())), ""]
    lines += ["## Metrics for `metric`", "", _listed(tables.metrics()), ""]
    lines += ["## Functions", "", _listed(name for name in tables.functions() if "." not in name), ""]
    lines += ["## Objects", "", _listed(tables.objects()), ""]
    lines += ["## Estimators", ""]
    for kind, paths in sorted(_by_kind().items()):
        lines += [f"**{kind}**: {_listed(paths)}", ""]
    return "\n".join(lines)


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _by_kind() -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for path, entry in tables.estimators().items():
        kinds[entry.kind].append(path)
    return dict(kinds)


if __name__ == "__main__":
    sys.stdout.write(render_reference())
