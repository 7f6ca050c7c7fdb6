"""Whether uploads and schedules start searches in a stack, and what to type where they do not."""

from __future__ import annotations

from jobspec.errors import NotFoundError
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.stack import Stack


def check_on(stack: Stack, what: str) -> None:
    """Refuse what needs events where they are off.

    Raises:
        NotFoundError: they are.
    """
    if not stack.events:
        raise NotFoundError(
            f"{what} needs events, and they are not enabled in the stack {stack.name!r}. `submit events "
            f"enable{option(stack.name)}` enables them."
        )


def has_image(clients: Clients, stack: Stack) -> bool:
    """Say whether an image was pushed that can plan searches; costs one request."""
    with explained("Looking for the job definition of the plan step"):
        found = clients.batch.describe_job_definitions(jobDefinitionName=f"{stack.name}-plan", status="ACTIVE")
    return bool(found["jobDefinitions"])


def option(stack: str) -> str:
    """Return what to add to a command for a stack."""
    return "" if stack == "foldfleet" else f" --stack {stack}"
