"""The conclude machine: does for arrays and executions that have ended what nobody else is left to do.

After an array it reduces what is there. Of an execution that was stopped, ran out of time or failed where nothing
catches, it tells what that could not tell itself: Step Functions lets no state run in it any more.
"""

from __future__ import annotations

from typing import Any, Final

from jobspec.protocol import WORKERS
from submitter.machines.closing import FAILED, keeping, telling
from submitter.machines.names import Names
from submitter.machines.states import (
    ALL,
    API_SECONDS,
    State,
    backoff,
    both,
    catch,
    choice,
    compose,
    join,
    request,
    resource,
    when,
)

MACHINE_SECONDS: Final = 3600

LOOK_AGAIN_SECONDS: Final = 15
"""DescribeExecution is eventually consistent: for a while it may say that what has ended goes on."""

OWN_ERRORS: Final = "foldfleet.*"
"""The errors of executions that have told of their end themselves."""

ORDERED, NAMED, UPLOADED, ARRIVED = "$.in.round.run_id", "$.in.run", "$.in.upload", "$.in.object.key"
"""Where inputs say what they are about: a desk's, another program's, the intake machine's, and to that machine."""

PLANNED: Final = "$.in.schedule"
"""Where the intake machine says which schedule a search is of."""


def conclude_definition(names: Names) -> dict[str, Any]:
    """Return the definition of the conclude machine: pure.

    Its input is what a rule of the stack makes of the end of an array, or of that of an execution (``ended``).
    """
    detail = {
        "execution.$": "$.ended",
        "started.$": "$.started",
        "run_id.$": "$.run",
        "cells": None,
        "best": None,
        "files": None,
    }
    return {
        "Comment": "Reduces what is there after an array has ended, and tells of executions that cannot",
        "StartAt": "What",
        "TimeoutSeconds": MACHINE_SECONDS,
        "States": join(
            {"What": choice(when("$.ended", "IsPresent", True, "Begin"), default="Sender")},
            _after_array(names),
            _looking(names),
            _wording(),
            telling(names, detail, notify=True, then="Keep"),
            keeping(names, then="Over", count="none"),
            {"Over": {"Type": "Succeed"}},
        ),
    }


def _after_array(names: Names) -> dict[str, State]:
    """Return the states that reduce; of an array that an execution sent, that makes the views, unless it has ended."""

    def ask(then: str) -> State:
        selected = {"ResultSelector": {"status.$": "$.Status"}, "ResultPath": "$.at"}
        sender = {"ExecutionArn.$": "$.execution"}
        return request(names, "aws-sdk:sfn:describeExecution", sender, then=then, failed="Reduce", **selected)

    runs = when("$.at.status", "StringEquals", "RUNNING")
    return {
        "Sender": choice(
            both(when("$.execution", "IsPresent", True), when("$.execution", "StringMatches", "arn:*"), to="Ask"),
            default="Reduce",
        ),
        "Ask": ask("Running"),
        "Running": choice(runs | {"Next": "Pause"}, default="Reduce"),
        "Pause": {"Type": "Wait", "Seconds": LOOK_AGAIN_SECONDS, "Next": "AskAgain"},
        "AskAgain": ask("StillRuns"),
        "StillRuns": choice(runs | {"Next": "Over"}, default="Reduce"),
        "Reduce": _reduce(names),
    }


def _reduce(names: Names) -> dict[str, Any]:
    """Return the reduce step as large as a task; nobody waits for it, so that a failure is the machine's own."""
    needs = [{"Type": "VCPU", "Value.$": "$.vcpus"}, {"Type": "MEMORY", "Value.$": "$.memory_mib"}]
    return {
        "Type": "Task",
        "Resource": resource(names, "batch:submitJob"),
        "Parameters": {
            "JobName.$": "States.Format('conclude-{}',$.job)",
            "JobQueue.$": "$.queue",
            "JobDefinition.$": "$.reduce",
            "Parameters": {"store.$": "$.store", "run.$": "$.run"},
            "ContainerOverrides": {
                "Environment": [{"Name": WORKERS, "Value.$": "$.vcpus"}],
                "ResourceRequirements": needs,
            },
        },
        "TimeoutSeconds": API_SECONDS,
        "Retry": [backoff((ALL,), interval=5, attempts=8, longest=300)],
        "End": True,
    }


