"""Who starts the tasks: one interface, and one table of those who can."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jobspec.errors import FoldfleetError, UsageError
from jobspec.names import closest

if TYPE_CHECKING:
    from jobspec.engine import Engine, Numerics
    from jobspec.grammar.spec import Spec
    from jobspec.runs.rounds import RoundPlan
    from jobspec.settings import Settings
    from jobspec.stores.base import Store

LOCAL = "local"


@dataclass(frozen=True)
class ArrayRequest:
    """One array as it is sent: ``size`` tasks from number ``first_task`` on.

    ``environment`` holds what is set beside the environment that the process inherits; ``container`` says what each
    task's container is made from, None where there are none.
    """

    name: str
    array_index: int
    first_task: int
    size: int
    command: tuple[str, ...]
    environment: dict[str, str]
    container: dict[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """Everything a backend would send for a round; ``--dry-run`` prints exactly this."""

    backend: str
    run_id: str
    round: int
    arrays: tuple[ArrayRequest, ...]

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        document = asdict(self)
        for array in document["arrays"]:
            if array["container"] is None:
                del array["container"]
        return document


@dataclass(frozen=True)
class Ending:
    """How an array ended: every cell has a row, or the reason why not."""

    name: str
    error: FoldfleetError | None


@dataclass(frozen=True)
class BackendContext:
    """What a backend is made from.

    ``workers`` is None unless a person said how many; ``image`` is the one that an earlier round ran in.
    """

    settings: Settings
    store: Store
    spec: Spec
    workers: int | None
    label: str
    image: str | None = None

    @property
    def numerics(self) -> Numerics:
        """Return the numerics of the run; on machines of one kind, plain NumPy is what a person expects."""
        return self.spec.numerics or "native"


@dataclass(frozen=True)
class Presence:
    """The run whose processes a backend is asked about, from whatever terminal."""

    settings: Settings
    store: Store
    run_id: str


class Backend(Protocol):
    """Starts the processes of a run; nothing of a run's state lives in it.

    ``image`` is what tasks run in, None without images.
    """

    name: str
    image: str | None

    @property
    def workers(self) -> int:
        """Return how many processes fit at once, all tasks together."""

    @property
    def tasks_per_fold(self) -> int:
        """Return into how many tasks a fold is cut at most."""

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
        """

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Send an array and return the handle to record."""

    def wait(self, seconds: float) -> list[Ending] | None:
        """Return how the submitted arrays ended, or None if one of them goes on after ``seconds``."""

    def stop(self) -> None:
        """End what is running gently: what is finished is written down first."""

    def close(self) -> None:
        """Give back what the backend holds."""


class Module(Protocol):
    """A backend's module: how it is made, and what it says of runs that it was not made for."""

    def make_backend(self, context: BackendContext) -> Backend:
        """Return the backend; nothing is started yet."""

    def is_working(self, presence: Presence) -> bool:
        """Say whether a task of the run is alive, whoever started it."""

    def end_orphans(self, presence: Presence) -> None:
        """Have tasks end whose driver was killed; what they finished is kept. They may take a while to go."""

    def read_log(self, presence: Presence, stream: str, num_lines: int) -> list[str]:
        """Return the last lines of a task's log, which a start row names."""


_MODULES = {LOCAL: "submitter.backends.local", "docker": "submitter.backends.docker"}
_LATER = ("aws", "stepfunctions")


def check_backend(name: str) -> None:
    """Refuse a backend that does not exist (yet), before anything is read.

    Raises:
        UsageError: always names those that exist.
    """
    known = " or ".join(f"--on {known}" for known in _MODULES)
    if name in _LATER:
        raise UsageError(f"--on {name} comes later. Type {known}; {LOCAL} is the default: this machine.")
    if name not in _MODULES:
        hint = closest(name, (*_MODULES, *_LATER))
        raise UsageError(f"--on {name} is no backend; type {known} ({', '.join(_LATER)} come later).{hint}")


def backend_module(name: str) -> Module:
    """Return a backend's module; it is imported here and nowhere else."""
    check_backend(name)
    return importlib.import_module(_MODULES[name])


def make_backend(name: str, context: BackendContext) -> Backend:
    """Return a backend by name."""
    return backend_module(name).make_backend(context)
