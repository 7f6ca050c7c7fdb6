"""From a spec's `cv` to one of scikit-learn's splitters, and to the text that identifies it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import model_selection
from sklearn.model_selection import check_cv

from jobspec.errors import DataError, LimitError, SpecError
from jobspec.grammar.spec import CvSpec
from jobspec.grammar.values import encode
from jobspec.names import closest

SPLITTERS = (
    "GroupKFold",
    "GroupShuffleSplit",
    "KFold",
    "LeaveOneGroupOut",
    "LeaveOneOut",
    "LeavePGroupsOut",
    "LeavePOut",
    "PredefinedSplit",
    "RepeatedKFold",
    "RepeatedStratifiedKFold",
    "ShuffleSplit",
    "StratifiedGroupKFold",
    "StratifiedKFold",
    "StratifiedShuffleSplit",
    "TimeSeriesSplit",
)
"""Every splitter class of ``sklearn.model_selection``."""

_GROUPED = ("GroupKFold", "GroupShuffleSplit", "LeaveOneGroupOut", "LeavePGroupsOut", "StratifiedGroupKFold")
_BY_CLASS = ("RepeatedStratifiedKFold", "StratifiedGroupKFold", "StratifiedKFold")
_STRATIFIED = (*_BY_CLASS, "StratifiedShuffleSplit")
_BY_ROW = ("KFold", "RepeatedKFold", *_BY_CLASS)
_SEED_STOP = 2**32


@dataclass(frozen=True)
class ResolvedSplitter:
    """A splitter class with all of its parameters, defaults included.

    ``params`` are constructor arguments; for PredefinedSplit the column's name.
    """

    kind: str
    params: Mapping[str, Any]

    @property
    def needs_seed(self) -> bool:
        """Whether it shuffles and has no seed, so that one must be drawn and stored."""
        has_seed = "random_state" in self.params
        return has_seed and self.params["random_state"] is None and bool(self.params.get("shuffle", True))

    @property
    def needs_groups(self) -> bool:
        """Whether it splits by groups."""
        return self.kind in _GROUPED

    def identity(self) -> dict[str, Any]:
        """Return the class and all parameters in canonical JSON-able form; an unseeded one keeps its null."""
        return {"kind": self.kind, "params": {name: encode(value) for name, value in sorted(self.params.items())}}

    def text(self) -> str:
        """Return the constructor call as a person would type it."""
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.params.items())})"

    def build(self, seed: int | None, test_fold: NDArray[Any] | None) -> Any:
        """Construct the splitter.

        Raises:
            SpecError: scikit-learn refuses a parameter.
        """
        params = dict(self.params)
        if seed is not None:
            params["random_state"] = seed
        if self.kind == "PredefinedSplit":
            params["test_fold"] = test_fold
        try:
            return getattr(model_selection, self.kind)(**params)
        except (ValueError, TypeError) as error:
            raise SpecError(f"`cv`: scikit-learn refuses {self.text()}: {error} Correct that parameter.") from None


def resolve_splitter(cv: int | CvSpec, y: NDArray[Any], is_classifier: bool | None) -> ResolvedSplitter:
    """Return the splitter that scikit-learn would take, with all parameters written out.

    Args:
        cv: the spec's `cv`; an integer is resolved by ``check_cv``.
        y: the target.
        is_classifier: whether the candidates are classifiers; None if some are and some are not.

    Raises:
        SpecError: an unknown class or parameter, or an integer that means two things.
    """
    if isinstance(cv, CvSpec):
        return _resolve_named(cv)
    if is_classifier is None:
        raise SpecError(
            f"`cv: {cv}` means StratifiedKFold for classifiers and KFold for regressors, and this search has both. "
            f"Name the splitter: `cv: {{kind: KFold, n_splits: {cv}}}`."
        )
    try:
        splitter = check_cv(cv, y, classifier=is_classifier)
    except ValueError as error:
        raise SpecError(f"`cv: {cv}` is refused by scikit-learn: {error} Give a whole number from 2.") from None
    return _resolve_named(CvSpec(kind=type(splitter).__name__, params={"n_splits": cv}))


def _resolve_named(cv: CvSpec) -> ResolvedSplitter:
    if cv.kind not in SPLITTERS:
        raise SpecError(
            f"`cv.kind` is {cv.kind!r}, which is no splitter of sklearn.model_selection. Allowed are "
            f"{', '.join(SPLITTERS)}.{closest(cv.kind, SPLITTERS)}"
        )
    parameters = inspect.signature(getattr(model_selection, cv.kind)).parameters
    for name in cv.params:
        if name not in parameters:
            allowed = ", ".join(parameters) or "none"
            raise SpecError(
                f"`cv.{name}`: {cv.kind} has no such parameter. Allowed: {allowed}.{closest(name, parameters)}"
            )
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in cv.params]
    if missing:
        raise SpecError(
            f"`cv` lacks `{missing[0]}`, which {cv.kind} needs, such as `cv: {{kind: {cv.kind}, {missing[0]}: ...}}`."
        )
    return ResolvedSplitter(cv.kind, {name: cv.params.get(name, p.default) for name, p in parameters.items()})


def check_splitter(
    resolved: ResolvedSplitter,
    splitter: Any,
    y: NDArray[Any],
    groups: NDArray[Any] | None,
    *,
    allow_small_classes: bool,
    max_folds: int,
) -> int:
    """Count the splits before any is made, and refuse what cannot or should not be split.

    Raises:
        SpecError: groups are missing, or more splits than rows of a class or groups.
        DataError: fewer rows than splits.
        LimitError: more than ``max_folds``.
    """
    if resolved.needs_groups and groups is None:
        raise SpecError(f"`cv`: {resolved.kind} splits by groups. Name their column: `data: {{groups: COLUMN}}`.")
    _check_rows(resolved, len(y))
    if resolved.kind in _STRATIFIED:
        _check_classes(resolved, y, allow_small_classes)
    if resolved.kind in ("GroupKFold", "StratifiedGroupKFold") and groups is not None:
        num_groups = len(np.unique(groups))
        if int(resolved.params["n_splits"]) > num_groups:
            raise SpecError(f"`cv`: {resolved.text()} needs at least as many groups as splits; there are {num_groups}.")
    count = _count(resolved, splitter, y, groups)
    if count > max_folds:
        raise LimitError(
            f"`cv`: {resolved.text()} makes {count} splits of {len(y)} rows; allowed are {max_folds}. "
            f"Take a splitter with fewer, or raise the limit: --max-folds {count}."
        )
    return count


def _count(resolved: ResolvedSplitter, splitter: Any, y: NDArray[Any], groups: NDArray[Any] | None) -> int:
    try:
        # LeavePOut counts by a formula; only the number of rows is looked at.
        return int(splitter.get_n_splits(np.empty((len(y), 0)), y, groups))
    except (ValueError, TypeError) as error:
        raise SpecError(f"`cv`: {resolved.text()} cannot split these data: {error}") from None


def _check_rows(resolved: ResolvedSplitter, num_rows: int) -> None:
    needed = 0
    if resolved.kind in _BY_ROW:
        needed = int(resolved.params["n_splits"])
    elif resolved.kind == "TimeSeriesSplit":
        needed = int(resolved.params["n_splits"]) + 1
    elif resolved.kind == "LeavePOut":
        needed = _whole(resolved, "p") + 1
    if num_rows < needed:
        raise DataError(
            f"The data have {num_rows} rows, {resolved.text()} needs at least {needed}. Give more rows or fewer splits."
        )


def _whole(resolved: ResolvedSplitter, name: str) -> int:
    value = resolved.params[name]
    if type(value) is not int or value < 1:
        raise SpecError(f"`cv.{name}` is {value!r}; {resolved.kind} takes a whole number from 1.")
    return value


def _check_classes(resolved: ResolvedSplitter, y: NDArray[Any], allow_small_classes: bool) -> None:
    kind = _type_of_target(y)
    if kind not in ("binary", "multiclass") and resolved.kind in _BY_CLASS:
        raise SpecError(
            f"`cv`: {resolved.kind} keeps the shares of classes, but this target is {kind}. "
            f"Take {resolved.kind.replace('Stratified', '') or 'KFold'}, which does not look at it."
        )
    classes, counts = np.unique(y, return_counts=True)
    # StratifiedShuffleSplit needs two of each class, and scikit-learn itself refuses fewer.
    needed = int(resolved.params["n_splits"]) if resolved.kind in _BY_CLASS else 2
    small = [(label, int(count)) for label, count in zip(classes.tolist(), counts, strict=True) if count < needed]
    hopeless = resolved.kind not in _BY_CLASS or len(small) == len(classes)
    if small and (hopeless or not allow_small_classes):
        shown = ", ".join(f"{label!r}: {count}" for label, count in sorted(small, key=lambda pair: pair[1])[:12])
        more = f" and {len(small) - 12} classes more" if len(small) > 12 else ""
        remedy = "" if hopeless else " Take fewer splits, or go on with folds that lack a class: --allow-small-classes."
        raise SpecError(
            f"`cv`: {resolved.text()} needs at least {needed} rows of every class; too few have {shown}{more}."
            + (remedy or " Take fewer splits, merge these classes or remove their rows.")
        )


def _type_of_target(y: NDArray[Any]) -> str:
    from sklearn.utils.multiclass import type_of_target

    return str(type_of_target(y))