def _looking(names: Names) -> dict[str, State]:
    """Return the states that learn why an execution ended (``$.why``) and what started it (``$.in``).

    The event says how it ended, and is not known to say with which error. What cannot be read is told all the same.
    """
    values: dict[str, Any] = {
        "ended.$": "$.ended",
        "status.$": "$.status",
        "started.$": "$.time",
        "token.$": "States.Hash($.ended,'SHA-256')",
        "topic": names.topic_arn,
        "why": "",
        "in": {},
    }
    known = {
        **_kept("ended", "status", "token", "topic"),
        "started.$": "$.at.StartDate",
        "in.$": "States.StringToJson($.at.Input)",
    }
    look = request(
        names,
        "aws-sdk:sfn:describeExecution",
        {"ExecutionArn.$": "$.ended"},
        then="Still",
        failed="How",
        ResultPath="$.at",
        # States.ALL does not hold that its input is too long to be read.
        Catch=[catch("How", "States.DataLimitExceeded", "$.unread"), catch("How", path="$.unread")],
    )
    failed, errs = when("$.status", "StringEquals", "FAILED"), when("$.at.Error", "IsPresent", True)
    return {
        "Begin": compose(values, "$", "Look"),
        "Look": look,
        "Still": choice(
            when("$.at.Status", "StringEquals", "RUNNING", "Wait"),
            {"And": [failed, errs, when("$.at.Error", "StringMatches", OWN_ERRORS)], "Next": "Over"},
            when("$.at.Cause", "IsPresent", True, "Why"),
            default="Known",
        ),
        # One that somebody lets go on (a redrive) tells of its next end itself.
        "Wait": {"Type": "Wait", "Seconds": LOOK_AGAIN_SECONDS, "Next": "Look"},
        # A state may know no more than 256 KiB: what is not told is dropped here, and the input in the next state.
        "Why": compose(known | {"why.$": "States.Format(' ({})',$.at.Cause)"}, "$", "How"),
        "Known": compose(known | {"why": ""}, "$", "How"),
    }


def _wording() -> dict[str, State]:
    """Return the states that put into words how an execution ended, and what helps."""
    uploaded = [when(f"{UPLOADED}.{part}", "IsPresent", True) for part in ("kind", "bucket", "key")]
    arrived = [when(path, "IsPresent", True) for path in ("$.in.kind", "$.in.bucket", ARRIVED)]
    arrival = {"kind.$": "$.in.kind", "bucket.$": "$.in.bucket", "key.$": ARRIVED}
    planned = f"{PLANNED}.name"
    clock = [when(path, "IsPresent", True) for path in ("$.in.time", "$.in.name")]
    how, find = "$.how.text,$.why", "names it and `submit resume RUN` goes on; else"
    of_schedule = (
        "'The search of the schedule {} {}{}. If it has a run, `submit events list` "
        f"{find} wait for its next time.',{planned},{how}"
    )
    of_other = f"'The execution {{}} {{}}{{}}. If it has a run, `submit list` {find} start it again.',$.ended,{how}"

    def of_run(run: str) -> str:
        return f"'{{}} {{}}{{}}. What is finished stays: `submit resume {{}}` goes on.',{run},{how},{run}"

    def of_upload(bucket: str, key: str) -> str:
        return (
            "'The search for s3://{}/{} {}{}. If it has a run, `submit events list` "
            f"{find} upload the object again.',{bucket},{key},{how}"
        )

    return {
        "How": choice(
            when("$.status", "StringEquals", "ABORTED", "Stopped"),
            when("$.status", "StringEquals", "TIMED_OUT", "Late"),
            default="Failed",
        ),
        "Stopped": _how("cancelled", "was stopped"),
        "Late": _how("failed", "was over its time"),
        "Failed": _how("failed", "failed"),
        "Whose": choice(
            both(when(ORDERED, "IsPresent", True), when(ORDERED, "IsString", True), "Ordered"),
            both(when(NAMED, "IsPresent", True), when(NAMED, "IsString", True), "Named"),
            {"And": uploaded, "Next": "Uploaded"},
            {"And": arrived, "Next": "Arrived"},
            both(when(planned, "IsPresent", True), when(planned, "IsString", True), "Scheduled"),
            {"And": [*clock, when("$.in.name", "IsString", True)], "Next": "Clock"},
            default="Other",
        ),
        "Ordered": _end(of_run(ORDERED), {"run.$": ORDERED}),
        "Named": _end(of_run(NAMED), {"run.$": NAMED}),
        "Uploaded": _end(of_upload(f"{UPLOADED}.bucket", f"{UPLOADED}.key"), {"upload.$": UPLOADED}),
        "Arrived": _end(of_upload("$.in.bucket", ARRIVED), {"upload": arrival}),
        # What the Scheduler tells the intake machine, as that tells the search machine.
        "Clock": compose({"name.$": "$.in.name", "time.$": "$.in.time"}, PLANNED, "Scheduled"),
        "Scheduled": _end(of_schedule, {"schedule.$": PLANNED}),
        "Other": _end(of_other, {}),
    }


def _how(state: str, text: str) -> State:
    return compose({"state": state, "text": text}, "$.how", "Whose")


def _end(words: str, about: State) -> State:
    end = {"type": FAILED, "state.$": "$.how.state", "message.$": f"States.Format({words})"}
    rest = {"run": "", "upload": None, "schedule": None}
    nothing = {name: value for name, value in rest.items() if f"{name}.$" not in about}
    return compose({**_kept("ended", "started", "token", "topic"), **nothing, **about, "end": end}, "$", "Tell")


def _kept(*names: str) -> State:
    return {f"{name}.$": f"$.{name}" for name in names}
