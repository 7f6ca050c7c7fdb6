"""The one Map of the search machine: it sends the arrays of a round and waits for them, or follows another's work.

Both need the same loop. An array whose request failed in an unclear way (the acknowledgement was lost) may be under
way: it is looked up by its name, as is a round of another owner who died between sending it and noting that down.
An item ends in a text: ``ok``, or why it did not go well, beginning with ``over`` where the time was up.
"""

from __future__ import annotations

from typing import Any, Final

from submitter.machines.names import Names
from submitter.machines.states import (
    JOB_FAILED,
    THROTTLED,
    TIMEOUT,
    State,
    backoff,
    both,
    catch,
    choice,
    compose,
    copy,
    either,
    put,
    request,
    resource,
    uncaused,
    when,
)

FIRST_WAIT: Final = 15
"""Seconds before the first look at what is not waited for by ``.sync``; each later one is that much longer.

A day takes 107 looks of 15 events each. Owners are followed one after the other, so that the history stays far below
its 25,000 events: where one took long, the others are mostly over.
"""

WIDTH: Final = 40
"""How many arrays are sent at once; a Map of this kind can do no more."""

REASONS: Final = "States.JsonToString(States.Array($.JobSummaryList[*].StatusReason,$.JobSummaryList[*].Container))"
"""Why jobs in a list ended or wait, as one text; a path with a star finds nothing without complaint."""

TRIES: Final = 3
"""How often an array is sent of which no request is found."""

UNDER_WAY: Final = ("*ING*", "*SUBMITTED*", "*RUNNABLE*")
"""States of requests and executions that have not ended, as parts of a text."""


def following(names: Names, *, then: str, failed: str) -> State:
    """Return the Map over ``$.items``: arrays as in a plan, or owners as in an order that says ``follow``.

    ``$.width`` says how many at once.
    """
    states = _sending(names) | _looking(names) | _asking(names) | _explaining(names)
    item: dict[str, Any] = {
        "item.$": "$$.Map.Item.Value",
        "index.$": "$$.Map.Item.Index",
        "order.$": "$.order",
        "wait": FIRST_WAIT,
        "tries": 1,
        "look": "FAILED",
        "error": {"Error": "", "Cause": ""},
        "children": {"why": ""},
    }
    return {
        "Type": "Map",
        "ItemsPath": "$.items",
        "MaxConcurrencyPath": "$.width",
        "ItemSelector": item,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "INLINE"}, "StartAt": "Role", "States": states},
        # One short text for all arrays: what they answer would soon exceed what an execution may hold.
        "ResultSelector": {"all.$": "States.JsonToString(States.ArrayUnique($))"},
        "ResultPath": "$.ends",
        "Catch": [catch(failed, "States.DataLimitExceeded"), catch(failed)],
        "Next": then,
    }


def _sending(names: Names) -> dict[str, State]:
    array = {
        "item": {"execution": "", "job": "", "name.$": "States.Format('{}-a{}',$.order.name,$.index)"},
        "size.$": "$.item[1]",
        "first": {"first_task.$": "States.Format('{}',$.item[0])"},
        **{f"{name}.$": f"$.{name}" for name in ("order", "wait", "tries", "look", "error", "children")},
    }
    return {
        "Role": choice(when("$.order.next", "StringEquals", "follow", "Wait"), default="Array"),
        "Array": compose(array, "$", "Size"),
        # AWS Batch takes arrays from 2 children on.
        "Size": choice(when("$.size", "NumericEquals", 1, "One"), default="Many"),
        "One": _array(names, {}),
        "Many": _array(names, {"ArrayProperties": {"Size.$": "$.size"}}),
        "Late": put("RUNNABLE", "$.look", "Find"),
    }


def _array(names: Names, size: State) -> State:
    return {
        "Type": "Task",
        "Resource": resource(names, "batch:submitJob.sync"),
        "Parameters": {
            "JobQueue": names.queue_arn,
            "JobName.$": "$.item.name",
            "JobDefinition.$": "$.order.definitions.work",
            "Parameters.$": "States.JsonMerge($.order.parameters,$.first,false)",
            "ContainerOverrides.$": "$.order.overrides",
            "Timeout.$": "$.order.timeout",
            "Tags.$": "$.order.tags",
            **size,
        },
        "TimeoutSecondsPath": "$.order.work_seconds",
        "Retry": [backoff(THROTTLED, interval=5, attempts=8, longest=300)],
        "Catch": [catch("Late", TIMEOUT), catch("Find")],
        "ResultPath": None,
        "Next": "Ended",
    }


