"""`submit events`: what is typed becomes requests to moto's Scheduler and prepared answers; nothing is deployed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import botocore.session
import pytest
from moto import mock_aws

from jobspec.errors import AccessError, NotFoundError, SpecError, TryLaterError, UsageError
from jobspec.grammar.load import LoadedSpec, check_no_file, parse
from jobspec.runs.answers import Answer, write_answer
from jobspec.stores.base import Store, open_store
from submitter.__main__ import main
from submitter.cleaning import find_waste
from submitter.cli import events_commands
from submitter.cli.events_printing import plain
from submitter.cloud.clients import Clients
from submitter.cloud.stack import Stack
from submitter.events.arrivals import list_recent
from submitter.events.schedules import (
    Schedule,
    check_places,
    list_schedules,
    make_request,
    remove_schedule,
    save_schedule,
)
from submitter.events.switches import has_image
from submitter.events.templates import check_template, list_templates, save_template
from tests.unit.cloudy import ACCOUNT, REGION, make_stack, role
from tests.unit.fakeaws import client_error, denied

SPEC = """\
name: nightly
data: {path: "s3://fleet/incoming/letters.csv", target: y}
cv: 3
candidates: [{estimator: sklearn.linear_model.LogisticRegression, grid: {C: [0.1, 1.0]}}]
scoring: accuracy
refit: true
"""
STATES = f"arn:aws:states:{REGION}:{ACCOUNT}"
INTAKE = f"{STATES}:stateMachine:foldfleet-intake"
WITH_EVENTS: dict[str, Any] = {
    "events": True,
    "data_prefix": "retrain/",
    "intake_machine_arn": INTAKE,
    "schedule_group_name": "foldfleet",
    "schedule_role_arn": role("schedule"),
}
NIGHT = Schedule("nightly", "cron(0 3 * * ? *)", "UTC", "s3://fleet/foldfleet/templates/scheduled/ab.yaml")


def spec_of(text: str = SPEC) -> LoadedSpec:
    return parse(text.encode(), "spec.yaml")


@pytest.fixture
def stack() -> Stack:
    return make_stack(**WITH_EVENTS)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Return clients of moto in this process, with the stack's group of schedules."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    with mock_aws():
        made = Clients(botocore.session.Session())
        made.scheduler.create_schedule_group(Name="foldfleet")
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


# --- schedules ------------------------------------------------------------------------------------------------


def test_the_request_is_this(stack: Stack) -> None:
    assert make_request(stack, NIGHT) == {
        "Name": "nightly",
        "GroupName": "foldfleet",
        "Description": "foldfleet: starts the search of s3://fleet/foldfleet/templates/scheduled/ab.yaml",
        "ScheduleExpression": "cron(0 3 * * ? *)",
        "ScheduleExpressionTimezone": "UTC",
        "State": "ENABLED",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "Target": {
            "Arn": INTAKE,
            "RoleArn": role("schedule"),
            "Input": (
                '{"kind": "schedule", "name": "nightly", "time": "<aws.scheduler.scheduled-time>", '
                '"spec": "s3://fleet/foldfleet/templates/scheduled/ab.yaml"}'
            ),
            "RetryPolicy": {"MaximumEventAgeInSeconds": 21600, "MaximumRetryAttempts": 185},
            "DeadLetterConfig": {"Arn": stack.dead_letters_arn},
        },
    }


def test_the_same_schedule_again_is_nothing_and_another_one_takes_its_place(clients: Clients, stack: Stack) -> None:
    assert save_schedule(clients, stack, NIGHT) == "created"
    assert save_schedule(clients, stack, NIGHT) == "unchanged"
    later = replace(NIGHT, expression="cron(0 4 * * ? *)", timezone="Europe/Berlin")
    assert save_schedule(clients, stack, later) == "updated"
    assert list_schedules(clients, stack) == [later]
    changed = replace(later, spec="s3://fleet/foldfleet/templates/scheduled/cd.yaml")
    assert save_schedule(clients, stack, changed) == "updated"


def test_one_that_was_disabled_in_the_console_is_shown_and_enabled_again(clients: Clients, stack: Stack) -> None:
    save_schedule(clients, stack, NIGHT)
    clients.scheduler.update_schedule(**{**make_request(stack, NIGHT), "State": "DISABLED"})
    assert list_schedules(clients, stack) == [replace(NIGHT, is_enabled=False)]
    assert save_schedule(clients, stack, NIGHT) == "updated"
    assert list_schedules(clients, stack) == [NIGHT]


def test_somebody_elses_schedule_in_the_group_does_no_harm(clients: Clients, stack: Stack) -> None:
    request = make_request(stack, replace(NIGHT, name="other"))
    request["Target"] = {"Arn": INTAKE, "RoleArn": role("x"), "Input": "[1]"}
    clients.scheduler.create_schedule(**request)
    assert [one.spec for one in list_schedules(clients, stack)] == [""]


def test_a_schedule_is_removed_once(clients: Clients, stack: Stack) -> None:
    save_schedule(clients, stack, NIGHT)
    with pytest.raises(NotFoundError, match=r"there are nightly\. Did you mean 'nightly'.*submit events schedules"):
        remove_schedule(clients, stack, "nightli")
    remove_schedule(clients, stack, "nightly")
    with pytest.raises(NotFoundError, match="there is none"):
        remove_schedule(clients, stack, "nightly")
    assert list_schedules(clients, stack) == []


def test_without_events_there_are_no_schedules(clients: Clients) -> None:
    off = make_stack("letters")
    assert list_schedules(clients, off) == []
    for refused in (lambda: save_schedule(clients, off, NIGHT), lambda: remove_schedule(clients, off, "nightly")):
        with pytest.raises(NotFoundError, match="submit events enable --stack letters"):
            refused()


def scheduler_that(**answers: Exception) -> Clients:
    """Return clients whose Scheduler refuses some operations and knows no schedule."""
    absent = client_error("ResourceNotFoundException", "none", "GetSchedule", 404)

    def refusing(name: str) -> Callable[..., Any]:
        def call(**_: Any) -> Any:
            raise answers.get(name, absent)

        return call

    names = ("get_schedule", "create_schedule", "update_schedule", "delete_schedule")
    return cast("Clients", SimpleNamespace(scheduler=SimpleNamespace(**{name: refusing(name) for name in names})))


def test_a_missing_right_is_named(stack: Stack) -> None:
    with pytest.raises(AccessError, match="scheduler:CreateSchedule is missing"):
        save_schedule(scheduler_that(create_schedule=denied("scheduler:CreateSchedule")), stack, NIGHT)
    with pytest.raises(AccessError, match="iam:PassRole"):
        save_schedule(scheduler_that(create_schedule=denied("iam:PassRole")), stack, NIGHT)
    with pytest.raises(AccessError, match="scheduler:DeleteSchedule"):
        remove_schedule(scheduler_that(delete_schedule=denied("scheduler:DeleteSchedule")), stack, "nightly")


def test_two_terminals_at_once_are_told(stack: Stack) -> None:
    conflict = client_error("ConflictException", "exists", "CreateSchedule", 409)
    with pytest.raises(TryLaterError, match="submit events schedules"):
        save_schedule(scheduler_that(create_schedule=conflict), stack, NIGHT)


def test_a_scheduled_search_needs_no_file_of_this_machine() -> None:
    check_no_file(spec_of(), "a scheduled search")
    builtin = SPEC.replace('{path: "s3://fleet/incoming/letters.csv", target: y}', "{builtin: digits}")
    check_no_file(spec_of(builtin), "a scheduled search")
    with pytest.raises(SpecError, match=r"spec.yaml:2:.*aws s3 cp FILE"):
        check_no_file(spec_of(SPEC.replace("s3://fleet/incoming/", "data/")), "a scheduled search")


def test_a_scheduled_search_reads_what_the_stack_lists(stack: Stack) -> None:
    for watched in ("incoming", "retrain"):
        check_places(stack, spec_of(SPEC.replace("incoming", watched)))
    for elsewhere in (
        "s3://fleet/other/letters.csv",
        "s3://fleet/incoming/../letters.csv",
        "s3://fleet/foldfleet/runs/x",
        "s3://fleet/foldfleet/templates/x.yaml",
    ):
        with pytest.raises(AccessError, match=r"submit infra up --data|a key without it"):
            check_places(stack, spec_of(SPEC.replace("s3://fleet/incoming/letters.csv", elsewhere)))


# --- templates ------------------------------------------------------------------------------------------------


def test_a_template_is_kept_by_name_and_the_next_one_takes_its_place(store: Store, stack: Stack) -> None:
    first = save_template(store, stack, "letters", spec_of(), 1.0)
    assert first.url == f"{store.url}/templates/letters.yaml"
    assert first.watched == "s3://fleet/retrain/letters/"
    other = SPEC.replace("nightly", "weekly")
    save_template(store, stack, "letters", spec_of(other), 2.0)
    assert store.get("templates/letters.yaml") == other.encode()
    assert [one.name for one in list_templates(store, stack)] == ["letters"]
    assert list_templates(store, make_stack())[0].watched is None


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 61, "-a", "ü", "a.yaml"])
def test_a_template_is_named_like_a_folder(name: str) -> None:
    with pytest.raises(UsageError, match="such as 'letters'"):
        check_template(name, spec_of())


def test_a_template_needs_a_path_to_replace() -> None:
    digits = SPEC.replace('{path: "s3://fleet/incoming/letters.csv", target: y}', "{builtin: digits}")
    with pytest.raises(SpecError, match=r"spec.yaml:2:.*data: \{path: \.\.\.\}"):
        check_template("letters", spec_of(digits))
    check_template("letters", spec_of(SPEC.replace("s3://fleet/incoming/", "")))


# --- what arrived ---------------------------------------------------------------------------------------------


class Executions:
    """A Step Functions with prepared executions by machine, the newest first, two on a page."""

    def __init__(self, **machines: list[dict[str, Any]]) -> None:
        self.machines, self.described = machines, 0

    def list_executions(self, stateMachineArn: str, maxResults: int, nextToken: str = "0") -> dict[str, Any]:
        kind = stateMachineArn.rpartition("-")[2]
        if kind not in self.machines:
            raise client_error("StateMachineDoesNotExist", "gone", "ListExecutions", 400)
        first, all_of_them = int(nextToken), self.machines[kind]
        more = {"nextToken": str(first + 2)} if first + 2 < len(all_of_them) else {}
        return {"executions": all_of_them[first : first + 2], **more}

    def describe_execution(self, executionArn: str) -> dict[str, Any]:
        self.described += 1
        return next(one for some in self.machines.values() for one in some if one["executionArn"] == executionArn)


def execution(name: str, status: str, given: Any, hour: int, **more: Any) -> dict[str, Any]:
    return {
        "executionArn": f"{STATES}:execution:{name if name.startswith('run') else sha256(name.encode()).hexdigest()}",
        "status": status,
        "startDate": datetime(2030, 6, 1, hour, tzinfo=UTC),
        "input": json.dumps(given),
        **more,
    }


def upload(key: str, kind: str = "spec") -> dict[str, Any]:
    return {"upload": {"kind": kind, "bucket": "fleet", "key": key, "time": ""}}


FINISHED = {"run_id": "nightly-0123456789ab", "state": "finished", "message": "4 cells in\n2 tasks"}
SEARCHES = [
    execution("g", "RUNNING", {"spec": "s3://x/y.yaml", "schedule": {"name": "nightly", "time": ""}}, 7),
    execution("run-f", "SUCCEEDED", {"round": {}}, 6, output="{}"),
    execution(
        "e", "FAILED", upload("incoming/e.yaml"), 5, error="foldfleet.Refused", cause="e.yaml:1: no such scorer."
    ),
    execution("d", "TIMED_OUT", upload("retrain/letters/d.csv", "data"), 4),
    execution("c", "SUCCEEDED", upload("incoming/a b+%2F\x1b[31m.yaml"), 3, output=json.dumps(FINISHED)),
    execution("s", "SUCCEEDED", upload("retrain/letters/s.csv", "data"), 3, output='{"run_id": "", "message": "anew"}'),
    execution("b", "FAILED", upload("incoming/b.yaml"), 2, error="States.Runtime", cause=""),
    execution("a", "SUCCEEDED", {"spec": "s3://mine/spec.yaml"}, 1, output="{}"),
]
ARRIVED = {"kind": "spec", "bucket": "fleet", "object": {"key": "incoming/n.txt"}, "time": "-"}
INTAKES = [
    execution("z", "SUCCEEDED", ARRIVED, 9, output='{"state": "ignored"}'),
    execution("y", "SUCCEEDED", ARRIVED, 5, output='{"execution": "arn"}'),
    execution("v", "SUCCEEDED", ARRIVED, 4, output='{"state": "already started"}'),
    execution("x", "FAILED", {**ARRIVED, "bucket": "foreign"}, 3, error="foldfleet.Refused", cause="not ours"),
    execution("w", "RUNNING", ARRIVED, 3),
    execution("u", "SUCCEEDED", {**ARRIVED, "object": {"key": "incoming/"}}, 2, output='{"state": "ignored"}'),
]


def looking_at(**machines: list[dict[str, Any]]) -> tuple[Clients, Executions]:
    made = Executions(**machines)
    return cast("Clients", SimpleNamespace(stepfunctions=made)), made


def test_what_arrived_is_told_with_what_it_became(stack: Stack, store: Store) -> None:
    clients, _ = looking_at(search=SEARCHES, intake=INTAKES)
    found = list_recent(clients, stack, store, 20)
    assert [(one.kind, one.name, one.state, one.run_id, one.message) for one in found] == [
        ("spec", "s3://fleet/incoming/n.txt", "ignored", None, "no spec: its name ends in neither .yaml nor .yml"),
        ("schedule", "nightly", "running", None, ""),
        ("spec", "s3://fleet/incoming/e.yaml", "refused", None, "e.yaml:1: no such scorer."),
        ("data", "s3://fleet/retrain/letters/d.csv", "timed out", None, ""),
        ("spec", "s3://fleet/incoming/a b+%2F\x1b[31m.yaml", "finished", "nightly-0123456789ab", "4 cells in 2 tasks"),
        ("data", "s3://fleet/retrain/letters/s.csv", "superseded", None, "anew"),
        ("spec", "s3://foreign/incoming/n.txt", "refused", None, "not ours"),
        ("spec", "s3://fleet/incoming/b.yaml", "failed", None, "States.Runtime"),
    ]


def test_a_search_that_has_no_output_yet_is_named_by_its_plan(stack: Stack, store: Store) -> None:
    clients, _ = looking_at(search=SEARCHES[:1], intake=[])
    token = sha256(SEARCHES[0]["executionArn"].encode()).hexdigest()
    write_answer(store, f"{token}-p0", Answer(0, {"next": "prepare", "run_id": ""}, None))
    assert list_recent(clients, stack, store, 1)[0].run_id is None
    write_answer(store, f"{token}-p1", Answer(0, {"next": "send", "run_id": "nightly-0123456789ab"}, None))
    assert list_recent(clients, stack, store, 1)[0].run_id == "nightly-0123456789ab"


def test_no_more_is_asked_than_is_shown(stack: Stack, store: Store) -> None:
    clients, made = looking_at(search=SEARCHES, intake=[])
    assert len(list_recent(clients, stack, store, 1)) == 1
    assert made.described == 1


def test_a_machine_that_is_gone_tells_nothing(store: Store) -> None:
    off = make_stack()
    assert list_recent(looking_at()[0], off, store, 5) == []


def test_keys_cannot_give_orders_to_a_terminal() -> None:
    assert plain("a b+%2F/ü/../\x1b]0;x\x07\n\u202egpj\udce9") == "a b+%2F/ü/../\\x1b]0;x\\x07\\n\\u202egpj\\udce9"


# --- the command line -----------------------------------------------------------------------------------------


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, clients: Clients, stack: Stack
) -> Call:
    """Return a function that runs `submit events` here, against moto's Scheduler and a store in a folder."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    clients.__dict__["stepfunctions"] = Executions(search=SEARCHES, intake=INTAKES)
    here = open_store(str(tmp_path / "store"))
    monkeypatch.setattr(events_commands, "open_store", lambda _: here)
    monkeypatch.setattr(events_commands, "make_clients", lambda: clients)
    monkeypatch.setattr(events_commands, "find_stack", lambda _, name: replace(stack, name=name))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["submit", "events", *map(str, arguments)])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_schedule_from_the_command_line(call: Call, tmp_path: Path) -> None:
    code, out, err = call("schedule", "cron(0 3 * * ? *)", "spec.yaml", "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["state"] == "created"
    assert made["schedule"]["name"] == "nightly"
    spec = Path(made["schedule"]["spec"])
    assert spec.is_relative_to(tmp_path / "store" / "templates")
    assert call("templates")[1] == ""
    assert find_waste(open_store(str(tmp_path / "store")), time.time() + 1e9) == []  # it is read for years
    assert spec.read_text() == SPEC
    assert call("schedule", "cron(0  3 * * ? *)", "spec.yaml")[1].startswith("There is already this schedule nightly")
    assert call("schedule", "rate(1 day)", "spec.yaml")[1].startswith("Changed the schedule nightly: rate(1 day)")
    assert "rate(1 day)" in call("schedules")[1]
    assert len(json.loads(call("schedules", "--json")[1])["schedules"]) == 1
    assert call("unschedule", "nightly")[0] == 0
    assert call("unschedule", "nightly")[0] == 5
    assert "submit events schedule" in call("schedules")[2]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("schedule", "0 3 * * *", "spec.yaml"), 2, "Did you mean 'cron(0 3 * * ? *)'"),
        (("schedule", "rate(1 day)", "spec.yaml", "--timezone", "Mars"), 2, "no time zone 'Mars'"),
        (("schedule", "rate(1 day)", "spec.yaml", "--name", "a b"), 2, "--name"),
        (("schedule", "rate(1 day)", "nothing.yaml"), 2, "There is no spec nothing.yaml"),
        (("template", "a/b", "spec.yaml"), 2, "such as 'letters'"),
        (("template", "letters", "nothing.yaml"), 2, "There is no spec nothing.yaml"),
    ],
)
def test_nothing_is_asked_of_aws_for_what_cannot_be(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    monkeypatch.setattr(events_commands, "make_clients", lambda: pytest.fail("AWS was asked"))
    code, out, err = call(*arguments)
    assert (code, out) == (exit_code, "")
    assert words in err
    assert "Traceback" not in err


def test_a_template_from_the_command_line(call: Call) -> None:
    assert "submit events template" in call("templates")[2]
    code, out, _ = call("template", "letters", "spec.yaml")
    assert code == 0
    assert "aws s3 cp FILE s3://fleet/retrain/letters/" in out
    assert "s3://fleet/retrain/letters/" in call("templates")[1]
    assert json.loads(call("templates", "--json")[1])["templates"][0]["name"] == "letters"


def test_a_template_that_nothing_starts_yet_says_what_to_type(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    off = make_stack("other", data_prefix="")
    monkeypatch.setattr(events_commands, "find_stack", lambda *_: off)
    told = call("template", "letters", "spec.yaml", "--stack", "other")[2]
    assert "submit events enable --data-prefix retrain/ --stack other" in told


def test_the_list_is_safe_to_look_at(call: Call) -> None:
    code, out, _ = call("list")
    assert code == 0
    assert "\x1b" not in out
    assert "  incoming/a b+%2F\\x1b[31m.yaml  " in out
    assert "  s3://foreign/incoming/n.txt  " in out
    assert "schedule nightly" in out
    document = json.loads(call("list", "--json", "--limit", "2")[1])
    assert document["events"] is True
    assert [one["state"] for one in document["arrivals"]] == ["ignored", "running"]


def test_an_empty_list_says_how_to_fill_it(call: Call, clients: Clients) -> None:
    clients.__dict__["stepfunctions"] = Executions(search=[], intake=[])
    assert "aws s3 cp foldfleet.yaml s3://fleet/incoming/" in call("list")[2]
    assert json.loads(call("list", "--json")[1])["arrivals"] == []


# --- on and off -----------------------------------------------------------------------------------------------


PARAMETERS = {
    "UploadMaxCells": "100000",
    "UploadMaxTaskVcpus": "16",
    "UploadMaxTaskMemoryGib": "64",
    "UploadMaxHours": "24",
    "UploadMaxVcpuHours": "500",
}


class Change:
    """Stands for the change of a stack: what was wished."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.wishes, self.makes_bucket = stack, list[Any](), True

    def __call__(self, clients: Clients, wishes: Any, flags: Any) -> Any:
        self.wishes.append(wishes)
        home = SimpleNamespace(is_new=self.makes_bucket)
        proposal = SimpleNamespace(changes=None, rows=(), warnings=("slow",), parameters=PARAMETERS, home=home)
        return proposal, replace(self.stack, events=wishes.events)


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> Change:
    made = Change(stack)
    monkeypatch.setattr(events_commands, "change_stack", made)
    monkeypatch.setattr(events_commands, "describe_stack", lambda *_: {"StackStatus": "CREATE_COMPLETE"})
    monkeypatch.setattr(events_commands, "has_image", lambda *_: True)
    return made


def test_enable_wishes_what_was_typed_and_tells_how_to_go_on(call: Call, change: Change) -> None:
    code, out, err = call("enable", "--prefix", "jobs", "--data-prefix", "nightly/", "--max-cells", 500, "--yes")
    assert (code, err) == (0, "")
    (wishes,) = change.wishes
    assert (wishes.events, wishes.spec_prefix, wishes.data_prefix) == (True, "jobs/", "nightly/")
    assert (wishes.upload_max_cells, wishes.upload_max_hours, wishes.notify_topic) == (500, None, None)
    assert "aws s3 cp foldfleet.yaml s3://fleet/incoming/" in out
    assert "100,000 cells, 16 vCPUs and 64 GiB a task, 24 hours, 500 vCPU-hours" in out


def test_enable_warns_without_an_image(call: Call, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_commands, "has_image", lambda *_: False)
    code, out, err = call("enable", "--yes", "--json")
    assert code == 0
    assert "submit image push" in err
    document = json.loads(out)
    assert document["state"] == "unchanged"
    assert document["warnings"][0] == "slow"
    assert "submit image push" in document["warnings"][1]
    assert document["stack"]["events"] is True


def test_enable_makes_no_stack_by_the_way(call: Call, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_commands, "describe_stack", lambda *_: None)
    code, _, err = call("enable", "--yes", "--stack", "letters")
    assert code == 5
    assert "submit infra up --stack letters" in err
    assert change.wishes == []


def test_disable_tells_what_goes_and_what_stays(call: Call, change: Change) -> None:
    call("schedule", "rate(1 day)", "spec.yaml")
    code, out, err = call("disable", "--yes")
    assert code == 0
    assert change.wishes[0].events is False
    assert "With events go 1 schedule: nightly" in err
    assert "Remains: searches that have read what was uploaded go on" in out
    document = json.loads(call("disable", "--yes", "--json")[1])
    assert document["schedules_removed"][0]["name"] == "nightly"
    assert len(document["remains"]) == 3


class Notices:
    """An S3 that keeps the notifications of its only bucket; moto forgets EventBridge's, which is empty."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    def get_bucket_notification_configuration(self, Bucket: str) -> dict[str, Any]:
        return {**self.told, "ResponseMetadata": {}}

    def put_bucket_notification_configuration(
        self, Bucket: str, NotificationConfiguration: dict[str, Any], **_: Any
    ) -> None:
        self.told = NotificationConfiguration


def test_a_bucket_that_the_stack_did_not_make_keeps_what_it_tells(
    call: Call, change: Change, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = [{"ParameterKey": "BucketName", "ParameterValue": "fleet"}]
    monkeypatch.setattr(events_commands, "describe_stack", lambda *_: {"Parameters": parameters})
    change.makes_bucket = False
    s3 = Notices({"TopicConfigurations": [{"Id": "theirs"}]})
    clients.__dict__["s3"] = s3
    clients.__dict__["_caller"] = (ACCOUNT, "me")
    assert "fleet is to tell EventBridge of new objects" in call("enable", "--yes")[2]
    assert s3.told == {"TopicConfigurations": [{"Id": "theirs"}], "EventBridgeConfiguration": {}}
    assert "tell EventBridge" not in call("enable", "--yes")[2]
    assert "Remains: the bucket fleet tells EventBridge" in call("disable", "--yes")[1]


@pytest.mark.parametrize(("told", "warned"), [({"TopicConfigurations": [{"Id": "theirs"}]}, True), ({}, False)])
def test_enable_warns_of_what_cloudformation_replaces(
    call: Call, change: Change, clients: Clients, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], warned: bool
) -> None:
    parameters = [{"ParameterKey": "BucketName", "ParameterValue": "fleet"}]
    parameters.append({"ParameterKey": "MakeBucket", "ParameterValue": "yes"})
    monkeypatch.setattr(events_commands, "describe_stack", lambda *_: {"Parameters": parameters})
    s3 = Notices(told)
    clients.__dict__["s3"] = s3
    assert ("Warning: the bucket fleet has notifications" in call("enable", "--yes")[2]) is warned
    assert s3.told == told


def test_an_image_is_one_that_can_plan(stack: Stack) -> None:
    asked: list[dict[str, Any]] = []

    def describe(**given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"jobDefinitions": [{}] * (len(asked) - 1)}

    clients = cast("Clients", SimpleNamespace(batch=SimpleNamespace(describe_job_definitions=describe)))
    assert [has_image(clients, stack), has_image(clients, stack)] == [False, True]
    assert asked[0] == {"jobDefinitionName": "foldfleet-plan", "status": "ACTIVE"}
