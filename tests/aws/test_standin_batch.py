"""The Batch core of the stand-in, rule by rule: no container, no sleep, a clock that tests turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.batch.models import batch_backends

from tests.aws.standin.batch import Hooks, SimulatedRunner, install
from tests.aws.standin.batch.endpoints import Endpoints
from tests.aws.standin.batch.hosts import Environment, choose_size, size_of, sizes_of
from tests.aws.standin.batch.rules import Refused, Retries, check_retries, glob_matches, substitute

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
RETRY_RULES = [
    {"onStatusReason": "Host EC2*", "action": "RETRY"},
    {"onStatusReason": "Task failed to start*", "action": "RETRY"},
    {"onReason": "Cannot*", "action": "RETRY"},
    {"onExitCode": "75", "action": "RETRY"},
    {"onStatusReason": "*", "action": "EXIT"},
]
"""The rules foldfleet registers."""


class World:
    """A region with one queue, tasks that end when told to, and a clock that stands still."""

    def __init__(self, batch: Any, network: dict[str, Any]) -> None:
        self.batch = batch
        self.network = network
        self.now = START
        self.events: list[dict[str, Any]] = []
        self.outcomes: dict[str, list[int | None]] = {}
        self.tasks: list[Any] = []
        self.runner = SimulatedRunner(self.outcome)
        self.control = install(Hooks(emit=self.events.append), self.runner, clock=lambda: self.now, threaded=False)

    def outcome(self, task: Any) -> int | None:
        self.tasks.append(task)
        left = self.outcomes.get(task.job_id.partition(":")[2] or "plain", [])
        return left.pop(0) if left else None

    def build(self, **resources: Any) -> None:
        environment = {
            "type": "SPOT",
            "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
            "minvCpus": 0,
            "maxvCpus": 8,
            "instanceTypes": ["m5.large", "m5.xlarge"],
            **self.network,
            **resources,
        }
        self.batch.create_compute_environment(
            computeEnvironmentName="spot", type="MANAGED", computeResources=environment
        )
        self.batch.create_job_queue(
            jobQueueName="queue",
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "spot"}],
            jobStateTimeLimitActions=[
                {
                    "reason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
                    "state": "RUNNABLE",
                    "maxTimeSeconds": 600,
                    "action": "CANCEL",
                }
            ],
        )

    def define(self, name: str = "work", *, vcpus: int = 1, memory: int = 1000, **more: Any) -> str:
        container = {
            "image": "repository/foldfleet@sha256:0",
            "command": ["work", "--run", "Ref::run"],
            "resourceRequirements": [
                {"type": "VCPU", "value": str(vcpus)},
                {"type": "MEMORY", "value": str(memory)},
            ],
            **more.pop("container", {}),
        }
        answer = self.batch.register_job_definition(
            jobDefinitionName=name, type="container", containerProperties=container, parameters={"run": "r1"}, **more
        )
        return str(answer["jobDefinitionArn"])

    def submit(self, *, size: int | None = None, turn: bool = True, **more: Any) -> str:
        request = {"jobName": "fits", "jobQueue": "queue", "jobDefinition": "work", **more}
        if size is not None:
            request["arrayProperties"] = {"size": size}
        job_id = str(self.batch.submit_job(**request)["jobId"])
        if turn:
            self.turn()
        return job_id

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.control.pump()

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(self.batch.describe_jobs(jobs=[job_id])["jobs"][0])

    def status(self, job_id: str) -> str:
        return str(self.job(job_id)["status"])

    def finish(self, job_id: str, exit_code: int = 0, reason: str | None = None) -> None:
        task_id = next(key for key, (task, _) in self.runner.running.items() if task.job_id == job_id)
        self.runner.finish(task_id, exit_code, reason)
        self.turn()

    def states_told(self, job_id: str) -> list[str]:
        return [event["detail"]["status"] for event in self.events if event["detail"]["jobId"] == job_id]


@pytest.fixture(scope="module")
def region() -> Iterator[tuple[Any, dict[str, Any]]]:
    """A client of Batch and the network of a region: made once, since moto takes half a second for them."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BATCH", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        ec2: Any = boto3.client("ec2", region_name="us-east-1")
        boto3.client("iam", region_name="us-east-1").create_instance_profile(InstanceProfileName="instances")
        network = {
            "subnets": [ec2.describe_subnets()["Subnets"][0]["SubnetId"]],
            "securityGroupIds": [ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]],
            "instanceRole": "instances",
        }
        yield boto3.client("batch", region_name="us-east-1"), network


@pytest.fixture
def bare(region: tuple[Any, dict[str, Any]]) -> Iterator[World]:
    batch_backends["123456789012"]["us-east-1"].reset()
    world = World(*region)
    yield world
    world.control.close()


@pytest.fixture
def world(bare: World) -> World:
    bare.build()
    bare.define()
    return bare


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert caught.value.response["Error"]["Code"] == "ClientException"
    return str(caught.value)


# Job definitions.


