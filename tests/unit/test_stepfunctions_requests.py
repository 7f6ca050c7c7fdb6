"""What is sent to Step Functions, as a whole literal, how names are made, and what its answers mean."""

from __future__ import annotations

import json
import re
from typing import Any

import botocore.session
import pytest

from jobspec.errors import AccessError, FoldfleetError, LimitError, NotFoundError, TryLaterError
from submitter.backends.base import RequestState
from submitter.backends.stepfunctions.request import MAX_EXECUTION_NAME, execution_arn, execution_name, start_call
from submitter.backends.stepfunctions.sending import describe, start, stop
from submitter.backends.stepfunctions.states import STATES, state_of
from submitter.backends.stepfunctions.verdicts import INCOMPLETE, KINDS, verdict_of
from submitter.events.arrivals import ERRORS
from submitter.machines.intake import intake_definition
from submitter.machines.names import HOLES
from submitter.machines.search import search_definition
from tests.unit.fakebatch import FakeClients, make_site, refuse
from tests.unit.fakestates import EXECUTION, MACHINE, FakeStates
from tests.unit.test_aws_requests import ARN, make_plan

NAME = "letters-0123456789abcdef-feedc0de-r2"
CALL = {"stateMachineArn": MACHINE, "name": NAME, "input": "{}"}


@pytest.fixture
def states() -> FakeStates:
    return FakeStates()


@pytest.fixture
def clients(states: FakeStates) -> FakeClients:
    found = FakeClients()
    found.stepfunctions = states  # type: ignore[attr-defined]
    return found


def test_a_round_is_one_execution() -> None:
    call = start_call(make_site(), MACHINE, make_plan())
    assert call | {"input": json.loads(call["input"])} == {
        "stateMachineArn": MACHINE,
        "name": NAME,
        "input": {
            "round": {
                "format_version": 2,
                "next": "send",
                "run_id": "letters-0123456789abcdef",
                "round": 2,
                "bucket": "bucket",
                "plan": "foldfleet/runs/letters-0123456789abcdef/rounds/002/plan.json",
                "name": NAME,
                "definitions": {
                    "work": f"{ARN}:job-definition/foldfleet-work:3",
                    "reduce": f"{ARN}:job-definition/foldfleet-reduce:3",
                },
                "parameters": {
                    "store": "s3://bucket/foldfleet",
                    "run": "letters-0123456789abcdef",
                    "round": "2",
                    "reduce": f"{ARN}:job-definition/foldfleet-reduce:3",
                    "vcpus": "4",
                    "memory_mib": "7536",
                    "arrays": "1",
                    "execution": f"{EXECUTION}:{NAME}",
                },
                "overrides": {
                    "ResourceRequirements": [{"Type": "VCPU", "Value": "4"}, {"Type": "MEMORY", "Value": "7536"}],
                    "Environment": [{"Name": "FOLDFLEET_WORKERS", "Value": "4"}],
                },
                "tags": {"foldfleet:stack": "foldfleet", "foldfleet:run": "letters-0123456789abcdef"},
                "timeout": {"AttemptDurationSeconds": 86400},
                "work_seconds": 2592000,
                "step_seconds": 86400,
                "deadline": -1.0,
                "num_tasks": 3,
                "num_cells": 6,
                "prepare": None,
                "owners": [],
                "summary": None,
                "message": "",
                "error": None,
            }
        },
    }


def test_the_same_round_is_the_same_request_from_every_desk() -> None:
    assert start_call(make_site(), MACHINE, make_plan()) == start_call(make_site(), MACHINE, make_plan())


def test_an_execution_has_a_name_that_step_functions_takes() -> None:
    plan = make_plan().model_copy(update={"run_id": "n" * 60 + "-0123456789abcdef", "round": 999})
    name = execution_name(plan)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
    assert len(name) == MAX_EXECUTION_NAME
    assert name.endswith("-0123456789abcdef-feedc0de-r999")


def test_an_input_that_is_too_long_is_refused() -> None:
    with pytest.raises(LimitError, match="shorter store prefix"):
        start_call(make_site("s3://bucket/" + "x" * 262_000), MACHINE, make_plan())


