"""The events of Step Functions: "Step Functions Execution Status Change", for every execution that starts or ends.

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

    begin, end = Execution.start, BaseExecutionWorkerCommunication.terminated

    def start(execution: Any) -> None:
        emit(make_event(execution.to_describe_output(), "RUNNING"))
        begin(execution)

    def terminated(worker: Any) -> None:
        end(worker)
        emit(make_event(worker.execution.to_describe_output(), worker.execution.status))

    replace(Execution, start=start)
    replace(BaseExecutionWorkerCommunication, terminated=terminated)


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