def rules_of(*entries: dict[str, str], attempts: int = 3) -> dict[str, Any]:
    return {"attempts": attempts, "evaluateOnExit": list(entries)}


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"attempts": 0}, "between 1 and 10"),
        ({"attempts": 11}, "between 1 and 10"),
        (rules_of(*[{"onExitCode": "1", "action": "EXIT"}] * 6), "at most 5"),
        (rules_of({"onExitCode": "7x", "action": "EXIT"}), "only numbers"),
        (rules_of({"onExitCode": "*7", "action": "EXIT"}), "asterisk (*) at its end"),
        (rules_of({"onStatusReason": "*EC2", "action": "EXIT"}), "asterisk (*) at its end"),
        (rules_of({"onReason": "Cannot[P]*", "action": "EXIT"}), "letters, numbers"),
        (rules_of({"onReason": "*", "action": "STOP"}), "RETRY, EXIT"),
        (rules_of({"action": "EXIT"}), "at least one of"),
    ],
)
def test_retry_strategies_are_checked(strategy: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words.replace("(", r"\(").replace(")", r"\)").replace("*", r"\*")):
        check_retries(strategy)


def test_foldfleets_rules_are_accepted_and_actions_come_back_small(world: World) -> None:
    world.define("rules", retryStrategy={"attempts": 5, "evaluateOnExit": RETRY_RULES})
    shown = world.batch.describe_job_definitions(jobDefinitionName="rules")["jobDefinitions"][0]
    assert {rule["action"] for rule in shown["retryStrategy"]["evaluateOnExit"]} == {"retry", "exit"}


@pytest.mark.parametrize("name", ["-work", "a b", "x" * 129, "_x"])
def test_names_of_definitions_are_checked(world: World, name: str) -> None:
    with pytest.raises(ClientError, match="jobDefinitionName"):
        world.define(name)


def test_a_timeout_is_at_least_a_minute(world: World) -> None:
    with pytest.raises(ClientError, match="at least 60"):
        world.define("short", timeout={"attemptDurationSeconds": 59})
    definition = {"attemptDurationSeconds": 30}
    assert "at least 60" in refused(
        world.batch.submit_job, jobName="n", jobQueue="queue", jobDefinition="work", timeout=definition
    )


def test_variables_of_batch_are_reserved(world: World) -> None:
    mine = [{"name": "AWS_BATCH_JOB_X", "value": "1"}]
    with pytest.raises(ClientError, match="cannot start with AWS_BATCH"):
        world.define("mine", container={"environment": mine})
    with pytest.raises(ClientError, match="cannot start with AWS_BATCH"):
        world.submit(containerOverrides={"environment": mine})


@pytest.mark.parametrize(
    "requirements",
    [
        [],
        [{"type": "VCPU", "value": "1"}],
        [{"type": "MEMORY", "value": "64"}],
        [{"type": "VCPU", "value": "0.5"}, {"type": "MEMORY", "value": "64"}],
        [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "3"}],
    ],
)
def test_vcpus_and_memory_are_needed(world: World, requirements: list[dict[str, str]]) -> None:
    with pytest.raises(ClientError, match="resourceRequirements"):
        world.define("little", container={"resourceRequirements": requirements})


def test_a_mount_point_needs_its_volume(world: World) -> None:
    with pytest.raises(ClientError, match="Unknown volume"):
        world.define("mounts", container={"mountPoints": [{"sourceVolume": "x", "containerPath": "/x"}]})


def test_a_definition_has_at_most_24_kib(world: World) -> None:
    with pytest.raises(ClientError, match="24576"):
        world.define("long", container={"command": ["x" * 24 * 1024]})


def test_a_queue_has_at_most_three_environments(world: World) -> None:
    order = [{"order": number, "computeEnvironment": "spot"} for number in range(4)]
    assert "1 to 3" in refused(
        world.batch.create_job_queue, jobQueueName="wide", priority=1, computeEnvironmentOrder=order
    )


def test_revisions_go_on_after_deregistration(world: World) -> None:
    first = world.define("rev")
    world.batch.deregister_job_definition(jobDefinition=first)
    second = world.define("rev")
    assert first.endswith(":1")
    assert second.endswith(":2")
    assert "not ACTIVE" in refused(world.batch.submit_job, jobName="n", jobQueue="queue", jobDefinition="rev:1")
    job = world.job(world.submit(jobDefinition="rev"))
    assert job["jobDefinition"] == second


def test_nothing_is_taken_over_from_the_revision_before(world: World) -> None:
    world.define("heir", timeout={"attemptDurationSeconds": 60}, retryStrategy={"attempts": 2})
    world.define("heir")
    shown = world.batch.describe_job_definitions(jobDefinitions=["heir:2"])["jobDefinitions"][0]
    assert "timeout" not in shown
    assert not shown["retryStrategy"]


# Submissions.


@pytest.mark.parametrize("size", [0, 1, 10_001])
def test_arrays_have_2_to_10000_children(world: World, size: int) -> None:
    message = refused(
        world.batch.submit_job, jobName="n", jobQueue="queue", jobDefinition="work", arrayProperties={"size": size}
    )
    assert "between 2 and 10000" in message


@pytest.mark.parametrize("name", ["_x", "a.b", "x" * 129])
def test_names_of_jobs_are_checked(world: World, name: str) -> None:
    assert "Job name" in refused(world.batch.submit_job, jobName=name, jobQueue="queue", jobDefinition="work")


