"""The AWS backend: every round is a request or a few to AWS Batch, and a reduce step that waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec import protocol
from jobspec.engine import Engine, Numerics
from submitter.backends.aws import steps
from submitter.backends.aws.request import Site, answer_token, array_call, reduce_call
from submitter.backends.aws.sending import find, send
from submitter.backends.aws.shape import Shape, check_numerics, make_shape
from submitter.backends.aws.world import World, check_store, open_world
from submitter.backends.base import AWS, ArrayRequest, BackendContext, Ending, Request
from submitter.backends.local import LocalBackend
from submitter.cloud.record import ImageRecord, choose_record
from submitter.cloud.registry import check_pushed
from submitter.images.parts import check_modules

if TYPE_CHECKING:
    from jobspec.runs.rounds import RoundPlan

OpenWorld = Callable[[str], World]

NOT_SENT = "<the id of array {}>"
"""Stands in a dry run for what only sending tells."""


class AwsBackend:
    """Send steps and tasks to the stack's queue; nothing of what was sent depends on this process."""

    name = AWS
    survives = True
    default_numerics: Numerics = "portable"

    def __init__(
        self,
        context: BackendContext,
        open_world: OpenWorld = open_world,
        *,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        check_numerics(context.spec.numerics, f"for --on {self.name}")
        self._context = context
        self._open_world = open_world
        self._now = now
        self._sleep = sleep
        self._desk: LocalBackend | None = None
        self._remote: steps.RemoteSteps | None = None
        self._checked = False

    @property
    def image(self) -> str:
        """Return the image as `repository@digest`, which a plan keeps."""
        return self._record.image

    @property
    def workers(self) -> int:
        """Return how many processes fit at once below the stack's ceiling."""
        return self._shape.workers

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut: as many as fill the ceiling about twice, all folds together."""
        return self._shape.tasks_per_fold(num_splits)

    def prepares_here(self) -> bool:
        """Say whether prepare runs at the desk.

        Raises:
            NotFoundError: it can run nowhere.
        """
        return steps.prepares_here(self._context.spec.data, self._record)

    def engine(self, identity: object) -> Engine:
        """Return what the image computes with.

        Raises:
            NotFoundError: no image was pushed, or it lacks a module of the user's own that the spec names.
        """
        check_modules(self._record.parts, identity, self._context.settings, self._record.tag)
        return self._record.parts.engine("portable", identity)

    def build_request(self, plan: RoundPlan) -> Request:
        """Return one request for each array, and the reduce step that waits for them."""
        arrays = []
        for index, array in enumerate(plan.array_plans()):
            command = protocol.work_arguments(self.site.store_url, plan.run_id, plan.round, array.first_task)
            call = array_call(self.site, plan, index, array)
            arrays.append(_request(call, index, array.first_task, array.size, command))
        after = self._after(plan) if arrays else None
        return Request(self.name, plan.run_id, plan.round, tuple(arrays), after)

    def warm(self) -> None:
        """See that the store is the stack's, and that hosts can start the image: two requests, once."""
        if not self._checked:
            check_store(self._context.store, self.world.stack)
            check_pushed(self.world.clients, self.world.stack, self._record)
            self._checked = True

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        """Run a step and return its JSON answer: prepare here where that gives the same, all else on AWS."""
        self.warm()
        if arguments[0] == "prepare" and self.prepares_here():
            told = steps.desk_arguments(arguments, self.engine(self._context.spec.identity()))
            return self._local_desk().step(told, reads)
        return self._remote_steps().run(arguments)

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Send an array and return its handle."""
        assert array.call is not None
        return self._handle(array, send(self.world.clients, array.call, self._sleep))

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        """Return the handle of a request of this name that the queue knows already."""
        job_id = find(self.world.clients, self.world.stack.queue_arn, array.name)
        return None if job_id is None else self._handle(array, job_id)

    def bind(self, after: ArrayRequest, handles: Sequence[dict[str, Any]]) -> ArrayRequest:
        """Return the reduce step, waiting for the arrays with these handles."""
        assert after.call is not None
        return replace(after, call=after.call | {"dependsOn": [{"jobId": handle["job_id"]} for handle in handles]})

    def wait(self, seconds: float) -> list[Ending] | None:  # noqa: ARG002 - nothing of it lives here
        """Return nothing: what was sent goes on by itself, see `presence.sighting`."""
        return []

    def stop(self) -> None:
        """End the step that this process waits for; arrays go on."""
        if self._desk is not None:
            self._desk.stop()
        if self._remote is not None:
            self._remote.stop()

    def close(self) -> None:
        """End the helper that prepared, if one did."""
        if self._desk is not None:
            self._desk.close()
            self._desk = None

    @cached_property
    def world(self) -> World:
        """Return the stack and the clients that reach it."""
        return self._open_world(self._context.settings.stack)

    @cached_property
    def _record(self) -> ImageRecord:
        context = self._context
        check_store(context.store, self.world.stack)
        wanted = context.settings.image or context.image
        return choose_record(context.store, wanted, context.spec.identity(), context.settings, self.world.stack.name)

    @cached_property
    def _shape(self) -> Shape:
        stack = self.world.stack
        return make_shape(stack.max_vcpus, stack.instance_types, self._context.spec.resources, self._context.workers)

    @cached_property
    def site(self) -> Site:
        """Return where requests go, in which image and shape."""
        return Site(self.world.stack, self._record, self._context.store.url, self._shape)

    def _after(self, plan: RoundPlan) -> ArrayRequest:
        ids = [NOT_SENT.format(index) for index in range(len(plan.arrays))]
        command = protocol.reduce_arguments(self.site.store_url, plan.run_id, refit=True, answer=answer_token(plan))
        return _request(reduce_call(self.site, plan, ids), len(plan.arrays), 0, 1, command)

    def _handle(self, array: ArrayRequest, job_id: str) -> dict[str, Any]:
        assert array.call is not None
        stack = self.world.stack
        parameters = array.call["parameters"]
        answer = {"answer": parameters["answer"]} if "answer" in parameters else {}
        return {
            "backend": self.name,
            "job_id": job_id,
            "queue": stack.queue_arn,
            "region": stack.region,
            "log_group": stack.log_group_name,
            "definition": array.call["jobDefinition"],
            "time": self._now(),
            **answer,
        }

    def _local_desk(self) -> LocalBackend:
        if self._desk is None:
            spec = self._context.spec.model_copy(update={"numerics": "portable"})
            self._desk = LocalBackend(replace(self._context, spec=spec))
        return self._desk

    def _remote_steps(self) -> steps.RemoteSteps:
        if self._remote is None:
            context = self._context
            self._remote = steps.RemoteSteps(
                self.world.clients,
                context.store,
                self.site,
                context.label,
                self._sleep,
                patience_s=context.patience_s,
            )
        return self._remote


def _request(call: dict[str, Any], index: int, first_task: int, size: int, command: Sequence[str]) -> ArrayRequest:
    environment = {entry["name"]: entry["value"] for entry in call["containerOverrides"]["environment"]}
    return ArrayRequest(
        call["jobName"], index, first_task, size, tuple(protocol.image_command(command)), environment, call=call
    )
