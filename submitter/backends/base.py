"""Who starts the tasks: one interface, and one table of those who can."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from jobspec.errors import FoldfleetError, UsageError
from jobspec.names import closest

if TYPE_CHECKING:
    from jobspec.engine import Numerics
    from jobspec.runs.rounds import RoundPlan
    from jobspec.settings import Settings


@dataclass(frozen=True)
class ArrayRequest:
    """One array as it is sent: ``size`` tasks from number ``first_task`` on.

    ``environment`` holds what is set beside the environment that the process inherits.
    """

    name: str
    array_index: int
    first_task: int
    size: int
    command: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Request:
    """Everything a backend would send for a round; ``--dry-run`` prints exactly this."""

    backend: str
    run_id: str
    round: int
    arrays: tuple[ArrayRequest, ...]

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


@dataclass(frozen=True)
class Ending:
    """How an array ended: every cell has a row, or the reason why not."""

    name: str
    error: FoldfleetError | None


@dataclass(frozen=True)
class BackendContext:
    """What a backend is made from."""

    settings: Settings
    store_url: str
    workers: int
    numerics: Numerics
    label: str


class Backend(Protocol):
    """Starts the processes of a run; nothing of a run's state lives in it."""

    name: str

    def build_request(self, plan: RoundPlan) -> Request:
        """Return what would be sent for a round: pure."""

    def warm(self) -> None:
        """Begin what the next step will need; cheap to call twice."""

    def step(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Run prepare, reduce or refit to its end and return its JSON answer.

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


_BACKENDS = {"local": "submitter.backends.local:LocalBackend"}
_LATER = ("docker", "aws", "stepfunctions")


def check_backend(name: str) -> None:
    """Refuse a backend that does not exist (yet), before anything is read.

    Raises:
        UsageError: always names those that exist.
    """
    if name in _LATER:
        raise UsageError(f"--on {name} comes later. Type --on local, which is the default: this machine.")
    if name not in _BACKENDS:
        hint = closest(name, (*_BACKENDS, *_LATER))
        later = ", ".join(_LATER)
        raise UsageError(f"--on {name} is no backend; type --on local ({later} come later).{hint}")


def make_backend(name: str, context: BackendContext) -> Backend:
    """Return a backend by name; its module is imported here and nowhere else."""
    check_backend(name)
    module, _, attribute = _BACKENDS[name].partition(":")
    return cast("Backend", getattr(importlib.import_module(module), attribute)(context))
