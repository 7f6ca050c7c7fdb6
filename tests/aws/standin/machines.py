"""Step Functions: moto's interpreter, as the role of the state machine; names, stopping and creation as on AWS."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from moto.core.config import default_user_config
from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult

from tests.aws.standin import iam, integrations, interpreting
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, REGION, RefusedIdentity
from tests.aws.standin.patching import replace

SERVICE = "states.amazonaws.com"
_MANAGED_RULES = {
    "arn:aws:states:::batch:submitJob.sync": "StepFunctionsGetEventsForBatchJobsRule",
    "arn:aws:states:::states:startExecution.sync": "StepFunctionsGetEventsForStepFunctionsExecutionRule",
    "arn:aws:states:::states:startExecution.sync:2": "StepFunctionsGetEventsForStepFunctionsExecutionRule",
}
"""The rules by which AWS hears that what a state waits for has ended; the role must be able to make them."""

_MAX_INPUT_BYTES = 262_144
_PATIENCE_S = 10.0
_STARTING = threading.RLock()


class AccessDenied(AWSError):
    """A role is not what a state machine needs."""

    TYPE = "AccessDeniedException"


class InvalidInput(AWSError):
    """The input of an execution is too long."""

    TYPE = "InvalidExecutionInput"


def start_execution(machine_arn: str, name: str, text: str) -> str:
    """Start an execution and return its ARN."""
    return str(_backend().start_execution(machine_arn, name, text).execution_arn)


def _backend() -> Any:
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    return stepfunctions_parser_backends[ACCOUNT][REGION]


def install(guard: Guard, own_url: str, s3_url: str) -> None:
    """Make moto run state machines, and let their calls come in through this server under their roles."""
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    _patch_clients(guard, own_url, s3_url)

    from moto.stepfunctions import models
    from moto.stepfunctions.parser import models as parser
    from moto.stepfunctions.parser.backend.execution import Execution

    # CloudFormation would put state machines where nothing runs them.
    replace(models, stepfunctions_backends=parser.stepfunctions_parser_backends)
    _patch_executions(parser.StepFunctionsParserBackend)
    _patch_creation(parser.StepFunctionsParserBackend, guard)
    integrations.install()
    interpreting.scale_waits()
    interpreting.patch_paths()
    interpreting.keep_stops()
    details = Execution.get_start_execution_details

    def detail(execution: Any) -> Any:
        """Let ``$$.Execution.StartTime`` be a text, as every state may read it."""
        made: Any = details(execution)
        made.start_time = made.start_time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return made

    replace(Execution, get_start_execution_details=detail)


def _patch_executions(backend_class: Any) -> None:
    """Let names be checked and work once, one start at a time; let a stop take along what was started."""
    from moto.stepfunctions.responses import StepFunctionResponse

    start = backend_class.start_execution

    def start_named(backend: Any, state_machine_arn: str, name: str | None = None, *given: Any, **named: Any) -> Any:
        text = (given[0] if given else named.get("execution_input")) or ""
        if len(text.encode()) > _MAX_INPUT_BYTES:
            raise InvalidInput(f"Invalid State Machine Execution Input: longer than {_MAX_INPUT_BYTES} bytes")
        if name:
            backend._validate_name(name)
        with _STARTING:  # two that come at once under one name are one
            return start(backend, state_machine_arn, name or str(uuid.uuid4()), *given, **named)

    def stop_whole(backend: Any, execution_arn: str, error: str | None = None, cause: str | None = None) -> Any:
        execution = backend.describe_execution(execution_arn)
        deadline = time.monotonic() + _PATIENCE_S
        while not _has_begun(execution) and time.monotonic() < deadline:  # moto forgets a stop before that
            time.sleep(0.01)
        execution.stop(stop_date=dt.datetime.now(dt.UTC), error=error, cause=cause)
        while execution.status == "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.01)
        integrations.STARTED.end_all(execution_arn)
        return execution

    def answer_stop(response: Any) -> ActionResult:
        given = {name: response._get_param(name) for name in ("error", "cause")}
        stopped = response.stepfunction_backend.stop_execution(response._get_param("executionArn"), **given)
        return ActionResult({"stopDate": stopped.stop_date})

    replace(backend_class, start_execution=start_named, stop_execution=stop_whole)
    replace(StepFunctionResponse, stop_execution=answer_stop)


def _has_begun(execution: Any) -> bool:
    """Return whether an execution that was started has come to its first state."""
    env = execution.exec_worker.env
    return env is not None and env.program_state() is not None


def _patch_creation(backend_class: Any, guard: Guard) -> None:
    """Check what AWS checks of a role when a state machine is made or changed."""
    create, update = backend_class.create_state_machine, backend_class.update_state_machine

    def create_checked(backend: Any, name: str, definition: str, roleArn: str, *given: Any, **named: Any) -> Any:
        check_role(guard, definition, roleArn, f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}")
        return create(backend, name, definition, roleArn, *given, **named)

    def update_checked(
        backend: Any, arn: str, definition: str | None = None, role_arn: str | None = None, *given: Any, **named: Any
    ) -> Any:
        there = backend.describe_state_machine(arn)
        check_role(guard, definition or there.definition, role_arn or there.roleArn, arn)
        return update(backend, arn, definition, role_arn, *given, **named)

    replace(backend_class, create_state_machine=create_checked, update_state_machine=update_checked)


def check_role(guard: Guard, definition: str, role: str, machine: str) -> None:
    """Refuse a role that Step Functions cannot take on, or that may not make the rules that ``.sync`` needs.

    Raises:
        AccessDenied: in AWS's words.
    """
    now = dt.datetime.now(dt.UTC)
    try:
        key = guard.identities.make_session(role, SERVICE, "creation", now, {"aws:sourcearn": [machine]})
    except RefusedIdentity:
        told = f"Neither the global service principal {SERVICE}, nor the regional one is authorized to assume the "
        raise AccessDenied(f"{told}provided role.") from None
    rules = {_MANAGED_RULES[name] for name in _resources(json.loads(definition)) if name in _MANAGED_RULES}
    number = guard.recorder.next_number()
    for rule in sorted(rules):
        for action in ("DescribeRule", "PutRule", "PutTargets"):
            asked = iam.Asked(f"events:{action}", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{rule}")
            decision = guard.decide(key.principal, asked)
            guard.record(key.principal, asked, decision, number)
            if decision != iam.ALLOWED:
                raise AccessDenied(f"'{role}' is not authorized to create managed-rule.")


def _resources(node: Any) -> Iterator[str]:
    """Yield the resources of all Task states, in maps and branches too."""
    if isinstance(node, list):
        for entry in node:
            yield from _resources(entry)
    elif isinstance(node, dict):
        if node.get("Type") == "Task" and isinstance(node.get("Resource"), str):
            yield node["Resource"]
        for entry in node.values():
            yield from _resources(entry)


def _patch_clients(guard: Guard, own_url: str, s3_url: str) -> None:
    """Give tasks clients with the credentials of the execution's role; before any module imports moto's own."""
    import boto3
    from botocore.config import Config
    from moto.stepfunctions.parser.asl.utils import boto_client

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        context = {"aws:sourcearn": [_machine_of(state_credentials.role_arn, region)]}
        now = dt.datetime.now(dt.UTC)
        key = guard.identities.make_session(state_credentials.role_arn, SERVICE, "execution", now, context)
        make: Any = boto3.client
        return make(
            service,
            region_name=region,
            endpoint_url=s3_url if service == "s3" else own_url,
            aws_access_key_id=key.access_key,
            aws_secret_access_key=key.secret,
            aws_session_token=key.token,
            config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
        )

    replace(boto_client, boto_client_for=client_for)


def _machine_of(role: str, region: str) -> str:
    """Return the state machine that has a role: the source for which Step Functions takes it on."""
    unknown = f"arn:aws:states:{region}:{ACCOUNT}:stateMachine:unknown"
    return next((str(one.arn) for one in _backend().state_machines if one.roleArn == role), unknown)