def test_a_name_of_128_letters_is_taken(world: World) -> None:
    assert world.job(world.submit(jobName="x" * 128))["jobName"] == "x" * 128


def test_a_request_over_30_kib_is_refused(world: World) -> None:
    message = refused(
        world.batch.submit_job,
        jobName="n",
        jobQueue="queue",
        jobDefinition="work",
        parameters={"run": "x" * 30 * 1024},
    )
    assert "30720" in message


def test_long_overrides_are_taken_and_fail_later(world: World) -> None:
    long = [{"name": "LONG", "value": "x" * 8192}]
    job_id = world.submit(turn=False, containerOverrides={"environment": long})
    assert world.status(job_id) == "SUBMITTED"
    world.turn()
    job = world.job(job_id)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Container Overrides length must be at most 8192")
    assert not job["attempts"]


def test_queue_and_definition_must_be_there_and_enabled(world: World) -> None:
    submit = world.batch.submit_job
    assert "does not exist" in refused(submit, jobName="n", jobQueue="other", jobDefinition="work")
    assert "does not exist" in refused(submit, jobName="n", jobQueue="queue", jobDefinition="other")
    world.batch.update_job_queue(jobQueue="queue", state="DISABLED")
    assert "DISABLED" in refused(submit, jobName="n", jobQueue="queue", jobDefinition="work")


def test_references_are_replaced_and_missing_ones_refused(world: World) -> None:
    world.submit(parameters={"run": "r2"})
    assert world.tasks[0].command == ("work", "--run", "r2")
    world.define("lacking", container={"command": ["Ref::other"]})
    message = refused(world.batch.submit_job, jobName="n", jobQueue="queue", jobDefinition="lacking")
    assert "No parameter found for reference other" in message


def test_references_are_whole_names() -> None:
    assert substitute(["Ref::run_name", "--x=Ref::run"], {"run": "1", "run_name": "2"}) == ["2", "--x=1"]


