"""The local backend: one helper process on this machine serves every step of a run."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec import protocol
from jobspec.engine import Engine, Numerics, current_engine, numeric_environment
from jobspec.errors import FoldfleetError, InterruptedRun, TryLaterError
from jobspec.hostlock import HostLock
from jobspec.search.planning import TASKS_PER_WORKER
from submitter.backends.base import LOCAL, ArrayRequest, BackendContext, Ending, Presence, Request
from submitter.backends.hostprocess import HostDiedError, HostProcess, Reply

if TYPE_CHECKING:
    from jobspec.runs.rounds import RoundPlan
    from jobspec.settings import Settings

FLUSH_SECONDS = "1"
"""On a folder a part costs one fsync: a power cut then costs a second."""

StartHost = Callable[[Sequence[str], Mapping[str, str], Path], HostProcess]


class StepCrashedError(Exception):
    """A step ended neither well nor with an error of ours."""


class LocalBackend:
    """Start steps as children of a helper that has scikit-learn imported already."""

    name = LOCAL
    survives = False
    default_numerics: Numerics = "native"
    image = None

    def __init__(self, context: BackendContext, start_host: StartHost = HostProcess) -> None:
        settings, spec = context.settings, context.spec
        self.workers = context.workers or settings.workers or spec.resources.vcpus or protocol.usable_cpus()
        self.log = _log_path(context.settings.cache, context.label)
        self._context = context
        self._start_host = start_host
        self._host: HostProcess | None = None
        self._running: deque[str] = deque()
        self._endings: list[Ending] = []
        self._named = False

    def tasks_per_fold(self, num_splits: int) -> int:  # noqa: ARG002 - a task costs nothing to start
        """Return into how many tasks a fold is cut."""
        return TASKS_PER_WORKER * self.workers

    def prepares_here(self) -> bool:
        """Say yes: the tasks read here, too."""
        return True

    def engine(self, identity: object) -> Engine:
        """Return what this machine computes with."""
        return current_engine(self._context.numerics, identity)

    def build_request(self, plan: RoundPlan) -> Request:
        """Return one command for each array: a process tree that serves all its tasks."""
        arrays = []
        for index, array in enumerate(plan.array_plans()):
            arguments = protocol.work_arguments(self._context.store.url, plan.run_id, plan.round, array.first_task)
            request = ArrayRequest(
                name=f"{plan.run_id}-r{plan.round}-a{index}",
                array_index=index,
                first_task=array.first_task,
                size=array.size,
                command=tuple(protocol.containers_command(arguments)),
                environment=self._environment() | {protocol.NUM_TASKS: str(array.size)},
            )
            arrays.append(request)
        return Request(self.name, plan.run_id, plan.round, tuple(arrays))

    def warm(self) -> None:
        """Start the helper, so that its import of scikit-learn runs beside our planning."""
        if self._host is None:
            command = protocol.containers_command(["host"])
            self._host = self._start_host(command, os.environ | self._environment(), self.log)

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:  # noqa: ARG002 - all is here
        """Run a step and return its JSON answer."""
        try:
            self._send(arguments, {})
            reply = self._alive().receive(None)
        except HostDiedError:
            raise self._died() from None
        assert reply is not None
        if error := self._error(arguments[0], reply):
            raise error
        document: dict[str, Any] = json.loads(reply.stdout)
        return document

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Queue an array behind those that were submitted before."""
        try:
            arguments = array.command[array.command.index("containers") + 1 :]
            self._send(arguments, array.environment)
        except HostDiedError:
            raise self._died() from None
        self._running.append(array.name)
        self._named = True
        return {"backend": self.name, "pid": self._alive().pid, "log": str(self.log)}

    def find(self, _array: ArrayRequest) -> None:
        """Return None: an array ends with the process that sent it."""

    def bind(self, after: ArrayRequest, _handles: Sequence[dict[str, Any]]) -> ArrayRequest:
        """Return it as it is; nothing is sent behind arrays."""
        return after

    def wait(self, seconds: float) -> list[Ending] | None:
        """Return the endings once every submitted array has ended."""
        try:
            while self._running:
                if (reply := self._alive().receive(seconds)) is None:
                    return None
                self._endings.append(Ending(self._running.popleft(), self._error("work", reply)))
        except HostDiedError:
            raise self._died() from None
        endings, self._endings = self._endings, []
        return endings

    def stop(self) -> None:
        """Ask the helper's step to end and wait for it; a second interrupt kills it."""
        if self._host is None:
            return
        self._host.terminate()
        try:
            self._host.end()
        except KeyboardInterrupt:
            self._host.kill()
        self._host = None

    def close(self) -> None:
        """End the helper; a log without words is removed unless a start row of a task names it."""
        if self._host is not None:
            self._host.end()
            self._host = None
        if not self._named and self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink()

    def _alive(self) -> HostProcess:
        self.warm()
        assert self._host is not None
        return self._host

    def _send(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._alive().send(arguments, environment)

    def _died(self) -> TryLaterError:
        if self._host is not None:
            self._host.end()
        self._host = None
        self._running.clear()
        return TryLaterError(
            f"The helper process of this run was killed or crashed; its log is {self.log}. What is finished is kept: "
            "type the same command again, or `submit resume latest`."
        )

    def _error(self, step: str, reply: Reply) -> FoldfleetError | None:
        """Return what a step refused with; raise if it did not end as steps do."""
        if reply.exit_code == 0:
            return None
        if (refusal := read_refusal(reply.stdout)) is not None:
            return refusal
        if reply.exit_code == InterruptedRun.exit_code:
            return InterruptedRun("The work was asked to stop.")
        if reply.exit_code < 0:
            name = signal.Signals(-reply.exit_code).name
            return TryLaterError(
                f"The {step} step was killed ({name}; SIGKILL mostly means out of memory); its log is {self.log}. "
                "What is finished is kept: type the same command again, or `submit resume latest`."
            )
        raise StepCrashedError(f"the {step} step ended with exit code {reply.exit_code}; its log is {self.log}")

    def _environment(self) -> dict[str, str]:
        """Return what every step is told by its environment; modules of the user's own never travel otherwise."""
        settings = self._context.settings
        return {
            **numeric_environment(self._context.numerics),
            protocol.CACHE: str(settings.cache),
            protocol.ALLOWED_MODULES: ",".join(settings.allowed_modules),
            protocol.MODULE_PATH: os.pathsep.join(settings.module_path),
            protocol.WORKERS: str(self.workers),
            protocol.FLUSH_SECONDS: FLUSH_SECONDS,
            protocol.LOG_STREAM: str(self.log),
        }


make_backend = LocalBackend

survives = False


def default_store(_settings: Settings) -> None:
    """Return None: the usual folder."""


def sighting(_presence: Presence) -> None:
    """Return None: only the driver knows."""


def terminate(_presence: Presence) -> None:
    """Do nothing: tasks that are asked to stop do so within seconds."""


def explain(_presence: Presence) -> None:
    """Return None: only the driver knows."""


def is_working(presence: Presence) -> bool:
    """Say whether a work step of the run is alive on this host."""
    lock = protocol.array_lock(presence.store, presence.settings.cache, presence.run_id)
    return HostLock(lock, probed=True).held_elsewhere()


def end_orphans(_presence: Presence) -> None:
    """Do nothing: a work step without its driver ends by itself within seconds."""


def read_log(_presence: Presence, stream: str, num_lines: int) -> list[str]:
    """Return the last lines of the file that the helper of a run wrote."""
    return tail(Path(stream), num_lines)


def tail(path: Path, num_lines: int) -> list[str]:
    """Return the last lines of a file, or why they cannot be read."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, num_lines)] or ["(empty: nothing went wrong so far)"]
    except OSError as error:
        return [f"(cannot be read here: {error.strerror})"]


def read_refusal(stdout: str) -> FoldfleetError | None:
    """Return the error that a step answered with, or None if its answer is none."""
    try:
        document = json.loads(stdout)
    except ValueError:
        return None
    return FoldfleetError.from_json(document["error"]) if "error" in document else None


def _log_path(cache: Path, label: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return cache / "logs" / f"{label}-{stamp}-{os.getpid()}.log"
