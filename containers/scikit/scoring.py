"""Call the spec's scorers so that scores equal GridSearchCV's and one scorer's failure stays its own."""

from __future__ import annotations

import importlib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sklearn.metrics import check_scoring, get_scorer, make_scorer

from containers.scikit.build import build
from containers.scikit.meters import one_line
from jobspec.grammar.spec import ScorerSpec

MAX_MESSAGE_CHARACTERS = 1900

ScoringSpec = None | str | tuple[str, ...] | Mapping[str, "str | ScorerSpec"]


@dataclass
class Scores:
    """Scores of one call by scorer, NaN for those that raised, and one line for each of these."""

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def failed(names: tuple[str, ...], message: str) -> Scores:
        """Return NaN for every scorer, all with one message."""
        return Scores(dict.fromkeys(names, math.nan), dict.fromkeys(names, message))

    def add(self, name: str, value: Any) -> None:
        """Take in one score as scikit-learn does: a number, or an array or numpy scalar that holds one."""
        number = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
        if isinstance(number, numbers.Real):
            self.values[name] = float(number)
        else:
            shown = one_line(repr(number), 200)
            self.fail(name, f"ValueError: scoring must return a number, got {shown} ({type(number).__name__}).")

    def fail(self, name: str, message: str) -> None:
        """Note that a scorer raised."""
        self.values[name] = math.nan
        self.errors[name] = message


@dataclass(frozen=True)
class Scoring:
    """The scorers of a spec.

    ``names`` are the endings of columns: ``score`` for no scorer or a single string. ``scorers`` is None where the
    estimator's own ``score`` is asked for. ``given`` is how the spec calls a single scorer.
    """

    names: tuple[str, ...]
    is_single: bool
    scorers: Mapping[str, Callable[..., Any]] | None
    given: str | None = None

    def label(self, name: str) -> str:
        """Return how the spec calls a scorer."""
        return self.given or name

    def score(self, estimator: Any, X: Any, y: Any) -> Scores:
        """Score a fitted estimator; what scorers raise is told, not raised.

        Raises:
            SystemExit, KeyboardInterrupt: the user's code, or somebody's Ctrl-C.
        """
        if self.is_single:
            return self._score_single(estimator, X, y)
        return self._score_many(estimator, X, y)

    def _score_single(self, estimator: Any, X: Any, y: Any) -> Scores:
        scores = Scores()
        try:
            scorer = self.scorers["score"] if self.scorers else check_scoring(estimator)
            scores.add("score", scorer(estimator, X, y))
        except Exception as error:  # noqa: BLE001  # told, not raised
            scores.fail("score", _describe(error))
        return scores

    def _score_many(self, estimator: Any, X: Any, y: Any) -> Scores:
        """Let scikit-learn share predictions between scorers; a missing method makes it give up on all of them."""
        try:
            results = check_scoring(estimator, self.scorers, raise_exc=False)(estimator, X, y)
        except Exception:  # noqa: BLE001  # told, not raised
            return self._score_one_by_one(estimator, X, y)
        scores = Scores()
        for name, value in results.items():
            if isinstance(value, str):  # a formatted traceback
                scores.fail(name, last_line(value))
            else:
                scores.add(name, value)
        return scores

    def _score_one_by_one(self, estimator: Any, X: Any, y: Any) -> Scores:
        scores = Scores()
        for name, scorer in (self.scorers or {}).items():
            try:
                scores.add(name, scorer(estimator, X, y))
            except Exception as error:  # noqa: BLE001  # told, not raised
                scores.fail(name, _describe(error))
        return scores


def make_scoring(scoring: ScoringSpec) -> Scoring:
    """Resolve the scorers of a spec; a list or mapping gives named columns, whatever its length."""
    if scoring is None:
        return Scoring(("score",), True, None)
    if isinstance(scoring, str):
        return Scoring(("score",), True, {"score": get_scorer(scoring)}, scoring)
    named = scoring if isinstance(scoring, Mapping) else {name: name for name in scoring}
    return Scoring(tuple(named), False, {name: _make_scorer(scorer) for name, scorer in named.items()})


def last_line(traceback: str) -> str:
    """Return ``Type: message`` from a formatted traceback; the message begins behind the last frame's code."""
    lines = traceback.rstrip().splitlines()
    frame = max((index for index, line in enumerate(lines) if line.startswith('  File "')), default=-1)
    start = next((i for i in range(frame + 1, len(lines)) if not lines[i].startswith("    ")), len(lines) - 1)
    return one_line("\n".join(lines[start:]), MAX_MESSAGE_CHARACTERS)


def _make_scorer(scorer: str | ScorerSpec) -> Callable[..., Any]:
    if isinstance(scorer, str):
        return get_scorer(scorer)  # type: ignore[no-any-return]
    metric = getattr(importlib.import_module("sklearn.metrics"), scorer.metric)
    params = {name: build(value) for name, value in scorer.params.items()}
    return make_scorer(  # type: ignore[no-any-return]
        metric, response_method=scorer.response_method, greater_is_better=scorer.greater_is_better, **params
    )


def _describe(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}".removesuffix(": "), MAX_MESSAGE_CHARACTERS)
