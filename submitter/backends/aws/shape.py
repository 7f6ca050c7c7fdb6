"""How many vCPUs and how much memory a task asks for, and how many fit at once: pure arithmetic."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from jobspec.engine import Numerics
from jobspec.errors import LimitError, UsageError
from jobspec.grammar.data_models import Resources

OFFERED = 0.92
"""What of its memory a host offers to containers; an 8 GiB host does not have 8,192 MiB for them."""

_VCPUS = 4
"""A task's, where the spec is silent: fewer and fatter tasks share one fold and one image."""

_GIB_PER_VCPU = 2.0
"""Where the spec is silent, what every family of instances has."""

_ROUNDS = 2
"""Each slot gets about two tasks: the last ones then end at about the same time, and a reclaim costs half as much."""

_FAMILIES = {
    **dict.fromkeys(("c5", "c5d", "c5a", "c5ad"), (96, 2)),
    "c5n": (72, 2.67),
    **dict.fromkeys(("c6i", "c6id", "c6in"), (128, 2)),
    **dict.fromkeys(("c6a", "c7i", "c7a"), (192, 2)),
    "c7i-flex": (8, 2),
    **dict.fromkeys(("m5", "m5d", "m5a", "m5ad", "m5n", "m5dn"), (96, 4)),
    **dict.fromkeys(("m6i", "m6id", "m6in", "m6idn"), (128, 4)),
    **dict.fromkeys(("m6a", "m7i", "m7a"), (192, 4)),
    "m7i-flex": (32, 4),
    **dict.fromkeys(("r5", "r5d", "r5a", "r5ad", "r5b", "r5n", "r5dn"), (96, 8)),
    **dict.fromkeys(("r6i", "r6id", "r6in", "r6idn"), (128, 8)),
    **dict.fromkeys(("r6a", "r7i", "r7a"), (192, 8)),
}
"""Largest instance in vCPUs, and GiB for each of them, from EC2's list of instance types. Others are not judged."""

_SIZES = {"large": 2, "xlarge": 4}
_MANY_XLARGE = re.compile(r"(\d+)xlarge")


@dataclass(frozen=True)
class Shape:
    """What one task asks for, and how many of them run at once; one worker for each vCPU."""

    vcpus: int
    memory_mib: int
    slots: int

    @property
    def workers(self) -> int:
        """Return how many processes fit at once, all tasks together."""
        return self.slots * self.vcpus

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut, so that all folds together fill every slot about twice."""
        return max(1, math.ceil(_ROUNDS * self.slots / max(num_splits, 1)))


def make_shape(max_vcpus: int, instance_types: Iterable[str], resources: Resources, asked: int | None) -> Shape:
    """Divide a compute environment among tasks.

    Args:
        max_vcpus: its ceiling.
        instance_types: families (``m5``) and types (``m5.xlarge``) that it may start.
        resources: what the spec says of one task.
        asked: how many worker processes a person gives to the run, None for as many as there can be.

    Raises:
        LimitError: a task needs more than the ceiling, or than any of the instances has.
    """
    ceiling = min(max_vcpus, asked or max_vcpus)
    vcpus, gib = default_resources(ceiling, resources)
    if vcpus > max_vcpus:
        raise LimitError(
            f"The spec gives a task {vcpus} vCPUs (resources.vcpus), and the stack starts {max_vcpus} at most. Ask for "
            f"fewer, or raise the ceiling: `submit infra up --max-vcpus {vcpus}` (your spot quota must allow it)."
        )
    _check_fits(tuple(instance_types), vcpus, gib)
    return Shape(vcpus, max(4, math.floor(gib * 1024 * OFFERED)), max(1, ceiling // vcpus))


def default_resources(ceiling: int, resources: Resources) -> tuple[int, float]:
    """Return the vCPUs and the GiB of a task below a ceiling of vCPUs, where the spec says nothing of them."""
    vcpus = resources.vcpus or min(_VCPUS, ceiling)
    return vcpus, resources.memory_gib or vcpus * _GIB_PER_VCPU


def check_numerics(numerics: Numerics | None, where: str) -> None:
    """Refuse numerics that hosts of different kinds cannot have in common; ``where`` says what the spec is for.

    Raises:
        UsageError: the spec asks for them.
    """
    if numerics == "native":
        raise UsageError(
            "The spec says `numerics: native`, and hosts of AWS differ: their kernels would give other last bits "
            f"from task to task. Write `numerics: portable`, or leave it out, {where}."
        )


def _check_fits(instance_types: tuple[str, ...], vcpus: int, gib: float) -> None:
    sizes = [_largest(name) for name in instance_types]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):  # one that we do not know may be large enough
        return
    if not any(vcpus <= most and gib <= memory for most, memory in known):
        most, memory = max(known, key=lambda size: (size[1], size[0]))
        raise LimitError(
            f"The spec gives a task {vcpus} vCPUs and {gib:g} GiB (resources), and no instance of the stack has as "
            f"much: of {', '.join(instance_types)}, the one with the most memory has {most} vCPUs and {memory:g} GiB. "
            "Ask for less, or let the stack start others: `submit infra up --instance-types r6i,r7i`."
        )


def _largest(name: str) -> tuple[int, float] | None:
    """Return vCPUs and GiB of a type, or of the largest one of a family; None if it is not known."""
    family, _, size = name.strip().partition(".")
    if family not in _FAMILIES:
        return None
    most, ratio = _FAMILIES[family]
    if not size:
        return most, most * ratio
    many = _MANY_XLARGE.fullmatch(size)
    vcpus = 4 * int(many[1]) if many else _SIZES.get(size)
    return None if vcpus is None else (vcpus, vcpus * ratio)
