"""Execute a definition with moto's interpreter in this process: requests go to a function, waits take no time.

Stricter than moto: parameters are checked against botocore's models in AWS's spelling, and sizes against AWS's limits;
a choice that asks anything but `IsPresent` of a path to nothing ends the execution, and a timeout has no cause.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import botocore.session
from botocore.validate import ParamValidator
from moto.stepfunctions.parser.api import HistoryEventType, StateMachineType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.state.choice.comparison.comparison_operator_type import (
    ComparisonOperatorType,
)
from moto.stepfunctions.parser.asl.component.state.choice.comparison.comparison_variable import ComparisonVariable
from moto.stepfunctions.parser.asl.component.state.choice.comparison.variable import NoSuchVariable
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_factory as factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval.evaluation_details import (
    AWSExecutionDetails,
    EvaluationDetails,
    ExecutionDetails,
    StateMachineDetails,
)
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.parse.preprocessor import Preprocessor
from moto.stepfunctions.parser.backend import execution_worker
from moto.stepfunctions.parser.backend.execution_worker import SyncExecutionWorker
from moto.stepfunctions.parser.backend.execution_worker_comm import ExecutionWorkerCommunication

MAX_BYTES = 256 * 1024
MAX_EVENTS = 25_000
REGION, ACCOUNT = "eu-central-1", "123456789012"
MACHINE = f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:search"
STARTED_AT = "2026-03-04T05:06:07.089Z"
_BOTO = {"sfn": "stepfunctions", "states": "stepfunctions"}


@dataclass(frozen=True)
class Call:
    """A request of a task: ``batch:submitJob.sync`` or ``aws-sdk:s3:getObject``, with its parameters."""

    integration: str
    parameters: dict[str, Any]


class Failure(Exception):
    """What a service answers when it fails."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(error, cause)
        self.error, self.cause = error, cause


Serve = Callable[[Call], Any]


@dataclass
class Execution:
    """An execution that has ended."""

    arn: str
    output: Any
    error: str | None
    cause: str | None
    states: list[str]
    num_events: int
    waits: list[int] = field(default_factory=list)


class _Nobody(ExecutionWorkerCommunication):
    def terminated(self) -> None:
        """Tell nobody."""


def execute(definition: Mapping[str, Any], given: Any, serve: Serve, *, name: str = "e1") -> Execution:
    """Execute a definition to its end.

    Args:
        definition: the machine.
        given: the input.
        serve: answers each request, or raises `Failure`.
        name: of the execution.
    """
    arn = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:search:{name}"
    role = f"arn:aws:iam::{ACCOUNT}:role/search"
    details = EvaluationDetails(
        AWSExecutionDetails(ACCOUNT, REGION, role),
        ExecutionDetails(arn, name, role, copy.deepcopy(given), STARTED_AT),
        StateMachineDetails(MACHINE, "search", StateMachineType.STANDARD, json.dumps(definition)),
    )
    worker: Any = SyncExecutionWorker(details, _Nobody(), None, {})
    waits: list[int] = []
    with _patched(serve, waits):
        worker.start()
    history = worker.env.event_manager.get_event_history()
    return _read(arn, history, waits)


def _read(arn: str, history: list[Any], waits: list[int]) -> Execution:
    states = [event["stateEnteredEventDetails"]["name"] for event in history if "stateEnteredEventDetails" in event]
    for event in history:
        for key in ("stateEnteredEventDetails", "stateExitedEventDetails"):
            text = event.get(key, {}).get("input" if "Entered" in key else "output") or ""
            assert len(text.encode()) <= MAX_BYTES, (event[key]["name"], len(text))
    assert len(history) < MAX_EVENTS
    last = history[-1]
    failed = last.get("executionFailedEventDetails", {})
    output = last.get("executionSucceededEventDetails", {}).get("output")
    return Execution(
        arn,
        None if output is None else json.loads(output),
        failed.get("error") if output is None else None,
        failed.get("cause") if output is None else None,
        states,
        len(history),
        waits,
    )


