"""Check that the candidates and scorers of a search fit the data's target and weights."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.utils import get_tags
from sklearn.utils.multiclass import type_of_target

from containers.scikit.build import final_step
from containers.scikit.checks import Problem
from containers.scikit.meters import one_line
from containers.scikit.scoring import Scoring
from jobspec.errors import DataError

MAX_SCORED_ROWS = 1000
MAX_SCORED_CLASSES = 200
"""Enough rows to see whether a scorer takes a target; more would only cost time."""

_METHODS = ("predict_proba", "decision_function")


@dataclass(frozen=True)
class Roster:
    """The live estimators of each entry, one for every exchange of steps."""

    variants: tuple[tuple[Any, ...], ...]

    def all(self) -> Iterator[tuple[int, Any]]:
        """Yield (entry, estimator)."""
        for entry, estimators in enumerate(self.variants):
            yield from ((entry, estimator) for estimator in estimators)

    def classifiers(self) -> set[bool]:
        """Return what there is: classifiers (True), anything else (False)."""
        return {bool(is_classifier(estimator)) for _, estimator in self.all()}

    def regressors(self) -> list[Any]:
        """Return the estimators that call themselves regressors."""
        return [estimator for _, estimator in self.all() if is_regressor(estimator)]


def check_kinds(roster: Roster, cv: object) -> list[Problem]:
    """Refuse an integer ``cv`` where it would mean two things: stratified for classifiers, plain for the others."""
    if not isinstance(cv, int) or len(roster.classifiers()) < 2:
        return []
    return [
        Problem(
            ("cv",),
            f"`cv: {cv}` means StratifiedKFold for classifiers and KFold for all others, and this search has both. "
            f"Name the splitter, such as `cv: {{kind: KFold, n_splits: {cv}}}`.",
        )
    ]


def check_weights(roster: Roster) -> list[Problem]:
    """Refuse estimators whose ``fit`` takes no sample weights, for a spec that names a weight column."""
    return _unique(
        Problem(
            ("candidates", entry),
            f"`data.weights` is given, but the fit of {_class_name(estimator)} takes no sample_weight. Remove "
            "`data.weights`, or choose an estimator that takes weights.",
        )
        for entry, estimator in roster.all()
        if not _takes_weights(final_step(estimator))
    )


def check_pairwise(roster: Roster) -> list[Problem]:
    """Refuse precomputed kernels and distances: a fold holds rows of a table, not a square matrix."""
    return _unique(
        Problem(
            ("candidates", entry),
            f"{_class_name(estimator)} with a precomputed kernel or metric needs a square matrix, which foldfleet does "
            "not split yet. Use a kernel or metric that is computed from the columns.",
        )
        for entry, estimator in roster.all()
        if _is_pairwise(estimator)
    )


def check_score_method(roster: Roster, scoring: Scoring) -> list[Problem]:
    """Refuse estimators without a ``score`` of their own, for a spec that names no scorer."""
    if scoring.scorers is not None:
        return []
    return _unique(
        Problem(
            ("candidates", entry),
            f"{_class_name(estimator)} has no `score` method, and the spec names no scorer. Add `scoring:`, such as "
            "`scoring: adjusted_rand_score` for clusters or `scoring: accuracy` for classes.",
        )
        for entry, estimator in roster.all()
        if not hasattr(type(final_step(estimator)), "score")
    )


def check_methods(roster: Roster, scoring: Scoring, target: Any) -> tuple[list[Problem], list[str]]:
    """Find scorers that need a method their estimators lack.

    Returns:
        Problems, for methods that the class never has; warnings, for methods it has under conditions, some of which
        are known only after fitting (stacking, voting, the loss of SGD).
    """
    tried: dict[tuple[Any, ...], dict[str, str]] = {}

    def refused(estimator: Any, methods: list[str]) -> dict[str, str]:
        if not _is_supervised(estimator):
            return {}
        key = (*methods, is_classifier(estimator))
        if key not in tried:
            tried[key] = _refused(scoring, target, methods, is_classifier(estimator))
        return tried[key]

    problems: list[Problem] = []
    notes: dict[str, None] = {}
    for entry, estimator in roster.all():
        never = refused(estimator, _class_methods(final_step(estimator)))
        problems.extend(_lacking(entry, estimator, scoring.label(name)) for name in never)
        for name in refused(estimator, _instance_methods(estimator)):
            if name not in never:
                notes[_conditional(entry, estimator, scoring.label(name))] = None
    return _unique(problems), list(notes)


def check_scorers(roster: Roster, scoring: Scoring, target: Any) -> list[Problem]:
    """Refuse scorers that cannot score this target, such as ``f1`` on strings or on many classes."""
    if scoring.scorers is None or not any(_is_supervised(estimator) for _, estimator in roster.all()):
        return []
    classification = True in roster.classifiers()
    return [
        Problem(
            ("scoring",),
            f"The scorer {scoring.label(name)!r} cannot score this target ({_describe(target)}): "
            f"{message.rstrip('.')}. "
            f"{_remedy(scoring.label(name), scoring.scorers[name], message, target, classification)}",
        )
        for name, message in _refused(scoring, target, _METHODS, classification).items()
    ]


def check_target(roster: Roster, target: Any, column: str) -> None:
    """Refuse a target that none of the estimators can learn.

    Raises:
        DataError: one class, or numbers for a classifier that are no classes, or classes for a regressor.
    """
    kind = type_of_target(target)
    if True in roster.classifiers():
        if kind.startswith("continuous"):
            raise DataError(
                f"The target {column!r} holds continuous numbers, but {_first(roster, True)} is a classifier. Use a "
                f"regressor, or read the column as classes with `types: {{{column}: string}}`."
            )
        if len(np.unique(target)) < 2:
            raise DataError(
                f"The target {column!r} has one class only, {np.unique(target).tolist()[0]!r}; a classifier needs two "
                "of them. Check `data.target`, and `data.rows` if the table is sorted by class."
            )
    if roster.regressors() and target.dtype.kind not in "fiub":
        name = type(final_step(roster.regressors()[0])).__name__
        raise DataError(
            f"The target {column!r} holds text, but {name} is a regressor and needs numbers. Use a classifier, or "
            "choose another column with `data.target`."
        )


def missing_value_warnings(roster: Roster, has_missing: bool) -> list[str]:
    """Say which estimators will fail on missing values; pipelines may well fill them, so they are not looked at."""
    if not has_missing:
        return []
    names = {
        type(estimator).__name__
        for _, estimator in roster.all()
        if not hasattr(estimator, "steps") and not get_tags(estimator).input_tags.allow_nan
    }
    return [
        f"The data have missing values, which {name} does not say that it takes: its cells may fail. Put "
        "`sklearn.impute.SimpleImputer` before it in a pipeline."
        for name in sorted(names)
    ]


# --- a stand-in for fitted estimators -----------------------------------------------------------------------


class _Oracle(BaseEstimator):  # type: ignore[misc]
    """Answers like a fitted estimator, so that a scorer can be tried on a target before any fit."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any) -> _Oracle:  # noqa: ARG002  # scorers ask for a `fit`
        """Do nothing."""
        return self


