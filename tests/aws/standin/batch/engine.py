"""The scheduler: states, attempts, dependencies, retries, timeouts, and the hosts under them.

All state changes happen under one lock; what reaches outside (events, containers, signals) is queued there and done
by :meth:`Engine.pump` without it. Time is an argument, so that tests need no sleep: they turn the clock and pump.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .fleet import Fleet, Options
from .hooks import Hooks
from .hosts import Environment, Host
from .jobs import (
    BEFORE_STARTING,
    FAILED,
    PENDING,
    RUNNABLE,
    RUNNING,
    STARTING,
    SUBMITTED,
    SUCCEEDED,
    Attempt,
    Job,
    Request,
    event_of,
)
from .rules import Refused
from .runner import Runner, Task
from .tasks import task_of

logger = logging.getLogger(__name__)

EXITED = "Essential container in task exited"
NOT_STARTED = "Task failed to start"
TIMED_OUT = "Job attempt duration exceeded timeout"
CHILD_FAILED = "Array Child Job failed"
DEPENDENCY_FAILED = "Dependent Job failed"
HOST_GONE = "Host EC2 (instance {id}) terminated."
TIME_LIMIT = "Canceled by JobStateTimeLimit action due to reason: {code}"


@dataclass(frozen=True)
class QueueView:
    """A job queue as the scheduler sees it at one moment; ``limits`` are (reason code, seconds)."""

    environments: tuple[Environment, ...]
    limits: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, eq=False)
class Started:
    """A task that a runner has, with the job it is an attempt of."""

    job: Job
    attempt: Attempt
    task: Task
    runner: Runner


class Engine:
    """The jobs of one account and region.

    Args:
        region: Of all ARNs.
        account: Of all ARNs.
        runner: Runs tasks; may be exchanged at any time for those that start later.
        hooks: The edges.
        view: Gives a queue's present compute environments, by its ARN.
        options: What tests turn.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        *,
        region: str,
        account: str,
        runner: Runner,
        hooks: Hooks,
        view: Callable[[str], QueueView],
        options: Options | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or Options()
        self.runner = runner
        self.hooks = hooks
        self.jobs: dict[str, Job] = {}
        self.by_queue: dict[str, list[Job]] = {}
        self.fleet = Fleet(region, account, self.options)
        self._view = view
        self._clock = clock
        self._lock = threading.RLock()
        self._wakes = threading.Condition(self._lock)
        self._sequence = itertools.count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._actions: deque[Callable[[], None]] = deque()
        self._runnable: dict[str, deque[Job]] = {}
        self._dependants: dict[str, list[Job]] = {}
        self._submitted: deque[Job] = deque()
        self._finished: deque[Job] = deque()
        self._started: dict[str, Started] = {}
        self._threads: list[threading.Thread] = []
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._dirty = False
        self._closed = False

    # What the API does.

    def submit(self, request: Request, size: int | None = None) -> Job:
        """Take a request; the scheduler looks at it later."""
        with self._lock:
            self._check_dependencies(request, size)
            now = self._now_ms()
            job = Job(str(uuid.uuid4()), request, now, next(self._sequence))
            self.jobs[job.job_id] = job
            if size is not None:
                job.children = [
                    Job(f"{job.job_id}:{index}", request, now, next(self._sequence), PENDING, parent=job, index=index)
                    for index in range(size)
                ]
                job.counts[PENDING] = size
                self.jobs.update((child.job_id, child) for child in job.children)
            self.by_queue.setdefault(request.queue_arn, []).append(job)
            self._submitted.append(job)
            self._wake()
        return job

    def cancel(self, job_id: str, reason: str) -> None:
        """Cancel what has not reached STARTING; succeed without effect otherwise."""
        with self._lock:
            job = self._known(job_id)
            if job.status not in BEFORE_STARTING:
                return
            job.is_cancelled = True
            job.cancel_reason = reason
            for child in job.children if job.children is not None else [job]:
                if child.status in BEFORE_STARTING:
                    child.is_cancelled = True
                    self._give_up(child, reason)
            self._wake()

    def terminate(self, job_id: str, reason: str) -> None:
        """Cancel what has not started, stop what has: SIGTERM, the grace, SIGKILL; a parent's children all."""
        with self._lock:
            job = self._known(job_id)
            if job.ended:
                return
            job.is_terminated = True
            job.cancel_reason = reason
            for child in job.children if job.children is not None else [job]:
                if child.ended:
                    continue
                child.is_terminated = True
                if child.status in BEFORE_STARTING:
                    self._give_up(child, reason)
                else:
                    child.cancel_reason = reason
                    self._stop(child, "terminate")
            self._wake()

    def reclaim(self, instance_id: str, notice_s: float = 0.0) -> None:
        """Take an instance away, after a notice if one is wanted."""
        with self._lock:
            host = self.fleet.hosts.get(instance_id)
            if host is None or host.terminated:
                raise Refused(f"There is no running instance {instance_id}.")
            host.notice_at = self._clock() + notice_s
            if notice_s <= 0:
                self._take_away(host)
            else:
                self._at(host.notice_at, lambda: self._take_away(host))
            self._wake()

    # What runners report.

    def started(self, task: Task) -> None:
        """Move a job to RUNNING; its time limit counts from here."""
        with self._lock:
            entry = self._started.get(task.task_id)
            if entry is None:
                return
            job, attempt = entry.job, entry.attempt
            attempt.running = True
            attempt.started_at = job.started_at = self._now_ms()
            self._move(job, RUNNING)
            if job.request.timeout_s is not None:
                self._at(self._clock() + job.request.timeout_s, lambda: self._time_out(job, attempt))
            if attempt.stopping is not None:
                self._send_sigterm(entry)
            self._wake()

    def ended(self, task: Task, exit_code: int | None, reason: str | None = None) -> None:
        """Settle an attempt whose container ended."""
        self._settle_attempt(task, EXITED, exit_code, reason)

    def not_started(self, task: Task, reason: str) -> None:
        """Settle an attempt whose container could not start."""
        self._settle_attempt(task, NOT_STARTED, None, reason)

    def _settle_attempt(self, task: Task, status_reason: str, exit_code: int | None, reason: str | None) -> None:
        with self._lock:
            entry = self._started.pop(task.task_id, None)
            if entry is None:
                return
            job, attempt, host = entry.job, entry.attempt, entry.attempt.host
            attempt.stopped_at = self._now_ms()
            attempt.exit_code, attempt.reason, attempt.status_reason = exit_code, reason, status_reason
            if host.terminated:
                # The agent went down with the instance: nobody is left to tell an exit code.
                attempt.exit_code, attempt.reason = None, None
                attempt.status_reason = HOST_GONE.format(id=host.instance_id)
            job.current = None
            host.give_back(job)
            self._release(host, entry.runner)
            self._settle_job(job, attempt)
            self._wake()

    def _settle_job(self, job: Job, attempt: Attempt) -> None:
        if attempt.stopping == "timeout":
            attempt.status_reason = TIMED_OUT
            self._end(job, FAILED, TIMED_OUT)
        elif job.is_terminated:
            attempt.status_reason = job.cancel_reason
            self._end(job, FAILED, job.cancel_reason)
        elif attempt.exit_code == 0:
            self._end(job, SUCCEEDED, attempt.status_reason)
        elif job.request.retries.again(
            attempt.number,
            exit_code=attempt.exit_code,
            reason=attempt.reason,
            status_reason=attempt.status_reason,
        ):
            self._make_runnable(job, first=True)
        else:
            self._end(job, FAILED, attempt.status_reason)

    # States.

    def _move(self, job: Job, status: str, reason: str | None = None) -> None:
        parent = job.parent
        if parent is not None:
            parent.counts[job.status] -= 1
            parent.counts[status] += 1
            parent.counted_at = self._now_ms()
        job.status = status
        job.status_reason = reason
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = event_of(job, str(uuid.uuid4()), moment)
        self._actions.append(lambda: self._publish(event))

    def _end(self, job: Job, status: str, reason: str | None) -> None:
        job.stopped_at = self._now_ms()
        self._move(job, status, reason)
        self._finished.append(job)

    def _make_runnable(self, job: Job, *, first: bool = False) -> None:
        self._move(job, RUNNABLE)
        waiting = self._runnable.setdefault(job.request.queue_arn, deque())
        if first:
            waiting.appendleft(job)
        else:
            waiting.append(job)
        if job.parent is not None and job.parent.status == SUBMITTED:
            self._move(job.parent, PENDING)

    def _admit(self, job: Job) -> None:
        if job.ended:
            return
        if job.children is None:
            self._await_dependencies(job)
            return
        if job.request.depends_on:
            self._move(job, PENDING)
        for child in job.children:
            if not child.ended:
                self._await_dependencies(child)

    def _await_dependencies(self, job: Job) -> None:
        failed = False
        for wanted in self._dependencies(job):
            if wanted.status == FAILED:
                failed = True
            elif not wanted.ended:
                job.waiting_for.add(wanted.job_id)
                self._dependants.setdefault(wanted.job_id, []).append(job)
        if failed:
            job.waiting_for.clear()
            self._end(job, FAILED, DEPENDENCY_FAILED)
        elif not job.waiting_for:
            self._make_runnable(job)
        elif job.status == SUBMITTED:
            self._move(job, PENDING)

    def _dependencies(self, job: Job) -> list[Job]:
        wanted = []
        for dependency in job.request.depends_on:
            kind = dependency.get("type")
            if kind == "SEQUENTIAL":
                if job.index and job.parent is not None and job.parent.children is not None:
                    wanted.append(job.parent.children[job.index - 1])
                continue
            other = self.jobs[dependency["jobId"]]
            if kind == "N_TO_N" and other.children is not None and job.index is not None:
                other = other.children[job.index]
            wanted.append(other)
        return wanted

    def _check_dependencies(self, request: Request, size: int | None) -> None:
        for dependency in request.depends_on:
            if dependency.get("type") == "SEQUENTIAL":
                continue
            other = self.jobs.get(dependency["jobId"])
            if other is None:
                raise Refused(f"Job {dependency['jobId']} does not exist.")
            if dependency.get("type") == "N_TO_N" and (other.children is None or len(other.children) != size):
                raise Refused("An N_TO_N dependency needs an array job of the same size.")

    def _settle_finished(self) -> None:
        while self._finished:
            job = self._finished.popleft()
            for other in self._dependants.pop(job.job_id, ()):
                other.waiting_for.discard(job.job_id)
                if other.ended:
                    continue
                if job.status == FAILED:
                    self._end(other, FAILED, other.cancel_reason or DEPENDENCY_FAILED)
                elif not other.waiting_for:
                    if other.cancel_reason is not None:
                        self._end(other, FAILED, other.cancel_reason)
                    else:
                        self._make_runnable(other)
            if job.parent is not None:
                self._settle_parent(job.parent, job)

    def _settle_parent(self, parent: Job, last: Job) -> None:
        done = parent.counts[SUCCEEDED] + parent.counts[FAILED]
        if parent.children is None or parent.ended or done < len(parent.children):
            return
        if not parent.counts[FAILED]:
            self._end(parent, SUCCEEDED, None)
        elif parent.cancel_reason is not None:
            self._end(parent, FAILED, parent.cancel_reason)
        elif last.status_reason == DEPENDENCY_FAILED:
            self._end(parent, FAILED, DEPENDENCY_FAILED)
        else:
            self._end(parent, FAILED, CHILD_FAILED)

    def _give_up(self, job: Job, reason: str) -> None:
        """Cancel a job that has not started: one that waits for others stays PENDING until they ended."""
        job.cancel_reason = reason
        if not job.waiting_for:
            self._end(job, FAILED, reason)

    # Starting and stopping.

    def _schedule(self) -> None:
        for arn, waiting in list(self._runnable.items()):
            while waiting:
                head = waiting[0]
                if head.status != RUNNABLE:
                    waiting.popleft()
                    continue
                if self.options.hold or not self._start_head(arn, waiting, head):
                    break

    def _start_head(self, arn: str, waiting: deque[Job], head: Job) -> bool:
        """Start the job at the head; False while it blocks the queue."""
        if head.request.doomed is not None:
            waiting.popleft()
            self._end(head, FAILED, head.request.doomed)
            return True
        view = self._view(arn)
        request, now = head.request, self._clock()
        ahead = itertools.islice(waiting, max(1, self.options.usual_vcpus))
        demand = sum(job.request.vcpus for job in ahead)
        found = self.fleet.place(view.environments, request.vcpus, request.memory_mib, demand, now)
        if found.idle:
            for host in found.idle:
                self._take_away(host)
            found = self.fleet.place(view.environments, request.vcpus, request.memory_mib, demand, now)
        if found.new is not None:
            self._watch_idle(found.new)
            if found.new.ready_at > now:
                self._at(found.new.ready_at, lambda: None)
        if found.host is None:
            self._note_stuck(head, view, found.code, found.text)
            return False
        waiting.popleft()
        self._launch(head, found.host)
        return True

    def _note_stuck(self, job: Job, view: QueueView, code: str | None, text: str | None) -> None:
        if job.status_reason == text:
            return
        job.status_reason = text
        for reason, seconds in view.limits:
            if code is not None and reason == code:
                self._at(self._clock() + seconds, lambda: self._limit_reached(job, code))

    def _limit_reached(self, job: Job, code: str) -> None:
        if job.status == RUNNABLE and (job.status_reason or "").startswith(code):
            self._end(job, FAILED, TIME_LIMIT.format(code=code))

    def _launch(self, job: Job, host: Host) -> None:
        attempt, task = task_of(job, host)
        job.current = attempt
        job.attempts.append(attempt)
        host.take(job)
        runner = self.runner
        self._started[task.task_id] = Started(job, attempt, task, runner)
        self._move(job, STARTING)
        self._actions.append(lambda: runner.start(task, self))

    def _stop(self, job: Job, why: str) -> None:
        attempt = job.current
        if attempt is None or attempt.stopping is not None:
            return
        attempt.stopping = why
        if attempt.running:
            self._send_sigterm(self._started[attempt.task_id])

    def _send_sigterm(self, entry: Started) -> None:
        self._signal(entry, "SIGTERM")
        self._at(self._clock() + self.options.grace_s, lambda: self._signal(entry, "SIGKILL"))

    def _signal(self, entry: Started, name: str) -> None:
        if entry.task.task_id in self._started:
            self._actions.append(lambda: entry.runner.signal(entry.task, name))

    def _time_out(self, job: Job, attempt: Attempt) -> None:
        if job.current is attempt:
            self._stop(job, "timeout")

    def _take_away(self, host: Host) -> None:
        if host.terminated:
            return
        host.terminated = True
        for job in host.jobs:
            if job.current is not None:
                self._signal(self._started[job.current.task_id], "SIGKILL")
        self._release(host, self.runner)

    def _release(self, host: Host, runner: Runner) -> None:
        if host.jobs:
            return
        if host.terminated:
            self._actions.append(lambda: runner.host_gone(host))
        else:
            host.idle_since = self._clock()
            self._watch_idle(host)

    def _watch_idle(self, host: Host) -> None:
        since = host.idle_since

        def look() -> None:
            if not host.jobs and not host.terminated and host.idle_since == since:
                self._take_away(host)

        self._at(max(since, host.ready_at) + self.options.idle_s, look)

    def forget_ended(self) -> int:
        """Forget ended jobs, arrays with their children; return how many."""
        with self._lock:
            gone = [job for job in self.jobs.values() if job.ended and (job.parent is None or job.parent.ended)]
            for job in gone:
                del self.jobs[job.job_id]
            for arn, jobs in self.by_queue.items():
                self.by_queue[arn] = [job for job in jobs if job.job_id in self.jobs]
        return len(gone)

    # Turning the wheel.

    def pump(self) -> None:
        """Do all that is due: timers, admissions, placements, and then what reaches outside."""
        while True:
            with self._lock:
                self._dirty = False
                self._run_timers()
                while self._submitted:
                    self._admit(self._submitted.popleft())
                self._settle_finished()
                self._schedule()
                self._settle_finished()
                actions, self._actions = self._actions, deque()
                if not actions:
                    self._wakes.notify_all()
                    return
            for action in actions:
                self._do(action)

    def _do(self, action: Callable[[], None]) -> None:
        """Reach outside; what fails there is told to who pumps, and does not stop a wheel that turns by itself."""
        try:
            action()
        except Exception:
            if not self._threads:
                raise
            logger.exception("action_failed")

    def start(self) -> None:
        """Pump in a thread of its own, and publish events in another: a slow target holds no job up."""
        for target in (self._turn, self._publish_all):
            thread = threading.Thread(target=target, name=f"batch-{target.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop the threads; tasks are the runner's to end."""
        with self._lock:
            self._closed = True
            self._wakes.notify_all()
        self._events.put(None)
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds; it is looked at under the lock whenever the wheel has turned."""
        with self._lock:
            return self._wakes.wait_for(until, timeout_s)

    def change(self, turn: Callable[[], None]) -> None:
        """Change options or the runner under the lock, and look at everything again."""
        with self._lock:
            turn()
            self._wake()

    def locked(self) -> threading.RLock:
        """Give the lock, to read a consistent picture under it."""
        return self._lock

    def _turn(self) -> None:
        while True:
            self.pump()
            with self._lock:
                if self._closed:
                    return
                if not self._dirty:
                    due = self._timers[0][0] - self._clock() if self._timers else None
                    self._wakes.wait(None if due is None else max(0.0, due))

    def _publish(self, event: dict[str, Any]) -> None:
        if self._threads:
            self._events.put(event)
        else:
            self.hooks.emit(event)

    def _publish_all(self) -> None:
        while (event := self._events.get()) is not None:
            try:
                self.hooks.emit(event)
            except Exception:
                logger.exception("event_not_taken job=%s", event["detail"]["jobId"])

    def _run_timers(self) -> None:
        now = self._clock()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def _at(self, due: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (due, next(self._sequence), what))

    def _wake(self) -> None:
        self._dirty = True
        self._wakes.notify_all()

    def _known(self, job_id: str) -> Job:
        job = self.jobs.get(job_id)
        if job is None:
            raise Refused(f"Job {job_id} does not exist.")
        return job

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
