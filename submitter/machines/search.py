"""The search machine: plan, prepare, arrays, reduce, again where cells are missing, and tell; one of them a stack.

Whatever needs thought is done by the planner in its container (`submitter.planner`), which answers with an `Order`.
What an execution knows lies under ``$``: ``order`` (the last answer), ``ask`` (the next question), ``n`` (how often it
planned, how many rounds it sent), ``summary`` (of the last reduce) and ``error`` (the last that counts).
"""

from __future__ import annotations

from typing import Any, Final

from jobspec.protocol import WORKERS
from jobspec.stores.layout import Layout
from submitter.machines.closing import FINISHED, STARTED, end, keeping, telling
from submitter.machines.following import WIDTH, following
from submitter.machines.messages import FORMAT_VERSION
from submitter.machines.names import Names
from submitter.machines.states import (
    JOB_FAILED,
    TIMEOUT,
    State,
    both,
    catch,
    choice,
    compose,
    copy,
    either,
    join,
    put,
    read_json,
    request,
    step,
    when,
)
from submitter.machines.verdicts import ask, judging, number

PLANS: Final = 30
"""How often one execution plans; more is a circle."""

PLAN_SECONDS: Final = 4 * 3600
STEP_SECONDS: Final = "$.order.step_seconds"
"""How long the planner, and the steps that read all data or rows, may take, with waiting for a host."""

MACHINE_SECONDS: Final = 60 * 24 * 3600
"""Ends what nothing else does."""

NO_ERROR: Final = {"Error": "foldfleet", "Cause": "A step left no answer."}

HASH: Final = "States.Hash($$.Execution.Id,'SHA-256')"
"""What names objects and jobs of one execution; its own name may hold what a key or a job's name may not."""


_NEEDED: Final = (
    *("run_id", "round", "bucket", "plan", "name", "tags", "timeout.AttemptDurationSeconds"),
    *("parameters.vcpus", "parameters.memory_mib", "work_seconds", "step_seconds", "deadline"),
    *("num_tasks", "num_cells"),
)
"""What an order must hold beside what is to be sent: a path to nothing would end the execution without a word."""


def search_definition(names: Names) -> dict[str, Any]:
    """Return the definition of the search machine: pure."""
    detail = {
        "run_id.$": "$.order.run_id",
        "cells.$": "$.summary.cells",
        "best.$": "$.summary.best",
        "files.$": "$.summary.files",
    }
    states = [
        _entry(names),
        _planning(names),
        _preparing(names),
        _sending(names),
        _reducing(names),
        judging(names),
        telling(names, detail, notify=True, then="Told", silent="Keep"),
        keeping(names, then="Last"),
        _ending(),
    ]
    return {
        "Comment": "Plans a search, runs its arrays on AWS Batch, and reduces what they wrote",
        "StartAt": "Start",
        "TimeoutSeconds": MACHINE_SECONDS,
        "States": join(*states),
    }


def _start(names: Names) -> State:
    """Return what an execution begins with: every key that any state reads, since a path to nothing ends it."""
    numbers = {
        "max_cells": names.max_cells,
        "max_task_vcpus": names.max_task_vcpus,
        "max_task_memory_gib": names.max_task_memory_gib,
        "max_hours": names.max_hours,
        "max_vcpu_hours": names.max_vcpu_hours,
    }
    site = {
        **{name: getattr(names, name) for name in ("stack", "region", "account", "bucket", "instance_types")},
        **{name: getattr(names, name) for name in ("data_places", "spec_prefix", "data_prefix")},
        "store": f"s3://{names.bucket}/{names.store_prefix}",
        "max_vcpus.$": number(names.max_vcpus),
        "environments.$": number(names.environments),
        "machine.$": "$$.StateMachine.Id",
        "ceilings": {f"{name}.$": number(value) for name, value in numbers.items()},
    }
    values: dict[str, Any] = {
        "in.$": "$",
        "token.$": HASH,
        "url.$": f"States.Format('s3://{names.bucket}/{_inline_key(names)}',{HASH})",
        "site": site,
        "topic": names.topic_arn,
        "n": {"step": 0, "sent": 0, "answer": ""},
        "ask": ask(None, 0),
        "upload": None,
        "schedule": None,
        "order": {"run_id": "", "message": ""},
        "summary": {"cells": None, "best": None, "files": None, "complete": False},
        "ends": {"all": ""},
        "error": NO_ERROR,
    }
    return compose(values, "$", "Which")


