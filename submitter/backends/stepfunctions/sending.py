"""Start, look at and stop executions. Names make starting idempotent, so that the client may send again by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobspec.errors import NotFoundError, TryLaterError
from jobspec.stores.s3errors import code_of
from submitter.backends.stepfunctions.request import Call, execution_arn, name_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

_GONE = {"StateMachineDoesNotExist", "StateMachineDeleting"}


def start(clients: Clients, call: Call) -> str:
    """Start an execution and return its ARN; one of this name that is there already was started by the same request.

    Raises:
        AccessError: a right is missing, which is named.
        NotFoundError: the stack has no such machine any more.
        TryLaterError: Step Functions throttles, fails or does not answer, at every try.
    """
    from botocore.exceptions import ClientError

    with explained(f"Starting the execution {call['name']}"):
        try:
            return clients.stepfunctions.start_execution(**call)["executionArn"]
        except ClientError as error:
            if code_of(error) == "ExecutionAlreadyExists":
                return execution_arn(call["stateMachineArn"], call["name"])
            if code_of(error) in _GONE:
                raise NotFoundError(
                    f"The stack has no state machine {call['stateMachineArn']}: {message_of(error)} `submit infra up` "
                    "makes it again, then the same command."
                ) from None
            if code_of(error) == "ExecutionLimitExceeded":
                raise TryLaterError(
                    f"Step Functions runs as many executions as this account may have: {message_of(error)} Type the "
                    "same command again when some have ended."
                ) from None
            raise


def describe(clients: Clients, execution: str) -> Mapping[str, Any] | None:
    """Return what DescribeExecution tells, None of one that is not known: never started, or ended 90 days ago."""
    from botocore.exceptions import ClientError

    with explained(f"Asking Step Functions how {name_of(execution)} stands"):
        try:
            return clients.stepfunctions.describe_execution(executionArn=execution)
        except ClientError as error:
            if code_of(error) == "ExecutionDoesNotExist":
                return None
            raise


def stop(clients: Clients, execution: str, why: str) -> None:
    """Stop an execution; one that is not known is no error."""
    from botocore.exceptions import ClientError

    with explained(f"Ending {name_of(execution)}"):
        try:
            clients.stepfunctions.stop_execution(executionArn=execution, error="foldfleet.Cancelled", cause=why)
        except ClientError as error:
            if code_of(error) != "ExecutionDoesNotExist":
                raise
