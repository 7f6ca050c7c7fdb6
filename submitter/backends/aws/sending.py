"""Send a request once, though AWS Batch knows no idempotency: a lost answer is looked for by name first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from jobspec.errors import TryLaterError
from jobspec.stores.s3errors import code_of, status_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 1.0
"""Doubled from try to try: half a minute in all, as AWS's own clients wait."""

_NOT_CARRIED_OUT = {
    "TooManyRequestsException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "SlowDown",
}
"""Refusals that say that nothing was done, and that the same may succeed later."""

_NEVER_SENT = {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"}


def send(clients: Clients, call: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep) -> str:
    """Send a request and return its id; after a lost answer, that of the one which was sent already.

    Batch accepts any number of requests of one name, so the client must not send again by itself. Where the first one
    is not to be seen by its name yet, there are two in the end, which costs money and changes no result.

    Raises:
        AccessError: a right is missing, which is named.
        TryLaterError: Batch throttles, fails or does not answer, at every try; or the queue is disabled.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    parameters: dict[str, Any] = dict(call)
    wait = FIRST_WAIT_SECONDS
    for number in range(1, ATTEMPTS + 1):
        try:
            if number == ATTEMPTS:
                with explained(f"Sending {call['jobName']} to AWS Batch"):
                    return clients.batch_once.submit_job(**parameters)["jobId"]
            return clients.batch_once.submit_job(**parameters)["jobId"]
        except (BotoCoreError, ClientError) as error:
            if not _is_passing(error):
                _refuse_disabled(error, call)
                with explained(f"Sending {call['jobName']} to AWS Batch"):
                    raise
            log.info("submit_unanswered name=%s try=%d error=%s", call["jobName"], number, error)
            sleep(wait)
            wait *= 2
            if _may_be_carried_out(error) and (found := find(clients, call["jobQueue"], call["jobName"])):
                return found
    raise AssertionError("the last try returns or raises")


def find(clients: Clients, queue: str, name: str) -> str | None:
    """Return the id of the oldest request of this name in a queue, None if there is none; ended ones count for a week.

    Names that begin with this one are no matches; Batch compares without case.
    """
    found: list[tuple[int, str]] = []
    with explained(f"Looking for {name} in AWS Batch"):
        pages = clients.batch.get_paginator("list_jobs")
        for page in pages.paginate(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [name]}]):
            named = [summary for summary in page["jobSummaryList"] if summary["jobName"] == name]
            found.extend((summary.get("createdAt", 0), summary["jobId"]) for summary in named)
    return min(found)[1] if found else None


def find_beginning(clients: Clients, queue: str, beginning: str) -> list[str]:
    """Return the ids of all requests in a queue whose names begin so, the oldest first; one call for each hundred."""
    found: list[tuple[int, str, str]] = []
    with explained(f"Looking for {beginning}* in AWS Batch"):
        pages = clients.batch.get_paginator("list_jobs")
        for page in pages.paginate(jobQueue=queue, filters=[{"name": "JOB_NAME", "values": [f"{beginning}*"]}]):
            named = [summary for summary in page["jobSummaryList"] if summary["jobName"].startswith(beginning)]
            found.extend((summary.get("createdAt", 0), summary["jobName"], summary["jobId"]) for summary in named)
    return [job_id for _, _, job_id in sorted(found)]


def _refuse_disabled(error: BotoCoreError | ClientError, call: Mapping[str, Any]) -> None:
    words = message_of(error)
    if "queue" in words.lower() and "disabled" in words.lower():
        queue = str(call["jobQueue"]).rpartition("/")[2]
        raise TryLaterError(
            f"The queue {queue} is disabled, so that {call['jobName']} was not sent ({words.rstrip('.')}). Type `aws "
            f"batch update-job-queue --job-queue {queue} --state ENABLED`, or ask who disabled it; then the same "
            "command."
        ) from None


def _is_passing(error: BotoCoreError | ClientError) -> bool:
    if not status_of(error):  # no answer: lost on either way, or settings that will never work
        return _kinds(error) & {"HTTPClientError", "ConnectionError"} != set()
    return code_of(error) in _NOT_CARRIED_OUT or status_of(error) >= 500 or status_of(error) == 429


def _may_be_carried_out(error: BotoCoreError | ClientError) -> bool:
    return code_of(error) not in _NOT_CARRIED_OUT and not _kinds(error) & _NEVER_SENT


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}
