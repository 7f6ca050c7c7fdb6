from __future__ import annotations

from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from jobspec import protocol
from jobspec.errors import AccessError, UsageError
from submitter.cloud.definitions import (
    DIGEST_TAG,
    STEPS,
    definition_name,
    inactive,
    job_definition,
    register,
    register_all,
    register_planner,
)
from submitter.cloud.record import Step
from tests.unit.cloudy import DIGEST, REGION, REPOSITORY, make_stack

IMAGE = f"{REPOSITORY}@{DIGEST}"
ENGINE = "e-0123456789abcdef"

ENVIRONMENT = [
    {"name": "AWS_DEFAULT_REGION", "value": "eu-west-1"},
    {"name": "AWS_REGION", "value": "eu-west-1"},
    {"name": "BLIS_NUM_THREADS", "value": "1"},
    {"name": "FOLDFLEET_CACHE", "value": "/var/lib/foldfleet/cache"},
    {"name": "MKL_CBWR", "value": "COMPATIBLE"},
    {"name": "MKL_NUM_THREADS", "value": "1"},
    {
        "name": "NPY_DISABLE_CPU_FEATURES",
        "value": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    },
    {"name": "NUMEXPR_NUM_THREADS", "value": "1"},
    {"name": "OMP_NUM_THREADS", "value": "1"},
    {"name": "OPENBLAS_CORETYPE", "value": "Haswell"},
    {"name": "OPENBLAS_NUM_THREADS", "value": "1"},
    {"name": "TMPDIR", "value": "/var/lib/foldfleet/tmp"},
    {"name": "VECLIB_MAXIMUM_THREADS", "value": "1"},
]

COMMANDS = {
    "work": "containers work --store Ref::store --run Ref::run --round Ref::round --first-task Ref::first_task",
    "reduce": "containers reduce --store Ref::store --run Ref::run --refit --answer Ref::answer",
    "prepare": "containers prepare --store Ref::store --spec Ref::spec --numerics portable --answer Ref::answer",
    "plan": "submitter.planner --site Ref::site --ask Ref::ask --answer Ref::answer",
}
NAMES: dict[str, str] = {"plan": "foldfleet-plan", **{step: f"foldfleet-{step}-e-0123456789abcdef" for step in STEPS}}
ROLES = {"work": "task", "reduce": "reducer", "prepare": "planner", "plan": "planner"}
PARAMETERS: dict[str, dict[str, str]] = {"reduce": {"answer": "-"}, "prepare": {"answer": "-"}}


def literal(step: str) -> dict[str, Any]:
    """Return the whole definition, as it is sent, without the digest among its tags."""
    return {
        "jobDefinitionName": NAMES[step],
        "type": "container",
        "platformCapabilities": ["EC2"],
        "parameters": PARAMETERS.get(step, {}),
        "containerProperties": {
            "image": f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/foldfleet@sha256:{'ab' * 32}",
            "command": COMMANDS[step].split(),
            "jobRoleArn": f"arn:aws:iam::123456789012:role/{ROLES[step]}",
            "executionRoleArn": "arn:aws:iam::123456789012:role/execution",
            "user": "10001:10001",
            "readonlyRootFilesystem": True,
            "privileged": False,
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "1884"}],
            "environment": ENVIRONMENT,
            "volumes": [{"name": "foldfleet", "host": {"sourcePath": "/var/lib/foldfleet"}}],
            "mountPoints": [{"sourceVolume": "foldfleet", "containerPath": "/var/lib/foldfleet", "readOnly": False}],
            "linuxParameters": {"initProcessEnabled": True, "tmpfs": [{"containerPath": "/tmp", "size": 256}]},
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {
                    "awslogs-group": "/foldfleet/foldfleet",
                    "awslogs-region": "eu-west-1",
                    "awslogs-stream-prefix": step,
                },
            },
        },
        "retryStrategy": {
            "attempts": 5,
            "evaluateOnExit": [
                {"onStatusReason": "Host EC2*", "action": "RETRY"},
                {"onStatusReason": "Task failed to start*", "action": "RETRY"},
                {"onReason": "Cannot*", "action": "RETRY"},
                {"onExitCode": "75", "action": "RETRY"},
                {"onStatusReason": "*", "action": "EXIT"},
            ],
        },
        "timeout": {"attemptDurationSeconds": 86400},
        "propagateTags": True,
        "tags": {"foldfleet:stack": "foldfleet", "foldfleet:engine": "e-0123456789abcdef"},
    }


