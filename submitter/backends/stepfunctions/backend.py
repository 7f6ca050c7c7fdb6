"""The Step Functions backend: a round is one execution of the search machine, which sends arrays, reduces and retries.

Everything else, such as images, shapes and the steps that a desk waits for, is as on AWS Batch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobspec import protocol
from submitter import claims
from submitter.backends.aws.backend import AwsBackend
from submitter.backends.base import STEPFUNCTIONS, ArrayRequest, Request
from submitter.backends.stepfunctions.request import answers_of, execution_arn, start_call
from submitter.backends.stepfunctions.sending import describe, start
from submitter.backends.stepfunctions.states import state_of
from submitter.machines.orders import order_name

if TYPE_CHECKING:
    from jobspec.runs.rounds import RoundPlan


class StepFunctionsBackend(AwsBackend):
    """Start one execution for each round; nothing of it depends on this process."""

    name = STEPFUNCTIONS

    def build_request(self, plan: RoundPlan) -> Request:
        """Return the request of one execution for all arrays of a round: it reads their sizes from the plan."""
        if plan.num_tasks == 0:
            return Request(self.name, plan.run_id, plan.round, ())
        site = self.site
        call = start_call(site, site.stack.search_machine_arn, plan)
        command = protocol.image_command(protocol.work_arguments(site.store_url, plan.run_id, plan.round, 0))
        environment = {protocol.WORKERS: str(site.shape.vcpus)}
        array = ArrayRequest(order_name(plan), 0, 0, plan.num_tasks, tuple(command), environment, call=call)
        return Request(self.name, plan.run_id, plan.round, (array,))

    def submit(self, array: ArrayRequest) -> dict[str, Any]:
        """Start the execution of a round and return its handle."""
        assert array.call is not None
        return self._handle_of(start(self.world.clients, array.call))

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        """Return the handle of the execution that works on the round already: a desk's by its name, else a planner's.

        What a planner claimed for an execution that has ended is not worked on.
        """
        assert array.call is not None
        clients, order = self.world.clients, json.loads(array.call["input"])["round"]
        own = execution_arn(array.call["stateMachineArn"], array.call["name"])
        if describe(clients, own) is not None:
            return self._handle_of(own)
        for claim in claims.unanswered(self._context.store, order["run_id"], order["round"], array.array_index):
            detail = describe(clients, str(claim["execution"])) if claim.get("execution") else None
            if detail is not None and not state_of(detail).is_over:
                return self._handle_of(str(claim["execution"]))
        return None

    def bind(self, after: ArrayRequest, handles: Sequence[dict[str, Any]]) -> ArrayRequest:  # noqa: ARG002
        """Return it as it is; nothing is sent behind an execution, which reduces by itself."""
        return after

    def _handle_of(self, execution: str) -> dict[str, Any]:
        stack = self.world.stack
        return {
            "backend": self.name,
            "execution": execution,
            "region": stack.region,
            "log_group": stack.log_group_name,
            "answer": f"{answers_of(execution)}-r0",
            "time": self._now(),
        }
