"""Step Functions: moto's interpreter, as the role of the state machine, with AWS's spelling of Batch's parameters."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

from moto.core.config import default_user_config

from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, REGION
from tests.aws.standin.patching import replace

SERVICE = "states.amazonaws.com"
_MAPS = {"Parameters", "Tags", "parameters", "tags"}
"""Objects of Batch whose keys are the user's own."""


def start_execution(machine_arn: str, name: str, text: str) -> str:
    """Start an execution and return its ARN."""
    from moto.stepfunctions.parser.models import stepfunctions_parser_backends

    return str(stepfunctions_parser_backends[ACCOUNT][REGION].start_execution(machine_arn, name, text).execution_arn)


def install(guard: Guard, own_url: str, s3_url: str) -> None:
    """Make moto run state machines, and let their calls come in through this server under their roles."""
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    _patch_clients(guard, own_url, s3_url)

    from moto.stepfunctions import models
    from moto.stepfunctions.parser import models as parser

    # CloudFormation would put state machines where nothing runs them.
    replace(models, stepfunctions_backends=parser.stepfunctions_parser_backends)
    start = parser.StepFunctionsParserBackend.start_execution

    def start_named(backend: Any, state_machine_arn: str, name: str | None = None, *given: Any, **named: Any) -> Any:
        return start(backend, state_machine_arn, name or str(uuid.uuid4()), *given, **named)

    replace(parser.StepFunctionsParserBackend, start_execution=start_named)
    _patch_batch()


def _patch_clients(guard: Guard, own_url: str, s3_url: str) -> None:
    """Give tasks clients with the credentials of the execution's role; before any module imports moto's own."""
    import boto3
    from botocore.config import Config
    from moto.stepfunctions.parser.asl.utils import boto_client

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:
        context = {"aws:sourcearn": [f"arn:aws:states:{region}:{ACCOUNT}:stateMachine:any"]}
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


def _patch_batch() -> None:
    """Turn the names of parameters into Batch's, and those of its answers into Step Functions'."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
        state_task_service_batch as module,
    )

    service: Any = module.StateTaskServiceBatch
    evaluate, resolve = service._eval_service_task, service._build_sync_resolver

    def evaluate_lower(
        self: Any, env: Any, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        evaluate(
            self,
            env=env,
            resource_runtime_part=resource_runtime_part,
            normalised_parameters=rename(normalised_parameters, _lower),
            state_credentials=state_credentials,
        )
        env.stack.append(rename(env.stack.pop(), _upper))

    def resolve_upper(self: Any, **named: Any) -> Callable[[], Any]:
        ask = resolve(self, **named)

        def answer() -> Any:
            found = ask()
            return found if found is None else rename(found, _upper)

        return answer

    replace(service, _eval_service_task=evaluate_lower, _build_sync_resolver=resolve_upper)


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def rename(node: Any, spell: Callable[[str], str]) -> Any:
    """Spell the keys of an object another way, but those that are the user's own."""
    if isinstance(node, list):
        return [rename(entry, spell) for entry in node]
    if isinstance(node, dict):
        return {spell(key): value if key in _MAPS else rename(value, spell) for key, value in node.items()}
    return node
