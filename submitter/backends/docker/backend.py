"""The Docker backend: every step and every task is a container, run to its end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec import protocol
from jobspec.engine import Engine, Numerics, numeric_environment
from jobspec.errors import FoldfleetError, InterruptedRun, TryLaterError
from jobspec.stores.layout import Layout
from submitter.backends.base import ArrayRequest, BackendContext, Ending, Request
from submitter.backends.docker import ownership
from submitter.backends.docker.crew import MAX_ATTEMPTS, Attempt, Crew, Hands, describe_end
from submitter.backends.docker.engine import (
    ALIVE,
    STOPPED,
    Connect,
    DockerEngine,
    End,
    EngineGoneError,
    EngineRefusedError,
    Machine,
    connect,
)
from submitter.backends.docker.launch import STOP_SECONDS, Launch, container_name, make_launch
from submitter.backends.docker.shape import GIB, Shape, make_shape, slots_beside
from submitter.backends.local import FLUSH_SECONDS, StepCrashedError, read_refusal

if TYPE_CHECKING:
    from jobspec.runs.rounds import RoundPlan

log = logging.getLogger(__name__)

DOCKER = "docker"

POLL_SECONDS = 0.2
"""How often the engine is asked what has ended: a request of a few milliseconds."""


class DockerBackend:
    """Start steps and tasks as containers of this user, and clean up after it and after its killed predecessors."""

    name = DOCKER
    survives = False
    default_numerics: Numerics = "native"

    def __init__(
        self,
        context: BackendContext,
        connect: Connect = connect,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.image: str | None = image_name(context)
        self._image = image_name(context)
        self._context = context
        self._connect = connect
        self._now = now
        self._sleep = sleep
        self._owner = ownership.Owner(context.settings.cache)
        self._opened = False
        self._orphans_left = False
        self._crowded = False
        self._num_steps = 0
        self._crew: Crew | None = None
        self._arrays: list[str] = []

    @property
    def workers(self) -> int:
        """Return how many processes fit at once."""
        return self._shape.workers

    def tasks_per_fold(self, num_splits: int) -> int:  # noqa: ARG002 - folds are worked on one after the other
        """Return into how many tasks a fold is cut: each costs the start of a container."""
        return self._shape.slots

    def prepares_here(self) -> bool:
        """Say yes: a container reads what this machine can read."""
        return True

    def engine(self, identity: object) -> Engine:
        """Return what the image computes with.

        Raises:
            NotFoundError: there is no such image, or it lacks a module of the user's own that the spec names.
        """
        from submitter.images import check_modules, image_parts

        settings = self._context.settings
        parts = image_parts(self._engine.client, self._image, settings.cache)
        check_modules(parts, identity, settings, self._image)
        engine: Engine = parts.engine(self._context.numerics, identity)
        return engine

    def build_request(self, plan: RoundPlan) -> Request:
        """Return one command for each array, and the container that each of its tasks gets."""
        arrays = []
        for index, array in enumerate(plan.array_plans()):
            arguments = protocol.work_arguments(self._context.store.url, plan.run_id, plan.round, array.first_task)
            launch = self._launch(protocol.image_command(arguments))
            request = ArrayRequest(
                name=container_name(plan.run_id, self._store_digest, f"r{plan.round}", f"a{index}"),
                array_index=index,
                first_task=array.first_task,
                size=array.size,
                command=launch.command,
                environment=launch.environment,
                container=launch.to_json(),
            )
            arrays.append(request)
        return Request(self.name, plan.run_id, plan.round, tuple(arrays))

    def warm(self) -> None:
        """Reach the engine, see that the image is there, and clean up after processes that were killed."""
        if self._opened:
            return
        engine = self._engine
        self._image_id  # noqa: B018 - looked up once; an absent image is refused here
        self._tell(self._shape.warning)
        for folder in self._folders():
            folder.mkdir(parents=True, exist_ok=True)  # as the user: the engine would make it as root
        self._owner.claim()
        self._opened = True
        self._orphans_left = ownership.sweep(engine, self._context.settings)

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        """Run a step and return its JSON answer; one that is killed is started again."""
        self.warm()
        launch = self._launch(protocol.image_command(arguments), reads)
        for number in range(1, MAX_ATTEMPTS + 1):
            self._num_steps += 1
            name = container_name(arguments[0], self._context.label, self._owner.token, self._num_steps)
            end, answer, where = self._run_step(name, launch)
            if end is not None and end.exit_code == 0:
                document: dict[str, Any] = json.loads(answer)
                return document
            if end is not None and (not end.killed or end.out_of_memory or number == MAX_ATTEMPTS):
                raise self._step_error(arguments[0], end, answer, where)
        raise TryLaterError(f"The containers of the {arguments[0]} step were removed by somebody. Type it again.")

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Queue the tasks of an array behind those that were submitted before."""
        self.warm()
        if self._crew is None:
            self._crew = self._make_crew(array)
        for index in range(array.size):
            self._crew.add(Attempt(array, index))
        self._arrays.append(array.name)
        image = {"image": self._image, "image_id": self._image_id}
        return {"backend": self.name, **image, "containers": f"{array.name}-t*"}

    def find(self, _array: ArrayRequest) -> None:
        """Return None: what a killed process started is ended first."""

    def bind(self, after: ArrayRequest, _handles: Sequence[dict[str, Any]]) -> ArrayRequest:
        """Return it as it is; nothing is sent behind arrays."""
        return after

    def wait(self, seconds: float) -> list[Ending] | None:
        """Return the endings once every container has ended; start and bury containers until then.

        Raises:
            StepCrashedError: a task ended in a way that is a bug; the others have been ended.
        """
        if self._crew is None:
            return []
        if not self._crew.go_on(seconds, POLL_SECONDS):
            return None
        failure = self._crew.failure
        self._crew = None
        names, self._arrays = self._arrays, []
        if failure is not None and not isinstance(failure, FoldfleetError):
            raise failure
        return [Ending(name, failure) for name in names]

    def stop(self) -> None:
        """Ask what runs to end, and wait for it; a second interrupt kills it."""
        if not self._opened:
            return
        with contextlib.suppress(EngineGoneError):  # then nothing can be asked to end
            try:
                self._end_own()
            except KeyboardInterrupt:
                self._bury_own()
        self._crew = None

    def close(self) -> None:
        """Remove what is left of this process's containers; give back the lock that says that it lives."""
        if not self._opened:
            return
        with contextlib.suppress(EngineGoneError):  # the next start cleans up
            if self._crew is not None:
                self.stop()
            self._bury_own()
            if self._orphans_left:
                ownership.sweep(self._engine, self._context.settings)
        self._owner.release()
        self._opened = False

    @cached_property
    def _engine(self) -> DockerEngine:
        return self._connect()

    @cached_property
    def _machine(self) -> Machine:
        return self._engine.machine()

    @cached_property
    def _image_id(self) -> str:
        """Return the digest of the image, so that all tasks run in the same one whatever is built meanwhile."""
        return self._engine.image_id(self._image)

    @cached_property
    def _shape(self) -> Shape:
        return make_shape(self._machine, self._context.spec.resources, self._cpus_asked)

    @property
    def _cpus_asked(self) -> int | None:
        return self._context.workers or self._context.settings.workers

    @property
    def _store_digest(self) -> str:
        """Return what tells runs of the same id in two stores apart."""
        return hashlib.sha256(self._context.store.url.encode()).hexdigest()[:8]

    @property
    def _store_folder(self) -> Path | None:
        store = self._context.store
        return None if store.local_path(Layout.runs()) is None else Path(store.url)

    def _folders(self) -> list[Path]:
        """Return what every container may write to."""
        folder = self._store_folder
        return [*([] if folder is None else [folder]), self._context.settings.cache]

    def _launch(self, command: Sequence[str], reads: Sequence[Path] = ()) -> Launch:
        is_task = "work" in command[:2]  # behind its module
        shape = self._shape
        environment = {
            **numeric_environment(self._context.numerics),
            protocol.CACHE: str(self._context.settings.cache),
            protocol.WORKERS: str(shape.vcpus),
        }
        if is_task and self._store_folder is not None:
            environment[protocol.FLUSH_SECONDS] = FLUSH_SECONDS
        data = self._context.spec.data.path or ""
        return make_launch(
            self._image,
            command,
            environment,
            shape if is_task else shape.whole(self._machine),
            folders=self._folders(),
            reads=reads,
            remote=self._store_folder is None or (bool(reads) and "://" in data),
            rootless=self._machine.rootless,
        )

    def _tell(self, warning: str | None) -> None:
        if warning is not None:
            log.warning("Warning: %s", warning)

    def _make_crew(self, array: ArrayRequest) -> Crew:
        run_id = _argument(array, "--run")
        run = ownership.run_labels(self._context.store, run_id)
        return Crew(
            self._engine,
            Hands(self._start, self._bury),
            labels={**run, ownership.ROUND: _argument(array, "--round")},
            slots=self._shape.slots,
            room=partial(self._room, run),
            limit=f"a task has {self._shape.memory_bytes / GIB:.3g} GiB",
            now=self._now,
            sleep=self._sleep,
        )

    def _room(self, run: Mapping[str, str]) -> int:
        """Return how many tasks may run at once now, beside those of other runs on the same engine."""
        slots = self._shape.slots
        taken = ownership.taken_by_others(self._engine, self._owner, run)
        if taken == (0, 0):
            return slots
        room = slots_beside(self._shape, self._machine, taken, by_cpus=self._cpus_asked is None)
        if room < slots and not self._crowded:
            self._crowded = True
            self._tell(
                f"other runs in containers take {taken[1] / GIB:.3g} GiB and {taken[0]} vCPUs of the Docker engine's "
                f"machine: until they end, this one has {room} of its tasks at work at once instead of {slots}."
            )
        return room

    def _start(self, attempt: Attempt) -> str:
        """Start an attempt; one of the same name that runs already is taken for it."""
        array = attempt.array
        name = f"{array.name}-t{attempt.task}-{attempt.number}"
        environment = {protocol.LOG_STREAM: name, protocol.ATTEMPT: str(attempt.number)}
        if array.size > 1:
            environment[protocol.ARRAY_INDEX] = str(attempt.index)
        labels = {
            **ownership.run_labels(self._context.store, _argument(array, "--run")),
            ownership.ROUND: _argument(array, "--round"),
            ownership.TASK: str(attempt.task),
        }
        self._begin(name, self._launch(array.command), environment, labels)
        return name

    def _run_step(self, name: str, launch: Launch) -> tuple[End | None, str, str]:
        """Run a step's container to its end; return how that was, its answer and where its log is."""
        self._begin(name, launch, {protocol.LOG_STREAM: name}, {ownership.KIND: ownership.STEP})
        self._engine.await_end(name)
        end = self._engine.end_of(name)
        answer = self._engine.log(name, answers=True) or b""
        return end, answer.decode("utf-8", "replace"), self._bury(name, keep_empty=False)

    def _begin(self, name: str, launch: Launch, environment: dict[str, str], labels: dict[str, str]) -> None:
        sent = replace(launch, image=self._image_id, environment=launch.environment | environment)
        limits = ownership.limit_labels(sent.vcpus, sent.memory_bytes)
        config = sent.config({**self._owner.labels(), **limits, **labels})
        host_config = sent.host_config(own_user_ids=self._machine.remaps_users)
        while not self._engine.create(name, self._image, config, host_config):
            if self._engine.state(name) in ALIVE:
                return
            self._engine.remove(name)  # ended, or never begun, by a process that was killed
        try:
            self._engine.start(name)
        except EngineRefusedError:
            self._engine.remove(name)
            raise

    def _bury(self, name: str, *, keep_empty: bool = True) -> str:
        path = ownership.save_log(self._engine, self._context.settings, name, keep_empty=keep_empty)
        self._engine.remove(name)
        return str(path)

    def _end_own(self) -> None:
        if self._crew is not None:
            self._crew.halt()
            while not self._crew.go_on(STOP_SECONDS, POLL_SECONDS):
                pass
        ownership.end_gently(self._engine, self._owner.own(), now=self._now, sleep=self._sleep)
        self._bury_own()

    def _bury_own(self) -> None:
        for seen in self._engine.seen(self._owner.own()):
            self._bury(seen.name, keep_empty=seen.labels.get(ownership.KIND) == ownership.WORK)

    def _step_error(self, step: str, end: End, answer: str, where: str) -> Exception:
        if (refusal := read_refusal(answer)) is not None:
            return refusal
        if end.exit_code in STOPPED:
            return InterruptedRun("The work was asked to stop.")
        if end.killed or end.out_of_memory:
            reason = describe_end(end, f"it has {self._shape.whole(self._machine).memory_bytes / GIB:.3g} GiB")
            return TryLaterError(
                f"The {step} step did not end: {reason}. Its log is {where}. What is finished is kept: type the same "
                "command again, or `submit resume latest`."
            )
        return StepCrashedError(f"the {step} step ended with exit code {end.exit_code}; its log is {where}")


def image_name(context: BackendContext) -> str:
    """Return the image that a person named, else the one of an earlier round, else this version's own."""
    return context.settings.image or context.image or f"foldfleet:{version('foldfleet')}"


def _argument(array: ArrayRequest, option: str) -> str:
    return array.command[array.command.index(option) + 1]
