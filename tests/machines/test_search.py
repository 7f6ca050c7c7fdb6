"""Every path of the search machine, executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from jobspec.search.inspection import Document
from submitter.machines.messages import (
    FORMAT_VERSION,
    ONE_VERSION,
    Ask,
    Ceilings,
    Error,
    Order,
    Owner,
    Prepare,
    Site,
    Upload,
)
from submitter.machines.search import PLANS, search_definition
from submitter.machines.states import UNCLEAR
from submitter.machines.verdicts import ROUNDS
from tests.machines.interpreter import MACHINE, MAX_EVENTS, Execution, Failure, execute
from tests.machines.schema import check_event
from tests.machines.world import CELLS, NAMES, PLAN_KEY, REDUCE, RUN, WORK, World, order, summary

SPEC = {"spec": "s3://bucket-1/a spec+%2F \u00e9'\"{}.yaml"}
UPLOAD: dict[str, Any] = {
    "kind": "spec",
    "bucket": "bucket-1",
    "key": "incoming/a b+c%2F../\u00e9\u4e16'\"{}$.x.yaml",
    "version": "",
    "etag": "abc",
    "size": 12,
    "sequencer": "0055",
    "time": "2026-03-04T05:06:07Z",
    "reason": "PutObject",
}
PREPARE = {"definition": "ff-prepare-e1", "name": "digits-p", "spec": "s3://b/k", "token": "t-1"}
DAY_S = 24 * 3600
NAME = f"{RUN}-12345678-r0"
FAILED = Failure("States.TaskFailed", json.dumps({"JobName": "x", "Status": "FAILED", "StatusReason": "Array child"}))
LATE = Failure("States.Timeout")
HOST = {"JobId": "p:1", "StatusReason": "Host EC2 (instance i-1) terminated.", "Container": {"ExitCode": 1}}


def run(world: World, given: Any = SPEC, *, topic: str = "", name: str = "e1") -> Execution:
    execution = execute(search_definition(dataclasses.replace(NAMES, topic_arn=topic)), given, world, name=name)
    assert "States.Runtime" not in (execution.error, execution.cause)
    for event in world.events:
        check_event(event["Detail"])
    assert len(world.outcomes()) == 1
    return execution


def told(world: World) -> list[tuple[str, str]]:
    return [(event["DetailType"], event["Detail"]["state"]) for event in world.events]


STARTED = ("foldfleet Run Started", "started")
FINISHED = ("foldfleet Run Finished", "finished")


def test_a_spec_by_its_url() -> None:
    world = World([order("send")], [summary()], [[0, 3]])
    execution = run(world, SPEC)
    assert execution.error is None
    assert execution.output["run_id"] == RUN
    assert execution.output["state"] == "finished"
    assert execution.output["cells"] == CELLS
    assert execution.output["best"] == summary()["best"]
    assert execution.output["files"] == summary()["files"]
    assert execution.output["message"] == f"{RUN} is finished: 12 of 12 cells have scores."
    assert told(world) == [STARTED, FINISHED]
    assert world.count()["putMetricData"] == 0
    assert world.outcomes()[0] == execution.output
    token = hashlib.sha256(execution.arn.encode()).hexdigest()
    assert world.names("submitJob") == [f"plan-{token}-p0", f"{NAME}-a0", f"{NAME}-reduce"]


def test_what_the_planner_is_asked() -> None:
    world = World([order("send")], [summary()])
    execution = run(world)
    parameters = world.of("submitJob.sync")[0]["Parameters"]
    ask = Ask.model_validate_json(parameters["ask"])
    assert ask == Ask(execution=execution.arn, spec=SPEC["spec"])
    site = Site.model_validate_json(parameters["site"])
    assert site.machine == MACHINE
    assert site.store == "s3://bucket-1/store"
    assert (site.max_vcpus, site.environments) == (64, 1)
    assert site.ceilings.model_dump() == {
        "max_cells": 100_000,
        "max_task_vcpus": 16,
        "max_task_memory_gib": 64.0,
        "max_hours": 24.0,
        "max_vcpu_hours": 500.0,
    }
    assert world.of("submitJob.sync")[0]["Tags"] == {"foldfleet:stack": "ff"}


def test_the_requests_of_arrays_and_reduce() -> None:
    world = World([order("send")], [summary()], [[0, 10_000], [10_000, 1], [10_001, 7]])
    run(world)
    arrays = {job["JobName"]: job for job in world.of("submitJob.sync") if job["JobDefinition"] == WORK}
    assert arrays[f"{NAME}-a0"]["ArrayProperties"] == {"Size": 10_000}
    assert "ArrayProperties" not in arrays[f"{NAME}-a1"]
    assert arrays[f"{NAME}-a2"]["ArrayProperties"] == {"Size": 7}
    assert arrays[f"{NAME}-a2"] == {
        "JobQueue": NAMES.queue_arn,
        "JobName": f"{NAME}-a2",
        "JobDefinition": WORK,
        "Parameters": order("send")["parameters"] | {"first_task": "10001"},
        "ContainerOverrides": order("send")["overrides"],
        "Timeout": {"AttemptDurationSeconds": 3600},
        "Tags": order("send")["tags"],
        "ArrayProperties": {"Size": 7},
    }
    reduce = next(job for job in world.of("submitJob.sync") if job["JobDefinition"] == REDUCE)
    assert reduce["Parameters"].keys() == {"store", "run", "answer"}
    assert reduce["ContainerOverrides"] == order("send")["overrides"]


@pytest.mark.parametrize("spec", ["model: \u00e9 \"x\"\n'y' {}\n", {"model": {"a": [1, "\u4e16 \"'{}"]}}])
def test_a_spec_in_the_input(spec: Any) -> None:
    world = World([order("send")], [summary()])
    execution = run(world, {"spec": spec})
    token = hashlib.sha256(execution.arn.encode()).hexdigest()
    assert execution.error is None
    assert json.loads(world.objects[f"store/answers/{token}-spec.json"]) == spec
    assert world.asks()[0]["spec"] == f"s3://bucket-1/store/answers/{token}-spec.json"


def test_a_long_spec_in_the_input() -> None:
    world = World([order("send")], [summary()])
    assert run(world, {"spec": "x" * 200_000}).error is None


def test_a_spec_in_the_input_whose_acknowledgement_was_lost() -> None:
    world = World([order("send")], [summary()])
    put = world._putObject

    def lossy(given: dict[str, Any]) -> dict[str, Any]:
        answer = put(given)
        if given["Key"].startswith("store/answers/") and world.count()["putObject"] == 1:
            raise Failure("S3.SdkClientException", "connection reset")
        return answer

    world._putObject = lossy  # type: ignore[method-assign]
    assert run(world, {"spec": "a: 1"}).error is None


def test_a_spec_in_the_input_that_cannot_be_kept() -> None:
    world = World()
    world.broken["aws-sdk:s3:putObject"] = [Failure("S3.S3Exception", "Access Denied (Status Code: 403)")] * 7
    execution = run(world, {"spec": "a: 1"})
    assert execution.error == "foldfleet.Broken"
    assert "Access Denied" in str(execution.cause)


def test_a_spec_in_the_input_that_is_not_kept_in_time() -> None:
    world = World()
    world.broken["aws-sdk:s3:putObject"] = [LATE] * 7
    assert run(world, {"spec": "a: 1"}).error == "foldfleet.Stuck"


def test_a_run_by_its_id() -> None:
    world = World([order("done", summary=summary(), message="Everything was there.")])
    execution = run(world, {"run": RUN})
    assert execution.output["message"] == "Everything was there."
    assert execution.output["cells"] == CELLS
    assert world.asks()[0]["run"] == RUN
    assert told(world) == [FINISHED]


def test_done_without_a_summary() -> None:
    world = World([order("done", message="A newer upload of this key takes its place.")])
    execution = run(world, {"upload": UPLOAD})
    assert execution.output["cells"] is None
    assert execution.output["upload"] == UPLOAD


def test_an_upload_that_was_replaced_ends_without_an_event() -> None:
    world = World([order("done", run_id="", message="It was uploaded anew since.")])
    execution = run(world, {"upload": UPLOAD}, topic="arn:aws:sns:eu-central-1:123456789012:t")
    assert execution.error is None
    assert (execution.output["state"], execution.output["run_id"]) == ("superseded", "")
    assert (execution.output["message"], execution.output["upload"]) == ("It was uploaded anew since.", UPLOAD)
    assert execution.output == world.outcomes()[0]
    check_event(execution.output)
    assert world.count() == {"submitJob.sync": 1, "getObject": 1, "putObject": 1}
    [key] = [key for key in world.objects if key.startswith("store/outcomes/")]
    assert "-superseded-" in key


MOMENT = {"name": "nightly", "time": "2026-03-04T05:00:00Z"}


@pytest.mark.parametrize("ending", [order("send"), order("refuse", run_id="", error={"exit": 2, "message": "No."})])
def test_whatever_a_schedule_starts_says_which(ending: dict[str, Any]) -> None:
    world = World([ending], [summary()])
    run(world, {**SPEC, "schedule": MOMENT}, topic="arn:aws:sns:eu-central-1:123456789012:t")
    assert [event["Detail"]["schedule"] for event in world.events] == [MOMENT] * len(world.events) != []
    assert [notice["Message"] for notice in world.of("publish")] == [event["Detail"] for event in world.events]
    assert world.outcomes()[0]["schedule"] == MOMENT
    assert world.asks()[0]["spec"] == SPEC["spec"]


@pytest.mark.parametrize("schedule", [None, "x", 3, {}, {"name": {"a": 1}}, {"time": "t"}])
def test_what_is_no_schedule_is_passed_over(schedule: Any) -> None:
    world = World([order("send")], [summary()])
    assert run(world, {**SPEC, "schedule": schedule}).error is None
    assert world.outcomes()[0]["schedule"] is None


def test_an_upload_keeps_its_odd_key() -> None:
    world = World([order("send")], [summary()])
    execution = run(world, {"upload": UPLOAD})
    asked = Ask.model_validate_json(world.of("submitJob.sync")[0]["Parameters"]["ask"])
    assert asked.upload is not None
    assert asked.upload.model_dump() == UPLOAD
    assert world.events[-1]["Detail"]["upload"] == execution.output["upload"] == UPLOAD


def test_the_round_of_a_desk_is_sent_without_a_plan() -> None:
    world = World([], [summary()])
    execution = run(world, {"round": order("send", deadline=-1.0)})
    assert execution.error is None
    assert world.asks() == []
    assert world.names("submitJob") == [f"{NAME}-a0", f"{NAME}-reduce"]
    assert {json.dumps(sent["ContainerOverrides"]) for sent in world.of("submitJob.sync")} == {
        json.dumps(
            {
                "ResourceRequirements": [{"Type": "VCPU", "Value": "1"}, {"Type": "MEMORY", "Value": "1884"}],
                "Environment": [{"Name": "FOLDFLEET_WORKERS", "Value": "1"}],
            }
        )
    }


@pytest.mark.parametrize(
    "forged",
    [
        order("prepare", prepare={"definition": "ff-plan", "name": "x", "spec": "s3://b/k", "token": "t"}),
        order("reduce"),
        order("send", definitions={"work": "ff-plan", "reduce": REDUCE}),
        order("send", definitions={"work": WORK, "reduce": WORK}),
        order("send", definitions={"work": WORK.replace("/ff-", "/other-"), "reduce": REDUCE}),
        order("send", parameters={"store": "s3://bucket-1/store"}),
        {"next": "send"},
        {name: value for name, value in order("send").items() if name != "step_seconds"},
        {name: value for name, value in order("send").items() if name != "format_version"},
        order("send", format_version=FORMAT_VERSION + 1),
        order("send", format_version=str(FORMAT_VERSION)),
        order("send", format_version=None),
    ],
    ids=["prepare", "reduce", "planner", "role", "stack", "shape", "bare", "older", "none", "newer", "text", "null"],
)
def test_an_order_that_no_desk_makes_is_refused(forged: dict[str, Any]) -> None:
    world = World()
    execution = run(world, {"round": forged})
    assert execution.error == "foldfleet.Refused"
    assert ONE_VERSION in str(execution.cause)
    assert world.count() == {"putEvents": 1, "putObject": 1, "putMetricData": 1}


@pytest.mark.parametrize(
    "answer",
    [
        order("send", format_version=FORMAT_VERSION + 1),
        order("send", format_version=FORMAT_VERSION - 1),
        order("send", format_version=str(FORMAT_VERSION)),
        {name: value for name, value in order("send").items() if name != "format_version"},
        {"format_version": FORMAT_VERSION + 1, "step": "send"},
        {},
        "send",
    ],
    ids=["newer", "older", "text", "none", "other keys", "empty", "word"],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_planner_of_another_version_ends_in_words(answer: Any, again: bool) -> None:
    exit_ok = {"exit": 0, "answer": answer, "error": None}
    world = World([order("send"), exit_ok] if again else [exit_ok], [summary(complete=False)])
    world.jobs = {f"{NAME}-a0": [FAILED]}
    execution = run(world, {"upload": UPLOAD})
    assert execution.error == "foldfleet.NoImage"
    assert ONE_VERSION in str(execution.cause)
    assert told(world)[-1] == ("foldfleet Run Failed", "failed")
    assert world.events[-1]["Detail"]["upload"] == UPLOAD
    assert world.outcomes()[0]["message"] == execution.cause
    assert len(world.asks()) == 1 + again
    assert world.count()["putMetricData"] == 1


@pytest.mark.parametrize("lacking", ["cells", "best", "files", "complete"])
def test_a_summary_of_another_version_ends_in_words(lacking: str) -> None:
    short = {name: value for name, value in summary().items() if name != lacking}
    execution = run(World([order("send")], [short]))
    assert (execution.error, ONE_VERSION in str(execution.cause)) == ("foldfleet.NoImage", True)


def test_every_order_says_its_version() -> None:
    """The planner's and the desk's are one model; the world here answers with the same keys."""
    made = Order(next="done").model_dump(mode="json")
    assert made["format_version"] == FORMAT_VERSION
    assert made.keys() == order("done").keys()


KEYS: dict[type[Document], str] = {
    Order: (
        "bucket deadline definitions error format_version message name next num_cells num_tasks overrides "
        "owners parameters plan prepare round run_id step_seconds summary tags timeout work_seconds"
    ),
    Prepare: "definition name spec token",
    Owner: "execution job name",
    Error: "exit message",
    Ask: "deadline execution over prepared run spec upload",
    Upload: "bucket etag key kind reason sequencer size time version",
    Site: (
        "account bucket ceilings data_places data_prefix environments instance_types machine max_vcpus region "
        "spec_prefix stack store"
    ),
    Ceilings: "max_cells max_hours max_task_memory_gib max_task_vcpus max_vcpu_hours",
}
"""Of version 2."""


@pytest.mark.parametrize("kind", KEYS, ids=lambda kind: str(kind.__name__))
def test_the_version_of_orders_is_raised_with_their_keys(kind: type[Document]) -> None:
    """If this fails: raise `FORMAT_VERSION`, then write the new keys here."""
    assert (FORMAT_VERSION, " ".join(sorted(kind.model_fields))) == (2, KEYS[kind])


@pytest.mark.parametrize("lacking", sorted(order("send")))
def test_no_gap_of_an_order_ends_an_execution_without_a_word(lacking: str) -> None:
    world = World([], [summary()])
    given = {name: value for name, value in order("send").items() if name != lacking}
    execution = run(world, {"round": given})
    assert execution.error in (None, "foldfleet.Refused"), execution.cause
    assert told(world)


@pytest.mark.parametrize(
    ("given", "transitions"),
    [
        (World([order("send")], [summary()]), 46),
        (World([order("send")], [summary()], [[0, 10], [10, 10]]), 46 + 5),
        (World([order("prepare", prepare=PREPARE), order("send")], [summary()]), 46 + 11),
    ],
    ids=["one", "two-arrays", "prepare"],
)
def test_the_transitions_that_docs_count(given: World, transitions: int) -> None:
    assert len(run(given).states) == transitions


def test_an_owner_too_large_to_be_described_is_over() -> None:
    owner = {"execution": "arn:aws:states:x:execution:y:z", "job": "", "name": ""}
    world = World([order("follow", owners=[owner], round=4), order("done", summary=summary(), message="Done.")])
    world.broken["aws-sdk:sfn:describeExecution"] = [Failure("States.DataLimitExceeded", "too large")] * 7
    assert run(world).error is None
    assert [ask["over"] for ask in world.asks()] == [-1, 4]


def test_an_order_widens_neither_command_nor_environment() -> None:
    world = World([], [summary()])
    overrides = {"Command": ["timeit", "x"], "Environment": [{"Name": "PYTHONPATH", "Value": "/tmp"}]}
    assert run(world, {"round": order("send", overrides=overrides)}).error is None
    for sent in world.of("submitJob.sync"):
        assert set(sent["ContainerOverrides"]) == {"Environment", "ResourceRequirements"}
        assert [one["Name"] for one in sent["ContainerOverrides"]["Environment"]] == ["FOLDFLEET_WORKERS"]


def test_a_planner_or_reduce_that_was_killed_is_started_again() -> None:
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    killed: dict[str, list[Failure | None]] = {f"plan-{token}-p0": [FAILED], f"{NAME}-reduce": [FAILED]}
    world = World([order("send")], [summary()], jobs=killed)
    assert run(world).error is None
    assert world.names("submitJob").count(f"{NAME}-reduce") == 2


def test_a_planner_that_is_always_killed_says_which_log_to_read() -> None:
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    execution = run(World(jobs={f"plan-{token}-p0": [FAILED] * 9}))
    assert (execution.error, f"plan-{token}-p0 on AWS Batch" in str(execution.cause)) == ("foldfleet.Broken", True)
    assert "resume" not in str(execution.cause)


def test_a_key_too_long_for_a_request_is_refused() -> None:
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    failure = Failure("States.TaskFailed", '{"StatusReason":"Container Overrides length must be at most 8192"}')
    world = World(jobs={f"plan-{token}-p0": [failure] * 9})
    execution = run(world, {"upload": UPLOAD})
    assert (execution.error, "a shorter key" in str(execution.cause)) == ("foldfleet.Refused", True)
    assert told(world) == [("foldfleet Upload Refused", "refused")]
    assert world.count()["putMetricData"] == 1


def test_a_request_that_the_role_may_not_make_is_not_said_to_lack_an_image() -> None:
    denied = Failure("Batch.ClientException", "x is not authorized to perform: batch:SubmitJob on job-definition/ff")
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    execution = run(World(jobs={f"plan-{token}-p0": [denied] * 99}))
    assert (execution.error, "not authorized" in str(execution.cause)) == ("foldfleet.Broken", True)


@pytest.mark.parametrize("error", UNCLEAR)
def test_a_step_whose_request_met_a_broken_connection_is_sent_again(error: str) -> None:
    world = World([order("prepare", prepare=PREPARE), order("done")], jobs={"digits-p": [Failure(error)]})
    assert run(world).error is None
    assert world.names("submitJob").count("digits-p") == 2


def test_the_round_of_a_desk_that_fails_is_planned_again() -> None:
    world = World([order("send", round=1, name="r1")], [summary(complete=False), summary()])
    execution = run(world, {"round": order("send", deadline=-1.0)})
    assert execution.error is None
    assert [(ask["run"], ask["deadline"], ask["over"]) for ask in world.asks()] == [(RUN, -1.0, -1)]


def test_one_task_takes_its_own_path() -> None:
    world = World([order("send")], [summary()], [[0, 1]])
    execution = run(world)
    assert "One" in execution.states
    assert "Many" not in execution.states


def test_a_plan_without_arrays_is_reduced() -> None:
    world = World([order("send")], [summary()])
    world.objects[PLAN_KEY] = json.dumps({"arrays": []})
    assert "Each" not in run(world).states


def test_only_the_reduce_is_missing() -> None:
    world = World([order("reduce")], [summary()])
    execution = run(world)
    assert world.names("submitJob")[1:] == [f"{NAME}-reduce"]
    assert execution.error is None
    assert told(world) == [FINISHED]


def test_prepare_then_plan() -> None:
    prepare = {"definition": "ff-prepare-e1", "name": "digits-p", "spec": SPEC["spec"], "token": "t-1"}
    world = World([order("prepare", prepare=prepare, run_id=""), order("send")], [summary()])
    run(world)
    job = world.of("submitJob.sync")[1]
    assert job["JobName"] == "digits-p"
    assert job["Parameters"] == {"store": "s3://bucket-1/store", "spec": SPEC["spec"], "answer": "t-1"}
    assert [(ask["spec"], ask["prepared"]) for ask in world.asks()] == [(SPEC["spec"], None), (SPEC["spec"], "t-1")]


def test_a_prepare_that_fails_is_told_by_the_planner() -> None:
    refusal = order("refuse", error={"exit": 3, "message": "There is no object s3://b/d.csv."})
    world = World([order("prepare", prepare=PREPARE), refusal], jobs={"digits-p": [FAILED]})
    execution = run(world)
    assert (execution.error, execution.cause) == ("foldfleet.Refused", "There is no object s3://b/d.csv.")


@pytest.mark.parametrize("failure", [Failure("Batch.ClientException", "JobDefinition not found"), LATE])
def test_a_prepare_that_never_began(failure: Failure) -> None:
    world = World([order("prepare", prepare=PREPARE)], jobs={"digits-p": [failure]})
    assert run(world).error == ("foldfleet.Stuck" if failure is LATE else "foldfleet.NoImage")


@pytest.mark.parametrize("upload", [None, UPLOAD])
def test_a_refusal_makes_one_event_one_outcome_and_one_count(upload: Any) -> None:
    message = "model: `os.system` is no estimator. \u00e9 \"'{}\nType `submit check`."
    world = World([order("refuse", run_id="", error={"exit": 2, "message": message})])
    execution = run(world, {"upload": upload} if upload else SPEC)
    assert (execution.error, execution.cause) == ("foldfleet.Refused", message)
    kind = "foldfleet Upload Refused" if upload else "foldfleet Run Failed"
    assert told(world) == [(kind, "refused")]
    assert world.outcomes()[0]["message"] == message
    assert world.count() == {"submitJob.sync": 1, "getObject": 1, "putEvents": 1, "putObject": 1, "putMetricData": 1}
    assert world.of("putMetricData")[0]["MetricData"][0]["Dimensions"] == [{"Name": "Stack", "Value": "ff"}]
    [key] = [key for key in world.objects if key.startswith("store/outcomes/")]
    assert key.startswith("store/outcomes/2026-03-04/05:06:07.089Z-refused-")


@pytest.mark.parametrize("upload", [None, UPLOAD])
@pytest.mark.parametrize(("code", "error"), [(7, "OverLimit"), (5, "Refused"), (130, "Refused")])
def test_what_had_begun_failed_and_was_not_refused(upload: Any, code: int, error: str) -> None:
    stop = order("refuse", error={"exit": code, "message": "The hours are used up."})
    world = World([order("send"), stop], [summary(complete=False)], jobs={f"{NAME}-a0": [FAILED]})
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1", "StatusReason": "Array child"}], "p-1": [HOST]}
    execution = run(world, {"upload": upload} if upload else SPEC)
    assert (execution.error, execution.cause) == (f"foldfleet.{error}", "The hours are used up.")
    assert told(world)[-1] == ("foldfleet Run Failed", "failed")
    assert "putMetricData" not in world.count()


@pytest.mark.parametrize("upload", [None, UPLOAD])
def test_a_follower_of_what_was_cancelled_is_not_refused(upload: Any) -> None:
    world = World([order("refuse", error={"exit": 130, "message": "It was cancelled."})])
    execution = run(world, {"upload": upload} if upload else SPEC)
    assert execution.error == "foldfleet.Refused"
    assert told(world) == [("foldfleet Run Failed", "failed")]
    assert "putMetricData" not in world.count()


@pytest.mark.parametrize("given", [{}, {"spec": None}, {"spec": ""}, {"spec": 3}, {"run": 3}, {"spec": True}, [], "x"])
def test_an_input_with_nothing_to_search(given: Any) -> None:
    world = World()
    execution = run(world, given)
    assert execution.error == "foldfleet.Refused"
    assert '{"spec": "s3://BUCKET/KEY"}' in str(execution.cause)
    assert world.count() == {"putEvents": 1, "putObject": 1, "putMetricData": 1}


def test_a_failed_array_is_retried_with_what_is_unfinished() -> None:
    second = order("send", round=1, name="r1")
    world = World([order("send"), second], [summary(complete=False), summary()], jobs={f"{NAME}-a0": [FAILED]})
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1", "StatusReason": "Array child"}], "p-1": [HOST]}
    execution = run(world)
    assert execution.error is None
    assert [ask["run"] for ask in world.asks()] == [None, RUN]
    assert [ask["deadline"] for ask in world.asks()] == [0, 1234.5]
    assert [name for name in world.names("submitJob") if not name.startswith("plan")] == [
        f"{NAME}-a0",
        f"{NAME}-reduce",
        "r1-a0",
        "r1-reduce",
    ]
    assert told(world) == [STARTED, FINISHED]
    answers = [job["Parameters"]["answer"] for job in world.of("submitJob.sync") if "answer" in job["Parameters"]]
    assert len(set(answers)) == len(answers)


def test_after_some_rounds_it_is_incomplete() -> None:
    orders = [order("send", round=index, name=f"r{index}") for index in range(ROUNDS)]
    jobs: dict[str, list[Failure | None]] = {f"r{index}-a0": [FAILED] for index in range(ROUNDS)}
    world = World(orders, [summary(complete=False)] * ROUNDS, jobs=jobs)
    world.listed = {f"r{index}-a0": [{"JobId": "p-1"}] for index in range(ROUNDS)} | {"p-1": [HOST]}
    execution = run(world)
    assert execution.error == "foldfleet.Incomplete"
    assert f"`submit resume {RUN}`" in str(execution.cause)
    assert "Host EC2 (instance i-1) terminated." in str(execution.cause)
    assert told(world) == [STARTED, ("foldfleet Run Failed", "failed")]
    assert world.events[-1]["Detail"]["cells"]["missing"] == 4


def test_gaps_that_are_too_many_to_list_are_read_by_the_planner() -> None:
    world = World([order("send"), order("done", summary=summary(), message="Done.")], [summary(complete=False)])
    get = world._getObject

    def limited(given: dict[str, Any]) -> dict[str, Any]:
        if "-r1" in given["Key"]:
            raise Failure("States.DataLimitExceeded")
        return get(given)

    world._getObject = limited  # type: ignore[method-assign]
    assert run(world).output["cells"] == CELLS


@pytest.mark.parametrize("name", ["Batch.TooManyRequestsException", "Batch.AWSBatchException"])
def test_a_throttled_request_is_sent_again(name: str) -> None:
    world = World([order("send")], [summary()], jobs={f"{NAME}-a0": [Failure(name)] * 3})
    execution = run(world)
    assert execution.error is None
    assert world.names("submitJob").count(f"{NAME}-a0") == 4
    assert "Find" not in execution.states


def test_a_request_whose_acknowledgement_was_lost_is_followed() -> None:
    world = World([order("send")], [summary()], jobs={f"{NAME}-a0": [Failure("Batch.ServerException")]})
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1"}]}
    world.statuses = {"p-1": ["SUBMITTED", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]}
    execution = run(world)
    assert execution.error is None
    assert world.names("submitJob").count(f"{NAME}-a0") == 1
    assert execution.waits == [15, 30, 45, 60]


def test_a_request_that_was_lost_is_sent_again() -> None:
    world = World([order("send")], [summary()], jobs={f"{NAME}-a0": [Failure("Batch.ServerException")] * 2})
    assert run(world).error is None
    assert world.names("submitJob").count(f"{NAME}-a0") == 3


def test_a_request_that_is_always_refused_is_no_image() -> None:
    failures: list[Failure | None] = [Failure("Batch.ClientException", "JobDefinition x is not active")] * 9
    world = World([order("send", name=f"r{i}") for i in range(3)], [summary(complete=False)] * 3)
    world.jobs = {f"r{i}-a0": list(failures) for i in range(3)}
    execution = run(world)
    assert execution.error == "foldfleet.Incomplete"
    assert "JobDefinition x is not active" in str(execution.cause)


def test_an_array_that_the_queue_gave_up_is_decoded() -> None:
    why = "Canceled by JobStateTimeLimit action due to reason: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    world = World([order("send")], [summary(complete=False)], jobs={f"{NAME}-a0": [FAILED]})
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1", "StatusReason": why}]}
    execution = run(world)
    assert execution.error == "foldfleet.Stuck"
    assert "no instance of the stack's types is large enough" in str(execution.cause)
    assert "--instance-types" in str(execution.cause)


def test_an_array_over_its_time_is_ended_and_what_is_there_is_reduced() -> None:
    world = World([order("send")], [summary(complete=False)], jobs={f"{NAME}-a0": [LATE]})
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1"}]}
    execution = run(world)
    assert execution.error == "foldfleet.OverLimit"
    assert world.of("terminateJob") == [{"JobId": "p-1", "Reason": "The execution was over its time"}]
    assert world.events[-1]["Detail"]["cells"]["done"] == 8
    assert f"`submit resume {RUN}`" in str(execution.cause)


def test_an_array_that_waits_until_its_time_is_up_is_decoded() -> None:
    world = World([order("send")], [summary(complete=False)], jobs={f"{NAME}-a0": [LATE]})
    waiting = {"JobId": "p-1:0", "StatusReason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - none"}
    world.listed = {f"{NAME}-a0": [{"JobId": "p-1"}], "p-1": [waiting]}
    execution = run(world)
    assert execution.error == "foldfleet.Stuck"
    assert "no spot instances" in str(execution.cause)
    assert [job.get("JobStatus") for job in world.of("listJobs")] == [None, "RUNNABLE"]


def test_an_array_that_was_ready_in_time_after_all_is_finished() -> None:
    world = World([order("send")], [summary()], jobs={f"{NAME}-a0": [LATE]})
    assert run(world).error is None


def test_a_plan_that_never_began_is_decoded() -> None:
    world = World(jobs={})
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    world.jobs = {f"plan-{token}-p0": [LATE]}
    world.listed = {f"plan-{token}-p0": [{"JobId": "j", "StatusReason": "UNDETERMINED - x"}]}
    execution = run(world)
    assert execution.error == "foldfleet.Stuck"
    assert "does not know why it waits" in str(execution.cause)
    world = World(jobs={f"plan-{token}-p0": [LATE]})
    assert run(world).error == "foldfleet.Stuck"


def test_a_plan_that_never_began_while_batch_does_not_answer_either() -> None:
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    world = World(jobs={f"plan-{token}-p0": [LATE]})
    world.broken["aws-sdk:batch:listJobs"] = [LATE] * 7
    execution = run(world)
    assert execution.error == "foldfleet.Stuck"
    assert "States.Timeout" in str(execution.cause)


def test_an_array_that_fails_while_batch_does_not_answer_either() -> None:
    world = World([order("send")] * ROUNDS, [summary(complete=False)] * ROUNDS)
    world.jobs = {f"{NAME}-a0": [FAILED] * ROUNDS}
    world.broken["aws-sdk:batch:listJobs"] = [LATE] * 7 * ROUNDS
    execution = run(world)
    assert execution.error == "foldfleet.Incomplete"
    assert "States.Timeout States.Timeout" in str(execution.cause)


def test_there_is_no_image() -> None:
    token = hashlib.sha256(run(World([order("done")])).arn.encode()).hexdigest()
    world = World(jobs={f"plan-{token}-p0": [Failure("Batch.ClientException", "JobDefinition ff-plan not found")] * 2})
    execution = run(world)
    assert execution.error == "foldfleet.NoImage"
    assert "submit image push" in str(execution.cause)
    assert "ff-plan" in str(execution.cause)
    assert world.count()["putMetricData"] == 1  # an alarm on it hears of what stops every upload


@pytest.mark.parametrize(
    "orders",
    [
        [],
        [{"exit": 1, "answer": None, "error": None}],
        [order("dance")],
        [order("follow")],
        [order("refuse")],
        [order("follow", owners=[{"execution": "", "job": "", "name": "x"}])] * (PLANS + 1),
    ],
    ids=["nothing", "empty", "unknown", "nobody", "silent", "circle"],
)
def test_a_planner_that_makes_no_sense(orders: list[dict[str, Any]]) -> None:
    execution = run(World(orders))
    assert execution.error == "foldfleet.Broken"


def test_a_planner_that_answers_with_an_error() -> None:
    error = {"exit": 1, "answer": None, "error": {"message": "The store is gone."}}
    execution = run(World([error]))
    assert (execution.error, execution.cause) == ("foldfleet.Broken", "The store is gone.")


def test_a_reduce_that_fails_says_why() -> None:
    error = {"exit": 3, "answer": None, "error": {"message": "The object was damaged."}}
    world = World([order("send")], jobs={f"{NAME}-reduce": [FAILED]})
    get = world._getObject

    def answered(given: dict[str, Any]) -> dict[str, Any]:
        return {"Body": json.dumps(error)} if "-r1" in given["Key"] else get(given)

    world._getObject = answered  # type: ignore[method-assign]
    assert run(world).cause == "The object was damaged."


@pytest.mark.parametrize(("failure", "error"), [(FAILED, "Broken"), (LATE, "Stuck")])
def test_a_reduce_that_leaves_no_answer(failure: Failure, error: str) -> None:
    world = World([order("send")], jobs={f"{NAME}-reduce": [failure] * 2})
    world.listed = {f"{NAME}-reduce": [{"JobId": "p-9"}]}
    assert run(world).error == f"foldfleet.{error}"
    ended = [{"JobId": "p-9", "Reason": "The execution was over its time"}]
    assert world.of("terminateJob") == (ended if failure is LATE else [])


@pytest.mark.parametrize(
    ("owner", "watched"),
    [
        ({"execution": "arn:aws:states:x:execution:y:z", "job": "", "name": ""}, "arn:aws:states:x:execution:y:z"),
        ({"execution": "", "job": "0a-1b", "name": ""}, "0a-1b"),
        ({"execution": "", "job": "", "name": "digits-a0"}, "0a-2b"),
    ],
)
def test_an_owner_is_followed_until_it_is_over(owner: dict[str, str], watched: str) -> None:
    world = World([order("follow", owners=[owner], round=4), order("done", summary=summary(), message="Done.")])
    world.listed = {"digits-a0": [{"JobId": "0a-2b"}]}
    world.statuses = {watched: ["RUNNING", "RUNNING", "FAILED"]}
    execution = run(world)
    assert execution.error is None
    assert [ask["over"] for ask in world.asks()] == [-1, 4]
    assert execution.waits == [15, 30, 45]
    assert told(world) == [FINISHED]


@pytest.mark.parametrize(
    "owner",
    [
        {"execution": "arn:gone", "job": "", "name": ""},
        {"execution": "", "job": "0a-1b", "name": ""},
        {"execution": "", "job": "", "name": "digits-a0"},
    ],
)
def test_an_owner_who_is_nowhere_is_over(owner: dict[str, str]) -> None:
    world = World([order("follow", owners=[owner]), order("done", summary=summary(), message="Done.")])
    assert run(world).error is None


def test_many_owners_for_a_day_stay_within_the_history() -> None:
    owners = [{"execution": "", "job": f"0a-{index}", "name": ""} for index in range(21)]
    world = World([order("follow", owners=owners), order("done", message="Done.")])
    world.statuses = {owner["job"]: ["SUCCEEDED"] for owner in owners} | {"0a-0": ["RUNNING"] * 106 + ["SUCCEEDED"]}
    execution = run(world)
    assert execution.error is None
    assert sum(execution.waits) > DAY_S
    assert len(execution.waits) == 107 + 20
    assert 15 * len(execution.waits) < MAX_EVENTS / 5


def test_a_notice_is_published_where_there_is_a_topic() -> None:
    world = World([order("send")], [summary()])
    topic = "arn:aws:sns:eu-central-1:123456789012:t"
    run(world, topic=topic)
    assert [(one["TopicArn"], one["Subject"]) for one in world.of("publish")] == [
        (topic, "foldfleet Run Started"),
        (topic, "foldfleet Run Finished"),
    ]
    assert world.of("publish")[1]["Message"] == world.events[1]["Detail"]


def test_what_cannot_be_told_holds_up_nothing() -> None:
    world = World([order("send")], [summary()])
    for integration in ("events:putEvents", "sns:publish", "aws-sdk:s3:putObject"):
        world.broken[integration] = [Failure("X.Exception")] * 99
    definition = search_definition(dataclasses.replace(NAMES, topic_arn="arn:aws:sns:x"))
    execution = execute(definition, SPEC, world)
    assert execution.error is None
    assert execution.output["state"] == "finished"


def test_an_execution_with_an_odd_name() -> None:
    world = World([order("send")], [summary()])
    assert run(world, name="\u00e9 \u4e16-'x'(1)").error is None
    assert all(len(name) <= 128 and name.isascii() for name in world.names("submitJob"))