def _inline_key(names: Names) -> str:
    return f"{names.store_prefix}/{Layout.given_spec('{}')}"


def _entry(names: Names) -> dict[str, State]:
    """Return the states that read the input: an order, an upload, a run, or a spec by its URL or in the input."""
    moment = "$.in.schedule"
    is_url = [when("$.in.spec", "IsString", True), when("$.in.spec", "StringMatches", "s3://*")]
    is_nothing = [
        when("$.in.spec", "IsNull", True),
        when("$.in.spec", "IsNumeric", True),
        when("$.in.spec", "IsBoolean", True),
        when("$.in.spec", "StringEquals", ""),
    ]
    is_named = [when(f"{moment}.name", "IsPresent", True), when(f"{moment}.name", "IsString", True)]
    key = f"States.Format('{_inline_key(names)}',$.token)"
    # Step Functions refuses a whole definition for a parameter that is younger than its SDK, as IfNoneMatch may be. The
    # key is this execution's own, so that a second try writes the same. A text is written as JSON, in quotation marks.
    body = {"Bucket": names.bucket, "Key.$": key, "Body.$": "$.in.spec"}
    return {
        "Start": _start(names),
        "Which": choice(
            when("$.in.round.next", "IsPresent", True, "Trusted"),
            when("$.in.upload.key", "IsPresent", True, "GivenUpload"),
            both(when("$.in.run", "IsPresent", True), when("$.in.run", "IsString", True), "GivenRun"),
            # Of a path to nothing, a choice may ask no more than this; anything else ends an execution without a word.
            when("$.in.spec", "IsPresent", False, "Unread"),
            {"And": [*is_url, *is_named], "Next": "Moment"},
            {"And": is_url, "Next": "GivenUrl"},
            either(is_nothing, "Unread"),
            default="Inline",
        ),
        **_given_order(names),
        "GivenUpload": copy("$.in.upload", "$.upload", "Asked"),
        "Asked": copy("$.upload", "$.ask.upload", "Count"),
        "GivenRun": copy("$.in.run", "$.ask.run", "Count"),
        "Moment": copy(moment, "$.schedule", "GivenUrl"),
        "GivenUrl": copy("$.in.spec", "$.ask.spec", "Count"),
        "Inline": request(names, "aws-sdk:s3:putObject", body, then="Inlined", failed="Explain", error="$.error"),
        "Inlined": put({}, "$.in", "Url"),
        "Url": copy("$.url", "$.ask.spec", "Count"),
    }


def _given_order(names: Names) -> dict[str, State]:
    """Return the states that take a desk's order: to send a round, and not what is run, with what, in which role."""
    wanted = {
        "next": "send",
        "definitions.work": f"*:job-definition/{names.stack}-work-*",
        "definitions.reduce": f"*:job-definition/{names.stack}-reduce-*",
    }
    present = [when(f"$.in.round.{path}", "IsPresent", True) for path in (*wanted, *_NEEDED)]
    ours = [when(f"$.in.round.{path}", "StringMatches", pattern) for path, pattern in wanted.items()]
    known = _is_known("$.in.round")
    overrides = {
        "ResourceRequirements": [
            {"Type": "VCPU", "Value.$": "$.order.parameters.vcpus"},
            {"Type": "MEMORY", "Value.$": "$.order.parameters.memory_mib"},
        ],
        "Environment": [{"Name": WORKERS, "Value.$": "$.order.parameters.vcpus"}],
    }
    return {
        "Trusted": choice({"And": [*present, *ours, *known], "Next": "GivenOrder"}, default="Untrusted"),
        "GivenOrder": copy("$.in.round", "$.order", "Overrides"),
        "Overrides": compose(overrides, "$.order.overrides", "Next"),
    }


def _is_known(order: str) -> list[State]:
    """Return what a choice asks of an order (a path) before any other state reads its keys: they are those of today."""
    version = f"{order}.format_version"
    return [when(version, "IsPresent", True), when(version, "NumericEquals", FORMAT_VERSION)]


