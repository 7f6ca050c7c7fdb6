"""The Step Functions backend: a round is one execution of the search machine, which sends arrays, reduces and retries.

Everything else, such as images, shapes and the steps that a desk waits for, is as on AWS Batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec import protocol
from jobspec.engine import Engine, Numerics
from submitter import claims
from submitter.backends.aws.backend import AwsBackend, OpenWorld
from submitter.backends.aws.world import open_world
from submitter.backends.base import STEPFUNCTIONS, ArrayRequest, BackendContext, Ending, Request
from submitter.backends.stepfunctions.request import answers_of, execution_arn, start_call
from submitter.backends.stepfunctions.sending import describe, start
from submitter.backends.stepfunctions.states import state_of
from submitter.machines.orders import order_name

if TYPE_CHECKING:
    from jobspec.runs.rounds import RoundPlan


class StepFunctionsBackend:
    """Start one execution for each round; nothing of it depends on this process."""

    name = STEPFUNCTIONS
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
        self._batch = AwsBackend(context, open_world, now=now, sleep=sleep, name=self.name)
        self._store = context.store
        self._now = now

    @property
    def image(self) -> str:
        """Return the image as `repository@digest`, which a plan keeps."""
        return self._batch.image

    @property
    def workers(self) -> int:
        """Return how many processes fit at once below the stack's ceiling."""
        return self._batch.workers

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut: as many as fill the ceiling about twice, all folds together."""
        return self._batch.tasks_per_fold(num_splits)

    def prepares_here(self) -> bool:
        """Say whether prepare runs at the desk.

        Raises:
            NotFoundError: it can run nowhere.
        """
        return self._batch.prepares_here()

    def engine(self, identity: object) -> Engine:
        """Return what the image computes with.

        Raises:
            NotFoundError: no image was pushed, or it lacks a module of the user's own that the spec names.
        """
        return self._batch.engine(identity)

    def build_request(self, plan: RoundPlan) -> Request:
        """Return the request of one execution for all arrays of a round: it reads their sizes from the plan."""
        if plan.num_tasks == 0:
            return Request(self.name, plan.run_id, plan.round, ())
        site = self._batch.site
        call = start_call(site, site.stack.search_machine_arn, plan)
        command = protocol.image_command(protocol.work_arguments(site.store_url, plan.run_id, plan.round, 0))
        environment = {protocol.WORKERS: str(site.shape.vcpus)}
        array = ArrayRequest(order_name(plan), 0, 0, plan.num_tasks, tuple(command), environment, call=call)
        return Request(self.name, plan.run_id, plan.round, (array,))

    def warm(self) -> None:
        """See that the store is the stack's, and that hosts can start the image: two requests, once."""
        self._batch.warm()

    def step(self, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        """Run a step that a desk waits for and return its JSON answer."""
        return self._batch.step(arguments, reads)

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Start the execution of a round and return its handle."""
        assert array.call is not None
        return self._handle(start(self._batch.world.clients, array.call))

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        """Return the handle of the execution that works on the round already: a desk's by its name, else a planner's.

        What a planner claimed for an execution that has ended is not worked on.
        """
        assert array.call is not None
        clients, order = self._batch.world.clients, json.loads(array.call["input"])["round"]
        own = execution_arn(array.call["stateMachineArn"], array.call["name"])
        if describe(clients, own) is not None:
            return self._handle(own)
        for claim in claims.unanswered(self._store, order["run_id"], order["round"], array.array_index):
            detail = describe(clients, str(claim["execution"])) if claim.get("execution") else None
            if detail is not None and not state_of(detail).is_over:
                return self._handle(str(claim["execution"]))
        return None

    def bind(self, after: ArrayRequest, handles: Sequence[dict[str, Any]]) -> ArrayRequest:  # noqa: ARG002
        """Return it as it is; nothing is sent behind an execution, which reduces by itself."""
        return after

    def wait(self, seconds: float) -> list[Ending] | None:  # noqa: ARG002 - nothing of it lives here
        """Return nothing: what was sent goes on by itself, see `presence.sighting`."""
        return []

    def stop(self) -> None:
        """End the step that this process waits for; the execution goes on."""
        self._batch.stop()

    def close(self) -> None:
        """End the helper that prepared, if one did."""
        self._batch.close()

    def _handle(self, execution: str) -> dict[str, Any]:
        stack = self._batch.world.stack
        return {
            "backend": self.name,
            "execution": execution,
            "region": stack.region,
            "log_group": stack.log_group_name,
            "answer": f"{answers_of(execution)}-r0",
            "time": self._now(),
        }
