"""Where tasks run: the seam between the scheduler and containers, and a runner without containers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from .hosts import Host


@dataclass(frozen=True, eq=False)
class Task:
    """One attempt of one job, with all a runner needs to run it."""

    job_id: str
    attempt: int
    task_id: str
    task_arn: str
    host: Host
    image: str
    container: Mapping[str, Any]
    environment: Mapping[str, str]
    command: tuple[str, ...]
    vcpus: int
    memory_mib: int
    family: str
    revision: int
    region: str
    account: str
    log_group: str
    log_stream: str
    role_arn: str | None
    tags: Mapping[str, str] = field(default_factory=dict)


class Reports(Protocol):
    """What a runner tells the scheduler; from any thread, each at most once for a task and in this order."""

    def started(self, task: Task) -> None:
        """The container runs."""

    def ended(self, task: Task, exit_code: int | None, reason: str | None = None) -> None:
        """The container ended by itself or by a signal."""

    def not_started(self, task: Task, reason: str) -> None:
        """The container could not be made or started; ``reason`` begins with ``Cannot``."""


class Runner(Protocol):
    """Runs tasks. No method blocks for long.

    Attributes:
        vcpu_quota: The quota an account has with it from the start; None for no limit.
    """

    vcpu_quota: int | None

    def start(self, task: Task, reports: Reports) -> None:
        """Begin to run a task."""

    def signal(self, task: Task, name: str) -> None:
        """Send SIGTERM or SIGKILL to a task; to one that has ended, nothing happens."""

    def host_gone(self, host: Host) -> None:
        """Forget a host and what was on its disks; all its tasks have ended."""

    def close(self) -> None:
        """End all tasks and free everything."""


class SimulatedRunner:
    """Ends every task at once, or when a test says so: for 10,000 children in seconds, and for tests without sleep.

    Args:
        outcome: Gives the exit code of a task; None leaves it running until :meth:`finish` or SIGKILL.
    """

    def __init__(self, outcome: Callable[[Task], int | None] = lambda task: 0) -> None:
        self.vcpu_quota: int | None = None
        self._outcome = outcome
        self.running: dict[str, tuple[Task, Reports]] = {}
        self.signals: list[tuple[str, str]] = []
        self.heeds_sigterm: int | None = None

    def start(self, task: Task, reports: Reports) -> None:
        """Run a task to its end, unless it has none."""
        reports.started(task)
        exit_code = self._outcome(task)
        if exit_code is None:
            self.running[task.task_id] = (task, reports)
        else:
            reports.ended(task, exit_code)

    def finish(self, task_id: str, exit_code: int | None, reason: str | None = None) -> None:
        """End a task that runs."""
        task, reports = self.running.pop(task_id)
        reports.ended(task, exit_code, reason)

    def signal(self, task: Task, name: str) -> None:
        """Note a signal; SIGKILL ends the task, SIGTERM does if ``heeds_sigterm`` is an exit code."""
        self.signals.append((task.job_id, name))
        if task.task_id not in self.running:
            return
        if name == "SIGKILL":
            self.finish(task.task_id, 137)
        elif self.heeds_sigterm is not None:
            self.finish(task.task_id, self.heeds_sigterm)

    def host_gone(self, host: Host) -> None:
        """Nothing is kept by host."""

    def close(self) -> None:
        """Forget what runs."""
        self.running.clear()
