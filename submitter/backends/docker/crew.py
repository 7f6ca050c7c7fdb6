"""The containers of a round: started as slots become free, started again when they are killed, ended together."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from jobspec.errors import ExitCode, InterruptedRun, TryLaterError
from submitter.backends.base import ArrayRequest
from submitter.backends.docker.engine import STOPPED, DockerEngine, End, EngineGoneError, EngineRefusedError
from submitter.backends.docker.launch import STOP_SECONDS
from submitter.backends.docker.ownership import ASK_AGAIN_SECONDS
from submitter.backends.local import StepCrashedError, read_refusal

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""As on AWS Batch: infrastructure fails now and then, and a cell that kills its task is lost at the third try."""

ENGINE_PATIENCE_SECONDS = 60.0
"""How long an engine may be silent, as while it is upgraded."""


@dataclass(frozen=True)
class Attempt:
    """One try at a task of an array; ``shaken`` says that the engine was silent while it ran."""

    array: ArrayRequest
    index: int
    number: int = 1
    shaken: bool = False

    @property
    def task(self) -> int:
        """Return the task's number in its round."""
        return self.array.first_task + self.index


@dataclass(frozen=True)
class Hands:
    """How a crew's containers are made, named and buried; ``start`` adopts one of the same name that runs already."""

    start: Callable[[Attempt], str]
    bury: Callable[[str], str]


