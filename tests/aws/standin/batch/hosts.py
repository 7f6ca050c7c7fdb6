"""Instances of compute environments: which types there are, what they offer to containers, and who is on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from moto.ec2.models.instance_types import INSTANCE_TYPES

if TYPE_CHECKING:
    from .jobs import Job

OPTIMAL = ("m4", "c4", "r4")
OFFERED = 0.94
"""The part of an instance's memory that ECS can give away; kernel and agent keep the rest (8,192 offers 7,700)."""

MAX_RESOURCE = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"
JOB_REQUIREMENT = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
NO_CAPACITY = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"
STUCK = {
    MAX_RESOURCE: "CE(s) associated with the job queue cannot meet the CPU requirement of the job.",
    JOB_REQUIREMENT: (
        "The job resource requirement (vCPU/memory/GPU) is higher than that can be met by the CE(s) attached to the"
        " job queue."
    ),
    NO_CAPACITY: "Service cannot fulfill the capacity requested for instance type [{type}]",
}


@dataclass(frozen=True, order=True)
class Size:
    """An instance type by what it offers."""

    vcpus: int
    memory_mib: int
    name: str


@dataclass(frozen=True)
class Environment:
    """A compute environment as the scheduler sees it at one moment."""

    name: str
    arn: str
    cluster: str
    sizes: tuple[Size, ...]
    max_vcpus: int
    enabled: bool = True
    spot: bool = True


@dataclass(eq=False)
class Host:
    """An instance.

    Attributes:
        ready_at: When it takes its first task.
        prepared: Folders that its user data made, with the user id they belong to.
        jobs: What runs on it.
        notice_at: The time (seconds) of a reclaim that was announced.
    """

    instance_id: str
    arn: str
    environment: str
    size: Size
    region: str
    created: float
    ready_at: float = 0.0
    idle_since: float = 0.0
    spot: bool = True
    prepared: dict[str, int] = field(default_factory=dict)
    jobs: set[Job] = field(default_factory=set)
    used_vcpus: int = 0
    used_memory_mib: int = 0
    notice_at: float | None = None
    terminated: bool = False

    def fits(self, vcpus: int, memory_mib: int) -> bool:
        """Tell whether a job of that size can be placed now; a host that was given notice takes none."""
        return (
            self.notice_at is None
            and not self.terminated
            and self.used_vcpus + vcpus <= self.size.vcpus
            and self.used_memory_mib + memory_mib <= self.size.memory_mib
        )

    def take(self, job: Job) -> None:
        """Reserve the job's share."""
        self.jobs.add(job)
        self.used_vcpus += job.request.vcpus
        self.used_memory_mib += job.request.memory_mib

    def give_back(self, job: Job) -> None:
        """Free the job's share."""
        if job in self.jobs:
            self.jobs.remove(job)
            self.used_vcpus -= job.request.vcpus
            self.used_memory_mib -= job.request.memory_mib

    def show(self) -> dict[str, object]:
        """Give the host for the stand-in's own interface."""
        return {
            "instance_id": self.instance_id,
            "instance_type": self.size.name,
            "environment": self.environment,
            "vcpus": self.size.vcpus,
            "memory_mib": self.size.memory_mib,
            "used_vcpus": self.used_vcpus,
            "jobs": sorted(job.job_id for job in self.jobs),
            "notice": self.notice_at is not None,
            "terminated": self.terminated,
        }


@cache
def size_of(name: str) -> Size | None:
    """Give what an x86_64 type offers; None for types that do not exist or have another architecture."""
    known = INSTANCE_TYPES.get(name)
    if known is None or "x86_64" not in known["ProcessorInfo"]["SupportedArchitectures"]:
        return None
    memory = int(known["MemoryInfo"]["SizeInMiB"] * OFFERED)
    return Size(known["VCpuInfo"]["DefaultVCpus"], memory, name)


@cache
def sizes_of(types: tuple[str, ...]) -> tuple[Size, ...]:
    """Give the sizes of ``instanceTypes``: types, families or "optimal"."""
    found: set[Size] = set()
    for entry in types:
        families = OPTIMAL if entry.startswith("optimal") else (entry,)
        names: Iterable[str] = (
            (entry,)
            if "." in entry
            else (name for name in INSTANCE_TYPES if name.partition(".")[0] in families and "metal" not in name)
        )
        found.update(size for size in map(size_of, names) if size is not None)
    return tuple(sorted(found))


def why_never(environments: Sequence[Environment], vcpus: int, memory_mib: int) -> str | None:
    """Give the reason code when a job fits no instance that may ever come up."""
    if all(vcpus > environment.max_vcpus for environment in environments):
        return MAX_RESOURCE
    for environment in environments:
        if vcpus <= environment.max_vcpus and any(
            vcpus <= size.vcpus <= environment.max_vcpus and memory_mib <= size.memory_mib for size in environment.sizes
        ):
            return None
    return JOB_REQUIREMENT


def choose_size(
    environment: Environment, vcpus: int, memory_mib: int, *, demand_vcpus: int, free_vcpus: int, usual_vcpus: int
) -> Size | None:
    """Choose the instance type for the job at the head.

    Args:
        environment: Where it shall run.
        vcpus: Of that job.
        memory_mib: Of that job.
        demand_vcpus: Of all jobs waiting in the queue: a host is shared, as Batch does it.
        free_vcpus: How far the environment may still grow.
        usual_vcpus: No host is larger than that, unless the job itself is.

    Returns:
        The smallest type that takes the job and as much of the demand as a usual host can; None if none is left.
    """
    fitting = [s for s in environment.sizes if vcpus <= s.vcpus <= free_vcpus and memory_mib <= s.memory_mib]
    if not fitting:
        return None
    wanted = max(vcpus, min(demand_vcpus, usual_vcpus))
    memory = memory_mib * (wanted // vcpus)
    enough = [size for size in fitting if size.vcpus >= wanted and size.memory_mib >= memory]
    enough = enough or [size for size in fitting if size.vcpus >= wanted]
    return enough[0] if enough else fitting[-1]


def stuck_text(code: str, size_name: str = "") -> str:
    """Give the words DescribeJobs shows while a job is stuck."""
    return f"{code} - {STUCK[code].replace('{type}', size_name)}"
