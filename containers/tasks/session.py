"""Work through the tasks of an array on one host: a parent that never fits, and workers that do.

The parent only answers signals, hands out families, writes parts and watches limits. It has one thread and calls no
numeric code, so that it can fork a new worker at any moment.
"""

from __future__ import annotations

import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from containers.tasks.board import Board, Family
from containers.tasks.closer import Closer
from containers.tasks.pool import Answer, Pool
from jobspec.errors import FoldfleetError, TryLaterError
from jobspec.grammar.spec import Limits
from jobspec.runs.rows import Row

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
"""The longest the parent sleeps: how late a request to stop is seen."""


@dataclass(frozen=True)
class Rules:
    """What a session may do.

    ``stop_seconds`` is how often the request to stop is looked for, ``patience_seconds`` how long the store may refuse
    parts before the session gives up; until then rows wait in memory.
    """

    workers: int
    flush_seconds: float
    limits: Limits
    stop_seconds: float = TICK_SECONDS
    patience_seconds: float = 0.0


@dataclass
class Session:
    """Run boards to their end.

    Args:
        boards: tasks in the order in which they are opened; one that is closed is forgotten, with its rows.
        pool: where families are fitted; it answers ``started``, ``rows``, ``refused`` and ``bug``.
        closer: folds the logs of finished boards.
        give_up: makes the rows of cells that could not be finished: (split, family, reason) -> rows.
        stop_asked: looked at now and then, such as for a cancelled round.
        now: the clock, in seconds.
        reclaim: says until when (by ``now``) families that are in hand may go on, since this host is about to go; None
            while it stays. Looked at whenever the session does anything.
    """

    boards: Iterator[Board]
    pool: Pool
    rules: Rules
    closer: Closer
    give_up: Callable[[int, Family, str], list[Row]]
    stop_asked: Callable[[], bool]
    now: Callable[[], float]
    reclaim: Callable[[], float | None] = lambda: None  # the host stays
    was_reclaimed: bool = False
    _coming: deque[Board] = field(default_factory=deque)
    _open: list[Board] = field(default_factory=list)
    _idle: list[int] = field(default_factory=list)
    _hands: dict[int, tuple[Board, Family]] = field(default_factory=dict)
    _ahead: dict[int, tuple[Board, Family]] = field(default_factory=dict)
    _asked: float = float("-inf")
    _refused_since: float | None = None

    def run(self, wakeup: int, signalled: Callable[[], bool]) -> bool:
        """Work until everything is finished, a stop is asked for or the host goes; return whether all is finished.

        Args:
            wakeup: a file descriptor that can be read when a signal has come.
            signalled: says whether such a signal asks to stop.

        Raises:
            FoldfleetError: a worker found that the work cannot go on, such as a full disk.
        """
        try:
            while self._is_left():
                deadline = self._see_reclaim()
                if deadline is None:
                    self._assign()
                self._flush()
                if signalled() or self._stop_is_asked() or self._is_over(deadline):
                    self._stop("reclaimed" if self.was_reclaimed else "stopped")
                    return not (self._open or self._coming)
                for answer in self.pool.wait(self._patience(), wakeup, *self.closer.handles()):
                    self._hear(answer)
                self.closer.poll()
                self._enforce_limits()
            return True
        except Exception:
            self._keep()
            raise
        finally:
            self.pool.close()
            self.closer.end()

    def _is_left(self) -> bool:
        """Say whether a task is open or to be opened, or a log to be folded."""
        if not self._coming and (board := next(self.boards, None)) is not None:
            self._coming.append(board)
        return bool(self._coming or self._open or self.closer.busy)

    def _patience(self) -> float:
        return min(TICK_SECONDS, self.rules.flush_seconds)

    def _see_reclaim(self) -> float | None:
        deadline = self.reclaim()
        self.was_reclaimed = deadline is not None
        return deadline

    def _is_over(self, deadline: float | None) -> bool:
        """Say whether a host that goes gives no more time, or there is nothing left to wait for."""
        if deadline is None:
            return False
        return self.now() >= deadline or not (self._hands or self.closer.busy)

    def _stop_is_asked(self) -> bool:
        if self.now() - self._asked < self.rules.stop_seconds:
            return False
        self._asked = self.now()
        try:
            return self.stop_asked()
        except TryLaterError as error:  # no reason to throw fits away
            log.warning("stop_not_seen %s", error.message)
            return False

    def _assign(self) -> None:
        """Hand families to idle workers, opening tasks and forking workers as they are needed."""
        while len(self._hands) < self.rules.workers and (work := self._next_family()) is not None:
            board, family = work
            worker = self._idle.pop() if self._idle else self.pool.start()
            self._hands[worker] = (board, family)
            self.pool.send(worker, (board.task.split, family))

        self._queue_ahead()

    def _queue_ahead(self) -> None:
        """Give busy workers a second family, so that they go on while a part is being made durable.

        Only while another task is still to be opened: near the end a family must not wait behind a long one. And not
        under a limit on tasks, since what lies in a worker's pipe cannot be taken back.
        """
        if self.rules.limits.task_seconds is not None or any(board.suspects for board in self._open):
            return
        for worker in self._hands:
            if worker in self._ahead or not self._is_left() or not self._coming:
                continue
            if (work := self._next_ordinary()) is None:
                return
            self._ahead[worker] = work
            self.pool.send(worker, (work[0].task.split, work[1]))

    def _next_ordinary(self) -> tuple[Board, Family] | None:
        return next(((board, family) for board in self._open if (family := board.take()) is not None), None)

    def _next_family(self) -> tuple[Board, Family] | None:
        if (work := self._next_ordinary()) is not None:
            return work
        if any(board.suspects for board in self._open):
            return self._next_suspect()
        while self._is_left() and self._coming:
            board = self._coming.popleft()
            self._open_board(board)
            if (family := board.take()) is not None:
                return board, family
            if board.suspects:
                return self._next_suspect()
        return None

    def _next_suspect(self) -> tuple[Board, Family] | None:
        """Return a family that must run alone, once nothing else is in hand; idle workers give back their memory.

        Suspects go before the tasks behind theirs, so that their fold is still mapped and their task ends in time.
        """
        if self._hands:
            return None
        while self._idle:
            self.pool.kill(self._idle.pop())
        return next((board, family) for board in self._open if (family := board.take_suspect()) is not None)

    def _open_board(self, board: Board) -> None:
        board.open(self.now())
        self._open.append(board)
        for family in board.doomed:
            self._lose(board, family, "in flight at three deaths of its task")
        board.doomed.clear()

    def _flush(self) -> None:
        now = self.now()
        for board in list(self._open):
            if board.due(now, self.rules.flush_seconds) and not self._write(board, now):
                continue
            if board.finished and not board.postponed:
                self._open.remove(board)
                self.closer.close(board.number)

    def _write(self, board: Board, now: float) -> bool:
        """Write a part; while the store refuses for a time, the rows wait, and the workers go on."""
        try:
            board.flush(now)
        except TryLaterError as error:
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since >= self.rules.patience_seconds:
                raise
            log.warning("part_postponed task=%d %s", board.number, error.message)
            board.postpone(now)
            return False
        self._refused_since = None
        return True

    def _hear(self, answer: Answer) -> None:
        board, family = self._hands.get(answer.worker, (None, None))
        if answer.event == "died" and answer.worker in self._idle:
            self._idle.remove(answer.worker)
        if answer.event in ("refused", "bug"):
            self.pool.kill(answer.worker)  # else it would go on with what is queued behind
            self._forget(answer.worker)
        if answer.event == "refused":
            raise FoldfleetError.from_json(answer.payload)
        if answer.event == "bug":
            raise RuntimeError(f"a worker failed outside of a fit:\n{answer.payload}")
        if board is None or family is None:
            return
        if answer.event == "started":
            board.start(family, self.now())
        elif answer.event == "rows":
            self._free(answer.worker)
            self._land(board, family, answer.payload)
        elif answer.event == "died":
            self._forget(answer.worker)
            self._crash(board, family, answer.payload)

    def _free(self, worker: int) -> None:
        """Note that a worker has answered: it goes on with what was queued, or is idle."""
        del self._hands[worker]
        if worker in self._ahead:
            self._hands[worker] = self._ahead.pop(worker)
        else:
            self._idle.append(worker)

    def _forget(self, worker: int) -> None:
        """Note that a worker is gone; what was queued behind its family has not been touched."""
        del self._hands[worker]
        if worker in self._ahead:
            board, family = self._ahead.pop(worker)
            board.take_back(family)

    def _land(self, board: Board, family: Family, rows: list[Row]) -> None:
        """Take rows; a fit that ran out of memory without being killed is tried once more, alone, too."""
        for row in rows:
            if row["state"] != "ok":
                log.warning(
                    "cell_%s candidate=%d split=%d %s", row["state"], row["candidate"], row["split"], row["error"]
                )
        lost = any(row["state"] == "lost" for row in rows)
        if not (lost and board.crash(family)):
            board.land(family, rows)

    def _crash(self, board: Board, family: Family, exit_code: int) -> None:
        reason = describe_death(exit_code)
        log.warning("worker_died task=%d candidates=%s reason=%s", board.number, family, reason)
        if not board.crash(family):
            self._lose(board, family, f"{reason}, twice, the second time alone on the machine")

    def _lose(self, board: Board, family: Family, reason: str) -> None:
        board.land(family, self.give_up(board.task.split, family, reason))

    def _enforce_limits(self) -> None:
        now, limits = self.now(), self.rules.limits
        for board in list(self._open):
            for family in board.overdue(now, limits.cell_seconds):
                self._kill(board, family, f"over its time limit (limits.cell_seconds: {limits.cell_seconds:g})")
            if limits.task_seconds is not None and now - (board.opened or now) > limits.task_seconds:
                self._end_task(
                    board, f"its task was over the time limit (limits.task_seconds: {limits.task_seconds:g})"
                )

    def _end_task(self, board: Board, reason: str) -> None:
        for family in board.flying:
            self._kill(board, family, reason)
        for family in board.give_up():
            self._lose(board, family, reason)

    def _kill(self, board: Board, family: Family, reason: str) -> None:
        worker = next(number for number, hand in self._hands.items() if hand == (board, family))
        self.pool.kill(worker)
        self._forget(worker)
        self._lose(board, family, reason)

    def _keep(self) -> None:
        """Write down what is finished, as far as that is still possible after an error."""
        with contextlib.suppress(Exception):
            self._stop("stopped")

    def _stop(self, end: str) -> None:
        """Keep what is finished, give up what is in flight; ``end`` says why, and that it is nobody's death."""
        for answer in self.pool.drain():
            if answer.event == "rows" and answer.worker in self._hands:
                board, family = self._hands[answer.worker]
                self._free(answer.worker)
                board.land(family, answer.payload)
        self.pool.close()
        for board in self._open:
            board.flush(self.now(), end=end)


def describe_death(exit_code: int) -> str:
    """Say in words how a worker ended."""
    if exit_code == -signal.SIGKILL:
        return (
            "the worker was killed (SIGKILL; out of memory is the usual cause: fewer workers, or more "
            "resources.memory_gib, leave more for each)"
        )
    if exit_code < 0:
        return f"the worker was killed by {signal.strsignal(-exit_code) or 'a signal'} (signal {-exit_code})"
    return f"the worker ended itself with exit code {exit_code}"
