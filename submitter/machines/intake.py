"""The intake machine: from an event of an upload, or of a schedule, to an execution of the search machine by name.

The name is a hash of what happened: a doubled event starts nothing twice. Nothing of the event is ever part of a
template; a key may hold whatever S3 allows.
"""

from __future__ import annotations

from typing import Any, Final

from submitter.machines.closing import FAILED, REFUSED, end, keeping, telling
from submitter.machines.names import Names
from submitter.machines.states import (
    State,
    catch,
    choice,
    compose,
    copy,
    either,
    join,
    put,
    request,
    uncaused,
    when,
)

ENDINGS: Final = ("yaml", "yml", "YAML", "YML", "Yaml", "Yml")
"""What the names of specs end in."""

EXISTS: Final = "StepFunctions.ExecutionAlreadyExistsException"

ABSENT: Final = {"version-id": "", "sequencer": "", "etag": "", "size": 0}
"""What events of S3 may leave out; an object has a version only in a bucket that keeps them."""

MACHINE_SECONDS: Final = 3600


def intake_definition(names: Names) -> dict[str, Any]:
    """Return the definition of the intake machine: pure."""
    detail = {"run_id": "", "cells": None, "best": None, "files": None}
    return {
        "Comment": "Starts a search for an uploaded spec, for data of a template, or on a schedule",
        "StartAt": "Start",
        "TimeoutSeconds": MACHINE_SECONDS,
        "States": join(
            _judging(names),
            _naming(),
            _starting(names),
            telling(names, detail, notify=False, then="Keep"),
            keeping(names, then="Fail", count="all"),
            {"Fail": {"Type": "Fail", "ErrorPath": "$.end.error", "CausePath": "$.end.message"}},
        ),
    }


def _judging(names: Names) -> dict[str, State]:
    """Return the states that tell what is ours from what is not, and from what is nothing to search."""
    values = {
        "in.$": "$",
        "token.$": "States.Hash($$.Execution.Id,'SHA-256')",
        "absent": ABSENT,
        "upload": None,
        "schedule": None,
    }
    specs = [when("$.in.object.key", "StringMatches", f"*.{ending}") for ending in ENDINGS]
    told = [when(f"$.in.{name}", "IsPresent", True) for name in ("kind", "name", "time", "spec")]
    ours = {"And": [when("$.in.account", "StringEquals", names.account), _same_bucket(names)]}
    return {
        "Start": compose(values, "$", "Which"),
        "Which": choice(
            {"And": [*told, when("$.in.kind", "StringEquals", "schedule")], "Next": "Moment"},
            when("$.in.object.key", "IsPresent", True, "Whose"),
            default="Strange",
        ),
        "Whose": choice({"Not": ours, "Next": "Foreign"}, default="What"),
        "What": choice(
            # A folder, and what this stack writes itself; both by rule never asked for.
            when("$.in.object.key", "StringMatches", "*/", "Ignored"),
            when("$.in.object.key", "StringMatches", f"{names.store_prefix}/*", "Ignored"),
            when("$.in.kind", "StringEquals", "data", "Merge"),
            either(specs, "Merge"),
            default="Ignored",
        ),
        "Ignored": {"Type": "Pass", "Result": {"state": "ignored"}, "End": True},
    }


def _same_bucket(names: Names) -> State:
    return when("$.in.bucket", "StringEquals", names.bucket)


def _naming() -> dict[str, State]:
    """Return the states that make the name and the input of an execution from an event."""
    upload = {
        "kind.$": "$.in.kind",
        "bucket.$": "$.in.bucket",
        "key.$": "$.object.o.key",
        "version.$": "$.object.o['version-id']",
        "etag.$": "$.object.o.etag",
        "size.$": "$.object.o.size",
        "sequencer.$": "$.object.o.sequencer",
        "time.$": "$.in.time",
        "reason.$": "$.in.reason",
    }
    # Never the ETag: the same spec uploaded again after a failure is to be searched again.
    event = "States.Array($.upload.bucket,$.upload.key,$.upload.version,$.upload.sequencer)"
    times = "States.Array($.in.name,$.in.time)"
    # The search machine searches by the spec alone; the rest is for who is told, and lists what was scheduled.
    scheduled = {"spec.$": "$.in.spec", "schedule.$": "$.schedule"}
    return {
        "Merge": compose({"o.$": "States.JsonMerge($.absent,$.in.object,false)"}, "$.object", "Upload"),
        "Upload": compose(upload, "$.upload", "Name"),
        "Name": compose({"name.$": _hash(event), "input": {"upload.$": "$.upload"}}, "$.start", "StartSearch"),
        "Moment": compose({"name.$": "$.in.name", "time.$": "$.in.time"}, "$.schedule", "Scheduled"),
        "Scheduled": compose({"name.$": _hash(times), "input": scheduled}, "$.start", "StartSearch"),
    }


def _hash(array: str) -> str:
    """Return the expression of a name; as JSON, no two lists of texts look alike."""
    return f"States.Hash(States.JsonToString({array}),'SHA-256')"


def _starting(names: Names) -> dict[str, State]:
    start = request(
        names,
        "states:startExecution",
        {"StateMachineArn": names.search_machine, "Name.$": "$.start.name", "Input.$": "$.start.input"},
        then="Output",
        failed="NotStarted",
        ResultSelector={"execution.$": "$.ExecutionArn"},
        ResultPath="$.started",
    )
    start["Retry"] = [{"ErrorEquals": [EXISTS], "MaxAttempts": 0}, *start["Retry"]]
    start["Catch"] = [catch("Already", EXISTS, "$.unread"), *start["Catch"]]
    strange = "The input is neither an event of an upload as the rules of the stack make it, nor that of a schedule."
    foreign = (
        "States.Format('The object lies in the bucket {} of the account {}, not in those of the stack. Upload to "
        f"{names.bucket}.',$.in.bucket,$.in.account)"
    )
    unread = "$.unread.Error,$.unread.Cause"
    failed = f"States.Format('The search was not started ({{}}: {{}}). Upload the object again.',{unread})"
    late = (
        "States.Format('The schedule {} did not start its search ({}: {}). Wait for its next time, or start it by "
        f"hand: `submit run SPEC --on stepfunctions`.',$.schedule.name,{unread})"
    )
    return {
        "StartSearch": start,
        "Output": copy("$.started", "$", "Over"),
        "Already": put({"state": "already started"}, "$", "Over"),
        "Over": {"Type": "Succeed"},
        "NotStarted": choice(when("$.unread.Cause", "IsPresent", True, "Unstarted"), default="Uncaused"),
        "Uncaused": uncaused("$.unread", "Unstarted"),
        "Unstarted": choice(when("$.schedule", "IsNull", True, "LostUpload"), default="LostMoment"),
        "LostUpload": compose(end(REFUSED, "failed", failed, "foldfleet.Broken"), "$.end", "Tell"),
        "LostMoment": compose(end(FAILED, "failed", late, "foldfleet.Broken"), "$.end", "Tell"),
        "Foreign": compose(_seen(), "$.upload", "ForeignText"),
        "ForeignText": compose(end(REFUSED, "refused", foreign, "foldfleet.Refused"), "$.end", "Tell"),
        "Strange": compose(end(REFUSED, "refused", strange, "foldfleet.Refused"), "$.end", "Tell"),
    }


def _seen() -> State:
    return {"kind.$": "$.in.kind", "bucket.$": "$.in.bucket", "key.$": "$.in.object.key"}