@pytest.mark.parametrize("step", [*STEPS, "plan"])
def test_a_whole_definition(step: Step) -> None:
    made = job_definition(step, make_stack(), IMAGE, ENGINE)
    digest = made["tags"].pop(DIGEST_TAG)
    assert made == literal(step)
    assert len(digest) == 16


def test_each_step_has_its_own_command_and_role() -> None:
    made = [job_definition(step, make_stack(), IMAGE, ENGINE)["containerProperties"] for step in STEPS]
    assert len({one["jobRoleArn"] for one in made}) == len(STEPS) == 3
    assert {one["command"][0] for one in made} == {"containers"}
    assert {one["command"][1] for one in made} == set(STEPS)


def test_the_commands_are_those_of_the_protocol() -> None:
    refs = {"first_task": "7", "round": "2"}
    command = [
        refs.get(word.removeprefix("Ref::"), word)
        for word in job_definition("work", make_stack(), IMAGE, ENGINE)["containerProperties"]["command"]
    ]
    assert command == protocol.image_command(protocol.work_arguments("Ref::store", "Ref::run", 2, 7))


@pytest.mark.parametrize("change", [{"task_role_arn": "arn:aws:iam::1:role/new"}, {"log_group_name": "/other"}])
def test_the_digest_tells_definitions_apart(change: dict[str, str]) -> None:
    one = job_definition("work", make_stack(), IMAGE, ENGINE)
    same = job_definition("work", make_stack(), IMAGE, ENGINE)
    other = job_definition("work", make_stack(**change), IMAGE, ENGINE)
    assert one["tags"][DIGEST_TAG] == same["tags"][DIGEST_TAG] != other["tags"][DIGEST_TAG]


def test_names_fit_into_what_batch_allows() -> None:
    longest = definition_name("a" * 32, "prepare", ENGINE)
    assert len(longest) <= 128


class StubbedClients:
    """Clients of which only Batch is asked, by script."""

    def __init__(self) -> None:
        self.batch = boto3.client("batch", region_name=REGION, aws_access_key_id="a", aws_secret_access_key="b")
        self.script = Stubber(self.batch)
        self.script.activate()

    @property
    def clients(self) -> Any:
        return cast("Any", self)


@pytest.fixture
def stubbed() -> StubbedClients:
    return StubbedClients()


def found(definition: dict[str, Any], revision: int, tags: dict[str, str]) -> dict[str, Any]:
    name = definition["jobDefinitionName"]
    arn = f"arn:aws:batch:eu-west-1:123456789012:job-definition/{name}:{revision}"
    return {
        "jobDefinitionName": name,
        "jobDefinitionArn": arn,
        "revision": revision,
        "status": "ACTIVE",
        "type": "container",
        "tags": tags,
    }


def test_an_equal_active_revision_is_used_again(stubbed: StubbedClients) -> None:
    definition = job_definition("work", make_stack(), IMAGE, ENGINE)
    other = job_definition("work", make_stack(), IMAGE.replace("ab", "cd"), ENGINE)
    asked = {"jobDefinitionName": definition["jobDefinitionName"], "status": "ACTIVE"}
    answer = {"jobDefinitions": [found(other, 2, other["tags"]), found(definition, 1, definition["tags"])]}
    stubbed.script.add_response("describe_job_definitions", answer, asked)
    assert register(stubbed.clients, definition).endswith(":1")
    stubbed.script.assert_no_pending_responses()


