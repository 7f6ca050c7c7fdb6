"""Fit one family on one fold and score it: the only place where a search spends its time."""

from __future__ import annotations

import hashlib
import math
import re
import signal
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from containers.scikit.build import make_estimator, weight_parameter
from containers.scikit.meters import CpuMeter, WarningLog, cpu_meter, one_line, warning_log
from containers.scikit.scoring import Scores, Scoring
from containers.scikit.seeding import make_seed, seed_generators
from jobspec.runs.rows import Row, State, make_lost_row
from jobspec.search.identity import make_cell_key

if TYPE_CHECKING:
    from containers.data.foldcache import Fold
    from jobspec.search.candidates import CandidateSpace

MAX_ERROR_CHARACTERS = 2000

# NumPy: "assignment destination is read-only", "output array is read-only", "cannot set WRITEABLE flag ...";
# Cython: "buffer source array is read-only".
_READ_ONLY = re.compile(r"read-only|read only|WRITEABLE", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """Where rows come from: the attempt, its host and its CPU kernels."""

    attempt: str = ""
    host: str = ""
    kernel: str = ""


@dataclass
class Outcome:
    """What one fit gave; scores are NaN where something raised."""

    state: State = "ok"
    scores: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    fit_s: float = 0.0
    score_s: float = 0.0


class CellRunner:
    """Run cells as GridSearchCV runs them, with a failure as a result instead of a crash.

    Args:
        space: the frozen candidates.
        scoring: what to call on a fitted estimator.
        train_score: also score on the training rows.
        use_weights: hand the fold's weights to the last step's fit; scores stay unweighted.
        run_salt: the run id; it salts the keys of unseeded candidates, whose cells no other run may use.
        unseeded_entries: entries of the spec whose estimators draw from the global generators.
        origin: goes into every row.
    """

    def __init__(
        self,
        space: CandidateSpace,
        scoring: Scoring,
        *,
        train_score: bool,
        use_weights: bool,
        run_salt: str,
        unseeded_entries: Sequence[int] = (),
        origin: Origin | None = None,
    ) -> None:
        self._space = space
        self._scoring = scoring
        self._train_score = train_score
        self._use_weights = use_weights
        self._run_salt = run_salt
        self._unseeded = frozenset(unseeded_entries)
        self._origin = origin or Origin()

    def run(
        self,
        fold: Fold,
        split: int,
        members: Sequence[int],
        writable: Callable[[], Fold] | None = None,
    ) -> list[Row]:
        """Fit the first member and return a row for every member.

        Args:
            fold: plain arrays over read-only maps.
            split: index of the fold.
            members: candidates that are scored by one fit.
            writable: gives the fold as copy-on-write maps; called once if the estimator wants to write into its
                input, as third-party Cython code may. Each cell needs maps of its own, since they are spoiled.
        """
        key = self.key(members[0])
        with warning_log() as warned, cpu_meter() as meter:
            outcome = self._evaluate(fold, split, members[0], key)
            if writable is not None and outcome.error and wants_to_write(outcome.error):
                outcome = self._evaluate(writable(), split, members[0], key)
        return [self._row(member, split, outcome, meter, warned, member != members[0]) for member in members]

    def key(self, candidate: int) -> str:
        """Return a candidate's key inside the run's book."""
        unseeded = self._space.candidate(candidate).entry_index in self._unseeded
        return make_cell_key(self._space, candidate, self._run_salt if unseeded else None)

    def _evaluate(self, fold: Fold, split: int, candidate: int, key: str) -> Outcome:
        """Fit and score; only an interrupt that was sent from outside gets out."""
        seed_generators(make_seed(key, str(split)))
        outcome = Outcome()
        start = time.perf_counter()
        try:
            estimator = make_estimator(self._space.candidate(candidate))
            start = time.perf_counter()
            estimator.fit(fold.X_train, fold.y_train, **self._fit_parameters(estimator, fold))
        except BaseException as error:  # noqa: BLE001  # a failed fit is a result, also by a panic of compiled code
            outcome.fit_s = time.perf_counter() - start
            self._fail(outcome, error)
            return outcome
        outcome.fit_s = time.perf_counter() - start
        self._score(outcome, estimator, fold)
        return outcome

    def _fit_parameters(self, estimator: Any, fold: Fold) -> dict[str, Any]:
        if not self._use_weights or fold.w_train is None:
            return {}
        return {weight_parameter(estimator): fold.w_train}

    def _score(self, outcome: Outcome, estimator: Any, fold: Fold) -> None:
        start = time.perf_counter()
        self._add_scores(outcome, "test", estimator, fold.X_test, fold.y_test)
        outcome.score_s = time.perf_counter() - start
        if self._train_score:
            self._add_scores(outcome, "train", estimator, fold.X_train, fold.y_train)

    def _add_scores(self, outcome: Outcome, kind: str, estimator: Any, X: Any, y: Any) -> None:
        try:
            scores = self._scoring.score(estimator, X, y)
        except BaseException as error:  # noqa: BLE001  # scorers' own Exceptions are told apart already
            _reraise_if_sent(error)
            scores = Scores.failed(self._scoring.names, describe_error(error))
        outcome.scores.update({f"{kind}_{name}": value for name, value in scores.values.items()})
        for name, message in scores.errors.items():
            _note_error(outcome, message if self._scoring.is_single else f"{kind}_{name}: {message}", message)

    def _fail(self, outcome: Outcome, error: BaseException) -> None:
        _reraise_if_sent(error)
        kinds = ("test", "train") if self._train_score else ("test",)
        outcome.scores = {f"{kind}_{name}": math.nan for name in self._scoring.names for kind in kinds}
        message = describe_error(error)
        _note_error(outcome, message, message)

    def _row(
        self, candidate: int, split: int, outcome: Outcome, meter: CpuMeter, warned: WarningLog, shared: bool
    ) -> Row:
        place = self._origin
        if outcome.state == "lost":
            reason = f"out of memory: {outcome.error}"
            return make_lost_row(candidate, split, self.key(candidate), reason, place.attempt, place.host, place.kernel)
        return Row(
            candidate=candidate,
            split=split,
            key=self.key(candidate),
            state=outcome.state,
            scores=dict(outcome.scores),
            fit_s=outcome.fit_s,
            score_s=outcome.score_s,
            cpu_s=meter.cpu_s,
            peak_memory_bytes=meter.peak_memory_bytes,
            attempt=place.attempt,
            host=place.host,
            kernel=place.kernel,
            shared_fit=shared,
            score_digest=digest_scores(outcome.scores),
            error=outcome.error,
            num_warnings=warned.count,
            warning=warned.first,
        )


def describe_error(error: BaseException) -> str:
    """Return ``Type: message`` on one line; an exception whose text cannot be made has only its type."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001  # a message can raise, too
        text = ""
    return one_line(f"{type(error).__name__}: {text}".removesuffix(": "), MAX_ERROR_CHARACTERS)


def wants_to_write(error: str) -> bool:
    """Say whether an error, of any type, tells that an estimator wrote into its read-only input."""
    return _READ_ONLY.search(error) is not None


def digest_scores(scores: Mapping[str, float]) -> str:
    """Return 16 hex digits over the exact bits of the scores; every NaN counts as the same."""
    hasher = hashlib.sha256()
    for name, value in sorted(scores.items()):
        hasher.update(f"{name}\0".encode() + struct.pack("<d", math.nan if math.isnan(value) else value))
    return hasher.hexdigest()[:16]


def _note_error(outcome: Outcome, text: str, message: str) -> None:
    """Keep the first error; running out of memory says nothing about the candidate and is not final."""
    out_of_memory = message.partition(":")[0].endswith("MemoryError")
    if outcome.state != "lost":
        outcome.state = "lost" if out_of_memory else "fit_error"
    if outcome.error is None or out_of_memory:
        outcome.error = one_line(text, MAX_ERROR_CHARACTERS)


def _reraise_if_sent(error: BaseException) -> None:
    """Let a Ctrl-C out if this process still answers it; otherwise it is the user's own code that raised it."""
    if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        raise error
