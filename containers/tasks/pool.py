"""The worker processes of a task: forked from a parent without threads, replaced when they die."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from jobspec.errors import FoldfleetError

Serve = Callable[[Any], Iterator[tuple[str, Any]]]
"""What a worker does with one message: yield any number of (event, payload) answers."""

_PR_SET_PDEATHSIG = 1
_PREFERRED_VICTIM = "500"
"""oom_score_adj of a worker: the kernel's killer takes it before its parent, which keeps the results."""


@dataclass(frozen=True)
class Answer:
    """An event from a worker: one it yielded, or ``died`` with its exit code (negative: a signal)."""

    worker: int
    event: str
    payload: Any


class Worker:
    """One child process and the pipe to it."""

    def __init__(self, number: int, serve: Serve, others: Sequence[Connection]) -> None:
        context = multiprocessing.get_context("fork")
        self.number = number
        self.connection, theirs = context.Pipe()
        inherited = [*others, self.connection]
        self.process: ForkProcess = context.Process(
            target=_run, args=(theirs, inherited, serve, os.getpid()), daemon=False
        )
        sys.stdout.flush()
        sys.stderr.flush()
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        """End the process at once and reap it."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Pool:
    """Workers by number; the owner decides who gets what.

    The owner must not have started threads: workers are forked from it, also late, to replace dead ones.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._workers: dict[int, Worker] = {}
        self._next = 0

    def start(self) -> int:
        """Fork one more worker and return its number."""
        number = self._next
        self._next += 1
        others = [worker.connection for worker in self._workers.values()]
        self._workers[number] = Worker(number, self._serve, others)
        return number

    def send(self, number: int, message: Any) -> None:
        """Hand a message to an idle worker; one that has just died is reported by `wait`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._workers[number].connection.send(message)

    def kill(self, number: int) -> None:
        """End a worker at once; one that has died by itself is no error."""
        if (worker := self._workers.pop(number, None)) is not None:
            worker.kill()

    def wait(self, timeout: float | None, *extra: Connection | int) -> list[Answer]:
        """Return what the workers said, at the latest after ``timeout`` seconds or when ``extra`` can be read."""
        ready = set(wait([*extra, *self.handles()], timeout))
        answers: list[Answer] = []
        for worker in list(self._workers.values()):
            if worker.connection in ready or worker.process.sentinel in ready:
                answers.extend(self._hear(worker))
        return answers

    def handles(self) -> list[Connection | int]:
        """Return what becomes readable when a worker says something or dies."""
        return [handle for worker in self._workers.values() for handle in (worker.connection, worker.process.sentinel)]

    def drain(self) -> list[Answer]:
        """Return what has been said already, without waiting."""
        return self.wait(0)

    def close(self) -> None:
        """End all workers at once."""
        for number in list(self._workers):
            self.kill(number)

    def _hear(self, worker: Worker) -> Iterator[Answer]:
        try:
            while worker.connection.poll():
                event, payload = worker.connection.recv()
                yield Answer(worker.number, event, payload)
        except (EOFError, ConnectionResetError):
            worker.process.join()
        if not worker.process.is_alive():
            del self._workers[worker.number]
            worker.connection.close()
            yield Answer(worker.number, "died", worker.process.exitcode)


def die_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Ask Linux to signal this process when its parent dies; elsewhere a closed pipe must do.

    Args:
        parent: the parent's process id, asked for before the fork: it can be dead by now.
        signal_number: what to send.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_number)


def _run(connection: Connection, inherited: Sequence[Connection], serve: Serve, parent: int) -> None:
    for other in inherited:
        other.close()  # else a dead parent's pipe would stay open in this worker's siblings
    _become_worker(parent)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed its end
        while True:
            _answer(connection, serve, connection.recv())


def _answer(connection: Connection, serve: Serve, message: Any) -> None:
    try:
        for event, payload in serve(message):
            connection.send((event, payload))
    except FoldfleetError as error:
        connection.send(("refused", error.to_json()))
    except Exception:  # noqa: BLE001 - whatever it is, the parent must hear of it and end
        connection.send(("bug", traceback.format_exc()))


def _become_worker(parent: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_PREFERRED_VICTIM, encoding="ascii")