def test_of_equal_revisions_the_newest_is_taken_in_whatever_order_they_come(stubbed: StubbedClients) -> None:
    definition = job_definition("work", make_stack(), IMAGE, ENGINE)
    same = [found(definition, revision, definition["tags"]) for revision in (9, 10, 8)]
    stubbed.script.add_response("describe_job_definitions", {"jobDefinitions": same})
    assert register(stubbed.clients, definition).endswith(":10")


@pytest.mark.parametrize("newest", [1, 3])
def test_the_planner_is_of_the_image_that_was_pushed_last(stubbed: StubbedClients, newest: int) -> None:
    """Also of one that was pushed before another: the machine starts the newest revision."""
    definition = job_definition("plan", make_stack(), IMAGE, ENGINE)
    told = [found(definition, 1, definition["tags"]), found(definition, 2, {DIGEST_TAG: "other"})]
    told += [found(definition, newest, definition["tags"])] if newest == 3 else []
    stubbed.script.add_response("describe_job_definitions", {"jobDefinitions": told})
    if newest == 1:
        made = found(definition, 3, {})
        sent = {name: made[name] for name in ("jobDefinitionName", "jobDefinitionArn", "revision")}
        stubbed.script.add_response("register_job_definition", sent, definition)
    assert register_planner(stubbed.clients, make_stack(), IMAGE, ENGINE).endswith(":3")
    stubbed.script.assert_no_pending_responses()


def test_another_image_becomes_a_new_revision_and_the_older_ones_stay(stubbed: StubbedClients) -> None:
    definition = job_definition("work", make_stack(), IMAGE, ENGINE)
    answer = {"jobDefinitions": [found(definition, 1, {}), found(definition, 2, {DIGEST_TAG: "other"})]}
    stubbed.script.add_response("describe_job_definitions", answer)
    made = found(definition, 3, {})
    sent = {name: made[name] for name in ("jobDefinitionName", "jobDefinitionArn", "revision")}
    stubbed.script.add_response("register_job_definition", sent, definition)  # exactly what the literal says
    assert register(stubbed.clients, definition).endswith(":3")
    stubbed.script.assert_no_pending_responses()


def test_a_denied_registration_names_the_right(stubbed: StubbedClients) -> None:
    stubbed.script.add_response("describe_job_definitions", {"jobDefinitions": []})
    words = "User: arn:aws:iam::1:user/me is not authorized to perform: batch:RegisterJobDefinition on resource: arn:x"
    stubbed.script.add_client_error("register_job_definition", "AccessDeniedException", words, 403)
    with pytest.raises(AccessError, match=r"batch:RegisterJobDefinition is missing\. Allow .* on arn:x"):
        register(stubbed.clients, job_definition("work", make_stack(), IMAGE, ENGINE))


def test_a_definition_names_its_image_by_digest(stubbed: StubbedClients) -> None:
    with pytest.raises(UsageError, match="by digest"):
        register_all(stubbed.clients, make_stack(), f"{REPOSITORY}:latest", ENGINE)


def test_definitions_that_were_taken_away_are_found(stubbed: StubbedClients) -> None:
    work, reduce = (job_definition(step, make_stack(), IMAGE, ENGINE) for step in ("work", "reduce"))
    answer = {"jobDefinitions": [found(work, 1, {}), found(reduce, 1, {}) | {"status": "INACTIVE"}]}
    arns = [entry["jobDefinitionArn"] for entry in answer["jobDefinitions"]]
    gone = arns[0].replace("work", "prepare")
    stubbed.script.add_response("describe_job_definitions", answer, {"jobDefinitions": sorted([*arns, gone])})
    assert inactive(stubbed.clients, {"work": arns[0], "reduce": arns[1], "prepare": gone}) == sorted([arns[1], gone])
