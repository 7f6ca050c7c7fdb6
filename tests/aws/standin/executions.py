"""What is told of executions: whole from their first moment to their last, and an event for each start and end.

"Step Functions Execution Status Change":
https://docs.aws.amazon.com/step-functions/latest/dg/eventbridge-integration.html
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.aws.standin.identity import REGION
from tests.aws.standin.patching import replace

_MAX_PAYLOAD_BYTES = 248 * 1024
"""Of input and output together, as they stand in the event: above it the input is left out, then the output."""


def install(emit: Callable[[Mapping[str, Any]], None]) -> None:
    """Let executions of moto's tell of themselves."""
    from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution

    _make_whole()
    end = BaseExecutionWorkerCommunication.terminated

    def start(execution: Any) -> None:
        emit(make_event(execution.to_describe_output(), "RUNNING"))
        execution.exec_worker.start()

    def terminated(worker: Any) -> None:
        end(worker)
        emit(make_event(worker.execution.to_describe_output(), worker.execution.status))

    replace(Execution, start=start)
    replace(BaseExecutionWorkerCommunication, terminated=terminated)


def _make_whole() -> None:
    """Let whoever reads an execution find it RUNNING from the first, and what it ended with as soon as it has ended.

    Moto lists an execution before it has a status or anything that could be stopped, and tells that it has ended
    before its output, error and cause are there.
    """
    from moto.stepfunctions.parser.api import ExecutionStatus
    from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution

    make: Any = Execution.__init__
    reflect: Any = BaseExecutionWorkerCommunication._reflect_execution_status

    def make_running(execution: Any, *given: Any, **named: Any) -> None:
        make(execution, *given, **named)
        execution.exec_status = ExecutionStatus.RUNNING
        execution.exec_worker = execution._get_start_execution_worker()

    def reflect_whole(worker: Any) -> None:
        _take_end(worker.execution)
        reflect(worker)

    replace(Execution, __init__=make_running)
    replace(BaseExecutionWorkerCommunication, _reflect_execution_status=reflect_whole)


def _take_end(execution: Any) -> None:
    """Give an execution what it ended with; moto forgets for what reason it was stopped."""
    from moto.stepfunctions.parser.asl.eval import program_state

    env = execution.exec_worker.env
    ended = env.program_state()
    if isinstance(ended, program_state.ProgramEnded):
        execution.output = env.states.get_input()
    elif isinstance(ended, program_state.ProgramStopped):
        execution.error, execution.cause = ended.error, ended.cause
    elif isinstance(ended, program_state.ProgramError):
        told: Any = ended.error
        execution.error, execution.cause = told.get("error"), told.get("cause")


def make_event(told: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Return the event of an execution as DescribeExecution tells it; the event has neither ``error`` nor ``cause``."""
    given, output = told["input"], told.get("output")
    sizes = [len(json.dumps(text).encode()) if text is not None else 0 for text in (given, output)]
    with_output = sizes[1] <= _MAX_PAYLOAD_BYTES
    with_input = sum(sizes) <= _MAX_PAYLOAD_BYTES
    return {
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "region": REGION,
        "resources": [told["executionArn"]],
        "detail": {
            "executionArn": told["executionArn"],
            "stateMachineArn": told["stateMachineArn"],
            "name": told["name"],
            "status": status,
            "startDate": _milliseconds(told["startDate"]),
            "stopDate": _milliseconds(told.get("stopDate")),
            "input": given if with_input else None,
            "inputDetails": {"included": with_input},
            "output": output if with_output else None,
            "outputDetails": None if output is None else {"included": with_output},
        },
    }


def _milliseconds(when: dt.datetime | None) -> int | None:
    return None if when is None else int(when.timestamp() * 1000)
