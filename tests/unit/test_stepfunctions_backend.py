"""The Step Functions backend in the one flow of a run: a machine in this process sends arrays, retries and reduces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import (
    DataError,
    FoldfleetError,
    InterruptedRun,
    LimitError,
    NotFoundError,
    TryLaterError,
    UsageError,
)
from jobspec.runs.answers import Answer, write_answer
from jobspec.runs.rounds import RoundPlan, commit_round, require_round
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.backends.base import ArrayRequest, BackendContext, RequestState, backend_module
from submitter.backends.stepfunctions import presence
from submitter.backends.stepfunctions.backend import StepFunctionsBackend
from submitter.backends.stepfunctions.request import answers_of
from submitter.cli.run_commands import show_logs, show_status
from submitter.machines.orders import order_name
from submitter.runner import RULE_SECONDS, Outcome
from submitter.search import draft_next, keep
from submitter.standing import RunState
from submitter.stopping import TABLE_SECONDS
from tests.unit.fakebatch import FakeBatch, FakeClients, make_record
from tests.unit.fakestates import EXECUTION, FakeStates
from tests.unit.pretend import Judge, PretendBackend, everything, make_pretended_search
from tests.unit.scenes import CloudScene, at_the_stack
from tests.unit.test_runner import first_only

RECLAIMED = {"statusReason": "Host EC2 (instance i-1) terminated."}
FOR_BOTH = pytest.mark.parametrize("other", ["aws", "stepfunctions"])


def nothing(_candidate: int, _split: int) -> str | None:
    return None


class Machine:
    """Executions that go one step further whenever somebody asks how they are; a judge for each round."""

    def __init__(self, store: Store, states: FakeStates, batch: FakeBatch) -> None:
        self.store, self.states, self.batch = store, states, batch
        self.judges: list[Judge] = [everything]
        self.paused = False
        self.failure: tuple[str, str] | None = None
        self.child: dict[str, Any] = RECLAIMED
        self._under_way: dict[str, Iterator[None]] = {}
        states.on_describe = self.go_on

    def go_on(self) -> None:
        for arn, execution in self.states.executions.items():
            if execution["status"] == "RUNNING" and not self.paused:
                order = json.loads(execution["input"])["round"]
                steps = self._under_way.setdefault(arn, self._execute(arn, order["run_id"], order["round"]))
                next(steps, None)

    def finish(self) -> None:
        for _ in range(30):
            self.go_on()

    def _execute(self, arn: str, run_id: str, index: int) -> Iterator[None]:
        if self.failure is not None:
            error, cause = self.failure
            self.states.executions[arn] |= {"status": "FAILED", "error": error, "cause": cause}
            return
        judges = iter(self.judges)
        while True:
            plan = require_round(self.store, run_id)
            yield from self._array(arn, run_id, plan.round, next(judges, everything))
            view = PretendBackend(self.store)._reduce(run_id)
            yield
            if view["complete"] or plan.round - index >= len(self.judges) - 1:
                break
            yield from self._add_round(arn, run_id)
        if view["complete"]:
            PretendBackend(self.store)._refit(run_id)
            self.states.executions[arn] |= {"status": "SUCCEEDED"}
        else:
            told = {"error": "foldfleet.Incomplete", "cause": "4 cells are missing after 1 round."}
            self.states.executions[arn] |= {"status": "FAILED"} | told

    def _array(self, arn: str, run_id: str, index: int, judge: Judge) -> Iterator[None]:
        plan = require_round(self.store, run_id)
        name = f"{order_name(plan)}-a0"
        parameters = {"run": run_id, "first_task": "0", "execution": arn}
        sent = self.batch.submit_job(
            jobName=name, parameters=parameters, arrayProperties={"size": plan.num_tasks}, jobQueue="q"
        )
        job = self.batch.jobs[sent["jobId"]]
        yield
        job |= {"status": "RUNNING", "arrayProperties": {"size": 2, "statusSummary": {"RUNNING": 2}}}
        yield
        if PretendBackend(self.store, judge)._work(ArrayRequest("a", 0, 0, 1, (run_id, str(index)), {})) is None:
            job |= {"status": "SUCCEEDED", "arrayProperties": {"size": 2, "statusSummary": {"SUCCEEDED": 2}}}
            return
        summary = {"size": 2, "statusSummary": {"SUCCEEDED": 1, "FAILED": 1}}
        job |= {"status": "FAILED", "statusReason": "Array Child Job failed", "arrayProperties": summary}
        child = {"jobId": f"{job['jobId']}:1", "jobName": name, "status": "FAILED", **self.child}
        self.batch.children[(job["jobId"], "FAILED")] = [child]

    def _add_round(self, arn: str, run_id: str) -> Iterator[None]:
        """Plan what is missing as the planner does: committed, claimed and noted down one after the other."""
        search = keep(self.store, make_pretended_search())
        planner = PretendBackend(self.store, name="stepfunctions")
        plan = commit_round(
            self.store, draft_next(self.store, search, require_round(self.store, run_id), planner, reuse=True)
        )
        yield
        claim_for(self.store, run_id, plan.round, arn)
        yield
        handle = {"backend": "stepfunctions", "execution": arn, "name": order_name(plan), "region": "us-east-1"}
        self.store.create(Layout.handle(run_id, plan.round, 0, 0), json.dumps(handle | {"log_group": "/f"}).encode())
        yield


def claim_for(store: Store, run_id: str, index: int, execution: str) -> None:
    body = {"format_version": 1, "execution": execution, "time": 0.0}
    assert store.create(Layout.claim(run_id, index, 0, 0), json.dumps(body).encode())


class Scene(CloudScene):
    """A machine, and any number of desks."""

    on = "stepfunctions"

    def __init__(self, store: Store, cache: Path, clients: FakeClients, states: FakeStates) -> None:
        super().__init__(store, cache, clients)
        self.states, self.machine = states, Machine(store, states, clients.batch)

    def run(self, *judges: Judge, on: str = "stepfunctions", fresh: bool = False) -> Outcome:
        self.machine.judges = [*judges] or [everything]
        return self.runner(on, fresh=fresh).run(self.search)

    @property
    def plan(self) -> RoundPlan:
        return require_round(self.store, self.run_id)

    def send_off(self) -> None:
        self.machine.paused = True
        assert self.runner().send_off(self.search) is not None


@pytest.fixture
def scene(store_url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    store, clients, states = open_store(store_url), FakeClients(), FakeStates()
    clients.stepfunctions = states  # type: ignore[attr-defined]
    store.url = "s3://bucket/foldfleet"  # a folder that pretends: an execution can read no other store than S3
    with at_the_stack(store, clients, monkeypatch):
        scene = Scene(store, cache, clients, states)
        monkeypatch.setattr("submitter.cli.run_commands.open_backend", scene.open_backend)
        yield scene


def go_on_after(scene: Scene, looks: int, *before: Callable[[], None]) -> None:
    """Let the machine stand still for some looks, and something happen on the way."""
    wake: Callable[[], None] = lambda: setattr(scene.machine, "paused", False)  # noqa: E731 - one of many
    scene.sleeps = iter([*[lambda: None] * looks, *before, wake])


def test_a_run_is_one_execution(scene: Scene) -> None:
    outcome = scene.run()
    assert (outcome.fits, outcome.reused, outcome.fit_s) == (6, 0, 4.5)
    assert (outcome.summary["complete"], outcome.no_model_because, outcome.missing_because) == (True, None, None)
    assert len(scene.states.sent) == 1
    assert (outcome.plan.backend, outcome.plan.image) == ("stepfunctions", make_record().image)
    handle = json.loads(scene.store.get(Layout.handle(scene.run_id, 0, 0, 0)))
    assert handle.keys() == {"format_version", "backend", "execution", "name", "region", "log_group", "answer", "time"}
    assert handle["execution"] == f"{EXECUTION}:{scene.states.sent[0]['name']}"
    assert handle["name"] == order_name(outcome.plan)
    assert not scene.store.exists(Layout.claim(scene.run_id, 0, 1, 0))
    assert scene.state() is RunState.FINISHED


def test_the_second_call_asks_nobody(scene: Scene) -> None:
    scene.run()
    scene.states.calls.clear()
    scene.batch.calls.clear()
    outcome = scene.run()
    assert (outcome.fits, outcome.reused) == (0, 6)
    assert scene.states.calls == scene.batch.calls == []


def test_waiting_costs_a_few_calls_however_long_it_takes(scene: Scene) -> None:
    scene.machine.paused = True
    scene.sleeps = iter([lambda: setattr(scene.machine, "paused", scene.clock < 3600)] * 10_000)
    scene.run()
    assert 100 < scene.states.calls.count("DescribeExecution") < 140  # every 30 s at last
    assert scene.states.calls.count("StartExecution") == 1


def test_a_dry_run_prints_the_request(scene: Scene) -> None:
    plan = scene.runner().commit(scene.search)
    assert plan is not None
    request = scene.backend().build_request(plan).to_json()
    (array,) = request["arrays"]
    assert array["call"].keys() == {"stateMachineArn", "name", "input"}
    assert (array["name"], array["size"], "after" in request) == (order_name(plan), plan.num_tasks, False)
    assert scene.states.calls == []


def test_what_was_started_ends_without_its_desk_and_any_other_tells_its_answer(scene: Scene, tmp_path: Path) -> None:
    scene.send_off()
    scene.machine.paused = False
    scene.machine.finish()
    assert scene.state() is RunState.FINISHED
    outcome = scene.runner(cache=tmp_path / "elsewhere").run(scene.search)
    assert (outcome.fits, outcome.reused, len(scene.states.sent)) == (0, 6, 1)


def test_rounds_that_an_execution_adds_are_followed_to_the_last_answer(scene: Scene) -> None:
    outcome = scene.run(first_only, everything)
    assert outcome.plan.round == 1
    assert (outcome.fits, outcome.reused) == (6, 0)
    assert outcome.missing_because is None
    assert any("Round 1 computes what is missing: 4 fits" in line for line in scene.said)
    assert len(scene.states.sent) == 1
    assert [call["jobName"].rpartition("-r")[2] for call in scene.batch.sent] == ["0-a0", "1-a0"]


def test_what_is_still_missing_after_the_last_round_is_told_and_completed_by_the_next_call(scene: Scene) -> None:
    outcome = scene.run(first_only, nothing)
    assert (outcome.plan.round, outcome.fits, outcome.summary["cells"]["missing"]) == (1, 2, 4)
    assert outcome.missing_because is not None
    assert "reclaimed" in outcome.missing_because
    assert scene.state() is RunState.INTERRUPTED
    again = scene.run()
    assert (again.plan.round, again.fits, again.reused) == (2, 4, 2)
    assert len(scene.states.sent) == 2


def test_another_terminal_follows_rounds_that_are_added(scene: Scene, tmp_path: Path) -> None:
    scene.send_off()
    scene.machine.judges = [first_only, everything]
    go_on_after(scene, 2)
    outcome = scene.runner(cache=tmp_path / "elsewhere").run(scene.search)
    assert (outcome.plan.round, outcome.fits, outcome.reused) == (1, 0, 6)
    assert len(scene.states.sent) == 1


@FOR_BOTH
def test_a_run_under_way_is_followed_by_desks_of_either_backend(scene: Scene, other: str, tmp_path: Path) -> None:
    scene.send_off()
    go_on_after(scene, 2)
    outcome = scene.runner(other, cache=tmp_path / "elsewhere").run(scene.search)
    assert outcome.summary["complete"]
    assert len(scene.states.sent) == 1
    assert [call["jobName"].rpartition("-")[2] for call in scene.batch.sent] == ["a0"]
    assert any("following it" in line for line in scene.said)


@FOR_BOTH
def test_a_run_under_way_is_sent_off_by_nobody_else(scene: Scene, other: str) -> None:
    scene.send_off()
    plan = scene.runner(other).send_off(scene.search)
    assert plan is not None and plan.round == 0
    assert (len(scene.states.sent), scene.batch.sent) == (1, [])


def test_a_run_of_batch_is_followed_by_a_desk_of_step_functions(scene: Scene) -> None:
    scene.runner("aws").send_off(scene.search)
    assert scene.runner().send_off(scene.search) is not None

    def work() -> None:
        PretendBackend(scene.store)._work(ArrayRequest("a", 0, 0, 1, (scene.run_id, "0"), {}))
        PretendBackend(scene.store)._reduce(scene.run_id)
        PretendBackend(scene.store)._refit(scene.run_id)
        for job in scene.batch.jobs.values():
            job["status"] = "SUCCEEDED"

    scene.sleeps = iter([lambda: None, work])
    assert scene.run().summary["complete"]
    assert (len(scene.batch.sent), scene.states.sent) == (2, [])


def test_what_one_backend_left_undone_is_done_by_another(scene: Scene) -> None:
    scene.machine.failure = ("foldfleet.Broken", "It broke.")
    with pytest.raises(TryLaterError, match="It broke"):
        scene.run()
    plan = scene.runner("aws").send_off(scene.search)
    assert plan is not None
    assert (plan.round, plan.backend, len(scene.batch.sent)) == (1, "aws", 2)


def test_a_lost_acknowledgement_starts_nothing_twice(scene: Scene) -> None:
    scene.states.faults = ["lost"]
    with pytest.raises(TryLaterError):
        scene.run()
    assert scene.state() is RunState.RUNNING  # by the name that its claim stands for
    assert scene.run().summary["complete"]
    assert len(scene.states.sent) == 1


def test_a_desk_killed_between_claim_and_handle_is_completed_by_the_next(scene: Scene) -> None:
    scene.send_off()
    scene.store.delete(Layout.handle(scene.run_id, 0, 0, 0))
    assert scene.state() is RunState.RUNNING
    go_on_after(scene, 2)
    assert scene.run().plan.round == 0
    assert len(scene.states.sent) == 1
    assert scene.store.exists(Layout.handle(scene.run_id, 0, 0, 0))


def test_a_desk_killed_before_it_sent_leaves_its_plan_to_the_next(scene: Scene) -> None:
    scene.runner().commit(scene.search)
    assert scene.run().plan.round == 0
    assert len(scene.states.sent) == 1


def test_a_round_that_a_planner_claimed_is_not_sent_again(scene: Scene) -> None:
    plan = scene.runner().commit(scene.search)
    assert plan is not None
    scene.machine.paused = True
    arn = f"{EXECUTION}:by-an-upload"
    scene.states.executions[arn] = {"executionArn": arn, "status": "RUNNING"}
    given = {"round": {"run_id": scene.run_id, "round": 0}}
    scene.states.executions[arn]["input"] = json.dumps(given)
    claim_for(scene.store, scene.run_id, 0, arn)
    assert scene.state() is RunState.RUNNING
    go_on_after(scene, 2)
    assert scene.run().summary["complete"]
    assert scene.states.sent == []
    assert json.loads(scene.store.get(Layout.handle(scene.run_id, 0, 0, 0)))["execution"] == arn


def test_what_a_planner_claimed_for_an_execution_that_ended_is_sent_anew(scene: Scene) -> None:
    scene.runner().commit(scene.search)
    arn = f"{EXECUTION}:by-an-upload"
    scene.states.executions[arn] = {"executionArn": arn, "status": "FAILED", "error": "x", "cause": "y"}
    claim_for(scene.store, scene.run_id, 0, arn)
    assert scene.run().plan.round == 0
    assert len(scene.states.sent) == 1


def test_a_status_tells_of_the_execution_and_of_its_arrays(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.runner().send_off(scene.search)
    scene.machine.go_on()
    scene.machine.go_on()
    scene.machine.paused = True
    show_status(scene.desk, scene.run_id, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "running"
    assert [(one["name"].rpartition("-")[2], one["state"], one["tasks"]) for one in document["sent"]["requests"]] == [
        ("r0", "running", {}),
        ("a0", "running", {"running": 2}),
    ]


def test_what_is_stuck_is_told(scene: Scene) -> None:
    scene.runner().send_off(scene.search)
    scene.machine.go_on()
    scene.machine.paused = True
    scene.batch.jobs["job-0"] |= {"status": "RUNNABLE", "statusReason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"}
    (note,) = presence.sighting(scene.presence()).notes
    assert "no spot instances" in note


@pytest.mark.parametrize(
    ("error", "kind", "exit_code"),
    [
        ("Refused", FoldfleetError, 2),
        ("Stuck", TryLaterError, 75),
        ("OverLimit", LimitError, 7),
        ("NoImage", NotFoundError, 5),
        ("Broken", TryLaterError, 75),
    ],
)
def test_why_an_execution_failed_is_the_error(
    scene: Scene, error: str, kind: type[FoldfleetError], exit_code: int
) -> None:
    scene.machine.failure = (f"foldfleet.{error}", "The reason.")
    with pytest.raises(kind, match=r"^The reason\.") as caught:
        scene.run()
    assert caught.value.exit_code == exit_code
    assert scene.state() is RunState.INTERRUPTED
    assert any("The reason." in note for note in presence.sighting(scene.presence()).notes)


def test_what_its_planner_refused_has_the_exit_code_of_that(scene: Scene) -> None:
    scene.send_off()
    execution = next(iter(scene.states.executions.values()))
    for number, error in enumerate([None, {"exit": 5, "message": "The data are gone."}]):
        token = f"{answers_of(execution['executionArn'])}-p{number}"
        write_answer(scene.store, token, Answer(0, {"next": "refuse", "error": error}, None))
    execution |= {"status": "FAILED", "error": "foldfleet.Refused", "cause": "The data are gone."}
    with pytest.raises(NotFoundError, match=r"^The data are gone\.$"):
        scene.runner()._conclude_sent(scene.search, scene.runner().watcher.follow_sent(scene.search, scene.plan))


def test_why_there_is_no_model_is_read_and_not_asked_again(scene: Scene) -> None:
    scene.send_off()
    execution = next(iter(scene.states.executions.values()))
    PretendBackend(scene.store)._work(ArrayRequest("a", 0, 0, 1, (scene.run_id, "0"), {}))
    PretendBackend(scene.store)._reduce(scene.run_id)
    told = {"refit": {"model": None, "reason": "It does not fit.", "seconds": 0.0}}
    write_answer(scene.store, f"{answers_of(execution['executionArn'])}-r0", Answer(0, told, None))
    execution["status"] = "SUCCEEDED"
    assert scene.run().no_model_because == "It does not fit."
    assert scene.batch.sent == []


def test_a_limit_of_the_stack_is_told_though_it_ends_the_run_as_a_person_does(scene: Scene) -> None:
    scene.send_off()

    def end() -> None:
        scene.store.create(Layout.stop(scene.run_id, 0), b"{}")
        execution = next(iter(scene.states.executions.values()))
        execution |= {"status": "FAILED", "error": "foldfleet.OverLimit", "cause": "It took 24 hours."}

    scene.sleeps = iter([lambda: None, end])
    with pytest.raises(LimitError, match="24 hours"):
        scene.run()


def test_what_a_task_refused_with_is_the_error(scene: Scene) -> None:
    scene.machine.child = {"statusReason": "Essential container in task exited", "container": {"exitCode": 3}}
    scene.batch.jobs["job-0:1"] = {
        "jobId": "job-0:1",
        "jobName": "a task",
        "status": "FAILED",
        "container": {"exitCode": 3, "logStreamName": "work/default/1"},
    }
    told = json.dumps({"error": {"exit": 3, "message": "The data were damaged."}})
    scene.clients.logs.streams["work/default/1"] = [told]
    with pytest.raises(DataError, match=r"^The data were damaged\.$"):
        scene.run(first_only)


def test_ctrl_c_ends_the_following_alone(scene: Scene) -> None:
    scene.machine.paused = True

    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.sleeps = iter([lambda: None, interrupt])
    with pytest.raises(InterruptedRun, match=r"goes on without this terminal.*submit watch.*submit cancel"):
        scene.run()
    assert scene.state() is RunState.RUNNING
    assert "StopExecution" not in scene.states.calls


def test_a_cancelled_run_is_stopped_with_its_arrays_and_not_revived(scene: Scene) -> None:
    scene.runner().send_off(scene.search)
    scene.machine.go_on()
    scene.machine.paused = True
    live = scene.live()
    scene.store.create(Layout.stop(scene.run_id, 0), b"{}")
    scene.batch.calls.clear()
    live.terminate()
    assert "StopExecution" in scene.states.calls
    assert [call for call in scene.batch.calls if call.startswith("TerminateJob")] == ["TerminateJob job-0"]
    assert scene.state() is RunState.CANCELLED
    scene.machine.paused = False
    assert scene.run().plan.round == 1


def test_cancelling_does_not_wait_for_a_host_without_limit(scene: Scene) -> None:
    scene.runner().send_off(scene.search)
    for _ in range(2):
        scene.machine.go_on()
    scene.machine.paused = True
    scene.finish_some()
    with pytest.raises(TryLaterError) as told:
        scene.cancel()
    assert told.value.message.startswith(f"{scene.run_id} is cancelled; what is finished is kept. The reduce step on")
    assert f"`submit status {scene.run_id}`" in told.value.message
    assert {job["status"] for job in scene.batch.jobs.values()} == {"FAILED", "SUBMITTED"}  # the array; the reduce step
    assert scene.clock < RULE_SECONDS + TABLE_SECONDS + 20


def test_arrays_of_a_stopped_execution_are_alive_until_they_have_ended(scene: Scene) -> None:
    scene.runner().send_off(scene.search)
    scene.machine.go_on()
    next(iter(scene.states.executions.values()))["status"] = "ABORTED"  # somebody's hand in the console
    seen = presence.sighting(scene.presence())
    assert seen.alive
    assert any("somebody stopped" in note for note in seen.notes)
    scene.batch.jobs["job-0"] |= {"status": "FAILED", "statusReason": "terminated"}
    assert not presence.is_working(scene.presence())


def test_who_follows_is_told_that_the_run_was_cancelled(scene: Scene) -> None:
    scene.machine.paused = True

    def cancel() -> None:
        scene.store.create(Layout.stop(scene.run_id, 0), b"{}")
        scene.live().terminate()

    scene.sleeps = iter([lambda: None, cancel])
    with pytest.raises(InterruptedRun, match="cancelled"):
        scene.run()


def test_a_round_that_is_added_while_somebody_cancels_is_stopped_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.machine.judges = [first_only, everything]
    scene.runner().send_off(scene.search)
    for _ in range(3):
        scene.machine.go_on()
    scene.machine.paused = True
    ended = scene.states.stop_execution

    def stop_late(**call: Any) -> dict[str, Any]:
        """Add the round and send its array in the moment before the execution is stopped."""
        scene.machine.paused = False
        for _ in range(4):
            scene.machine.go_on()
        ended(**call)
        PretendBackend(scene.store)._reduce(scene.run_id)  # the rule of the stack
        return {}

    monkeypatch.setattr(scene.states, "stop_execution", stop_late)
    scene.cancel()
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["round"], document["cells"]["done"]) == ("cancelled", 1, 2)
    assert scene.store.exists(Layout.stop(scene.run_id, 1))
    assert {job["status"] for job in scene.batch.jobs.values()} == {"FAILED"}
    assert len(scene.batch.sent) == 2


@pytest.mark.parametrize("on", ["aws", "stepfunctions"])
def test_a_run_with_a_damaged_plan_can_be_cancelled(scene: Scene, on: str) -> None:
    scene.machine.paused = True
    scene.runner(on).send_off(scene.search)
    scene.store.put(Layout.plan(scene.run_id, 0), b"{")
    with pytest.raises(DataError, match="asked to stop all the same"):
        scene.cancel()
    assert scene.store.exists(Layout.stop(scene.run_id, 0))
    ended = [call for call in scene.batch.calls if call.startswith("TerminateJob")]
    assert ended == (["TerminateJob job-1", "TerminateJob job-0"] if on == "aws" else [])
    assert ("StopExecution" in scene.states.calls) is (on == "stepfunctions")


def test_an_execution_that_is_forgotten_is_over(scene: Scene) -> None:
    scene.send_off()
    scene.states.executions.clear()
    later = [float(10**10)]
    seen = presence.sighting(scene.presence(), now=lambda: later[0])
    assert (seen.alive, seen.requests) == (False, ())
    assert presence.explain(scene.presence()) is None


def test_an_execution_that_is_not_to_be_seen_yet_is_on_its_way(scene: Scene) -> None:
    scene.send_off()
    scene.states.executions.clear()
    seen = presence.sighting(scene.presence())
    assert (seen.alive, [one.state for one in seen.requests]) == (True, [RequestState.WAITING])


def test_a_round_planned_a_moment_ago_is_about_to_be_sent(scene: Scene) -> None:
    plan = scene.runner().commit(scene.search)
    assert plan is not None
    assert presence.sighting(scene.presence(), now=lambda: plan.created + 1).alive
    assert not presence.sighting(scene.presence(), now=lambda: plan.created + 100).alive


def test_another_region_is_refused(scene: Scene) -> None:
    scene.send_off()
    scene.clients.region = "eu-west-1"
    with pytest.raises(UsageError, match="export AWS_REGION=us-east-1"):
        presence.sighting(scene.presence())


def test_logs_come_from_the_group_of_the_stack(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.run()
    module = backend_module("stepfunctions")
    assert "no such stream in /foldfleet" in module.read_log(scene.presence(), "work/x", 5)[0]
    scene.clients.logs.streams["work/x"] = ["one", "two", "three"]
    assert module.read_log(scene.presence(), "work/x", 2) == ["two", "three"]
    with pytest.raises(NotFoundError):
        show_logs(scene.desk, scene.run_id, num_lines=1, as_json=True)


def test_native_numerics_are_refused_by_name(scene: Scene) -> None:
    spec = scene.search.spec.model_copy(update={"numerics": "native"})
    with pytest.raises(UsageError, match="--on stepfunctions"):
        StepFunctionsBackend(BackendContext(scene.settings, scene.store, spec, None, "x"))


def test_a_round_without_tasks_needs_no_execution(scene: Scene) -> None:
    outcome = scene.run()
    assert scene.backend().build_request(outcome.plan.model_copy(update={"num_tasks": 0})).arrays == ()


def names(calls: Sequence[dict[str, Any]]) -> list[str]:
    return [str(call["name"]) for call in calls]


def test_a_fresh_round_is_another_execution(scene: Scene) -> None:
    scene.run()
    outcome = scene.run(fresh=True)
    assert (outcome.plan.round, outcome.fits, outcome.reused) == (1, 6, 0)
    assert len(set(names(scene.states.sent))) == 2
