"""Who starts the tasks: one interface, and one table of those who can."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobspec.errors import FoldfleetError, TryLaterError, UsageError
from jobspec.names import closest

if TYPE_CHECKING:
    from jobspec.engine import Engine, Numerics
    from jobspec.grammar.spec import Spec
    from jobspec.runs.rounds import RoundPlan
    from jobspec.settings import Settings
    from jobspec.stores.base import Store

LOCAL = "local"
AWS = "aws"
STEPFUNCTIONS = "stepfunctions"


class UnstartedError(TryLaterError):
    """A step was sent and no host has started it; it goes on without this process."""


class RequestState(StrEnum):
    """The states of what was sent, and of the tasks in it; the last two are final."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Say whether nothing changes any more."""
        return self in (RequestState.SUCCEEDED, RequestState.FAILED)


@dataclass(frozen=True)
class ArrayRequest:
    """One array as it is sent: ``size`` tasks from number ``first_task`` on.

    ``environment`` holds what is set beside the environment that the process inherits; ``container`` says what each
    task's container is made from, None where there are none; ``call`` is what goes over the wire, None where nothing
    does.
    """

    name: str
    array_index: int
    first_task: int
    size: int
    command: tuple[str, ...]
    environment: dict[str, str]
    container: dict[str, Any] | None = None
    call: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Encode for printing, without what there is none of."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Request:
    """Everything a backend would send for a round; ``--dry-run`` prints exactly this.

    ``after`` is sent behind the arrays and waits for them: the reduce step, where the desk need not do it. Its
    ``array_index`` is the first that no array has.
    """

    backend: str
    run_id: str
    round: int
    arrays: tuple[ArrayRequest, ...]
    after: ArrayRequest | None = None

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        document = asdict(self) | {"arrays": [array.to_json() for array in self.arrays]}
        del document["after"]
        return document if self.after is None else document | {"after": self.after.to_json()}


@dataclass(frozen=True)
class Ending:
    """How an array ended: every cell has a row, or the reason why not."""

    name: str
    error: FoldfleetError | None


@dataclass(frozen=True)
class BackendContext:
    """What a backend is made from.

    ``workers`` is None unless a person said how many; ``image`` is the one that an earlier round ran in. ``patience_s``
    says how long a step may wait for a host, in seconds.
    """

    settings: Settings
    store: Store
    spec: Spec
    workers: int | None
    label: str
    image: str | None = None
    patience_s: float = math.inf

    @property
    def numerics(self) -> Numerics:
        """Return the numerics of the run; on machines of one kind, plain NumPy is what a person expects."""
        return self.spec.numerics or "native"