class _ClassifierOracle(ClassifierMixin, _Oracle):  # type: ignore[misc]
    @property
    def classes_(self) -> Any:
        return np.unique(self.target)

    def predict(self, X: Any) -> Any:
        return self.target[X[:, 0]]

    def proba(self, X: Any) -> Any:
        truth = self.predict(X)[:, np.newaxis] == self.classes_[np.newaxis, :]
        return 0.5 * truth + 0.5 / len(self.classes_)

    def decide(self, X: Any) -> Any:
        scores = self.proba(X)
        return scores[:, 1] - 0.5 if scores.shape[1] == 2 else scores


class _RegressorOracle(RegressorMixin, _Oracle):  # type: ignore[misc]
    def predict(self, X: Any) -> Any:
        """Return positive numbers: some metrics take no others, whatever the target."""
        return np.abs(self.target[X[:, 0]].astype(np.float64)) + 1.0


def _make_oracle(target: Any, methods: Sequence[str], classification: bool) -> Any:
    if not classification:
        return _RegressorOracle(target)
    members: dict[str, Any] = {}
    if "predict_proba" in methods:
        members["predict_proba"] = _renamed(_ClassifierOracle.proba, "predict_proba")
    if "decision_function" in methods:
        members["decision_function"] = _renamed(_ClassifierOracle.decide, "decision_function")
    return type("_Oracle", (_ClassifierOracle,), members)(target)


def _renamed(function: Any, name: str) -> Any:
    """Return a copy of a method under another name; scikit-learn looks at ``__name__`` to know what it called."""

    def method(self: Any, X: Any) -> Any:
        return function(self, X)

    method.__name__ = name
    return method


