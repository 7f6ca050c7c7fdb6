"""Look the names of a spec up: estimators, functions, objects, splitters. Nothing is imported for it."""

from __future__ import annotations

from typing import Any

from jobspec.grammar import tables
from jobspec.grammar.problems import Problem, kind_of, shorten
from jobspec.names import closest

Place = tuple[Any, ...]

_WRITTEN_OTHERWISE = {
    "sklearn.pipeline.Pipeline": "write it as `pipeline: [{name: step}, ...]`",
    "sklearn.pipeline.FeatureUnion": "write it as `union: [{name: transformer}, ...]`",
}
_NOT_YET = {"sklearn.compose.ColumnTransformer"}


class Resolver:
    """Decide whether a spec may name something; ``allowed`` are the modules of the user's settings."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed

    def estimator(self, given: Any, path: Place) -> str:
        """Return the class path if it is an estimator.

        Raises:
            Problem: it is none, or its module is not allowed.
        """
        text = _text(given, path, "an estimator's public path, such as sklearn.svm.SVC")
        if text in _NOT_YET:
            raise Problem(path, f"{text} is not yet supported; a pipeline or `union` of numeric steps is.")
        if text in _WRITTEN_OTHERWISE:
            raise Problem(path, f"{text} has its own form: {_WRITTEN_OTHERWISE[text]}.")
        if text in tables.estimators() or self._is_own(text):
            return text
        nearest = tables.closest_path(text, tables.estimators())
        raise Problem(
            path,
            f"{shorten(text)} is no estimator that this spec may use.{nearest} Allowed are scikit-learn's "
            "estimators by their public path, such as sklearn.svm.SVC, and classes of modules that your own "
            "configuration allows (`allowed` under [modules] in foldfleet's config.toml, or "
            "FOLDFLEET_ALLOWED_MODULES; of a spec that no desk has started, the image's alone count).",
        )

    def function(self, given: Any, path: Place) -> str:
        """Return the full path of a function of the closed table; nobody's settings widen it."""
        text = _text(given, path, "a function's name, such as log1p or f_classif")
        if text in tables.functions():
            return tables.functions()[text]
        raise Problem(
            path,
            f"{shorten(text)} is no function that a spec may use.{closest(text, tables.functions())} "
            f"Allowed: {', '.join(sorted(name for name in tables.functions() if '.' not in name))}.",
        )

    def object(self, given: Any, path: Place) -> str:
        """Return the class path of another object: a Gaussian process kernel."""
        text = _text(given, path, "a class, such as sklearn.gaussian_process.kernels.RBF")
        if text in tables.objects():
            return text
        nearest = tables.closest_path(text, tables.objects())
        raise Problem(
            path,
            f"{shorten(text)} is no object that a spec may make.{nearest} "
            "Allowed are the kernels of sklearn.gaussian_process.kernels.",
        )

    def metric(self, given: Any, path: Place) -> str:
        """Return the name of a metric function of ``sklearn.metrics``."""
        text = _text(given, path, "a function of sklearn.metrics, such as fbeta_score")
        short = text.removeprefix("sklearn.metrics.")
        if short in tables.metrics():
            return short
        raise Problem(
            path,
            f"{shorten(text)} is no metric of sklearn.metrics.{closest(short, tables.metrics())} "
            "Allowed are its functions of (y_true, prediction), such as fbeta_score or log_loss.",
        )

    def splitter(self, given: Any, path: Place) -> str:
        """Return the class name of a splitter."""
        text = _text(given, path, "a splitter, such as StratifiedKFold")
        short = text.removeprefix("sklearn.model_selection.")
        if short in tables.splitters():
            return short
        raise Problem(
            path,
            f"{shorten(text)} is no splitter of sklearn.model_selection.{closest(short, tables.splitters())} "
            f"Allowed: {', '.join(tables.splitters())}.",
        )

    def _is_own(self, text: str) -> bool:
        parts = text.split(".")
        return all(part.isidentifier() for part in parts) and tables.in_allowed_module(text, self._allowed)


def _text(given: Any, path: Place, wanted: str) -> str:
    if not isinstance(given, str):
        raise Problem(path, f"here stands {kind_of(given)}; write {wanted}.")
    return given
