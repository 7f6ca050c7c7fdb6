"""What a Task state does with a service: AWS's spelling of parameters, results and errors, and `.sync` that waits.

moto's interpreter passes parameters on as they stand. AWS takes every field in PascalCase, refuses those that it does
not know, and writes whatever is given for a blob as JSON, a text too.
https://docs.aws.amazon.com/step-functions/latest/dg/supported-services-awssdk.html
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.aws.standin.patching import replace

_LOG = logging.getLogger(__name__)
_BOTO = {"sfn": "stepfunctions", "states": "stepfunctions", "eventbridge": "events"}
"""botocore's names of services where Step Functions has others."""

_SDK = {
    "s3": "S3",
    "batch": "Batch",
    "sfn": "Sfn",
    "cloudwatch": "CloudWatch",
    "eventbridge": "EventBridge",
    "sns": "Sns",
    "sqs": "Sqs",
    "scheduler": "Scheduler",
}
_ENDED = {"SUCCEEDED", "FAILED"}
_PASSING = {"TooManyRequestsException", "ThrottlingException", "ServerException", "InternalFailure"}
"""What the waiting of `.sync` asks again after: it is AWS's own loop, not the state's."""


@dataclass(frozen=True)
class Optimized:
    """An integration with a name of its own: how its errors are called, as version 1 of the SDK for Java did."""

    prefix: str
    service: str
    base: str
    suffix: bool = False


_BATCH = Optimized("Batch", "AWSBatch", "AWSBatchException")
_STATES = Optimized("StepFunctions", "AWSStepFunctions", "AWSStepFunctionsException", suffix=True)
_SNS = Optimized("SNS", "AmazonSNS", "AmazonSNSException", suffix=True)
_EVENTS = Optimized("EventBridge", "AmazonEventBridge", "AmazonEventBridgeException", suffix=True)


class Started:
    """What executions have started and wait for, by the ARN of the execution; what is stopped takes its own along."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, dict[str, Callable[[], Any]]] = {}
        self._stopped: set[str] = set()

    def add(self, execution: str, name: str, end: Callable[[], Any]) -> None:
        """Remember what an execution waits for; what it submitted while it was being stopped ends at once."""
        with self._lock:
            late = execution in self._stopped
            if not late:
                self._ends.setdefault(execution, {})[name] = end
        if late:
            self._end(execution, name, end)

    def done(self, execution: str, name: str) -> None:
        with self._lock:
            self._ends.get(execution, {}).pop(name, None)

    def end_all(self, execution: str) -> None:
        """End whatever an execution waits for, as far as its role may."""
        with self._lock:
            self._stopped.add(execution)
            ends = self._ends.pop(execution, {})
        for name, end in ends.items():
            self._end(execution, name, end)

    def _end(self, execution: str, name: str, end: Callable[[], Any]) -> None:
        try:
            end()
        except (ClientError, BotoCoreError) as error:
            _LOG.warning("%s goes on without %s: %s", name, execution, error)


STARTED = Started()


# --- spelling -------------------------------------------------------------------------------------------------------


def to_pascal(name: str) -> str:
    """Return a field's name as Step Functions spells it."""
    return name[:1].upper() + name[1:]