def _skewed() -> State:
    """Return the rule for an answer that has not what is to be read of it."""
    answer = "$.got.doc.answer"
    return both(when(answer, "IsPresent", True), when(answer, "IsNull", False), "Skewed")


def _planning(names: Names) -> dict[str, State]:
    asking = {
        "JobName.$": "States.Format('plan-{}',$.n.answer)",
        "JobDefinition": f"{names.stack}-plan",
        "Parameters": {
            "site.$": "States.JsonToString($.site)",
            "ask.$": "States.JsonToString($.ask)",
            "answer.$": "$.n.answer",
        },
        "Tags": {"foldfleet:stack": names.stack},
    }
    key = {"Key.$": f"States.Format('{names.store_prefix}/{Layout.answer('{}')}',$.n.answer)"}
    following_owner = both(
        when("$.order.next", "StringEquals", "follow"), when("$.order.owners[0]", "IsPresent", True), "Owners"
    )
    refusing = both(
        when("$.order.next", "StringEquals", "refuse"), when("$.order.error.message", "IsPresent", True), "Refused"
    )
    return {
        "Count": compose(
            {
                "step.$": "States.MathAdd($.n.step,1)",
                "sent.$": "$.n.sent",
                "answer.$": "States.Format('{}-p{}',$.token,$.n.step)",
            },
            "$.n",
            "Circle",
        ),
        "Circle": choice(when("$.n.step", "NumericGreaterThan", PLANS, "Broken"), default="Plan"),
        "Plan": step(
            names, asking, then="ReadOrder", catches=_catches("PlanLate", "Explain"), seconds=PLAN_SECONDS, again=True
        ),
        "ReadOrder": read_json(
            names, {"Bucket": names.bucket}, key, then="Answered", failed="Explain", error="$.error"
        ),
        "Answered": choice(
            {"And": _is_known("$.got.doc.answer"), "Next": "Take"},
            when("$.got.doc.error.message", "IsPresent", True, "Failing"),
            _skewed(),
            default="Explain",
        ),
        "Take": copy("$.got.doc.answer", "$.order", "Drop"),
        "Drop": put({}, "$.got", "Deadline"),
        "Deadline": copy("$.order.deadline", "$.ask.deadline", "Next"),
        "Next": choice(
            when("$.order.next", "StringEquals", "send", "First"),
            when("$.order.next", "StringEquals", "prepare", "Prepare"),
            following_owner,
            when("$.order.next", "StringEquals", "reduce", "Reduce"),
            when("$.order.next", "StringEquals", "done", "Done"),
            refusing,
            default="Explain",
        ),
        "Owners": copy("$.order.owners", "$.items", "Narrow"),
        "Narrow": put(1, "$.width", "Each"),
    }


def _preparing(names: Names) -> dict[str, State]:
    preparing = {
        "JobName.$": "$.order.prepare.name",
        "JobDefinition.$": "$.order.prepare.definition",
        "Parameters": {
            "store": f"s3://{names.bucket}/{names.store_prefix}",
            "spec.$": "$.order.prepare.spec",
            "answer.$": "$.order.prepare.token",
        },
        "ContainerOverrides.$": "$.order.overrides",
        "Tags.$": "$.order.tags",
    }
    refused_to_start = both(
        when("$.error.Error", "StringEquals", JOB_FAILED),
        {"Not": when("$.error.Cause", "StringMatches", "*MISCONFIGURATION:*")},
        "Prepared",
    )
    return {
        "Prepare": step(
            names,
            preparing,
            then="Prepared",
            catches=_catches("PrepareLate", "Unprepared"),
            seconds=STEP_SECONDS,
            again=False,  # it mostly fails because it refuses
        ),
        # One that ran and failed has left its reason, which the planner tells.
        "Unprepared": choice(refused_to_start, default="Explain"),
        "Prepared": copy("$.order.prepare.token", "$.ask.prepared", "Count"),
    }


