"""A Step Functions in this process: executions are kept, and a test says how each one stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ReadTimeoutError

from tests.unit.fakebatch import refuse

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:foldfleet-search"
EXECUTION = MACHINE.replace("stateMachine", "execution")


@dataclass
class FakeStates:
    """Step Functions' client; ``faults`` come before a start (an exception) or after it (``"lost"``)."""

    executions: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    faults: list[Exception | str] = field(default_factory=list)
    on_describe: Callable[[], None] = lambda: None

    def start_execution(self, **call: Any) -> dict[str, Any]:
        self.calls.append("StartExecution")
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        arn = f"{EXECUTION}:{call['name']}"
        if (known := self.executions.get(arn)) is not None:
            if known["status"] == "RUNNING" and known["input"] == call["input"]:
                return {"executionArn": arn}
            raise refuse("ExecutionAlreadyExists", operation="StartExecution")
        self.sent.append(call)
        self.executions[arn] = {"executionArn": arn, "status": "RUNNING", "input": call["input"]}
        if fault == "lost":
            raise ReadTimeoutError(endpoint_url="https://states")
        return {"executionArn": arn}

    def describe_execution(self, executionArn: str) -> dict[str, Any]:
        self.calls.append("DescribeExecution")
        self.on_describe()
        if executionArn not in self.executions:
            raise refuse("ExecutionDoesNotExist", operation="DescribeExecution")
        return dict(self.executions[executionArn])

    def stop_execution(self, executionArn: str, error: str, cause: str) -> dict[str, Any]:
        self.calls.append("StopExecution")
        if executionArn not in self.executions:
            raise refuse("ExecutionDoesNotExist", operation="StopExecution")
        self.executions[executionArn] |= {"status": "ABORTED", "error": error, "cause": cause}
        return {}