def test_overrides_win_over_the_definition(world: World) -> None:
    world.define("base", container={"environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]})
    world.submit(
        jobDefinition="base",
        containerOverrides={
            "command": ["other"],
            "environment": [{"name": "B", "value": "2"}],
            "resourceRequirements": [{"type": "MEMORY", "value": "2000"}],
        },
    )
    task = world.tasks[0]
    assert (task.command, task.vcpus, task.memory_mib) == (("other",), 1, 2000)
    assert (task.environment["A"], task.environment["B"]) == ("1", "2")


def test_at_most_20_dependencies_all_known(world: World) -> None:
    submit = world.batch.submit_job
    request = {"jobName": "n", "jobQueue": "queue", "jobDefinition": "work"}
    assert "does not exist" in refused(submit, **request, dependsOn=[{"jobId": "unknown"}])
    assert "maximum of 20" in refused(submit, **request, dependsOn=[{"jobId": "unknown"}] * 21)
    assert "array jobs only" in refused(submit, **request, dependsOn=[{"type": "SEQUENTIAL"}])


# Variables.


def test_a_plain_job_has_an_attempt_and_no_index(world: World) -> None:
    job_id = world.submit()
    environment = world.tasks[0].environment
    assert environment["AWS_BATCH_JOB_ID"] == job_id
    assert environment["AWS_BATCH_JOB_ATTEMPT"] == "1"
    assert (environment["AWS_BATCH_JQ_NAME"], environment["AWS_BATCH_CE_NAME"]) == ("queue", "spot")
    assert "AWS_BATCH_JOB_ARRAY_INDEX" not in environment


def test_children_have_an_index_from_zero_and_no_size(world: World) -> None:
    parent = world.submit(size=3)
    told = {task.environment["AWS_BATCH_JOB_ID"]: task.environment["AWS_BATCH_JOB_ARRAY_INDEX"] for task in world.tasks}
    assert told == {f"{parent}:{index}": str(index) for index in range(3)}
    assert not any("SIZE" in name for name in world.tasks[0].environment)


# States.


def test_a_job_goes_through_its_states_and_tells_each(world: World) -> None:
    job_id = world.submit()
    assert world.status(job_id) == "RUNNING"
    world.finish(job_id)
    job = world.job(job_id)
    assert (job["status"], job["statusReason"]) == ("SUCCEEDED", "Essential container in task exited")
    assert job["container"]["exitCode"] == 0
    # No event tells of the submission itself.
    assert world.states_told(job_id) == ["RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED"]


def test_a_parent_is_pending_until_all_children_ended(world: World) -> None:
    parent = world.submit(size=2, turn=False)
    assert world.status(parent) == "SUBMITTED"
    world.turn()
    assert world.status(parent) == "PENDING"
    world.finish(f"{parent}:0", 1)
    assert world.status(parent) == "PENDING"
    summary = world.job(parent)["arrayProperties"]
    assert summary["size"] == 2
    assert (summary["statusSummary"]["FAILED"], summary["statusSummary"]["RUNNING"]) == (1, 1)
    world.finish(f"{parent}:1")
    job = world.job(parent)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Array Child Job failed")
    assert world.states_told(parent) == ["PENDING", "FAILED"]


def test_a_parent_succeeds_with_all_children(world: World) -> None:
    world.outcomes = {"0": [0], "1": [0]}
    assert world.status(world.submit(size=2)) == "SUCCEEDED"


def test_events_have_eventbridges_form(world: World) -> None:
    parent = world.submit(size=2, parameters={"run": "r9"})
    of_parent = next(event for event in world.events if event["detail"]["jobId"] == parent)
    of_child = next(event for event in world.events if event["detail"]["jobId"] == f"{parent}:1")
    assert of_parent["source"] == "aws.batch"
    assert of_parent["detail-type"] == "Batch Job State Change"
    assert of_parent["resources"] == [of_parent["detail"]["jobArn"]]
    assert of_parent["detail"]["parameters"] == {"run": "r9"}
    assert "index" not in of_parent["detail"]["arrayProperties"]
    assert of_child["detail"]["arrayProperties"]["index"] == 1
    assert of_child["detail"]["container"]["image"] == "repository/foldfleet@sha256:0"
    assert json.loads(json.dumps(of_child)) == of_child


def test_ten_thousand_children_end(world: World) -> None:
    world.outcomes = {}
    world.control.simulate(True)
    parent = world.submit(size=10_000)
    assert world.job(parent)["arrayProperties"]["statusSummary"]["SUCCEEDED"] == 10_000
    assert world.status(parent) == "SUCCEEDED"


# Retries.


def test_globs_match_whole_texts_or_beginnings() -> None:
    assert glob_matches("Host EC2*", "Host EC2 (instance i-1) terminated.")
    assert not glob_matches("Host EC2", "Host EC2 (instance i-1) terminated.")
    assert glob_matches("*", "")
    assert not glob_matches("7", "75")


def test_the_first_matching_rule_decides() -> None:
    retries = check_retries(
        rules_of({"onExitCode": "7*", "action": "RETRY"}, {"onExitCode": "75", "action": "EXIT"}, attempts=2)
    )
    assert retries.again(1, exit_code=75, reason=None, status_reason="x")


def test_all_conditions_of_a_rule_must_match() -> None:
    retries = check_retries(
        rules_of(
            {"onExitCode": "1", "onReason": "Out*", "action": "EXIT"}, {"onReason": "*", "action": "RETRY"}, attempts=2
        )
    )
    assert retries.again(1, exit_code=1, reason=None, status_reason="x")
    assert not retries.again(1, exit_code=1, reason="OutOfMemoryError", status_reason="x")


def test_without_a_matching_rule_a_job_is_retried() -> None:
    retries = check_retries(rules_of({"onExitCode": "1", "action": "EXIT"}, attempts=2))
    assert retries.again(1, exit_code=2, reason=None, status_reason="x")
    assert not Retries(1).again(1, exit_code=2, reason=None, status_reason="x")


def test_attempts_are_counted_from_one_up_to_the_limit(world: World) -> None:
    job_id = world.submit(retryStrategy={"attempts": 3})
    for _ in range(3):
        world.finish(job_id, 1)
    job = world.job(job_id)
    assert job["status"] == "FAILED"
    assert [task.environment["AWS_BATCH_JOB_ATTEMPT"] for task in world.tasks] == ["1", "2", "3"]
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [1, 1, 1]
    assert len({attempt["container"]["logStreamName"] for attempt in job["attempts"]}) == 3
    assert world.states_told(job_id).count("RUNNABLE") == 3


@pytest.mark.parametrize(("exit_code", "attempts"), [(75, 2), (1, 1), (137, 1)])
def test_foldfleets_rules_retry_75_only(world: World, exit_code: int, attempts: int) -> None:
    job_id = world.submit(retryStrategy={"attempts": 5, "evaluateOnExit": RETRY_RULES})
    world.finish(job_id, exit_code)
    assert len(world.tasks) == attempts


def test_reason_and_status_reason_are_told_apart(world: World) -> None:
    strategy = rules_of({"onReason": "Task failed*", "action": "EXIT"}, attempts=2)
    job_id = world.submit(retryStrategy=strategy)
    task, reports = next(iter(world.runner.running.values()))
    reports.not_started(task, "CannotPullContainerError: no such image")
    world.turn()
    # The rule is about the container's reason; "Task failed to start" is the status reason.
    attempt = world.job(job_id)["attempts"][0]
    assert attempt["statusReason"] == "Task failed to start"
    assert attempt["container"]["reason"].startswith("CannotPull")
    assert "exitCode" not in attempt["container"]
    assert len(world.tasks) == 2


# Timeouts.


def test_a_timeout_is_for_each_attempt_and_never_retried(world: World) -> None:
    job_id = world.submit(retryStrategy={"attempts": 5}, timeout={"attemptDurationSeconds": 60})
    world.turn(59)
    world.finish(job_id, 1)
    world.turn(59)
    assert world.runner.signals == []
    world.turn(1)
    assert world.runner.signals == [(job_id, "SIGTERM")]
    world.turn(29)
    assert world.runner.signals == [(job_id, "SIGTERM")]
    world.turn(1)
    job = world.job(job_id)
    assert world.runner.signals == [(job_id, "SIGTERM"), (job_id, "SIGKILL")]
    assert (job["status"], job["statusReason"]) == ("FAILED", "Job attempt duration exceeded timeout")
    assert len(job["attempts"]) == 2


# Cancel and terminate.


def test_cancel_acts_before_starting_only(world: World) -> None:
    job_id = world.submit()
    world.batch.cancel_job(jobId=job_id, reason="enough")
    world.turn()
    assert world.status(job_id) == "RUNNING"
    assert "isCancelled" not in world.job(job_id)
    world.control.hold()
    waiting = world.submit()
    world.batch.cancel_job(jobId=waiting, reason="enough")
    world.turn()
    job = world.job(waiting)
    assert (job["status"], job["statusReason"], job["isCancelled"]) == ("FAILED", "enough", True)


def test_terminate_stops_with_grace_and_is_not_retried(world: World) -> None:
    job_id = world.submit(retryStrategy={"attempts": 5})
    world.batch.terminate_job(jobId=job_id, reason="enough")
    world.turn()
    assert world.status(job_id) == "RUNNING"
    world.turn(30)
    job = world.job(job_id)
    assert world.runner.signals == [(job_id, "SIGTERM"), (job_id, "SIGKILL")]
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)
    assert job["container"]["exitCode"] == 137
    assert len(world.tasks) == 1


def test_a_task_that_heeds_sigterm_ends_at_once(world: World) -> None:
    world.runner.heeds_sigterm = 75
    job_id = world.submit(retryStrategy={"attempts": 5, "evaluateOnExit": RETRY_RULES})
    world.batch.terminate_job(jobId=job_id, reason="enough")
    world.turn()
    assert world.status(job_id) == "FAILED"
    assert world.runner.signals == [(job_id, "SIGTERM")]


def test_terminating_a_parent_ends_all_children(world: World) -> None:
    world.runner.heeds_sigterm = 143
    parent = world.submit(size=20)
    world.batch.terminate_job(jobId=parent, reason="enough")
    world.turn()
    job = world.job(parent)
    assert (job["status"], job["statusReason"]) == ("FAILED", "enough")
    assert job["arrayProperties"]["statusSummary"]["FAILED"] == 20
    assert len(world.tasks) == 8


def test_a_reason_is_needed_and_limited(world: World) -> None:
    job_id = world.submit()
    assert "1024" in refused(world.batch.terminate_job, jobId=job_id, reason="x" * 1025)
    assert "reason" in refused(world.batch.terminate_job, jobId=job_id, reason="")


# Dependencies.


def test_a_dependant_waits_and_starts_after_success(world: World) -> None:
    parent = world.submit(size=2)
    reduce = world.submit(dependsOn=[{"jobId": parent}])
    assert world.status(reduce) == "PENDING"
    world.finish(f"{parent}:0")
    assert world.status(reduce) == "PENDING"
    world.finish(f"{parent}:1")
    assert world.status(reduce) == "RUNNING"
    assert world.states_told(reduce)[0] == "PENDING"


def test_a_lost_child_fails_the_dependant_unstarted(world: World) -> None:
    parent = world.submit(size=2)
    reduce = world.submit(dependsOn=[{"jobId": parent}])
    world.finish(f"{parent}:0", 1)
    world.finish(f"{parent}:1")
    job = world.job(reduce)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Dependent Job failed")
    assert not job["attempts"]
    late = world.submit(dependsOn=[{"jobId": parent}])
    assert world.job(late)["statusReason"] == "Dependent Job failed"


def test_a_dependant_is_cancelled_after_what_it_waits_for(world: World) -> None:
    first = world.submit()
    second = world.submit(dependsOn=[{"jobId": first}])
    world.batch.cancel_job(jobId=second, reason="enough")
    world.turn()
    assert world.status(second) == "PENDING"
    world.finish(first)
    assert (world.status(second), world.job(second)["statusReason"]) == ("FAILED", "enough")


def test_sequential_children_run_one_after_the_other(world: World) -> None:
    parent = world.submit(size=3, dependsOn=[{"type": "SEQUENTIAL"}])
    assert [task.job_id for task in world.tasks] == [f"{parent}:0"]
    world.finish(f"{parent}:0")
    assert [task.job_id for task in world.tasks] == [f"{parent}:0", f"{parent}:1"]
    world.finish(f"{parent}:1", 1)
    assert world.job(f"{parent}:2")["statusReason"] == "Dependent Job failed"
    assert world.status(parent) == "FAILED"


def test_n_to_n_children_wait_for_their_like(world: World) -> None:
    first = world.submit(size=2)
    second = world.submit(size=2, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
    world.finish(f"{first}:1")
    assert (world.status(f"{second}:0"), world.status(f"{second}:1")) == ("PENDING", "RUNNING")
    request = {"jobName": "n", "jobQueue": "queue", "jobDefinition": "work", "arrayProperties": {"size": 3}}
    assert "same size" in refused(world.batch.submit_job, **request, dependsOn=[{"jobId": first, "type": "N_TO_N"}])


# Describing and listing.


def test_describe_takes_100_ids_and_leaves_out_unknown_ones(world: World) -> None:
    job_id = world.submit()
    assert [job["jobId"] for job in world.batch.describe_jobs(jobs=["unknown", job_id])["jobs"]] == [job_id]
    assert "100" in refused(world.batch.describe_jobs, jobs=["x"] * 101)


def test_list_takes_exactly_one_of_queue_and_array(world: World) -> None:
    assert "Exactly one" in refused(world.batch.list_jobs)
    assert "Exactly one" in refused(world.batch.list_jobs, jobQueue="queue", arrayJobId="x")


def listed(world: World, **arguments: Any) -> list[str]:
    return [job["jobId"] for job in world.batch.list_jobs(**arguments)["jobSummaryList"]]


def test_list_shows_running_jobs_unless_told_otherwise(world: World) -> None:
    parent = world.submit(size=2)
    plain = world.submit()
    assert listed(world, jobQueue="queue") == [plain]
    assert listed(world, jobQueue="queue", jobStatus="PENDING") == [parent]
    assert listed(world, arrayJobId=parent) == [f"{parent}:0", f"{parent}:1"]
    assert listed(world, arrayJobId=parent, jobStatus="FAILED") == []


def test_a_filter_ignores_the_status_and_leaves_out_children(world: World) -> None:
    parent = world.submit(size=2, jobName="Fold-a")
    world.now += 1
    other = world.submit(jobName="fold-b")
    by_name = {"name": "JOB_NAME", "values": ["FOLD-*"]}
    assert listed(world, jobQueue="queue", jobStatus="FAILED", filters=[by_name]) == [other, parent]
    assert listed(world, jobQueue="queue", filters=[{"name": "JOB_NAME", "values": ["fold"]}]) == []
    assert "one filter" in refused(world.batch.list_jobs, jobQueue="queue", filters=[by_name, by_name])
    assert "jobQueue" in refused(world.batch.list_jobs, arrayJobId=parent, filters=[by_name])


def test_lists_have_pages(world: World) -> None:
    world.control.hold()
    ids = [world.submit() for _ in range(3)]
    first = world.batch.list_jobs(jobQueue="queue", jobStatus="RUNNABLE", maxResults=2)
    assert [job["jobId"] for job in first["jobSummaryList"]] == [ids[2], ids[1]]
    world.submit()
    token = first["nextToken"]
    last = world.batch.list_jobs(jobQueue="queue", jobStatus="RUNNABLE", maxResults=2, nextToken=token)
    assert [job["jobId"] for job in last["jobSummaryList"]] == [ids[0]]
    assert "nextToken" not in last


def test_ended_jobs_are_forgotten(world: World) -> None:
    world.outcomes = {"0": [0], "1": [0]}
    parent = world.submit(size=2)
    running = world.submit()
    assert world.control.forget_ended() == 3
    assert world.batch.describe_jobs(jobs=[parent, running])["jobs"][0]["jobId"] == running


# Hosts.


def test_an_8_gib_instance_offers_less(world: World) -> None:
    size = size_of("m5.large")
    assert size is not None
    assert size.memory_mib < 8192
    assert int(8 * 1024 * 0.92) <= size.memory_mib


def test_families_are_x86_types_without_metal() -> None:
    names = {size.name for size in sizes_of(("m5", "m6g"))}
    assert "m5.large" in names
    assert not any(name.startswith("m6g") or "metal" in name for name in names)


def test_a_host_is_as_large_as_the_demand() -> None:
    environment = Environment("e", "a", "c", sizes_of(("m5",)), 64)
    chosen = [
        choose_size(environment, 1, 1000, demand_vcpus=demand, free_vcpus=64, usual_vcpus=4) for demand in (1, 4, 100)
    ]
    assert [size.vcpus for size in chosen if size is not None] == [2, 4, 4]


def test_the_queue_runs_what_the_vcpus_allow(world: World) -> None:
    parent = world.submit(size=20)
    summary = world.job(parent)["arrayProperties"]["statusSummary"]
    assert (summary["RUNNING"], summary["RUNNABLE"]) == (8, 12)
    world.finish(f"{parent}:0")
    assert world.job(parent)["arrayProperties"]["statusSummary"]["RUNNING"] == 8
    used = world.batch.describe_compute_environments()["computeEnvironments"][0]["computeResources"]["desiredvCpus"]
    assert used == 8


def test_memory_limits_a_host_too(world: World) -> None:
    world.define("fat", memory=7000)
    world.submit(size=9, jobDefinition="fat")
    assert len(world.tasks) == 4  # two m5.xlarge of 15,400 MiB


@pytest.mark.parametrize(
    ("vcpus", "memory", "code"),
    [
        (9, 1000, "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE"),
        (8, 1000, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
        (1, 16_384, "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"),
    ],
)
def test_a_job_too_big_stays_runnable_and_says_why(world: World, vcpus: int, memory: int, code: str) -> None:
    world.define("big", vcpus=vcpus, memory=memory)
    job = world.job(world.submit(jobDefinition="big"))
    assert job["status"] == "RUNNABLE"
    assert job["statusReason"].startswith(f"{code} - ")


def test_a_stuck_job_blocks_the_queue_until_its_time_limit(world: World) -> None:
    world.define("big", memory=16_384)
    big = world.submit(jobDefinition="big")
    small = world.submit()
    world.turn(599)
    assert (world.status(big), world.status(small)) == ("RUNNABLE", "RUNNABLE")
    world.turn(1)
    job = world.job(big)
    assert job["status"] == "FAILED"
    assert job["statusReason"] == (
        "Canceled by JobStateTimeLimit action due to reason: MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    )
    assert world.status(small) == "RUNNING"


def test_no_capacity_is_told_and_not_cancelled_unasked(world: World) -> None:
    world.control.set_options(capacity=False)
    job_id = world.submit()
    world.turn(86_400)
    job = world.job(job_id)
    assert job["status"] == "RUNNABLE"
    assert job["statusReason"].startswith("CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill")
    world.control.set_options(capacity=True)
    world.turn()
    assert world.status(job_id) == "RUNNING"


@pytest.mark.parametrize("change", [{"maxTimeSeconds": 599}, {"maxTimeSeconds": 86_401}, {"reason": "OTHER"}])
def test_time_limit_actions_are_checked(world: World, change: dict[str, Any]) -> None:
    action = {"reason": "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", "state": "RUNNABLE", "maxTimeSeconds": 600}
    limits = [{**action, "action": "CANCEL", **change}]
    assert "jobStateTimeLimitActions" in refused(
        world.batch.update_job_queue, jobQueue="queue", jobStateTimeLimitActions=limits
    )


def test_a_quota_limits_all_instances(world: World) -> None:
    world.control.set_options(vcpu_quota=4)
    world.submit(size=8)
    assert len(world.tasks) == 4


def test_a_new_host_takes_time_and_an_idle_one_goes(world: World) -> None:
    world.control.set_options(boot_s=90.0, idle_s=300.0)
    job_id = world.submit()
    assert world.status(job_id) == "RUNNABLE"
    world.turn(90)
    assert len(world.control.hosts()) == 1
    world.finish(job_id)
    world.turn(299)
    assert len(world.control.hosts()) == 1
    world.turn(1)
    assert world.control.hosts() == []


def test_a_reclaimed_host_takes_its_tasks_along(world: World) -> None:
    parent = world.submit(size=2, retryStrategy={"attempts": 5, "evaluateOnExit": RETRY_RULES})
    host = world.control.hosts()[0]
    world.control.reclaim(str(host["instance_id"]))
    world.turn()
    child = world.job(f"{parent}:0")
    lost = child["attempts"][0]
    assert lost["statusReason"] == f"Host EC2 (instance {host['instance_id']}) terminated."
    assert "exitCode" not in lost["container"]
    assert "reason" not in lost["container"]
    assert child["status"] == "RUNNING"
    assert world.tasks[-1].environment["AWS_BATCH_JOB_ATTEMPT"] == "2"
    assert world.control.hosts()[0]["instance_id"] != host["instance_id"]


def test_a_host_with_notice_takes_no_more_and_is_killed_later(world: World) -> None:
    job_id = world.submit(retryStrategy={"attempts": 2})
    host = str(world.control.hosts()[0]["instance_id"])
    world.control.reclaim(host, notice_s=120)
    other = world.submit()
    assert (
        world.job(other)["container"]["containerInstanceArn"] != world.job(job_id)["container"]["containerInstanceArn"]
    )
    world.turn(119)
    assert world.runner.signals == []
    world.turn(1)
    assert world.runner.signals == [(job_id, "SIGKILL")]
    assert len(world.job(job_id)["attempts"]) == 1


def test_an_exit_during_the_notice_is_told_as_such(world: World) -> None:
    job_id = world.submit(retryStrategy={"attempts": 5, "evaluateOnExit": RETRY_RULES})
    world.control.reclaim(str(world.control.hosts()[0]["instance_id"]), notice_s=120)
    world.finish(job_id, 75)
    attempt = world.job(job_id)["attempts"][0]
    assert attempt["container"]["exitCode"] == 75
    assert attempt["statusReason"] == "Essential container in task exited"


def test_queues_and_environments_are_disabled_before_they_go(world: World) -> None:
    assert "disabled" in refused(world.batch.delete_job_queue, jobQueue="queue")
    assert "relationship" in refused(world.batch.delete_compute_environment, computeEnvironment="spot")
    world.batch.update_job_queue(jobQueue="queue", state="DISABLED")
    world.batch.delete_job_queue(jobQueue="queue")
    assert "disabled" in refused(world.batch.delete_compute_environment, computeEnvironment="spot")
    world.batch.update_compute_environment(computeEnvironment="spot", state="DISABLED")
    world.batch.delete_compute_environment(computeEnvironment="spot")
    assert world.batch.describe_compute_environments()["computeEnvironments"] == []


def test_max_vcpus_can_be_raised(world: World) -> None:
    parent = world.submit(size=20)
    world.batch.update_compute_environment(computeEnvironment="spot", computeResources={"maxvCpus": 16})
    world.finish(f"{parent}:0")
    assert world.job(parent)["arrayProperties"]["statusSummary"]["RUNNING"] == 16


def test_cloudformation_makes_changes_and_deletes(bare: World) -> None:
    template: Any = {
        "Parameters": {"Max": {"Type": "Number", "Default": 64}},
        "Resources": {
            "Spot": {
                "Type": "AWS::Batch::ComputeEnvironment",
                "Properties": {
                    "Type": "MANAGED",
                    "ComputeResources": {
                        "Type": "SPOT",
                        "AllocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
                        "MinvCpus": 0,
                        "MaxvCpus": {"Ref": "Max"},
                        "InstanceTypes": ["m5", "c5"],
                        "InstanceRole": bare.network["instanceRole"],
                        "Subnets": bare.network["subnets"],
                        "SecurityGroupIds": bare.network["securityGroupIds"],
                        "Tags": {"foldfleet:Stack": "s"},
                    },
                },
            },
            "Queue": {
                "Type": "AWS::Batch::JobQueue",
                "Properties": {
                    "JobQueueName": "stack-queue",
                    "Priority": 1,
                    "ComputeEnvironmentOrder": [{"Order": 1, "ComputeEnvironment": {"Ref": "Spot"}}],
                    "JobStateTimeLimitActions": [
                        {
                            "Reason": "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT",
                            "State": "RUNNABLE",
                            "MaxTimeSeconds": 600,
                            "Action": "CANCEL",
                        }
                    ],
                },
            },
        },
        "Outputs": {"Queue": {"Value": {"Fn::GetAtt": ["Queue", "JobQueueArn"]}}},
    }
    stacks: Any = boto3.client("cloudformation", region_name="us-east-1")
    stacks.create_stack(StackName="s", TemplateBody=json.dumps(template))
    outputs = stacks.describe_stacks(StackName="s")["Stacks"][0]["Outputs"]
    queue = bare.batch.describe_job_queues(jobQueues=["stack-queue"])["jobQueues"][0]
    assert outputs[0]["OutputValue"] == queue["jobQueueArn"]
    assert queue["jobStateTimeLimitActions"][0]["maxTimeSeconds"] == 600
    environment = bare.batch.describe_compute_environments()["computeEnvironments"][0]
    assert environment["serviceRole"].endswith("AWSServiceRoleForBatch")
    assert environment["computeResources"]["tags"] == {"foldfleet:Stack": "s"}
    stacks.update_stack(
        StackName="s",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "Max", "ParameterValue": "32"}],
    )
    environment = bare.batch.describe_compute_environments()["computeEnvironments"][0]
    assert int(environment["computeResources"]["maxvCpus"]) == 32
    stacks.delete_stack(StackName="s")
    assert bare.batch.describe_compute_environments()["computeEnvironments"] == []
    assert bare.batch.describe_job_queues()["jobQueues"] == []


def test_an_idle_host_makes_room_for_a_larger_one(world: World) -> None:
    small = world.submit(size=8)
    for index in range(8):
        world.finish(f"{small}:{index}")
    world.define("large", memory=15_000)
    job_id = world.submit(jobDefinition="large")
    assert world.status(job_id) == "RUNNING"
    world.define("wide", vcpus=4, memory=1000)
    assert world.status(world.submit(jobDefinition="wide")) == "RUNNING"


def test_tags_reach_the_task_when_propagated(world: World) -> None:
    world.define("tagged", tags={"foldfleet:stack": "s"}, propagateTags=True)
    world.submit(jobDefinition="tagged", tags={"foldfleet:run": "r"})
    assert dict(world.tasks[0].tags) == {"foldfleet:stack": "s", "foldfleet:run": "r"}
    request = {"jobName": "n", "jobQueue": "queue", "jobDefinition": "work"}
    assert "50 tags" in refused(world.batch.submit_job, **request, tags={f"k{index}": "v" for index in range(51)})


def test_a_disabled_environment_starts_nothing(world: World) -> None:
    world.batch.update_compute_environment(computeEnvironment="spot", state="DISABLED")
    assert world.status(world.submit()) == "RUNNABLE"


# What containers can ask.


def test_a_task_finds_its_log_stream_and_a_host_its_notice(world: World) -> None:
    endpoints = Endpoints()
    try:
        world.submit()
        task = world.tasks[0]
        path = endpoints.of_task(task).removeprefix(endpoints.address)
        status, text = endpoints.get(path, None)
        assert status == 200
        assert json.loads(text)["LogOptions"]["awslogs-stream"] == f"work/default/{task.task_id}"
        assert json.loads(endpoints.get(f"{path}/task", None)[1])["TaskARN"] == task.task_arn
        imds = endpoints.of_host(task.host).removeprefix(endpoints.address)
        action = f"{imds}/latest/meta-data/spot/instance-action"
        assert endpoints.get(action, None)[0] == 401
        assert endpoints.put(f"{imds}/latest/api/token", None)[0] == 400
        token = endpoints.put(f"{imds}/latest/api/token", "60")[1]
        assert endpoints.get(action, token)[0] == 404
        assert endpoints.get(f"{imds}/latest/meta-data/instance-id", token)[1] == task.host.instance_id
        world.control.reclaim(task.host.instance_id, notice_s=120)
        assert json.loads(endpoints.get(action, token)[1]) == {"action": "terminate", "time": "2026-01-01T00:02:00Z"}
    finally:
        endpoints.close()
