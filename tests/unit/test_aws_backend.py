"""The AWS backend in the one flow of a run, with a Batch in this process: adoption, endings, cancellation, logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobspec.errors import DataError, InterruptedRun, TryLaterError, UsageError
from jobspec.runs.answers import Answer, write_answer
from jobspec.runs.rounds import latest_round
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.backends.aws import presence
from submitter.backends.aws.backend import AwsBackend
from submitter.backends.base import ArrayRequest, BackendContext, RequestState, backend_module
from submitter.cli.run_commands import show_status
from submitter.runner import RULE_SECONDS, Outcome
from submitter.standing import RunState, read_view
from submitter.stopping import TABLE_SECONDS
from tests.unit.fakebatch import FakeBatch, FakeClients, make_record
from tests.unit.pretend import Judge, PretendBackend, everything
from tests.unit.scenes import CloudScene, at_the_stack
from tests.unit.test_runner import first_only, last_is_lost

ESSENTIAL: dict[str, object] = {"statusReason": "Essential container in task exited"}


class Cloud:
    """A Batch whose requests are worked on when somebody asks how they are, as ``judge`` says."""

    def __init__(self, store: Store, clients: FakeClients) -> None:
        self.store = store
        self.clients = clients
        self.judge: Judge = everything
        self.paused = False
        self.failure: dict[str, object] = ESSENTIAL
        self.reduces = True
        clients.batch.on_describe = self.work

    @property
    def batch(self) -> FakeBatch:
        return self.clients.batch

    def work(self) -> None:
        for number, call in enumerate(self.batch.sent if not self.paused else ()):
            job = self.batch.jobs[f"job-{number}"]
            if job["status"] in ("SUCCEEDED", "FAILED"):
                continue
            if "first_task" in call["parameters"]:
                self._work(job, call["parameters"])
            elif call["jobName"].startswith("pretended") and "run" in call["parameters"]:
                self._reduce(job, call)

    def _work(self, job: dict[str, object], parameters: dict[str, str]) -> None:
        worker = PretendBackend(self.store, self.judge)
        array = ArrayRequest("a", 0, 0, 1, (parameters["run"], parameters["round"]), {})
        complete = worker._work(array) is None
        size = job.get("arrayProperties", {}).get("size", 1)  # type: ignore[attr-defined]
        counts = {"SUCCEEDED": size} if complete else {"SUCCEEDED": size - 1, "FAILED": 1}
        job |= {"status": "SUCCEEDED" if complete else "FAILED"} | ({} if complete else self.failure)
        job["arrayProperties"] = {"size": size, "statusSummary": counts}
        if not complete:
            job["statusReason"] = "Array Child Job failed"
            failed = {"jobId": f"{job['jobId']}:1", "jobName": job["jobName"], "status": "FAILED", **self.failure}
            self.batch.children[(str(job["jobId"]), "FAILED")] = [failed]

    def _reduce(self, job: dict[str, object], call: dict[str, object]) -> None:
        waits = [entry["jobId"] for entry in call.get("dependsOn", ())]  # type: ignore[attr-defined]
        if any(self.batch.jobs[job_id]["status"] == "FAILED" for job_id in waits):
            job |= {"status": "FAILED", "statusReason": "Dependent Job failed"}
            return
        if not self.reduces:
            job |= {"status": "FAILED", "statusReason": "Host EC2 (instance i-1) terminated."}
            return
        parameters: dict[str, str] = call["parameters"]  # type: ignore[assignment]
        worker = PretendBackend(self.store)
        summary = worker._reduce(parameters["run"])
        if summary["complete"] and summary["best"]:
            summary["refit"] = worker._refit(parameters["run"])
        write_answer(self.store, parameters["answer"], Answer(0, summary, None))
        job |= {"status": "SUCCEEDED"}


class Scene(CloudScene):
    """A cloud, and any number of desks."""

    on = "aws"

    def __init__(self, store: Store, cache: Path, clients: FakeClients) -> None:
        super().__init__(store, cache, clients)
        self.cloud = Cloud(store, clients)

    def run(self, judge: Judge = everything, *, fresh: bool = False) -> Outcome:
        self.cloud.judge = judge
        return self.runner(fresh=fresh).run(self.search)


@pytest.fixture
def scene(store_url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    store, clients = open_store(store_url), FakeClients()
    with at_the_stack(store, clients, monkeypatch):
        scene = Scene(store, cache, clients)
        monkeypatch.setattr("submitter.cli.run_commands.open_backend", scene.open_backend)
        yield scene


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_run_is_one_array_and_one_reduce_step(scene: Scene) -> None:
    outcome = scene.run()
    assert (outcome.fits, outcome.reused, outcome.fit_s) == (6, 0, 4.5)
    assert outcome.summary["complete"]
    assert outcome.no_model_because is None
    assert [call["jobName"].rpartition("-")[2] for call in scene.batch.sent] == ["a0", "reduce"]
    assert scene.batch.sent[1]["dependsOn"] == [{"jobId": "job-0"}]
    assert outcome.plan.image == make_record().image
    assert outcome.plan.backend == "aws"
    assert scene.state() is RunState.FINISHED


def test_the_second_call_asks_batch_nothing(scene: Scene) -> None:
    scene.run()
    scene.batch.calls.clear()
    outcome = scene.run()
    assert (outcome.fits, outcome.reused) == (0, 6)
    assert scene.batch.calls == []


def test_waiting_costs_a_few_calls_however_long_it_takes(scene: Scene) -> None:
    scene.cloud.paused = True

    def later() -> None:
        scene.cloud.paused = scene.clock < 3600

    scene.sleeps = iter([later] * 10_000)
    scene.run()
    assert 100 < scene.batch.calls.count("DescribeJobs") < 140  # every 30 s at last
    assert scene.batch.calls.count("SubmitJob") == 2
    assert scene.batch.calls.count("ListJobs") == 0


def test_what_was_sent_ends_without_its_desk_and_any_other_tells_its_answer(scene: Scene, tmp_path: Path) -> None:
    plan = scene.runner().send_off(scene.search)
    assert plan is not None
    scene.cloud.work()  # the laptop is closed
    assert scene.state() is RunState.FINISHED
    outcome = scene.runner(cache=tmp_path / "elsewhere").run(scene.search)
    assert outcome.plan == plan
    assert (outcome.fits, outcome.reused) == (0, 6)
    assert len(scene.batch.sent) == 2


def test_another_terminal_adopts_what_goes_on(scene: Scene, tmp_path: Path) -> None:
    scene.cloud.paused = True
    plan = scene.runner().send_off(scene.search)
    assert scene.state() is RunState.RUNNING
    scene.sleeps = iter([lambda: None, lambda: setattr(scene.cloud, "paused", False)])
    outcome = scene.runner(cache=tmp_path / "elsewhere").run(scene.search)
    assert outcome.plan == plan
    assert outcome.summary["complete"]
    assert len(scene.batch.sent) == 2
    assert any("following it" in line for line in scene.said)


def test_sending_off_twice_sends_once(scene: Scene) -> None:
    scene.cloud.paused = True
    assert scene.runner().send_off(scene.search) == scene.runner().send_off(scene.search)
    assert len(scene.batch.sent) == 2
    scene.cloud.paused = False
    scene.cloud.work()
    assert scene.runner().send_off(scene.search) is None


def test_fresh_does_not_push_what_goes_on_aside(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    with pytest.raises(TryLaterError, match="submit cancel"):
        scene.run(fresh=True)


def test_fresh_computes_every_cell_again(scene: Scene) -> None:
    scene.run()
    outcome = scene.run(fresh=True)
    assert (outcome.plan.round, outcome.fits, outcome.reused) == (1, 6, 0)


def test_a_desk_that_died_while_sending_is_completed_by_the_next(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.store.delete(Layout.handle(scene.search.run_id, 0, 1, 0))
    scene.store.delete(Layout.claim(scene.search.run_id, 0, 1, 0))
    del scene.batch.jobs["job-1"]
    scene.batch.sent.pop()
    scene.sleeps = iter([lambda: None, lambda: setattr(scene.cloud, "paused", False)])
    assert scene.run().summary["complete"]
    assert [call["jobName"].rpartition("-")[2] for call in scene.batch.sent] == ["a0", "reduce"]


def test_an_array_without_a_handle_is_found_by_its_name(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.store.delete(Layout.handle(scene.search.run_id, 0, 0, 0))
    assert scene.state() is RunState.RUNNING
    scene.sleeps = iter([lambda: None, lambda: setattr(scene.cloud, "paused", False)])
    assert scene.run().plan.round == 0
    assert len(scene.batch.sent) == 2
    assert scene.store.exists(Layout.handle(scene.search.run_id, 0, 0, 0))


def test_ctrl_c_ends_the_following_alone(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.sleeps = iter([lambda: None, interrupt])
    with pytest.raises(InterruptedRun, match=r"goes on without this terminal.*submit watch.*submit cancel"):
        scene.run()
    assert scene.state() is RunState.RUNNING
    assert not [call for call in scene.batch.calls if call.startswith("TerminateJob")]


def test_a_task_lost_for_good_is_told_with_its_reason_and_completed_by_the_next_call(scene: Scene) -> None:
    scene.cloud.failure = {"statusReason": "Host EC2 (instance i-1) terminated."}
    outcome = scene.run(first_only)
    assert outcome.missing_because is not None
    assert "reclaimed" in outcome.missing_because
    assert outcome.summary["cells"]["missing"] == 4
    assert scene.state() is RunState.INTERRUPTED
    again = scene.run()
    assert (again.plan.round, again.fits, again.reused) == (1, 4, 2)
    assert again.summary["complete"]


def test_the_rule_of_the_stack_may_have_reduced_what_failed(scene: Scene) -> None:
    scene.cloud.failure = {"statusReason": "Host EC2 (instance i-1) terminated."}

    def the_rule_fires() -> None:
        if scene.batch.jobs.get("job-0", {}).get("status") == "FAILED":
            PretendBackend(scene.store)._reduce(scene.search.run_id)

    scene.sleeps = iter([lambda: None, the_rule_fires, the_rule_fires, the_rule_fires, the_rule_fires])
    outcome = scene.run(first_only)
    assert outcome.summary["cells"]["missing"] == 4
    assert len(scene.batch.sent) == 2  # the desk sent no reduce step of its own


def test_what_a_task_refused_with_is_the_error(scene: Scene) -> None:
    scene.cloud.failure = ESSENTIAL | {"container": {"exitCode": 3}}
    told = json.dumps({"error": {"exit": 3, "message": "The data were damaged."}})
    scene.cloud.clients.logs.streams["work/default/1"] = ["12:00 INFO x", told, "12:01 INFO y"]
    scene.batch.jobs["job-0:1"] = {
        "jobId": "job-0:1",
        "status": "FAILED",
        "container": {"exitCode": 3, "logStreamName": "work/default/1"},
    }
    with pytest.raises(DataError, match=r"^The data were damaged\.$"):
        scene.run(first_only)


def test_a_refusal_without_a_log_still_has_its_exit_code(scene: Scene) -> None:
    scene.cloud.failure = ESSENTIAL | {"container": {"exitCode": 3}}
    with pytest.raises(DataError, match="exit code 3"):
        scene.run(first_only)


def test_lost_cells_are_taken_as_they_are_and_tried_again_by_the_next_call(scene: Scene) -> None:
    outcome = scene.run(last_is_lost)
    assert outcome.missing_because is None
    assert outcome.summary["cells"]["lost"] == 2
    assert scene.run().plan.round == 1


def test_a_reduce_step_that_died_is_sent_again_by_the_desk(scene: Scene) -> None:
    scene.cloud.reduces = False

    def mend() -> None:
        scene.cloud.reduces = len(scene.batch.sent) > 2

    scene.sleeps = iter([mend] * 100)
    assert scene.run().summary["complete"]
    assert len(scene.batch.sent) == 3


def test_who_follows_an_adopted_run_does_not_revive_it_when_somebody_cancels(scene: Scene, tmp_path: Path) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)

    def cancel() -> None:
        scene.store.create(Layout.stop(scene.search.run_id, 0), b"{}")
        scene.live().terminate()

    scene.sleeps = iter([lambda: None, cancel])
    with pytest.raises(InterruptedRun, match=r"was cancelled.*submit resume"):
        scene.runner(cache=tmp_path / "elsewhere").run(scene.search)
    assert len(scene.batch.sent) == 2
    newest = latest_round(scene.store, scene.search.run_id)
    assert newest is not None
    assert newest.round == 0


def test_a_run_that_is_still_ending_after_its_cancellation_is_not_called_sent(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.store.create(Layout.stop(scene.search.run_id, 0), b"{}")
    with pytest.raises(TryLaterError, match="was cancelled and is ending"):
        scene.runner().send_off(scene.search)


def test_a_cancellation_after_the_last_cell_still_leaves_a_table(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.cloud._work(scene.batch.jobs["job-0"], scene.batch.sent[0]["parameters"])  # the reduce step waits

    def work_on_what_cancel_sends() -> None:
        scene.cloud.paused = len(scene.batch.sent) < 3
        scene.cloud.work()

    scene.batch.on_describe = work_on_what_cancel_sends
    scene.cancel()
    assert json.loads(capsys.readouterr().out)["files"]["best"] is not None
    view = read_view(scene.store, scene.search.run_id)
    assert view is not None
    assert view["complete"]


def test_cancelling_tells_what_it_waits_for_and_does_not_wait_for_a_host_without_limit(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.finish_some()

    def no_host() -> None:
        for job in scene.batch.jobs.values():
            if job["status"] == "SUBMITTED":
                job["statusReason"] = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no m5.large"

    scene.sleeps = iter([no_host] * 1000)
    with pytest.raises(TryLaterError) as told:
        scene.cancel()
    run_id, step = scene.search.run_id, scene.batch.sent[2]["jobName"]
    assert told.value.message.startswith(f"{run_id} is cancelled; what is finished is kept. The reduce step on AWS")
    assert "latest" not in told.value.message
    for part in (step, "waited for a host for 5 minutes", "no spot instances", f"`submit status {run_id}`"):
        assert part in told.value.message
    assert "Waiting for the table" in capsys.readouterr().err
    assert RULE_SECONDS + TABLE_SECONDS <= scene.clock < RULE_SECONDS + TABLE_SECONDS + 20
    assert "TerminateJob job-2" not in scene.batch.calls  # it is left to whichever host comes
    scene.sleeps = iter([lambda: None] * 70 + [interrupt])
    with pytest.raises(InterruptedRun):
        scene.cancel()
    assert "TerminateJob job-2" not in scene.batch.calls  # nor does a desk end what another one sent
    scene.sleeps = iter([lambda: None] * 70 + [lambda: setattr(scene.cloud, "paused", False)])
    assert scene.cancel() == 0  # waits for the same one
    assert len(scene.batch.sent) == 3
    view = read_view(scene.store, run_id)
    assert view is not None and view["cells"]["done"] == 2


def test_a_reduce_step_that_another_desk_ended_is_sent_anew(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.finish_some()
    scene.sleeps = iter([lambda: None] * 1000)
    with pytest.raises(TryLaterError):
        scene.cancel()

    def end() -> None:
        scene.batch.terminate_job(jobId="job-2", reason="its desk was interrupted")
        scene.cloud.paused = False

    scene.sleeps = iter([lambda: None] * 70 + [end] + [lambda: None] * 9)
    assert scene.cancel() == 0
    assert len(scene.batch.sent) == 4


def test_cancelling_waits_for_a_reduce_step_that_has_started(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.finish_some()

    def go_on() -> None:
        if len(scene.batch.sent) > 2 and scene.clock < 3600:
            scene.batch.jobs["job-2"]["status"] = "RUNNING"
        scene.cloud.paused = scene.clock < 3600

    scene.sleeps = iter([go_on] * 1000)
    assert scene.cancel() == 0
    assert scene.clock >= 3600
    assert read_view(scene.store, scene.search.run_id) is not None


def test_a_run_that_waits_for_its_reduce_step_alone_is_patient(scene: Scene) -> None:
    scene.runner().send_off(scene.search)
    scene.cloud.reduces = False
    scene.cloud.work()

    def later() -> None:
        scene.cloud.reduces = True
        scene.cloud.paused = scene.clock < 3600

    scene.sleeps = iter([later] * 1000)
    assert scene.run().summary["complete"]
    assert scene.clock >= 3600


def test_cancelling_before_any_cell_is_finished_sends_and_awaits_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    assert scene.cancel() == 0
    assert "there is no table" in capsys.readouterr().err
    assert (len(scene.batch.sent), scene.clock) == (2, 0.0)


@pytest.mark.parametrize("fresh", [False, True])
def test_cancelling_a_round_that_finished_nothing_new_keeps_the_table(
    scene: Scene, capsys: pytest.CaptureFixture[str], fresh: bool
) -> None:
    scene.run(everything if fresh else first_only)
    before = read_view(scene.store, scene.search.run_id)
    scene.cloud.paused, scene.clock = True, 0.0
    plan = scene.runner(fresh=fresh).send_off(scene.search)
    assert plan is not None and plan.round == 1
    sent = len(scene.batch.sent)
    assert scene.cancel() == 0
    assert "which stays as it is" in capsys.readouterr().err
    assert (len(scene.batch.sent), scene.clock, read_view(scene.store, scene.search.run_id)) == (sent, 0.0, before)


def test_a_finished_run_without_a_table_says_what_makes_it(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.cloud.reduces = False
    scene.runner().send_off(scene.search)
    scene.cloud.work()  # its reduce step died, and nobody has come since
    show_status(scene.desk, scene.search.run_id, as_json=False)
    assert f"submit resume {scene.search.run_id} makes its table" in capsys.readouterr().out


def test_a_cancelled_run_is_ended_and_not_revived(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.store.create(Layout.stop(scene.search.run_id, 0), b"{}")
    live = scene.live()
    live.terminate()
    assert [call for call in scene.batch.calls if call.startswith("TerminateJob")] == [
        "TerminateJob job-1",
        "TerminateJob job-0",
    ]
    assert not live.is_alive()
    assert scene.state() is RunState.CANCELLED
    scene.cloud.paused = False
    assert scene.run().plan.round == 1


def test_who_follows_is_told_that_the_run_was_cancelled(scene: Scene) -> None:
    scene.cloud.paused = True

    def cancel() -> None:
        scene.store.create(Layout.stop(scene.search.run_id, 0), b"{}")
        scene.live().terminate()

    scene.sleeps = iter([lambda: None, cancel])
    with pytest.raises(InterruptedRun, match="cancelled"):
        scene.run()


def test_a_sighting_tells_counts_and_what_is_stuck(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    size = len(latest_round(scene.store, scene.search.run_id).array_plans())  # type: ignore[union-attr]
    assert size == 1
    scene.batch.jobs["job-0"] |= {
        "status": "PENDING",
        "arrayProperties": {"size": 6, "statusSummary": {"RUNNABLE": 6}},
    }
    reason = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - no m5.large"
    scene.batch.children[("job-0", "RUNNABLE")] = [{"jobId": "job-0:0", "statusReason": reason}]
    seen = presence.sighting(scene.presence())
    assert seen.alive
    assert seen.requests[0].counts == {RequestState.WAITING: 6}
    assert "no spot instances" in seen.notes[0] and "--on-demand" in seen.notes[0]
    assert seen.to_json()["requests"][1]["state"] == "waiting"


def test_notes_are_told_once_while_following(scene: Scene) -> None:
    scene.cloud.paused = True

    def stick() -> None:
        if "job-0" in scene.batch.jobs:
            scene.batch.jobs["job-0"]["statusReason"] = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - x"

    def go_on() -> None:
        scene.cloud.paused = False

    scene.sleeps = iter([stick, *[lambda: None] * 20, go_on])
    scene.run()
    assert len([line for line in scene.said if "no instance of the stack" in line]) == 1


def test_what_batch_has_forgotten_is_over_and_what_was_just_sent_is_not(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.batch.jobs.clear()
    assert presence.sighting(scene.presence()).alive
    assert not presence.sighting(scene.presence(), now=lambda: 4e9).alive


def test_a_log_that_is_not_there_is_told(scene: Scene) -> None:
    scene.cloud.paused = True
    scene.runner().send_off(scene.search)
    scene.cloud.clients.logs.streams["work/default/1"] = ["one", "two", "three"]
    assert presence.read_log(scene.presence(), "work/default/1", 2) == ["two", "three"]
    assert "no such stream in /foldfleet" in presence.read_log(scene.presence(), "work/default/2", 2)[0]


def test_native_numerics_are_refused(scene: Scene) -> None:
    spec = scene.search.spec.model_copy(update={"numerics": "native"})
    with pytest.raises(UsageError, match="numerics: portable"):
        AwsBackend(BackendContext(scene.settings, scene.store, spec, None, "x"))


def test_another_store_is_refused(scene: Scene, tmp_path: Path) -> None:
    elsewhere = open_store(str(tmp_path / "elsewhere"))
    backend = AwsBackend(BackendContext(scene.settings, elsewhere, scene.search.spec, None, "x"))
    with pytest.raises(UsageError, match=f"--store {scene.store.url}"):
        backend.warm()


def test_its_module_survives_and_others_do_not() -> None:
    assert [backend_module(name).survives for name in ("local", "docker", "aws")] == [False, False, True]
