"""Follow CloudFormation at work: say each thing it has done, and why it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobspec.errors import AccessError, FoldfleetError, InterruptedRun, LimitError, TryLaterError, UsageError
from submitter.cloud.changes import Sleep
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.type_defs import StackEventTypeDef

POLL_S = 5.0
_MAX_POLLS = 720
"""An hour; a stack takes three to six minutes."""

_STALE_LOOKS = 6
"""For so many looks a stack at rest to which nothing has happened is taken for one that has not begun to change."""

_MAX_EVENTS = 200
_DONE = {"CREATE_COMPLETE": "made", "UPDATE_COMPLETE": "changed", "DELETE_COMPLETE": "removed"}
_KEPT = {"DELETE_SKIPPED": "kept"}
_LIMIT_WORDS = ("limit exceeded", "limitexceeded", "quota", "maximum number of", "too many")

Tell = Callable[[str], None]


@dataclass
class Follower:
    """Follow one stack from now on; ``sleep`` waits between two looks."""

    clients: Clients
    stack_id: str
    name: str
    tell: Tell
    sleep: Sleep
    _seen: set[str] = field(default_factory=set)
    _has_news: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)

    def begin(self) -> None:
        """Take note of what happened before, so that it is not told as news."""
        self._seen |= {event["EventId"] for event in self._events()}

    def wait(self) -> str:
        """Return the status at which the stack comes to rest; DELETE_COMPLETE if it is gone.

        Raises:
            InterruptedRun: Ctrl-C; AWS goes on.
            TryLaterError: it takes more than an hour.
        """
        try:
            for number in range(_MAX_POLLS):
                status = self._status()
                self._tell_news()
                has_begun = self._has_news or status == "DELETE_COMPLETE" or number >= _STALE_LOOKS
                if has_begun and not status.endswith("_IN_PROGRESS"):
                    return status
                self.sleep(POLL_S)
        except KeyboardInterrupt:
            raise InterruptedRun(
                f"Stopped waiting. AWS goes on with the stack {self.name!r}: `submit infra status --stack {self.name}` "
                "shows how far it is, and the same command again goes on from there."
            ) from None
        raise TryLaterError(
            f"The stack {self.name!r} has been changing for an hour. `submit infra status --stack {self.name}` shows "
            "how far it is."
        )

    def _status(self) -> str:
        from botocore.exceptions import ClientError

        with explained(f"Reading the stack {self.name!r}"):
            try:
                stacks = self.clients.cloudformation.describe_stacks(StackName=self.stack_id)["Stacks"]
            except ClientError as error:
                if "does not exist" in message_of(error):
                    return "DELETE_COMPLETE"
                raise
        return str(stacks[0]["StackStatus"]) if stacks else "DELETE_COMPLETE"

    def _events(self) -> Iterator[StackEventTypeDef]:
        """Yield the newest events, the newest first."""
        from botocore.exceptions import ClientError

        with explained(f"Reading what happens to the stack {self.name!r}"):
            try:
                pages = self.clients.cloudformation.get_paginator("describe_stack_events").paginate(
                    StackName=self.stack_id, PaginationConfig={"MaxItems": _MAX_EVENTS}
                )
                for page in pages:
                    yield from page["StackEvents"]
            except ClientError as error:
                if "does not exist" not in message_of(error):
                    raise

    def _tell_news(self) -> None:
        news: list[StackEventTypeDef] = []
        for event in self._events():
            if event["EventId"] in self._seen:
                break
            news.append(event)
        self._has_news = self._has_news or bool(news)
        for event in reversed(news):
            self._seen.add(event["EventId"])
            self._tell_event(event)

    def _tell_event(self, event: StackEventTypeDef) -> None:
        resource, status = event.get("LogicalResourceId", ""), str(event.get("ResourceStatus", ""))
        reason = " ".join(str(event.get("ResourceStatusReason", "")).split())
        if status.endswith("_FAILED"):
            # The others are cancelled because one failed; their reasons say nothing.
            if "cancelled" not in reason.lower():
                self.failures.append((resource, reason))
                self.tell(f"{resource}: {reason or status}")
        elif event.get("PhysicalResourceId") != event.get("StackId") and (word := {**_DONE, **_KEPT}.get(status)):
            self.tell(f"{resource} {word}")


def explain_failure(name: str, status: str, failures: list[tuple[str, str]], remedy: str) -> FoldfleetError:
    """Return the error for a stack that did not become what it should."""
    resource, reason = failures[0] if failures else ("", "CloudFormation gives no reason")
    lead = f"The stack {name!r} came to rest as {status}. {resource + ': ' if resource else ''}{reason.rstrip('.')}."
    lowered = reason.lower()
    if "not authorized" in lowered or "accessdenied" in lowered or "access denied" in lowered:
        return AccessError(
            f"{lead} Allow that action to the credentials in use (`submit infra up --show-permissions` prints all that "
            f"are needed), then {remedy}."
        )
    if "attached to entities" in lowered:
        return UsageError(
            f"{lead} Whoever got the stack's policy still has it: take it from them (in the console, IAM, Policies, "
            f"Entities attached), then {remedy}."
        )
    if any(words in lowered for words in _LIMIT_WORDS):
        return LimitError(f"{lead} Ask for a higher quota or remove what you no longer use, then {remedy}.")
    return UsageError(f"{lead} Mend that, then {remedy}.")