def _looking(names: Names) -> dict[str, State]:
    """Return the states that look a request up by its name: one that failed, is late, or may be under way."""
    name = [{"Name": "JOB_NAME", "Values.$": "States.Array($.item.name)"}]
    find = request(
        names,
        "aws-sdk:batch:listJobs",
        {"JobQueue": names.queue_arn, "Filters": name},
        then="Found",
        failed="Unsent",
        error="$.error",
        ResultSelector={
            "ids.$": "$.JobSummaryList[*].JobId",
            "why.$": REASONS,
        },
        ResultPath="$.found",
    )
    return {
        "Wait": {"Type": "Wait", "SecondsPath": "$.wait", "Next": "Longer"},
        "Longer": compose({"s.$": f"States.MathAdd($.wait,{FIRST_WAIT})"}, "$.longer", "Grown"),
        "Grown": copy("$.longer.s", "$.wait", "Who"),
        "Who": choice(
            when("$.item.execution", "StringMatches", "arn:*", "AskExecution"),
            when("$.item.job", "StringMatches", "*-*", "AskJob"),
            default="Find",
        ),
        "Find": find,
        "Found": choice(when("$.found.ids[0]", "IsPresent", True, "Job"), default="Missing"),
        "Job": copy("$.found.ids[0]", "$.item.job", "Clear"),
        "Clear": choice(
            when("$.error.Error", "StringEquals", JOB_FAILED, "Children"),
            when("$.error.Error", "StringEquals", TIMEOUT, "Children"),
            default="AskJob",
        ),
        "Missing": choice(
            when("$.order.next", "StringEquals", "follow", "Ended"),
            when("$.error.Error", "StringEquals", TIMEOUT, "Over"),
            both(when("$.tries", "NumericLessThan", TRIES), when("$.error.Error", "StringMatches", "Batch.*"), "Again"),
            default="Unsent",
        ),
        "Again": compose({"n.$": "States.MathAdd($.tries,1)"}, "$.longer", "Counted"),
        "Counted": copy("$.longer.n", "$.tries", "Size"),
    }


def _asking(names: Names) -> dict[str, State]:
    execution = request(
        names,
        "aws-sdk:sfn:describeExecution",
        {"ExecutionArn.$": "$.item.execution"},
        then="Going",
        failed="Ended",
        ResultSelector={"s.$": "$.Status"},
        ResultPath="$.at",
        # An input of nearly 256 KiB comes along with the status.
        Catch=[catch("Ended", "States.DataLimitExceeded", "$.unread"), catch("Ended", path="$.unread")],
    )
    job = request(
        names,
        "aws-sdk:batch:describeJobs",
        {"Jobs.$": "States.Array($.item.job)"},
        then="Going",
        failed="Ended",
        ResultSelector={"s.$": "States.JsonToString($.Jobs[*].Status)"},
        ResultPath="$.at",
    )
    rules = [when("$.at.s", "StringMatches", pattern) for pattern in UNDER_WAY]
    return {
        "AskExecution": execution,
        "AskJob": job,
        "Going": choice(either(rules, "Wait"), default="Ended"),
        "Ended": {"Type": "Pass", "Result": "ok", "End": True},
    }


def _explaining(names: Names) -> dict[str, State]:
    """Return the states that say why a request failed, and end what is late.

    The reason stands at the children of an array, and that of waiting is gone once it was terminated.
    """
    children = request(
        names,
        "aws-sdk:batch:listJobs",
        {"ArrayJobId.$": "$.item.job", "JobStatus.$": "$.look", "MaxResults": 2},
        then="Listed",
        failed="Listed",
        ResultSelector={
            "why.$": REASONS,
        },
        ResultPath="$.children",
    )
    reason = "The execution was over its time"
    end = request(
        names,
        "aws-sdk:batch:terminateJob",
        {"JobId.$": "$.item.job", "Reason": reason},
        then="Over",
        failed="Over",
    )
    return {
        "Children": children,
        "Listed": choice(when("$.look", "StringEquals", "RUNNABLE", "Terminate"), default="Why"),
        "Terminate": end,
        "Over": _told("States.Format('over {} {}',$.found.why,$.children.why)"),
        "Why": _told("States.Format('{} {}',$.found.why,$.children.why)"),
        "Unsent": choice(when("$.error.Cause", "IsPresent", True, "UnsentText"), default="UnsentName"),
        "UnsentName": uncaused("$.error", "UnsentText"),
        "UnsentText": _told("States.Format('{} {}',$.error.Error,$.error.Cause)"),
    }


def _told(text: str) -> State:
    return {"Type": "Pass", "Parameters": {"text.$": text}, "OutputPath": "$.text", "End": True}