def test_every_state_of_an_execution_is_known() -> None:
    model = botocore.session.get_session().get_service_model("stepfunctions")
    assert set(STATES) == set(model.shape_for("ExecutionStatus").enum)  # type: ignore[attr-defined]
    assert state_of({"status": "SOMETHING_NEW"}) is RequestState.RUNNING


def test_starting_twice_is_starting_once(clients: FakeClients, states: FakeStates) -> None:
    assert start(clients.typed, CALL) == start(clients.typed, CALL) == execution_arn(MACHINE, NAME)
    assert len(states.sent) == 1


def test_a_name_that_is_taken_was_sent_by_this_request(clients: FakeClients, states: FakeStates) -> None:
    start(clients.typed, CALL)
    states.executions[execution_arn(MACHINE, NAME)]["status"] = "SUCCEEDED"
    assert start(clients.typed, CALL) == execution_arn(MACHINE, NAME)
    assert len(states.sent) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (refuse("StateMachineDoesNotExist", operation="StartExecution"), NotFoundError, "submit infra up"),
        (refuse("ExecutionLimitExceeded", operation="StartExecution"), TryLaterError, "when some have ended"),
        (refuse("AccessDeniedException", operation="StartExecution"), AccessError, "StartExecution is missing"),
        (refuse("InvalidName", operation="StartExecution"), FoldfleetError, "InvalidName"),
    ],
)
def test_what_is_refused_says_what_to_do(
    clients: FakeClients, states: FakeStates, fault: Exception, kind: type[Exception], words: str
) -> None:
    states.faults = [fault]
    with pytest.raises(kind, match=words):
        start(clients.typed, CALL)


def test_nothing_is_known_of_an_execution_that_was_forgotten(clients: FakeClients) -> None:
    assert describe(clients.typed, f"{EXECUTION}:gone") is None
    stop(clients.typed, f"{EXECUTION}:gone", "why")


def failed(error: str, cause: str) -> dict[str, Any]:
    return {"executionArn": f"{EXECUTION}:x", "status": "FAILED", "error": error, "cause": cause}


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        ("foldfleet.Refused", 2),
        ("foldfleet.Stuck", 75),
        ("foldfleet.OverLimit", 7),
        ("foldfleet.NoImage", 5),
        ("foldfleet.Broken", 75),
        ("States.Runtime", 75),
    ],
)
def test_an_execution_that_failed_has_an_exit_code(error: str, exit_code: int) -> None:
    verdict = verdict_of(failed(error, "It did not go well."), "r-1")
    assert verdict is not None
    assert verdict.error is not None
    assert verdict.error.exit_code == exit_code
    assert verdict.error.message.startswith(f"It did not go well. (So ended the execution x: {error}.)")
    assert "submit resume r-1" in verdict.error.message


def test_every_error_of_the_machine_has_an_exit_code() -> None:
    whole = json.dumps([search_definition(HOLES), intake_definition(HOLES)])
    raised = set(re.findall(r"foldfleet\.[A-Z][A-Za-z]+", whole))
    assert {*KINDS, INCOMPLETE} == raised
    assert {
        *ERRORS,
        "foldfleet.Broken",
    } == raised  # what `submit events list` calls by a name, and what it calls failed


def test_missing_cells_are_no_error_of_the_desk() -> None:
    verdict = verdict_of(failed(INCOMPLETE, "2 cells are missing."), "r-1")
    assert verdict is not None
    assert (verdict.error, verdict.text) == (None, "2 cells are missing.")


@pytest.mark.parametrize(("status", "words"), [("TIMED_OUT", "took longer"), ("ABORTED", "somebody stopped")])
def test_an_execution_that_was_ended_says_how_to_go_on(status: str, words: str) -> None:
    verdict = verdict_of({"executionArn": f"{EXECUTION}:x", "status": status}, "r-1")
    assert verdict is not None
    assert words in verdict.text and "submit resume r-1" in verdict.text


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED", "PENDING_REDRIVE"])
def test_what_goes_well_needs_no_verdict(status: str) -> None:
    assert verdict_of({"executionArn": f"{EXECUTION}:x", "status": status}, "r-1") is None
