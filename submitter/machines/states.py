"""The building blocks of the definitions: states in the Amazon States Language, with JSONPath, and nothing else.

Every task gives up some day, is retried with jitter, and says where a failure leads. Only texts of this package stand
in templates (``States.Format``); what comes from outside travels as a JSON value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from submitter.machines.names import Names

State = dict[str, Any]

API_SECONDS: Final = 60
"""What one request may take; all of them answer within a second or never."""

THROTTLED: Final = ("Batch.AWSBatchException", "Batch.BatchException", "Batch.TooManyRequestsException")
"""How a throttled SubmitJob is called; nothing was made then, so that it may be sent again without a look.

Step Functions passes on an error that the service's model does not name as that of the service.
"""

UNCLEAR: Final = ("Batch.ServerException", "Batch.SdkClientException")
"""A failure of AWS Batch itself, or a broken connection: what was asked for may have happened all the same."""

ALL: Final = "States.ALL"
TIMEOUT: Final = "States.Timeout"
JOB_FAILED: Final = "States.TaskFailed"


def minify(definition: Mapping[str, Any]) -> str:
    """Return a definition as the shortest JSON."""
    return json.dumps(definition, separators=(",", ":"))


def resource(names: Names, integration: str) -> str:
    """Return the ARN of an integration such as ``batch:submitJob.sync``."""
    return f"arn:{names.partition}:states:::{integration}"


def catch(to: str, error: str = ALL, path: str = "$.error") -> State:
    """Return where an error leads; what is known of it lies under ``path`` then."""
    return {"ErrorEquals": [error], "ResultPath": path, "Next": to}


def request(names: Names, integration: str, parameters: State, *, then: str, failed: str, **more: Any) -> State:
    """Return a request that may be repeated; ``failed`` is where it leads when all tries failed."""
    return {
        # What is alike in all stands together: the template says it once.
        "Type": "Task",
        "TimeoutSeconds": API_SECONDS,
        "Retry": [backoff((ALL,), interval=2, attempts=6, longest=60)],
        "Resource": resource(names, integration),
        "Parameters": parameters,
        "Catch": [catch(failed, path=more.pop("error", "$.unread"))],
        "ResultPath": None,
        "Next": then,
        **more,
    }


def step(names: Names, parameters: State, *, then: str, catches: list[State], seconds: int | str, again: bool) -> State:
    """Return a job of AWS Batch that is waited for, for so long (a path, or a number); it may be started twice.

    ``again``: once more if it fails, as one does that was killed: AWS Batch tries that again for a lost host alone.
    """
    return {
        "Type": "Task",
        "Resource": resource(names, "batch:submitJob.sync"),
        "Parameters": {"JobQueue": names.queue_arn, **parameters},
        ("TimeoutSeconds" if isinstance(seconds, int) else "TimeoutSecondsPath"): seconds,
        "Retry": [
            backoff((*THROTTLED, *UNCLEAR), interval=5, attempts=8, longest=300),
            *([backoff((JOB_FAILED,), interval=10, attempts=1, longest=60)] if again else []),
        ],
        "Catch": catches,
        "ResultPath": None,
        "Next": then,
    }


def backoff(errors: tuple[str, ...], *, interval: int, attempts: int, longest: int) -> State:
    """Return a retrier that doubles its interval; the jitter keeps executions from coming back at the same moment."""
    return {
        "ErrorEquals": list(errors),
        "IntervalSeconds": interval,
        "MaxAttempts": attempts,
        "MaxDelaySeconds": longest,
        "JitterStrategy": "FULL",
    }


def read_json(names: Names, bucket: State, key: State, *, then: str, failed: str, error: str = "$.unread") -> State:
    """Return the reading of an object that holds JSON; it lies under ``$.got.doc`` then."""
    parameters = {**bucket, **key}
    return request(
        names,
        "aws-sdk:s3:getObject",
        parameters,
        then=then,
        failed=failed,
        ResultSelector={"doc.$": "States.StringToJson($.Body)"},
        ResultPath="$.got",
        # States.ALL holds neither this one, nor what nothing can catch.
        Catch=[catch(failed, "States.DataLimitExceeded", error), catch(failed, path=error)],
    )


def copy(source: str, target: str, then: str) -> State:
    """Return a state that puts one value beside the others."""
    return {"Type": "Pass", "InputPath": source, "ResultPath": target, "Next": then}


def uncaused(error: str, then: str) -> State:
    """Return a state for an error that is a name and nothing else; its cause is that name then.

    An error "usually" has a cause (Step Functions, Error Output); a timeout may have none.
    """
    return copy(f"{error}.Error", f"{error}.Cause", then)


def put(value: Any, target: str, then: str) -> State:
    """Return a state that puts a constant beside the values."""
    return {"Type": "Pass", "Result": value, "ResultPath": target, "Next": then}


def compose(parameters: State, target: str, then: str) -> State:
    """Return a state that puts an object beside the values."""
    return {"Type": "Pass", "Parameters": parameters, "ResultPath": target, "Next": then}


def choice(*rules: State, default: str) -> State:
    """Return a choice between states."""
    return {"Type": "Choice", "Choices": list(rules), "Default": default}


def when(path: str, operator: str, value: Any, to: str | None = None) -> State:
    """Return a rule of a choice, or without ``to`` a part of one."""
    return {"Variable": path, operator: value} | ({} if to is None else {"Next": to})


def both(first: State, second: State, to: str) -> State:
    """Return a rule that asks for both."""
    return {"And": [first, second], "Next": to}


def either(rules: list[State], to: str) -> State:
    """Return a rule that asks for one of several."""
    return {"Or": rules, "Next": to}


def join(*groups: Mapping[str, State]) -> dict[str, State]:
    """Return the states of all groups.

    Raises:
        ValueError: two have the same name.
    """
    joined: dict[str, State] = {}
    for group in groups:
        if twice := joined.keys() & group.keys():
            raise ValueError(f"Two states have the name {min(twice)}.")
        joined |= group
    return joined
