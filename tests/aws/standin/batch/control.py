"""Put the Batch core into moto, and the handle by which tests turn it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from moto.batch.exceptions import ClientException
from moto.batch.models import BatchBackend, ComputeEnvironment, JobQueue

from .engine import Engine, QueueView
from .fleet import Options
from .hooks import Hooks
from .hosts import Environment, sizes_of
from .rules import Refused
from .runner import Runner, SimulatedRunner


class Control:
    """The Batch core of one stand-in: an engine for each account and region, made when it is first used.

    Args:
        hooks: The edges.
        runner: Runs tasks, unless :meth:`simulate` says otherwise.
        options: What tests turn; shared by all engines.
        clock: Seconds since 1970.
        threaded: Whether engines turn by themselves; else whoever holds this calls :meth:`pump`.
    """

    def __init__(
        self,
        hooks: Hooks,
        runner: Runner,
        *,
        options: Options | None = None,
        clock: Callable[[], float] = time.time,
        threaded: bool = True,
    ) -> None:
        self.hooks = hooks
        self.options = options or Options(vcpu_quota=runner.vcpu_quota)
        self._runner = runner
        self._simulated = SimulatedRunner()
        self._is_simulated = False
        self._clock = clock
        self._threaded = threaded
        self._engines: dict[tuple[str, str], Engine] = {}
        self._making = threading.Lock()
        self._undo: list[Callable[[], None]] = []

    def engine(self, backend: BatchBackend) -> Engine:
        """Give the engine of a backend."""
        key = (backend.account_id, backend.region_name)
        with self._making:
            if key not in self._engines:
                engine = Engine(
                    region=backend.region_name,
                    account=backend.account_id,
                    runner=self._simulated if self._is_simulated else self._runner,
                    hooks=self.hooks,
                    view=lambda arn: view_of(backend, arn),
                    options=self.options,
                    clock=self._clock,
                )
                self._engines[key] = engine
                if self._threaded:
                    engine.start()
            return self._engines[key]

    def hosts(self, *, gone: bool = False) -> list[dict[str, object]]:
        """Show the instances that are up, oldest first; also those that are gone if asked for."""
        shown = []
        for engine in list(self._engines.values()):
            with engine.locked():
                shown += [host.show() for host in engine.fleet.hosts.values() if gone or not host.terminated]
        return shown

    def reclaim(self, instance_id: str, notice_s: float = 0.0) -> None:
        """Take an instance away, at once or after a notice."""
        for engine in list(self._engines.values()):
            if instance_id in engine.fleet.hosts:
                engine.reclaim(instance_id, notice_s)
                return
        raise Refused(f"There is no running instance {instance_id}.")

    def simulate(self, on: bool) -> None:
        """Run tasks that start from now on without containers, each ending at once with exit code 0."""
        self._is_simulated = on
        runner: Runner = self._simulated if on else self._runner
        for engine in list(self._engines.values()):
            engine.change(lambda engine=engine: setattr(engine, "runner", runner))  # type: ignore[misc]

    def set_options(self, **values: Any) -> None:
        """Change options (see :class:`~.fleet.Options`) and look at all queues again."""
        unknown = set(values) - set(vars(self.options))
        if unknown:
            raise Refused(f"There are no options {', '.join(sorted(unknown))}.")
        vars(self.options).update(values)
        for engine in list(self._engines.values()):
            engine.change(lambda: None)

    def hold(self) -> None:
        """Keep RUNNABLE jobs from starting."""
        self.set_options(hold=True)

    def release(self) -> None:
        """Let RUNNABLE jobs start again."""
        self.set_options(hold=False)

    def jobs(self) -> list[dict[str, Any]]:
        """Show every job, parents and children, as DescribeJobs would: the raw view behind the API."""
        shown = []
        for engine in list(self._engines.values()):
            with engine.locked():
                shown += [job.detail() for job in engine.jobs.values()]
        return shown

    def forget_ended(self) -> int:
        """Forget ended jobs, as the service does after about seven days; return how many."""
        return sum(engine.forget_ended() for engine in list(self._engines.values()))

    def pump(self) -> None:
        """Turn all engines until nothing moves."""
        for engine in list(self._engines.values()):
            engine.pump()

    def undo_later(self, undo: Callable[[], None]) -> None:
        """Remember how to take a patch back."""
        self._undo.append(undo)

    def close(self) -> None:
        """End all tasks, stop the engines, and take the patches back."""
        for engine in list(self._engines.values()):
            engine.close()
        self._runner.close()
        self._simulated.close()
        self._engines.clear()
        while self._undo:
            self._undo.pop()()


def view_of(backend: BatchBackend, queue_arn: str) -> QueueView:
    """Give a queue as the scheduler sees it; a queue or environment that is gone offers nothing."""
    queue = backend.get_job_queue_by_arn(queue_arn)
    if queue is None:
        return QueueView(())
    environments = tuple(environment_of(entry) for entry in queue.environments if entry.state in {None, "ENABLED"})
    limits = tuple(
        (str(limit["reason"]), float(limit["maxTimeSeconds"]))
        for limit in getattr(queue, "time_limits", ())
        if limit.get("state", "RUNNABLE") == "RUNNABLE" and limit.get("action", "CANCEL") == "CANCEL"
    )
    return QueueView(environments, limits)


def environment_of(entry: ComputeEnvironment) -> Environment:
    """Give a compute environment as the scheduler sees it."""
    resources = entry.compute_resources or {}
    return Environment(
        name=entry.name,
        arn=entry.arn,
        cluster=entry.ecs_name,
        sizes=sizes_of(tuple(resources.get("instanceTypes") or ("optimal",))),
        max_vcpus=int(resources.get("maxvCpus", 0)),
        spot=resources.get("type") == "SPOT",
    )


def queue_for(backend: BatchBackend, wanted: str | None) -> JobQueue:
    """Find a queue by name or ARN.

    Raises:
        ClientException: There is none.
    """
    queue = backend.get_job_queue(wanted or "")
    if queue is None:
        raise ClientException(f"JobQueue {wanted} does not exist.")
    return queue
