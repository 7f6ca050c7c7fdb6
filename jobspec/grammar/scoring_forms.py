"""The forms of ``cv``, ``scoring`` and ``refit``."""

from __future__ import annotations

from typing import Any

from jobspec.grammar import tables
from jobspec.grammar.convert import Converter
from jobspec.grammar.problems import Problem, kind_of, shorten
from jobspec.grammar.spec import CvSpec, DataSpec, ScorerSpec
from jobspec.names import closest

_REQUIRED = {"PredefinedSplit": "test_fold", "LeavePOut": "p", "LeavePGroupsOut": "n_groups"}
_RESPONSES = ("predict", "predict_proba", "decision_function")
_SCORER_KEYS = ("metric", "greater_is_better", "response_method")
_OLD_KEYS = ("needs_proba", "needs_threshold")  # of make_scorer before scikit-learn 1.6


def convert_cv(given: Any, data: DataSpec | None, converter: Converter) -> int | CvSpec:
    """Convert a number of folds or a splitter.

    Raises:
        Problem: no such splitter or parameter, or a grouped splitter without ``data.groups``.
    """
    path = ("cv",)
    if type(given) is int:
        if given < 2:
            raise Problem(path, f"`cv` is {given}; write a number of folds from 2, or a splitter.")
        return given
    if not isinstance(given, dict):
        hint = f" Write {{kind: {given}}}." if isinstance(given, str) and given in tables.splitters() else ""
        raise Problem(
            path,
            f"`cv` is {kind_of(given)}; write a number of folds, such as 5, or a splitter, such as "
            f"{{kind: KFold, n_splits: 5}}.{hint}",
        )
    node = converter.splitter(given, path)
    required = _REQUIRED.get(node.kind)
    if required is not None and required not in node.params:
        raise Problem(path, f"{node.kind} needs `{required}`; add it beside `kind`.")
    if node.kind == "PredefinedSplit" and not isinstance(node.params["test_fold"], str):
        raise Problem((*path, "test_fold"), "`test_fold` of a PredefinedSplit names the column with the folds.")
    if tables.splitters()[node.kind].groups and data is not None and data.groups is None:
        remedy = (
            "built-in sets have no groups, so use another splitter"
            if data.builtin
            else "name the column, such as `groups: patient`, under `data`"
        )
        raise Problem((*path, "kind"), f"{node.kind} needs the groups of the rows; {remedy}.")
    return CvSpec(kind=node.kind, params=node.params)


def convert_scoring(given: Any, converter: Converter) -> str | tuple[str, ...] | dict[str, str | ScorerSpec] | None:
    """Convert the scorers: null, a name, a list of names, or a mapping.

    Raises:
        Problem: no such scorer or metric, a name twice, or nothing at all.
    """
    path = ("scoring",)
    if given is None:
        return None
    if isinstance(given, str):
        return _scorer_name(given, path)
    if isinstance(given, list | dict) and not given:
        raise Problem(path, "`scoring` is empty; name a scorer, such as accuracy, or remove the line.")
    if isinstance(given, list):
        names = tuple(_scorer_name(item, (*path, index)) for index, item in enumerate(given))
        for index, name in enumerate(names):
            if name in names[:index]:
                raise Problem((*path, index), f"the scorer {name!r} stands twice in `scoring`; keep one.")
        return names
    if isinstance(given, dict):
        return {_column_name(key, path): _scorer(item, (*path, key), converter) for key, item in given.items()}
    raise Problem(path, f"`scoring` is {kind_of(given)}; write a scorer's name, such as accuracy, or a list.")


def _scorer_name(given: Any, path: tuple[Any, ...]) -> str:
    if not isinstance(given, str):
        raise Problem(path, f"here stands {kind_of(given)}; write a scorer's name, such as accuracy.")
    if given in tables.scorers():
        return given
    nearest = closest(given, tables.scorers())
    if given in tables.metrics():
        nearest += f" (A metric function becomes a scorer as `scoring: {{mine: {{metric: {given}}}}}`.)"
    raise Problem(
        path,
        f"{shorten(given)} is no scorer of scikit-learn.{nearest} Allowed are the names of "
        "sklearn.metrics.get_scorer_names(), such as accuracy, f1_macro, roc_auc, r2, neg_log_loss.",
    )


def _column_name(key: Any, path: tuple[Any, ...]) -> str:
    if not isinstance(key, str) or not key.isprintable() or not 1 <= len(key) <= 100:
        raise Problem((*path, key), f"a scorer's name is {kind_of(key)}; write a short text.", at_key=True)
    return key


def _scorer(given: Any, path: tuple[Any, ...], converter: Converter) -> str | ScorerSpec:
    if isinstance(given, str):
        return _scorer_name(given, path)
    if not isinstance(given, dict) or "metric" not in given:
        raise Problem(path, f"here stands {kind_of(given)}; write a scorer's name or {{metric: fbeta_score, beta: 2}}.")
    metric = converter.resolver.metric(given["metric"], (*path, "metric"))
    params = {key: item for key, item in given.items() if key not in _SCORER_KEYS}
    _check_metric_params(metric, params, path)
    better = given.get("greater_is_better", True)
    if not isinstance(better, bool):
        raise Problem((*path, "greater_is_better"), f"here stands {kind_of(better)}; write true or false.")
    return ScorerSpec(
        metric=metric,
        greater_is_better=better,
        response_method=_response_method(given.get("response_method", "predict"), path),
        params={key: converter.value(item, (*path, key)) for key, item in params.items()},
    )


def _check_metric_params(metric: str, params: dict[Any, Any], path: tuple[Any, ...]) -> None:
    known = tables.metrics().get(metric)
    for key in params:
        if key in _OLD_KEYS:
            raise Problem(
                (*path, key),
                f"`{key}` is gone from make_scorer; write `response_method: predict_proba`.",
                at_key=True,
            )
        if not isinstance(key, str) or (known is not None and key not in known):
            allowed = (*_SCORER_KEYS, *(known or ()))
            raise Problem(
                (*path, key),
                f"{metric} takes no {shorten(str(key))}.{closest(str(key), allowed)} Allowed: {', '.join(allowed)}.",
                at_key=True,
            )


def _response_method(given: Any, path: tuple[Any, ...]) -> str | tuple[str, ...]:
    listed = given if isinstance(given, list) else [given]
    for item in listed or [None]:
        if item not in _RESPONSES:
            raise Problem(
                (*path, "response_method"),
                f"`response_method` is {kind_of(item)}; allowed are {', '.join(_RESPONSES)}, or a list.",
            )
    return tuple(given) if isinstance(given, list) else str(given)


def convert_refit(given: bool | str | None, scoring: Any) -> bool | str:
    """Decide the refit: the default with one scorer is true, with several one must be named.

    Raises:
        Problem: a name that is no scorer of this spec, or none where one is needed.
    """
    path = ("refit",)
    names = [scoring] if isinstance(scoring, str) else list(scoring or ["score"])
    if given is False:
        return False
    if isinstance(given, str):
        if given not in names:
            told = ", ".join(names)
            raise Problem(
                path,
                f"`refit` is {shorten(given)}; it must be true, false or one of this spec's scorers: {told}.",
            )
        return True if len(names) == 1 and isinstance(scoring, str | None) else given
    if len(names) > 1:
        raise Problem(
            path if given is not None else ("scoring",),
            f"with several scorers `refit` names the one that decides, such as `refit: {names[0]}`, "
            "or is false for no refitted model.",
        )
    return True