def _refused(scoring: Scoring, target: Any, methods: Sequence[str], classification: bool) -> dict[str, str]:
    """Return the scorers that raise on a perfect prediction, with what they say."""
    if scoring.scorers is None or (not classification and target.dtype.kind not in "fiub"):
        return {}
    sample = _sample(target)
    oracle = _make_oracle(sample, methods, classification)
    rows = np.arange(len(sample))[:, np.newaxis]
    found: dict[str, str] = {}
    for name, scorer in scoring.scorers.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scorer(oracle, rows, sample)
        except Exception as error:  # noqa: BLE001  # whatever a metric says of this target
            found[name] = one_line(str(error), 400).replace(_RegressorOracle.__name__, "a regressor")
    return found


def _sample(target: Any) -> Any:
    """Return rows that stand for a target: two of each class, or the first ones with both extremes."""
    if len(target) <= MAX_SCORED_ROWS:
        return target
    classes, first = np.unique(target, return_index=True)
    if len(classes) > MAX_SCORED_CLASSES:
        return np.concatenate([target[:MAX_SCORED_ROWS], classes[:1], classes[-1:]])
    return np.concatenate([target[first], target[first]])


def _class_methods(final: Any) -> list[str]:
    return [name for name in _METHODS if hasattr(type(final), name)]


def _instance_methods(estimator: Any) -> list[str]:
    return [name for name in _METHODS if hasattr(estimator, name)]


def _is_supervised(estimator: Any) -> bool:
    """Say whether the stand-ins below can speak for an estimator; clusterers and outlier detectors differ."""
    return bool(is_classifier(estimator) or is_regressor(estimator))


def _is_pairwise(estimator: Any) -> bool:
    return bool(get_tags(estimator).input_tags.pairwise)


def _takes_weights(final: Any) -> bool:
    if not hasattr(final, "fit"):
        return False
    parameters = inspect.signature(final.fit).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


# --- words --------------------------------------------------------------------------------------------------


def _lacking(entry: int, estimator: Any, scorer: str) -> Problem:
    return Problem(
        ("candidates", entry),
        f"The scorer {scorer!r} needs class probabilities or decision values, and {_class_name(estimator)} gives none "
        "that it can use. Choose a scorer that takes predictions (accuracy, balanced_accuracy, f1_macro), or wrap the "
        "estimator in sklearn.calibration.CalibratedClassifierCV.",
    )


def _conditional(entry: int, estimator: Any, scorer: str) -> str:
    return (
        f"candidates[{entry}]: whether {_class_name(estimator)} can answer the scorer {scorer!r} depends on its "
        "parameters or on what it contains; cells where it cannot will have no score."
    )


def _describe(target: Any) -> str:
    kind = type_of_target(target)
    if kind in ("binary", "multiclass"):
        classes = np.unique(target)
        shown = ", ".join(map(repr, classes[:4].tolist())) + (", ..." if len(classes) > 4 else "")
        return f"{len(classes)} classes: {shown}"
    return "continuous numbers" if kind.startswith("continuous") else kind


def _remedy(name: str, scorer: Any, message: str, target: Any, classification: bool) -> str:
    if not classification:
        return "For numbers use r2, neg_root_mean_squared_error or neg_mean_absolute_error."
    positive = _name_positive(name, scorer, target) if "pos_label" in message else ""
    if name in ("f1", "precision", "recall", "jaccard"):
        return f"Use {name}_macro, {name}_micro or {name}_weighted{positive and ', or ' + positive}."
    if name == "roc_auc":
        return "Use roc_auc_ovr or roc_auc_ovo, which take many classes."
    return f"{positive[:1].upper() + positive[1:]}." if positive else "Use accuracy, balanced_accuracy or f1_macro."


def _name_positive(name: str, scorer: Any, target: Any) -> str:
    """Return how to write the scorer with its positive class; scorers tell their metric in their repr only."""
    text = repr(scorer)
    found = re.match(r"make_scorer\((\w+)", text)
    if found is None:
        return ""
    method = re.search(r"response_method=\W*(\w+)", text)
    parts = [f"metric: {found.group(1)}", f"pos_label: {np.unique(target).tolist()[-1]}"]
    parts += ["greater_is_better: false"] if "greater_is_better=False" in text else []
    parts += [f"response_method: {method.group(1)}"] if method and method.group(1) != "predict" else []
    return f"name the positive class: `scoring: {{{name}: {{{', '.join(parts)}}}}}`"


def _class_name(estimator: Any) -> str:
    return type(final_step(estimator)).__name__


def _first(roster: Roster, classifier: bool) -> str:
    found = next(estimator for _, estimator in roster.all() if bool(is_classifier(estimator)) is classifier)
    return _class_name(found)


def _unique(problems: Any) -> list[Problem]:
    return list(dict.fromkeys(problems))
