"""How executions end, and how they tell of it: one event, a notice, an outcome that people can read, and a metric."""

from __future__ import annotations

from typing import Any, Final, Literal

from jobspec.stores.layout import Layout
from submitter.machines.names import Names
from submitter.machines.states import State, choice, compose, either, request, when

SOURCE: Final = "foldfleet"
"""The source of our events, and the namespace of our metric."""

STARTED: Final = "foldfleet Run Started"
FINISHED: Final = "foldfleet Run Finished"
FAILED: Final = "foldfleet Run Failed"
REFUSED: Final = "foldfleet Upload Refused"

METRIC: Final = "Refused"
NO_IMAGE: Final = "foldfleet.NoImage"
FORMAT_VERSION: Final = 1
"""Of the events' detail and of outcomes; see docs/events.schema.json."""


def end(kind: str, state: str, message: str, error: str = "") -> State:
    """Return what the telling states tell; a message that begins with ``$`` or ``States.`` is computed."""
    computed = message.startswith(("$.", "States."))
    return {"type": kind, "state": state, "error": error, "message.$" if computed else "message": message}


def failure(error: str, message: str) -> State:
    """Return what a failed execution tells."""
    return end(FAILED, "failed", message, f"foldfleet.{error}")


def telling(names: Names, detail: State, *, notify: bool, then: str, silent: str | None = None) -> dict[str, State]:
    """Return the states that tell of ``$.end``: a notice if there is a topic, and an event on the default bus.

    Neither may hold up an execution: what cannot be told is passed over. What was told stays under ``$.told``.

    Args:
        names: the stack's.
        detail: what is told beside ``$.end``, ``$.upload`` and ``$.schedule``; of another execution than this one also
            which, and since when.
        notify: publish to ``$.topic``, which is empty where there is none.
        then: where both lead.
        silent: where an end leads whose type is empty: it is neither; needs ``notify``.
    """
    told = {
        "format_version": FORMAT_VERSION,
        "stack": names.stack,
        "execution.$": "$$.Execution.Id",
        "started.$": "$$.Execution.StartTime",
        "state.$": "$.end.state",
        "message.$": "$.end.message",
        "upload.$": "$.upload",
        "schedule.$": "$.schedule",
        **detail,
    }
    entry = {"Source": SOURCE, "DetailType.$": "$.end.type", "Detail.$": "$.told"}
    states = {
        "Tell": compose(told, "$.told", "Topic" if notify else "Event"),
        "Event": request(names, "events:putEvents", {"Entries": [entry]}, then=then, failed=then),
    }
    if notify:
        notice = {"TopicArn.$": "$.topic", "Subject.$": "$.end.type", "Message.$": "$.told"}
        unsaid = [] if silent is None else [when("$.end.type", "StringEquals", "", silent)]
        states["Topic"] = choice(*unsaid, when("$.topic", "StringMatches", "arn:*", "Notify"), default="Event")
        states["Notify"] = request(names, "sns:publish", notice, then="Event", failed="Event")
    return states


Counted = Literal["refused", "all", "none"]
"""Which ends the metric counts; where no image can start a search, that is a refusal, too."""


def keeping(names: Names, *, then: str, count: Counted = "refused") -> dict[str, State]:
    """Return the states that keep ``$.told`` as an outcome, and count it.

    Its key is made of the execution that it tells of: told twice, it is one object. Step Functions writes what it puts
    into S3 as JSON, a text in quotation marks: so it is an object at once.
    """
    day, time = (f"States.ArrayGetItem(States.StringSplit($.told.started,'T'),{part})" for part in (0, 1))
    parts = f"{day},{time},$.end.state,$.token"
    outcome = {
        "Bucket": names.bucket,
        "Key.$": f"States.Format('{names.store_prefix}/{Layout.outcome('{}', '{}-{}-{}')}',{parts})",
        "ContentType": "application/json",
        "Body.$": "$.told",
    }
    after = {"refused": "Kind", "all": "Metric", "none": then}[count]
    states = {"Keep": request(names, "aws-sdk:s3:putObject", outcome, then=after, failed=after)}
    if count != "none":
        dimensions = [{"Name": "Stack", "Value": names.stack}]
        metric: dict[str, Any] = {
            "Namespace": SOURCE,
            "MetricData": [{"MetricName": METRIC, "Value": 1, "Unit": "Count", "Dimensions": dimensions}],
        }
        states["Metric"] = request(names, "aws-sdk:cloudwatch:putMetricData", metric, then=then, failed=then)
    if count == "refused":
        counted = [when("$.end.state", "StringEquals", "refused"), when("$.end.error", "StringEquals", NO_IMAGE)]
        states["Kind"] = choice(either(counted, "Metric"), default=then)
    return states