def to_request(shape: Any, value: Any, path: str = "", *, loose: bool = True) -> Any:
    """Return parameters of a state in the form of the service's API.

    Args:
        shape: botocore's model of them.
        value: as the state has them.
        path: where they are, for errors.
        loose: whether a number or an object will do for a text, as with calls of the SDK.

    Raises:
        ValueError: Step Functions would not start the task.
    """
    if shape.type_name == "structure" and isinstance(value, Mapping):
        known = {to_pascal(name): name for name in shape.members}
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"The field {unknown[0]!r} is not supported by Step Functions (in {path or 'Parameters'})")
        return {
            known[name]: to_request(shape.members[known[name]], one, f"{path}/{name}", loose=loose)
            for name, one in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [to_request(shape.member, one, f"{path}[{at}]", loose=loose) for at, one in enumerate(value)]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {name: to_request(shape.value, one, f"{path}/{name}", loose=loose) for name, one in value.items()}
    return _to_scalar(shape, value, path, loose)


def _to_scalar(shape: Any, value: Any, path: str, loose: bool) -> Any:
    kind = shape.type_name
    if kind == "blob":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if kind == "string" and not isinstance(value, str):
        if not loose:
            raise ValueError(f"The Parameters could not be used to start the Task: {path} must be a STRING")
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if kind in {"integer", "long"}:
        if isinstance(value, str | bool) and not loose:
            raise ValueError(f"The Parameters could not be used to start the Task: {path} must be a number")
        return int(value)
    if kind in {"structure", "list", "map"}:
        raise ValueError(f"The Parameters could not be used to start the Task: {path} must be a {kind}")
    return value


def to_result(shape: Any, value: Any) -> Any:
    """Return a service's answer as a state's result: PascalCase, but for keys that are the user's own."""
    if hasattr(value, "read"):
        return value.read().decode(errors="replace")
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if shape.type_name == "structure":
        return {to_pascal(name): to_result(shape.members[name], one) for name, one in value.items()}
    if shape.type_name == "list":
        return [to_result(shape.member, one) for one in value]
    if shape.type_name == "map":
        return {name: to_result(shape.value, one) for name, one in value.items()}
    return value


def call(client: Any, operation: str, parameters: Mapping[str, Any], *, loose: bool = True) -> Any:
    """Call a service with a state's parameters and return the state's result."""
    model = client.meta.service_model.operation_model(operation)
    request = to_request(model.input_shape, parameters, loose=loose)
    answer = client._make_api_call(operation, request)
    answer.pop("ResponseMetadata", None)
    return to_result(model.output_shape, answer) if model.output_shape else {}


# --- errors ---------------------------------------------------------------------------------------------------------


def name_sdk_error(service: str, error: Exception) -> tuple[str, str]:
    """Return the name and the cause of an error of an SDK integration, as version 2 of the SDK for Java has them."""
    name = _SDK.get(service.lower(), to_pascal(service))
    if not isinstance(error, ClientError):
        return f"{name}.SdkClientException", str(error)
    kind = type(error).__name__
    kind = name if kind == "ClientError" else kind
    told = error.response.get("ResponseMetadata", {})
    known = f"Service: {name}, Status Code: {told.get('HTTPStatusCode')}, Request ID: {told.get('RequestId')}"
    suffix = "" if kind.endswith("Exception") else "Exception"
    return f"{name}.{kind}{suffix}", f"{error.response['Error'].get('Message')} ({known})"


def name_optimized_error(integration: Optimized, error: Exception) -> tuple[str, str]:
    """Return the name and the cause of an error of an optimized integration."""
    if not isinstance(error, ClientError):
        return f"{integration.prefix}.SdkClientException", str(error)
    code, told = error.response["Error"]["Code"], error.response.get("ResponseMetadata", {})
    kind = integration.base
    if type(error).__name__ != "ClientError":
        kind = f"{code}Exception" if integration.suffix and not code.endswith("Exception") else code
    known = [
        f"Service: {integration.service}",
        f"Status Code: {told.get('HTTPStatusCode')}",
        f"Error Code: {code}",
        f"Request ID: {told.get('RequestId')}",
        "Proxy: null",
    ]
    return f"{integration.prefix}.{kind}", f"{error.response['Error'].get('Message')} ({'; '.join(known)})"


# --- moto's interpreter ---------------------------------------------------------------------------------------------


def install() -> None:
    """Put these in the place of moto's; its clients have been replaced already."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_aws_sdk as sdk,
    )
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_batch as batch,
    )
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_events as events,
    )
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_sfn as sfn,
    )
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_sns as sns,
    )

    for service, integration, parts in (
        (sdk.StateTaskServiceAwsSdk, None, {}),
        (batch.StateTaskServiceBatch, _BATCH, {"_build_sync_resolver": _wait_for_job}),
        (
            sfn.StateTaskServiceSfn,
            _STATES,
            {"_build_sync_resolver": _wait_for_execution, "_build_sync2_resolver": _wait_for_execution_and_read},
        ),
    ):
        loose = integration is not _BATCH
        replace(service, _eval_service_task=_make_evaluate(loose), **parts)
        _name_errors(service, integration)
    _name_errors(sns.StateTaskServiceSns, _SNS)
    _name_errors(events.StateTaskServiceEvents, _EVENTS)
    replace(batch.StateTaskServiceBatch, _attach_aws_environment_variables=staticmethod(_mark_as_managed))


def _make_evaluate(loose: bool) -> Callable[..., None]:
    def evaluate(
        self: Any, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        client = _client(self, resource_runtime_part, state_credentials)
        operation = to_pascal(self.resource.api_action)
        if operation not in client.meta.service_model.operation_names:
            raise ValueError(f"{self.resource.resource_arn} is no action that Step Functions knows")
        answer = call(client, operation, normalised_parameters, loose=loose)
        if self.resource.condition in {"sync", "sync:2"}:
            _remember(_execution_of(env), client, answer)
        env.stack.append(answer)

    return evaluate


def _remember(execution: str, client: Any, answer: Any) -> None:
    """Remember what a state will wait for as soon as it is there: an execution that was stopped comes no further."""
    if (job := answer.get("JobId")) is not None:
        STARTED.add(execution, job, lambda: client.terminate_job(jobId=job, reason="The execution was stopped"))
    if (child := answer.get("ExecutionArn")) is not None:
        STARTED.add(execution, child, lambda: client.stop_execution(executionArn=child, cause="The parent was stopped"))


def _execution_of(env: Any) -> str:
    return str(env.states.context_object.context_object_data["Execution"]["Id"])


def _client(task: Any, runtime: Any, credentials: Any) -> Any:
    from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for

    name = task.resource.api_name.lower()
    return boto_client_for(service=_BOTO.get(name, name), region=runtime.region, state_credentials=credentials)


def _name_errors(service: Any, integration: Optimized | None) -> None:
    usual = service._from_error

    def from_error(self: Any, env: Any, ex: Exception) -> Any:
        if not isinstance(ex, ClientError | BotoCoreError):
            return usual(self, env=env, ex=ex)
        if integration is None:
            error, cause = name_sdk_error(self.resource.api_name, ex)
        else:
            error, cause = name_optimized_error(integration, ex)
        return _fail(self, env, error, cause)

    replace(service, _from_error=from_error)


def _fail(task: Any, env: Any, error: str, cause: str) -> Any:
    """Return the failure of a task."""
    from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
    from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
    from moto.stepfunctions.parser.asl.component.common.error_name.error_name import ErrorName
    from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent
    from moto.stepfunctions.parser.asl.eval.event import event_detail

    details = TaskFailedEventDetails(
        resource=task._get_sfn_resource(), resourceType=task._get_sfn_resource_type(), error=error, cause=cause
    )
    make: Any = event_detail.EventDetails
    name = ErrorName(error_name=error) if error.startswith("States.") else CustomErrorName(error_name=error)
    return FailureEvent(
        env=env,
        error_name=name,
        event_type=HistoryEventType.TaskFailed,
        event_details=make(taskFailedEventDetails=details),
    )


def _raise(task: Any, env: Any, cause: Any) -> None:
    from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEventException

    text = json.dumps(cause, ensure_ascii=False, separators=(",", ":"))
    raise FailureEventException(_fail(task, env, "States.TaskFailed", text))


def _mark_as_managed(parameters: dict[str, Any]) -> None:
    """Add the variable that Step Functions gives every container whose end it waits for."""
    overrides = parameters.setdefault("ContainerOverrides", {})
    mine = {"Name": "MANAGED_BY_AWS", "Value": "STARTED_BY_STEP_FUNCTIONS"}
    parameters["ContainerOverrides"] = {**overrides, "Environment": [*overrides.get("Environment", []), mine]}


def _wait_for_job(
    self: Any, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
) -> Callable[[], Any]:
    client = _client(self, resource_runtime_part, state_credentials)
    execution, job = _execution_of(env), env.stack.pop()["JobId"]

    def ask() -> Any:
        try:
            found = call(client, "DescribeJobs", {"Jobs": [job]})["Jobs"][0]
        except ClientError as error:
            if error.response["Error"]["Code"] in _PASSING:
                return None
            raise
        if found["Status"] not in _ENDED:
            return None
        STARTED.done(execution, job)
        if found["Status"] == "FAILED":
            _raise(self, env, found)
        return found

    return ask


def _wait_for_execution(
    self: Any, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
) -> Callable[[], Any]:
    client = _client(self, resource_runtime_part, state_credentials)
    parent, child = _execution_of(env), env.stack.pop()["ExecutionArn"]

    def ask() -> Any:
        found = call(client, "DescribeExecution", {"ExecutionArn": child})
        if found["Status"] == "RUNNING":
            return None
        STARTED.done(parent, child)
        if found["Status"] != "SUCCEEDED":
            _raise(self, env, found)
        return found

    return ask


def _wait_for_execution_and_read(self: Any, **named: Any) -> Callable[[], Any]:
    """Return what waits with ``.sync:2``: the child's output is JSON there, not text."""
    ask = _wait_for_execution(self, **named)

    def read() -> Any:
        found = ask()
        if found is not None:
            found |= {name: json.loads(found[name]) for name in ("Input", "Output") if name in found}
        return found

    return read