class Crew:
    """Runs attempts to their end; it has no thread, and goes on only while somebody calls it.

    Args:
        engine: where the containers run.
        hands: ``start(attempt) -> name``, and ``bury(name) -> log``, which removes an ended container.
        labels: what all its containers have, and no others.
        slots: how many run at once at most.
        room: says how many of them may run at this moment.
        limit: says how much memory a container has, for who ran out of it.
        now: the clock, in seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        engine: DockerEngine,
        hands: Hands,
        *,
        labels: Mapping[str, str],
        slots: int,
        room: Callable[[], int],
        limit: str,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.failure: Exception | None = None
        self._engine = engine
        self._hands = hands
        self._labels = labels
        self._slots = slots
        self._room = room
        self._free = slots
        self._limit = limit
        self._now = now
        self._sleep = sleep
        self._queue: deque[Attempt] = deque()
        self._running: dict[str, Attempt] = {}
        self._silent_since: float | None = None
        self._halted: float | None = None
        self._asked = float("-inf")

    def add(self, attempt: Attempt) -> None:
        """Queue a task."""
        self._queue.append(attempt)

    @property
    def over(self) -> bool:
        """Say whether nothing runs and nothing waits."""
        return not (self._queue or self._running)

    def go_on(self, seconds: float, poll_seconds: float) -> bool:
        """Work for at most ``seconds``; return whether everything has ended."""
        deadline = self._now() + seconds
        while True:
            self._look()
            while self._queue and len(self._running) < self._free and self._silent_since is None:
                if not self._begin(self._queue.popleft()) or self._now() >= deadline:
                    break
            if self.over:
                return True
            if (left := deadline - self._now()) <= 0:
                return False
            self._sleep(min(left, poll_seconds))

    def halt(self, failure: Exception | None = None) -> None:
        """Start nothing more, and have end what runs: gently, and after a while by force."""
        self.failure = self.failure or failure
        self._queue.clear()
        if self._halted is None:
            self._halted = self._now()
        with contextlib.suppress(EngineGoneError):  # asked again as soon as it answers
            self._urge()

    def kill(self) -> None:
        """End what runs at once."""
        self._queue.clear()
        for name in list(self._running):
            self._engine.signal(name, "SIGKILL")
            self._hands.bury(name)
            del self._running[name]

    def _begin(self, attempt: Attempt) -> bool:
        """Start an attempt; return whether the next may follow at once: a refusal needs time to pass."""
        try:
            self._running[self._hands.start(attempt)] = attempt
            return True
        except EngineGoneError:
            self._queue.appendleft(attempt)
            self._hear_nothing()
        except EngineRefusedError as refusal:
            self._again(attempt, refusal.message, None)
        except Exception as error:  # noqa: BLE001 - whatever it is, what runs already must end first
            self.halt(error)
        return False

    def _look(self) -> None:
        try:
            for name in self._ended():
                self._judge(name)
            if self._queue and len(self._running) < self._slots:
                self._free = self._room()
            self._silent_since = None
            if self._halted is not None:
                self._urge()
        except EngineGoneError:
            self._hear_nothing()

    def _ended(self) -> list[str]:
        """Return the containers that run no more, or are gone."""
        if not self._running:
            return []
        alive = {seen.name for seen in self._engine.seen(self._labels) if seen.alive}
        return [name for name in self._running if name not in alive]

    def _hear_nothing(self) -> None:
        """Bear an engine's silence for a while; who ends meanwhile was ended by whoever ended the engine."""
        now = self._now()
        self._silent_since = now if self._silent_since is None else self._silent_since
        self._running = {name: replace(attempt, shaken=True) for name, attempt in self._running.items()}
        if now - self._silent_since > ENGINE_PATIENCE_SECONDS:
            self._queue.clear()
            self._running.clear()
            self.failure = self.failure or TryLaterError(
                f"The Docker engine has not answered for {ENGINE_PATIENCE_SECONDS:.0f} s. What is finished is kept: "
                "start the engine again and type `submit resume latest`."
            )

    def _judge(self, name: str) -> None:
        attempt = self._running[name]
        end = self._engine.end_of(name)
        answer = self._engine.log(name, answers=True) or b""
        where = self._hands.bury(name)
        del self._running[name]
        if end is not None and end.exit_code == ExitCode.OK:
            return
        if self._halted is None:
            self._weigh(attempt, end, answer.decode("utf-8", "replace"), where)

    def _weigh(self, attempt: Attempt, end: End | None, answer: str, where: str) -> None:
        """Decide what follows from a try that did not end well."""
        refusal = read_refusal(answer)
        if end is None:
            self._again(attempt, "its container was removed", where)
        elif end.killed or (end.exit_code in STOPPED and attempt.shaken):
            self._again(attempt, describe_end(end, self._limit), where)
        elif end.exit_code in STOPPED:
            self.halt(InterruptedRun("The work was asked to stop."))
        elif end.exit_code == ExitCode.TRY_LATER:
            self._again(attempt, refusal.message if refusal is not None else "it asked to be tried later", where)
        elif refusal is not None:
            self.halt(refusal)
        else:
            self.halt(StepCrashedError(f"task {attempt.task} ended with exit code {end.exit_code}; its log is {where}"))

    def _again(self, attempt: Attempt, reason: str, where: str | None) -> None:
        log.info("task_ended_early task=%d attempt=%d reason=%s", attempt.task, attempt.number, reason)
        if attempt.number < MAX_ATTEMPTS:
            self._queue.appendleft(replace(attempt, number=attempt.number + 1, shaken=False))
            return
        why = reason.rstrip(".") + ("" if where is None else f"; its log is {where}")
        self.halt(
            TryLaterError(
                f"Task {attempt.task} ended early {MAX_ATTEMPTS} times, the last time because: {why}. "
                "What is finished is kept; `submit resume latest` tries the rest again."
            )
        )

    def _urge(self) -> None:
        now = self._now()
        if self._halted is not None and now - self._halted > STOP_SECONDS:
            self.kill()
        elif now - self._asked >= ASK_AGAIN_SECONDS:
            self._asked = now
            for name in self._running:
                self._engine.signal(name, "SIGTERM")


def describe_end(end: End, limit: str) -> str:
    """Say in words how a killed container ended."""
    if end.out_of_memory:
        return f"it was killed for lack of memory: {limit}; resources.memory_gib in the spec gives a task more"
    if end.words:
        return f"the engine said: {end.words}"
    return f"its container was killed (exit code {end.exit_code})"
