"""What the commands of ``submit stepfunctions`` do."""

from __future__ import annotations

import json
from typing import Any

from jobspec.errors import ExitCode
from submitter.cli.infra_commands import name_of
from submitter.cli.talk import say, write
from submitter.cloud.clients import Clients, make_clients
from submitter.cloud.errors import explained
from submitter.cloud.stack import find_stack
from submitter.machines.names import HOLES
from submitter.machines.search import search_definition


def print_definition(stack: str | None, *, offline: bool) -> int:
    """Print the search machine's definition on stdout, and on stderr the ARN with which it is nested."""
    if offline:
        write(json.dumps(search_definition(HOLES), indent=2))
        return ExitCode.OK
    arn, definition = read_definition(make_clients(), name_of(stack))
    write(json.dumps(definition, indent=2))
    say(
        f'It is {arn}. A Task state with "Resource": "arn:aws:states:::states:startExecution.sync:2" and this ARN as '
        '"StateMachineArn" runs it within a workflow of yours: see examples/nested-workflow.json.'
    )
    return ExitCode.OK


def read_definition(clients: Clients, stack: str) -> tuple[str, dict[str, Any]]:
    """Return the ARN and the definition of a deployed stack's search machine; costs two requests.

    Raises:
        NotFoundError: there is no such stack.
        AccessError: a right is missing, which is named.
    """
    arn = find_stack(clients, stack).search_machine_arn
    with explained("Reading the definition of the search machine"):
        described = clients.stepfunctions.describe_state_machine(stateMachineArn=arn)
    return arn, json.loads(described["definition"])