def _sending(names: Names) -> dict[str, State]:
    counts = "$.order.run_id,$.order.num_cells,$.order.num_tasks"
    message = f"States.Format('{{}} was started: {{}} cells in {{}} tasks.',{counts})"
    # The sizes come from the plan itself, not from who tells of it.
    plan = read_json(names, {"Bucket.$": "$.order.bucket"}, {"Key.$": "$.order.plan"}, then="Arrays", failed="Explain")
    counted = {"step.$": "$.n.step", "sent.$": "States.MathAdd($.n.sent,1)", "answer.$": "$.n.answer"}
    return {
        "First": choice(when("$.n.sent", "NumericEquals", 0, "Started"), default="ReadPlan"),
        "Started": compose(end(STARTED, "started", message), "$.end", "Tell"),
        "ReadPlan": plan,
        "Arrays": choice(when("$.got.doc.arrays[0]", "IsPresent", True, "Items"), default="Reduce"),
        "Items": copy("$.got.doc.arrays", "$.items", "Light"),
        "Light": put({}, "$.got", "Wide"),
        "Wide": put(WIDTH, "$.width", "Sent"),
        "Sent": compose(counted, "$.n", "Each"),
        "Each": following(names, then="After", failed="Explain"),
        "After": choice(when("$.order.next", "StringEquals", "follow", "Followed"), default="Reduce"),
        "Followed": copy("$.order.round", "$.ask.over", "Count"),
    }


def _reducing(names: Names) -> dict[str, State]:
    reducing = {
        "JobName.$": "States.Format('{}-reduce',$.order.name)",
        "JobDefinition.$": "$.order.definitions.reduce",
        "Parameters": {
            "store": f"s3://{names.bucket}/{names.store_prefix}",
            "run.$": "$.order.run_id",
            "answer.$": "States.Format('{}-r{}',$.token,$.n.step)",
        },
        "ContainerOverrides.$": "$.order.overrides",
        "Tags.$": "$.order.tags",
    }
    key = {"Key.$": f"States.Format('{names.store_prefix}/{Layout.answer('{}-r{}')}',$.token,$.n.step)"}
    read = read_json(names, {"Bucket": names.bucket}, key, then="Summary", failed="Explain")
    # So many gaps that their list is too long for an execution: the planner reads them.
    read["Catch"][0]["Next"] = "Judge"
    parts = ("cells", "best", "files")
    whole = (*parts, "complete")
    return {
        "Reduce": step(
            names,
            reducing,
            then="ReadSummary",
            catches=_catches("ReduceLate", "ReadSummary"),
            seconds=STEP_SECONDS,
            again=True,
        ),
        "ReadSummary": read,
        "Summary": choice(
            {"And": [when(f"$.got.doc.answer.{part}", "IsPresent", True) for part in whole], "Next": "Sum"},
            when("$.got.doc.error.message", "IsPresent", True, "Failing"),
            _skewed(),
            default="Explain",
        ),
        "Sum": compose({f"{part}.$": f"$.got.doc.answer.{part}" for part in whole}, "$.summary", "Emptied"),
        "Emptied": put({}, "$.got", "Judge"),
        "Done": choice(
            when("$.order.summary.cells", "IsPresent", True, "Known"),
            when("$.order.run_id", "StringEquals", "", "Superseded"),
            default="DoneText",
        ),
        "Known": compose({f"{part}.$": f"$.order.summary.{part}" for part in parts}, "$.summary", "DoneText"),
        # No run has ended: the upload that took its place tells of its own.
        "Superseded": compose(end("", "superseded", "$.order.message"), "$.end", "Tell"),
        "DoneText": compose(end(FINISHED, "finished", "$.order.message"), "$.end", "Tell"),
    }


def _catches(late: str, failed: str) -> list[State]:
    return [catch(late, TIMEOUT), catch(failed)]


def _ending() -> dict[str, State]:
    return {
        "Told": choice(when("$.end.state", "StringEquals", "started", "ReadPlan"), default="Keep"),
        "Last": choice(when("$.end.error", "StringEquals", "", "Output"), default="Fail"),
        "Output": {"Type": "Succeed", "OutputPath": "$.told"},
        "Fail": {"Type": "Fail", "ErrorPath": "$.end.error", "CausePath": "$.end.message"},
    }
