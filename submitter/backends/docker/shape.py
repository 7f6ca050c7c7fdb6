"""How much of the engine's machine a container gets, and how many run at once: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from jobspec.errors import LimitError
from jobspec.grammar.data_models import Resources
from submitter.backends.docker.engine import Machine

GIB = 1 << 30

_OURS = 0.9
"""The part of the machine's memory that tasks share where the spec is silent; the rest is the system's."""

_LEAST = 6 << 20
"""Engines give no container less."""

_HALVES = 2
"""Where the spec is silent, a task gets half of the CPUs: two folds, or two halves of one, are worked on at once."""


@dataclass(frozen=True)
class Shape:
    """What one task's container gets, and how many of them run at once; one worker for each vCPU.

    ``warning`` says what a person asked for and does not get.
    """

    vcpus: int
    memory_bytes: int
    slots: int
    warning: str | None = None

    @property
    def workers(self) -> int:
        """Return how many processes fit at once, all containers together."""
        return self.slots * self.vcpus

    def whole(self, machine: Machine) -> Shape:
        """Return what a step gets: it has for itself what all tasks together have while they run."""
        cpus = min(self.workers, machine.cpus)
        return Shape(cpus, min(self.slots * self.memory_bytes, machine.memory_bytes), 1)


def make_shape(machine: Machine, resources: Resources, cpus_asked: int | None) -> Shape:
    """Divide a machine among tasks.

    Args:
        machine: the engine's machine.
        resources: what the spec says of one task.
        cpus_asked: how many CPUs a person gives to the run, None for all of them.

    Raises:
        LimitError: a task needs more memory than the machine has.
    """
    cpus = cpus_asked or machine.cpus
    asked = None if resources.memory_gib is None else int(resources.memory_gib * GIB)
    _check_memory(machine, asked)
    fitting = _HALVES if asked is None else machine.memory_bytes // asked
    wanted = resources.vcpus or max(1, cpus // min(_HALVES, fitting))
    vcpus = min(wanted, cpus, machine.cpus)  # the engine refuses a limit above its CPUs
    slots = max(1, cpus // vcpus if asked is None else min(cpus // vcpus, fitting))
    memory = int(machine.memory_bytes * _OURS / slots) if asked is None else asked
    return Shape(vcpus, memory, slots, _cpu_warning(resources.vcpus, machine.cpus))


def slots_beside(shape: Shape, machine: Machine, taken: tuple[int, int], *, by_cpus: bool) -> int:
    """Return how many tasks run at once beside those of other runs: at least one, whatever those take.

    Args:
        shape: what a task gets; it stays, since the round is cut by it.
        machine: the engine's machine.
        taken: vCPUs and bytes that others may take.
        by_cpus: others' vCPUs count; not where a person said how many CPUs this run has.
    """
    vcpus, memory_bytes = taken
    slots = min(shape.slots, (machine.memory_bytes - memory_bytes) // shape.memory_bytes)
    if by_cpus:
        slots = min(slots, (machine.cpus - vcpus) // shape.vcpus)
    return max(1, slots)


def _check_memory(machine: Machine, asked: int | None) -> None:
    if asked is not None and asked < _LEAST:
        raise LimitError(
            f"The spec gives a task {asked:,} bytes of memory (resources.memory_gib); a container has at least "
            f"{_LEAST:,}, and scikit-learn alone needs about 0.2 GiB. Ask for more."
        )
    if asked is not None and asked > machine.memory_bytes:
        raise LimitError(
            f"The spec gives a task {_gib(asked)} GiB of memory (resources.memory_gib); the Docker engine's machine "
            f"has {_gib(machine.memory_bytes)} GiB. Ask for less, or run on a larger machine."
        )


def _cpu_warning(wanted: int | None, there: int) -> str | None:
    if wanted is None or wanted <= there:
        return None
    return f"the spec gives a task {wanted} vCPUs, the Docker engine's machine has {there}: a task gets {there}."


def _gib(size: int) -> str:
    return f"{size / GIB:.3g}"