@dataclass(frozen=True)
class Presence:
    """The run whose processes a backend is asked about, from whatever terminal.

    ``plan`` is its newest round. ``handles`` are those of what was sent where the plan cannot be read.
    """

    settings: Settings
    store: Store
    run_id: str
    plan: RoundPlan | None = None
    handles: Sequence[Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class RequestSeen:
    """What was sent, as it is at this moment: ``counts`` are those of its tasks by state."""

    name: str
    state: RequestState
    counts: Mapping[RequestState, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sighting:
    """What a backend says of a round's requests; ``notes`` tell what is stuck or failed, why, and what helps."""

    alive: bool
    requests: tuple[RequestSeen, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        requests = [
            {"name": seen.name, "state": seen.state.value, "tasks": {s.value: n for s, n in seen.counts.items()}}
            for seen in self.requests
        ]
        return {"requests": requests, "notes": list(self.notes)}


@dataclass(frozen=True)
class Trouble:
    """Why tasks ended early: what a task itself refused with, if one did, and all reasons in words."""

    error: FoldfleetError | None
    text: str


class Backend(Protocol):
    """Starts the processes of a run; nothing of a run's state lives in it.

    ``image`` is what tasks run in, None without images. ``survives`` says that what was sent goes on when this process
    ends; then any process follows it by `Module.sighting`, and nobody calls `wait`. ``default_numerics`` counts where
    a spec names none.
    """

    name: str
    survives: bool
    default_numerics: Numerics

    @property
    def image(self) -> str | None:
        """Return what tasks run in."""

    @property
    def workers(self) -> int:
        """Return how many processes fit at once, all tasks together."""

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut at most."""

    def prepares_here(self) -> bool:
        """Say whether this machine can read the data of the spec and prepare them as the tasks will need them."""

    def engine(self, identity: object) -> Engine:
        """Return what the processes that it starts compute with.

        Args:
            identity: the spec's identity, in which the user's own modules are named.
        """

    def build_request(self, plan: RoundPlan) -> Request:
        """Return what would be sent for a round: pure."""

    def warm(self) -> None:
        """Begin what the next step will need; cheap to call twice."""

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        """Run prepare, reduce or refit to its end and return its JSON answer.

        Args:
            arguments: its command line.
            reads: the files of this machine, besides the store, that it reads.

        Raises:
            FoldfleetError: what the step refused with.
            UnstartedError: no host has started it for `BackendContext.patience_s`.
        """

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Send an array and return the handle to record."""

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        """Return the handle of an array that was sent under this name already, None where that cannot be or is not."""

    def bind(self, after: ArrayRequest, handles: Sequence[dict[str, Any]]) -> ArrayRequest:
        """Return what is sent behind the arrays with these handles: pure."""

    def wait(self, seconds: float) -> list[Ending] | None:
        """Return how the submitted arrays ended, or None if one of them goes on after ``seconds``."""

    def stop(self) -> None:
        """End what is running gently: what is finished is written down first."""

    def close(self) -> None:
        """Give back what the backend holds."""


class Module(Protocol):
    """A backend's module: how it is made, and what it says of runs that it was not made for."""

    survives: bool
    """Whether what was sent goes on without the process that sent it."""

    def default_store(self, settings: Settings) -> str | None:
        """Return where results lie if nobody says where, None for the usual folder."""

    def make_backend(self, context: BackendContext) -> Backend:
        """Return the backend; nothing is started yet."""

    def is_working(self, presence: Presence) -> bool:
        """Say whether a task of the run is alive, whoever started it."""

    def end_orphans(self, presence: Presence) -> None:
        """Have tasks end whose driver was killed; what they finished is kept. They may take a while to go."""

    def read_log(self, presence: Presence, stream: str, num_lines: int) -> list[str]:
        """Return the last lines of a task's log, which a start row names."""

    def sighting(self, presence: Presence) -> Sighting | None:
        """Return how what was sent for a run stands, None where only the driver knows."""

    def terminate(self, presence: Presence) -> None:
        """End what was sent for a run, where asking its tasks to stop (`Layout.stop`) does not do that."""

    def explain(self, presence: Presence) -> Trouble | None:
        """Return why tasks of a run's newest round ended early, None if none did or only the driver knows."""


_MODULES = {
    LOCAL: "submitter.backends.local",
    "docker": "submitter.backends.docker",
    AWS: "submitter.backends.aws",
    STEPFUNCTIONS: "submitter.backends.stepfunctions",
}
BACKENDS = tuple(_MODULES)


def check_backend(name: str) -> None:
    """Refuse a backend that does not exist, before anything is read.

    Raises:
        UsageError: always names those that exist.
    """
    if name not in _MODULES:
        known = " or ".join(f"--on {known}" for known in _MODULES)
        raise UsageError(
            f"--on {name} is no backend; type {known}. {LOCAL} is the default: this machine.{closest(name, _MODULES)}"
        )


def backend_module(name: str) -> Module:
    """Return a backend's module; it is imported here and nowhere else."""
    check_backend(name)
    return importlib.import_module(_MODULES[name])


def make_backend(name: str, context: BackendContext) -> Backend:
    """Return a backend by name."""
    return backend_module(name).make_backend(context)
