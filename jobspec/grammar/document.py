"""The spec in YAML's own shape: what the reference and the editors' schema are made from.

The open parts (`cv`, `candidates`, `scoring`) are checked by `jobspec.grammar.load`, which knows the tables.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from jobspec.grammar.data_models import (
    DataSpec,
    GridSearch,
    Limits,
    RandomSearch,
    Resources,
    StrictModel,
)
from jobspec.grammar.problems import Problem, Problems, dotted, kind_of
from jobspec.names import closest


class SpecDocument(StrictModel):
    """One spec file."""

    format: Literal[1] = Field(1, description="The version of this grammar.")
    name: str = Field(description="The run's name: letters, digits, `-` and `_`, at most 60 characters.")
    data: DataSpec = Field(description="Where the table is and which of its columns mean what.")
    cv: Any = Field(
        5,
        description="A number of folds, with scikit-learn's meaning, or a splitter of "
        "sklearn.model_selection with its parameters: "
        "`{kind: KFold, n_splits: 5, shuffle: true, random_state: 0}`.",
    )
    candidates: Any = Field(description="The estimators and pipelines to try, each with its grid.")
    search: Annotated[GridSearch | RandomSearch, Field(discriminator="kind")] = Field(
        GridSearch(), description="`{kind: grid}` or `{kind: random, n_iter: 50, random_state: 0}`."
    )
    scoring: Any = Field(
        None,
        description="A scorer's name, a list of them, or a mapping of names to scorers; the estimator's own "
        "`score` when it is missing.",
    )
    refit: bool | str | None = Field(
        None,
        description="Refit the best candidate on all data: true, false, or the scorer that decides "
        "(needed with several scorers).",
    )
    train_score: bool = Field(False, description="Score on the training rows too.")
    numerics: Literal["native", "portable"] | None = Field(
        None,
        description="`native` uses this machine's kernels, `portable` the same ones everywhere; "
        "the backend's own default when it is missing.",
    )
    resources: Resources = Field(Resources(), description="What one task gets.")
    limits: Limits = Field(Limits(), description="What ends a cell or a task that would run for ever.")


# By place in the document: which keys a message lists as allowed.
_MODELS: dict[tuple[str, ...], tuple[type[StrictModel], ...]] = {
    (): (SpecDocument,),
    ("data",): (DataSpec,),
    ("search",): (GridSearch, RandomSearch),
    ("resources",): (Resources,),
    ("limits",): (Limits,),
}
_NOT_YET: dict[tuple[str, ...], str] = {
    ("data", "categorical"): "categorical columns are",
    ("data", "time"): "a time column is",
    ("data", "text"): "a text column is",
}
_NOT_YET_VALUES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("data", "format"): ("orc", "feather", "svmlight", "arff"),
    ("search", "kind"): ("halving", "halving_random", "bayes"),
}
_LISTS = ("features", "drop")


def check_document(given: dict[str, Any], problems: Problems) -> SpecDocument | None:
    """Check the closed parts of a spec; what is wrong is collected.

    Returns:
        The document, or None if there were problems.
    """
    try:
        return SpecDocument.model_validate(_with_tuples(given))
    except ValidationError as error:
        for item in error.errors(include_url=False):
            problems.add(_to_problem(dict(item)))
    return None


def _with_tuples(given: dict[str, Any]) -> dict[str, Any]:
    """Give strict models the tuples that they ask for where YAML has lists; name the search's kind."""
    document = dict(given)
    if isinstance(data := document.get("data"), dict):
        lists = {key: tuple(data[key]) for key in _LISTS if isinstance(data.get(key), list)}
        document["data"] = {**data, **lists}
    return document


def _to_problem(item: dict[str, Any]) -> Problem:
    path = item["loc"]
    if path[:1] == ("search",):  # pydantic puts the kind of search into the path
        path = tuple(step for step in path if step not in ("grid", "random"))
    kind, given = item["type"], item["input"]
    names = tuple(str(step) for step in path)
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(names), at_key=True)
    if kind == "missing":
        return Problem(path[:-1], f"{_owner(path[:-1])} has no `{path[-1]}`; add it{_MISSING.get(names, '')}.")
    if kind.startswith("union_tag"):
        told = given.get("kind") if isinstance(given, dict) else given
        if told in _NOT_YET_VALUES["search", "kind"]:
            return Problem((*path, "kind"), f"the search {told!r} is not yet supported; use grid or random.")
        return Problem(
            path,
            f"`search` is {kind_of(given)}, its kind {told!r}; write {{kind: grid}} or "
            "{kind: random, n_iter: 50, random_state: 0}.",
        )
    if kind in ("source", "target", "builtin"):
        return Problem(path, item["msg"])
    return Problem(path, f"`{dotted(path)}` is {kind_of(given)}; {_wanted(kind, item, names, given)}")


_MISSING: dict[tuple[str, ...], str] = {
    ("name",): ", such as `name: letters-forest`",
    ("data",): ", such as `data: {builtin: digits}`",
    ("candidates",): ", such as `candidates: [{estimator: sklearn.svm.SVC, grid: {C: [1, 10]}}]`",
}


def _owner(path: tuple[Any, ...]) -> str:
    return f"`{dotted(path)}`" if path else "the spec"


def _unknown_key(names: tuple[str, ...]) -> str:
    if names in _NOT_YET:
        return f"`{'.'.join(names)}`: {_NOT_YET[names]} not yet supported; use `drop` to leave columns out."
    models = _MODELS.get(names[:-1], ())
    allowed = list(dict.fromkeys(key for model in models for key in model.model_fields))
    if names[:-1] == ("search",):
        allowed = ["kind", "n_iter", "random_state"]
    owner = f" in `{'.'.join(names[:-1])}`" if names[:-1] else ""
    return f"unknown key {names[-1]!r}{owner}.{closest(names[-1], allowed)} Allowed: {', '.join(allowed)}."


_TYPES = {
    "string_type": "write a text",
    "int_type": "write a whole number",
    "float_type": "write a number",
    "bool_type": "write true or false",
    "tuple_type": "write a list",
    "dict_type": "write a mapping",
    "model_type": "write a mapping",
    "model_attributes_type": "write a mapping",
    "string_too_short": "write a name",
    "string_too_long": "write at most 1,000 characters",
    "finite_number": "write a finite number",
}


def _wanted(kind: str, item: dict[str, Any], names: tuple[str, ...], given: Any) -> str:
    context = item.get("ctx", {})
    if kind == "literal_error":
        if given in _NOT_YET_VALUES.get(names, ()):
            return f"{given} is not yet supported; allowed are {context['expected']}."
        options = [option.strip("' ") for option in str(context["expected"]).replace(" or ", ",").split(",")]
        return f"allowed: {', '.join(options)}.{closest(str(given), options)}"
    for limit, words in (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below")):
        if limit in context:
            return f"write a number {words} {context[limit]:,}."
    return _TYPES.get(kind, str(item["msg"]).lower()) + "."