@contextmanager
def _patched(serve: Serve, waits: list[int]) -> Iterator[None]:
    def task(self: Any, env: Any, **given: Any) -> None:
        integration = f"{self.resource.service_name}:{self.resource.api_action}"
        if self.resource.service_name == "aws-sdk":
            integration = f"aws-sdk:{self.resource.api_name}:{self.resource.api_action}"
        if self.resource.condition is not None:
            integration += f".{str(self.resource.condition).rpartition('.')[2]}"
        call = Call(integration, given["normalised_parameters"])
        check_call(call)
        try:
            answer = serve(call)
        except Failure as failure:
            raise _event(env, failure) from None
        assert len(json.dumps(answer).encode()) <= MAX_BYTES
        env.stack.append(answer)

    def wait(self: Any, env: Any, wait_seconds: int) -> None:
        waits.append(wait_seconds)

    sleepless = SimpleNamespace(sleep=lambda seconds: None)
    parser = SimpleNamespace(parse=_parse)
    services = {type(factory.state_task_service_for(name)) for name in ("aws-sdk", "batch", "events", "sns", "states")}
    with ExitStack() as patches:
        for service in services:
            patches.enter_context(patch.object(service, "_eval_service_task", task))
            patches.enter_context(patch.object(service, "_is_integration_pattern", lambda self: False))
            patches.enter_context(patch.object(service, "_from_error", StateTaskService._from_error))
            patches.enter_context(patch.object(service, "_normalise_parameters", lambda self, *_, **__: None))
            patches.enter_context(patch.object(service, "_before_eval_execution", _nothing))
        patches.enter_context(patch.object(WaitFunction, "_wait_interval", wait))
        patches.enter_context(patch.object(ComparisonVariable, "_eval_body", _compare))
        patches.enter_context(patch.object(ExecutionState, "_construct_error_output_value", staticmethod(_told)))
        patches.enter_context(
            patch("moto.stepfunctions.parser.asl.component.common.retry.retrier_decl.time", sleepless)
        )
        patches.enter_context(patch(f"{execution_worker.__name__}.AmazonStateLanguageParser", parser))
        yield


@cache
def _tree(text: str) -> Any:
    return AmazonStateLanguageParser.parse(text)[1]


def _parse(text: str) -> Any:
    """Parse a definition, which takes moto a second, but once; what is made of the tree belongs to an execution."""
    return Preprocessor().visit(_tree(text)), None


_construct = ExecutionState._construct_error_output_value


def _told(failure_event: FailureEvent) -> Any:
    """Return what a catcher is given; AWS promises that there is "usually" a cause."""
    told = _construct(failure_event)
    return {key: value for key, value in told.items() if key != "Cause" or value}


def _compare(self: Any, env: Any) -> None:
    """Compare as AWS does: `Invalid path: The choice state's condition path references an invalid value`."""
    self.variable.eval(env)
    asked = self.comparison_function.operator_type
    if isinstance(env.stack[-1], NoSuchVariable) and asked is not ComparisonOperatorType.IsPresent:
        details: Any = {"executionFailedEventDetails": {"error": "States.Runtime", "cause": env.stack[-1].path}}
        name = StatesErrorName(StatesErrorNameType.StatesRuntime)
        raise FailureEventException(FailureEvent(env, name, HistoryEventType.ExecutionFailed, details))
    self.comparison_function.eval(env)


def _nothing(self: Any, **_: Any) -> None:
    """Leave parameters as they are."""


def _event(env: Any, failure: Failure) -> Exception:
    if failure.error == "States.Timeout":
        return TimeoutError()
    known = {
        "States.TaskFailed": StatesErrorNameType.StatesTaskFailed,
        "States.DataLimitExceeded": StatesErrorNameType.StatesStatesDataLimitExceeded,
    }
    name = StatesErrorName(known[failure.error]) if failure.error in known else CustomErrorName(failure.error)
    told = TaskFailedEventDetails(error=failure.error, cause=failure.cause, resource="", resourceType="")
    details: Any = {"taskFailedEventDetails": told}
    return FailureEventException(FailureEvent(env, name, HistoryEventType.TaskFailed, details))


@cache
def _models() -> Any:
    return botocore.session.get_session()


def check_call(call: Call) -> None:
    """Check a request against botocore's model; every field must be known, and written in PascalCase."""
    *_, service, operation = call.integration.partition(".")[0].split(":")
    model = _models().get_service_model(_BOTO.get(service, service))
    shape = model.operation_model(operation[:1].upper() + operation[1:]).input_shape
    parameters = _spelled(call.parameters, shape, call.integration)
    report = ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), (call.integration, report.generate_report())


def _spelled(value: Any, shape: Any, where: str) -> Any:
    if shape.type_name == "structure" and isinstance(value, dict):
        members = {name[:1].upper() + name[1:]: name for name in shape.members}
        assert not value.keys() - members, (where, sorted(value.keys() - members))
        return {
            members[key]: _spelled(item, shape.members[members[key]], f"{where}.{key}") for key, item in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [_spelled(item, shape.member, where) for item in value]
    if shape.type_name in {"blob", "string"} and not isinstance(value, str):
        return json.dumps(value)  # Step Functions writes JSON where the service takes a text
    return value
