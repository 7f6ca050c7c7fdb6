"""The instances behind a queue: brought up by demand, at most maxvCpus of them, idle ones given back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from .hosts import NO_CAPACITY, Environment, Host, choose_size, stuck_text, why_never

CACHE = "/var/lib/foldfleet"
CONTAINER_USER = 10001


@dataclass
class Options:
    """What a test may turn while the stand-in runs.

    Attributes:
        grace_s: Between SIGTERM and SIGKILL.
        boot_s: From the demand for an instance to its first task.
        idle_s: How long an instance without tasks is kept.
        usual_vcpus: No instance is larger unless a job is: several hosts are more telling than one big one.
        vcpu_quota: The account's limit for running instances, whatever the environments allow; None for no limit.
        capacity: Whether there are instances to be had.
        hold: Keep RUNNABLE jobs from starting.
        prepared: Folders that the user data of new instances makes, with the user id they belong to.
    """

    grace_s: float = 30.0
    boot_s: float = 0.0
    idle_s: float = 600.0
    usual_vcpus: int = 4
    vcpu_quota: int | None = None
    capacity: bool = True
    hold: bool = False
    prepared: dict[str, int] = field(default_factory=lambda: {CACHE: CONTAINER_USER})


@dataclass(frozen=True)
class Placement:
    """What came of looking for a place.

    Attributes:
        host: The place.
        code: Why there is none: being stuck has a code; without one the job waits for its turn.
        text: The words for it.
        new: An instance that is coming up.
        idle: Instances that are too small for the job and stand in the way of a larger one.
    """

    host: Host | None = None
    code: str | None = None
    text: str | None = None
    new: Host | None = None
    idle: tuple[Host, ...] = ()


class Fleet:
    """All instances of one region. Every method is called with the engine's lock held."""

    def __init__(self, region: str, account: str, options: Options) -> None:
        self._region = region
        self._account = account
        self._options = options
        self.hosts: dict[str, Host] = {}

    def alive(self) -> list[Host]:
        """Give the instances that are up or coming up, oldest first."""
        return [host for host in self.hosts.values() if not host.terminated]

    def place(
        self, environments: Sequence[Environment], vcpus: int, memory_mib: int, demand_vcpus: int, now: float
    ) -> Placement:
        """Find a host for a job, or bring one up."""
        if not environments:
            return Placement()
        names = {environment.name for environment in environments}
        coming = False
        for host in self.alive():
            if host.environment in names and host.fits(vcpus, memory_mib):
                if host.ready_at <= now:
                    return Placement(host)
                coming = True
        if coming:
            return Placement()
        code = why_never(environments, vcpus, memory_mib)
        if code is not None:
            return Placement(code=code, text=stuck_text(code))
        return self._grow(environments, vcpus, memory_mib, demand_vcpus, now)

    def _grow(
        self, environments: Sequence[Environment], vcpus: int, memory_mib: int, demand_vcpus: int, now: float
    ) -> Placement:
        for environment in environments:
            free = self._free_vcpus(environment)
            size = choose_size(
                environment,
                vcpus,
                memory_mib,
                demand_vcpus=demand_vcpus,
                free_vcpus=free,
                usual_vcpus=self._options.usual_vcpus,
            )
            if size is None:
                continue
            if not self._options.capacity:
                return Placement(code=NO_CAPACITY, text=stuck_text(NO_CAPACITY, size.name))
            instance_id = "i-" + uuid.uuid4().hex[:17]
            host = Host(
                instance_id=instance_id,
                arn=f"arn:aws:ecs:{self._region}:{self._account}:container-instance/"
                f"{environment.cluster}/{uuid.uuid4().hex}",
                environment=environment.name,
                size=size,
                region=self._region,
                created=now,
                ready_at=now + self._options.boot_s,
                idle_since=now,
                spot=environment.spot,
                prepared=dict(self._options.prepared),
            )
            self.hosts[instance_id] = host
            return Placement(host if host.ready_at <= now else None, new=host)
        return Placement(idle=tuple(host for host in self.alive() if not host.jobs and host.notice_at is None))

    def _free_vcpus(self, environment: Environment) -> int:
        alive = self.alive()
        free = environment.max_vcpus - sum(h.size.vcpus for h in alive if h.environment == environment.name)
        if self._options.vcpu_quota is not None:
            free = min(free, self._options.vcpu_quota - sum(host.size.vcpus for host in alive))
        return free

    def used_vcpus(self, environment_name: str) -> int:
        """Give the vCPUs of instances that an environment has up (its ``desiredvCpus``)."""
        return sum(host.size.vcpus for host in self.alive() if host.environment == environment_name)
