"""Every path of the intake machine, executed: what starts a search, under which name, and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from submitter.machines.intake import intake_definition
from submitter.machines.messages import Upload
from tests.machines.interpreter import ACCOUNT, Execution, Failure, execute
from tests.machines.schema import check_event
from tests.machines.world import NAMES, World

ODD_KEYS = [
    "incoming/a b+c.yaml",
    "incoming/%2F%20.yml",
    "incoming/../../x.YAML",
    "incoming/\u00e9\u4e16\U0001f600.Yml",
    "incoming/'\"{}[]$.x\\n.yaml",
    "incoming/States.Format('{}',$.in).yaml",
    "incoming/" + "x" * 1000 + ".yaml",
]


def event(kind: str = "spec", key: str = "incoming/a.yaml", **changes: Any) -> dict[str, Any]:
    whole = {
        "kind": kind,
        "account": ACCOUNT,
        "bucket": "bucket-1",
        "object": {"key": key, "size": 5, "etag": "e", "sequencer": "0062E99A88DC407460"},
        "reason": "PutObject",
        "time": "2026-03-04T05:06:07Z",
    }
    return whole | changes


def run(world: World, given: Any) -> Execution:
    execution = execute(intake_definition(NAMES), given, world)
    assert execution.error != "States.Runtime", execution.cause
    for one in world.events:
        check_event(one["Detail"])
    return execution


def test_a_spec_starts_a_search() -> None:
    world = World()
    execution = run(world, event())
    [(name, given)] = world.started.items()
    assert Upload.model_validate_json(json.dumps(given["upload"])) == Upload(
        kind="spec",
        bucket="bucket-1",
        key="incoming/a.yaml",
        etag="e",
        size=5,
        sequencer="0062E99A88DC407460",
        time="2026-03-04T05:06:07Z",
        reason="PutObject",
    )
    assert given.keys() == {"upload"}
    assert len(name) == 64
    assert execution.output == {"execution": f"arn:execution:{name}"}
    assert world.of("startExecution")[0]["StateMachineArn"] == NAMES.search_machine
    assert world.count() == {"startExecution": 1}


def test_a_version_is_handed_on() -> None:
    world = World()
    given = event()
    given["object"]["version-id"] = "v1"
    run(world, given)
    [started] = world.started.values()
    assert started["upload"]["version"] == "v1"


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_arrive_letter_for_letter(key: str) -> None:
    world = World()
    assert run(world, event(key=key)).error is None
    [started] = world.started.values()
    assert started["upload"]["key"] == key


def test_the_same_event_three_times_starts_one() -> None:
    world = World()
    outputs = [run(world, event()).output for _ in range(3)]
    assert len(world.started) == 1
    assert outputs[1:] == [{"state": "already started"}] * 2
    assert world.count() == {"startExecution": 3}


@pytest.mark.parametrize("change", [{"sequencer": "0063"}, {"key": "incoming/b.yaml"}, {"version-id": "v"}])
def test_another_upload_starts_another(change: dict[str, str]) -> None:
    world = World()
    run(world, event())
    other = event()
    other["object"] |= change
    run(world, other)
    assert len(world.started) == 2


def test_the_same_content_again_starts_another() -> None:
    world = World()
    run(world, event())
    other = event()
    other["object"] |= {"sequencer": "0063", "etag": "e"}
    run(world, other)
    assert len(world.started) == 2


def test_data_starts_a_search_whatever_it_is_called() -> None:
    world = World()
    run(world, event("data", "data/nightly/2026.csv"))
    [started] = world.started.values()
    assert started["upload"]["kind"] == "data"


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("spec", "incoming/readme.txt"),
        ("spec", "incoming/folder.yaml/"),
        ("spec", "incoming/yaml"),
        ("data", "data/nightly/"),
        ("data", "store/runs/x/views/best.json"),
        ("spec", "store/runs/x/spec.yaml"),
    ],
)
def test_what_is_nothing_to_search_is_ignored(kind: str, key: str) -> None:
    world = World()
    assert run(world, event(kind, key)).output == {"state": "ignored"}
    assert world.calls == []


@pytest.mark.parametrize("change", [{"bucket": "other"}, {"account": "999999999999"}])
def test_a_foreign_bucket_is_refused_and_logged(change: dict[str, str]) -> None:
    world = World()
    execution = run(world, event(key=ODD_KEYS[4], **change))
    assert execution.error == "foldfleet.Refused"
    assert next(iter(change.values())) in str(execution.cause)
    assert [one["DetailType"] for one in world.events] == ["foldfleet Upload Refused"]
    assert [(one["state"], one["upload"]["key"]) for one in world.outcomes()] == [("refused", ODD_KEYS[4])]
    assert world.count() == {"putEvents": 1, "putObject": 1, "putMetricData": 1}


@pytest.mark.parametrize("given", [{}, {"kind": "schedule"}, {"kind": "spec", "object": {}}, {"kind": 3}, [], "text"])
def test_an_input_of_another_kind_is_refused(given: Any) -> None:
    world = World()
    assert run(world, given).error == "foldfleet.Refused"
    [outcome] = world.outcomes()
    assert (outcome["upload"], outcome["schedule"]) == (None, None)


def test_a_schedule_starts_one_search_each_time() -> None:
    world = World()
    given = {"kind": "schedule", "name": "nightly", "time": "2026-03-04T05:00:00Z", "spec": "s3://bucket-1/a.yaml"}
    run(world, given)
    run(world, given)
    run(world, given | {"time": "2026-03-05T05:00:00Z"})
    assert [started["spec"] for started in world.started.values()] == ["s3://bucket-1/a.yaml"] * 2


SCHEDULED = {"kind": "schedule", "name": "nightly", "time": "2026-03-04T05:00:00Z", "spec": "s3://bucket-1/a.yaml"}


def test_a_search_is_told_which_schedule_started_it() -> None:
    world = World()
    run(world, SCHEDULED)
    [started] = world.started.values()
    moment = {"name": "nightly", "time": "2026-03-04T05:00:00Z"}
    assert started == {"spec": "s3://bucket-1/a.yaml", "schedule": moment}


@pytest.mark.parametrize("given", [SCHEDULED, {**SCHEDULED, "name": "a 'b' {}"}])
def test_a_schedule_that_cannot_start_its_search_is_named(given: dict[str, str]) -> None:
    world = World()
    world.broken["states:startExecution"] = [Failure("StepFunctions.ExecutionLimitExceeded", "too 'many'")] * 9
    execution = run(world, given)
    assert execution.error == "foldfleet.Broken"
    for words in (f"The schedule {given['name']} did not start", "too 'many'", "next time", "`submit run SPEC --on"):
        assert words in str(execution.cause)
    assert "pload" not in str(execution.cause)
    [entry], [outcome] = world.events, world.outcomes()
    assert (entry["DetailType"], entry["Detail"]) == ("foldfleet Run Failed", outcome)
    assert (outcome["state"], outcome["run_id"], outcome["upload"]) == ("failed", "", None)
    assert outcome["schedule"] == {"name": given["name"], "time": given["time"]}
    assert world.count()["putMetricData"] == 1


def test_throttling_is_waited_out() -> None:
    world = World()
    world.broken["states:startExecution"] = [Failure("StepFunctions.ThrottlingException")] * 4
    assert run(world, event()).error is None
    assert len(world.started) == 1


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (Failure("StepFunctions.AccessDeniedException", "no 'right'"), "no 'right'"),
        (Failure("States.Timeout"), "States.Timeout"),
    ],
)
def test_a_search_that_cannot_be_started_is_no_silence(failure: Failure, told: str) -> None:
    world = World()
    world.broken["states:startExecution"] = [failure] * 9
    execution = run(world, event())
    assert execution.error == "foldfleet.Broken"
    assert told in str(execution.cause)
    assert "Upload the object again." in str(execution.cause)
    [entry], [outcome] = world.events, world.outcomes()
    assert (entry["DetailType"], entry["Detail"]) == ("foldfleet Upload Refused", outcome)
    assert (outcome["state"], outcome["schedule"]) == ("failed", None)
    assert outcome["upload"]["key"] == "incoming/a.yaml"
    assert world.count()["putMetricData"] == 1


def test_the_machine_has_no_name_of_its_own_prefix() -> None:
    text = json.dumps(intake_definition(NAMES))
    assert "store/outcomes/" in text
    assert "incoming/outcomes" not in text
