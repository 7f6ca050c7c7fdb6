"""What is sent to AWS Batch, as whole literals, and what is refused before."""

from __future__ import annotations

import pytest

from jobspec.errors import LimitError, NotFoundError
from jobspec.grammar.data_models import DataSpec, Limits, Resources
from jobspec.runs.rounds import RoundPlan, draft_round
from jobspec.search.planning import ArrayPlan, Task
from submitter.backends.aws.request import (
    MAX_NAME,
    array_call,
    checked,
    reduce_call,
    request_name,
    step_call,
    timeout_seconds,
)
from submitter.backends.aws.shape import Shape, make_shape
from submitter.backends.aws.steps import prepares_here
from tests.unit.fakebatch import here, make_record, make_site
from tests.unit.pretend import make_pretended_search

ARN = "arn:aws:batch:us-east-1:123456789012"


def make_plan(num_tasks: int = 3, limits: Limits | None = None) -> RoundPlan:
    fields = make_pretended_search().fields | {"run_id": "letters-0123456789abcdef", "limits": limits or Limits()}
    plan = {
        "round": 2,
        "num_known": 0,
        "space_digest": "x",
        "workers": 64,
        "backend": "aws",
        "image": "repository@sha256:a",
    }
    tasks = [Task(0, ((index, index + 1),)) for index in range(num_tasks)]
    return draft_round(fields | plan, tasks, None).plan.model_copy(update={"token": "feedc0de" * 4})


def test_an_array_is_one_request() -> None:
    assert array_call(make_site(), make_plan(), 0, ArrayPlan(0, 3)) == {
        "jobName": "letters-0123456789abcdef-feedc0de-r2-a0",
        "jobQueue": f"{ARN}:job-queue/foldfleet",
        "jobDefinition": f"{ARN}:job-definition/foldfleet-work:3",
        "arrayProperties": {"size": 3},
        "parameters": {
            "store": "s3://bucket/foldfleet",
            "run": "letters-0123456789abcdef",
            "round": "2",
            "first_task": "0",
            "reduce": f"{ARN}:job-definition/foldfleet-reduce:3",
            "vcpus": "4",
            "memory_mib": "7536",
            "arrays": "1",
            "execution": "-",
        },
        "containerOverrides": {
            "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "7536"}],
            "environment": [{"name": "FOLDFLEET_WORKERS", "value": "4"}],
        },
        "tags": {"foldfleet:stack": "foldfleet", "foldfleet:run": "letters-0123456789abcdef"},
        "propagateTags": True,
    }


def test_the_reduce_step_waits_for_all_arrays() -> None:
    assert reduce_call(make_site(), make_plan(), ["a", "b"]) == {
        "jobName": "letters-0123456789abcdef-feedc0de-r2-reduce",
        "jobQueue": f"{ARN}:job-queue/foldfleet",
        "jobDefinition": f"{ARN}:job-definition/foldfleet-reduce:3",
        "dependsOn": [{"jobId": "a"}, {"jobId": "b"}],
        "parameters": {
            "store": "s3://bucket/foldfleet",
            "run": "letters-0123456789abcdef",
            "answer": "333cb340d05d24d4-feedc0defeedc0de-r2",
        },
        "containerOverrides": {
            "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "7536"}],
            "environment": [{"name": "FOLDFLEET_WORKERS", "value": "4"}],
        },
        "tags": {"foldfleet:stack": "foldfleet", "foldfleet:run": "letters-0123456789abcdef"},
        "propagateTags": True,
    }


def test_a_step_of_a_desk_is_a_plain_request() -> None:
    call = step_call(make_site(), "prepare", "letters", "prepare-1", {"store": "s3://b/p", "spec": "s3://b/p/s"})
    assert call["jobName"] == "letters-prepare-1"
    assert call["parameters"] == {"store": "s3://b/p", "spec": "s3://b/p/s", "answer": "prepare-1"}
    assert "arrayProperties" not in call
    assert "command" not in call["containerOverrides"]


def test_a_step_with_unusual_options_brings_its_command() -> None:
    call = step_call(make_site(), "prepare", "letters", "t", {"store": "s"}, ["prepare", "--max-folds", "9"])
    assert call["containerOverrides"]["command"] == ["containers", "prepare", "--max-folds", "9"]
    assert call["parameters"] == {}


@pytest.mark.parametrize(("size", "properties"), [(1, None), (2, {"size": 2}), (10_000, {"size": 10_000})])
def test_one_task_is_a_plain_request(size: int, properties: dict[str, int] | None) -> None:
    assert array_call(make_site(), make_plan(), 0, ArrayPlan(0, size)).get("arrayProperties") == properties


def test_no_more_than_twenty_arrays_can_be_waited_for() -> None:
    reduce_call(make_site(), make_plan(), ["id"] * 20)
    with pytest.raises(LimitError, match=r"21 arrays.*resources.vcpus"):
        reduce_call(make_site(), make_plan(), ["id"] * 21)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(), None),
        (Limits(cell_seconds=60), None),
        (Limits(cell_seconds=90_000), 91_800),
        (Limits(task_seconds=10), 1810),
        (Limits(task_seconds=100, cell_seconds=200.5), 2001),
    ],
)
def test_the_timeout_lies_above_the_limits_of_the_spec(limits: Limits, seconds: int | None) -> None:
    assert timeout_seconds(limits) == seconds
    call = array_call(make_site(), make_plan(limits=limits), 0, ArrayPlan(0, 3))
    assert call.get("timeout") == (None if seconds is None else {"attemptDurationSeconds": seconds})


@pytest.mark.parametrize(
    ("label", "rest"), [("a" * 300, "r0-a0"), ("..hidden", "r0"), ("run with ümlauts/../x", "r0-reduce"), ("", "x")]
)
def test_names_are_those_that_batch_takes(label: str, rest: str) -> None:
    import re

    name = request_name(label, rest)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)
    assert len(name) <= MAX_NAME
    assert name.endswith(rest)


def test_what_is_too_long_is_refused_before_it_is_sent() -> None:
    call = array_call(make_site(), make_plan(), 0, ArrayPlan(0, 3))
    with pytest.raises(LimitError, match="8,192"):
        checked(call | {"containerOverrides": {"command": ["x" * 8200]}})
    with pytest.raises(LimitError, match="30,720"):
        checked(call | {"parameters": {"store": "x" * 31_000}})
    assert checked(call | {"parameters": {"store": "x" * 29_000}})


def test_a_long_store_prefix_is_refused_with_a_remedy() -> None:
    with pytest.raises(LimitError, match="shorter store prefix"):
        array_call(make_site("s3://bucket/" + "x" * 31_000), make_plan(), 0, ArrayPlan(0, 3))


@pytest.mark.parametrize(
    ("resources", "asked", "shape"),
    [
        (Resources(), None, Shape(4, 7536, 16)),
        (Resources(), 2, Shape(2, 3768, 1)),
        (Resources(vcpus=4, memory_gib=8), None, Shape(4, 7536, 16)),
        (Resources(vcpus=10), None, Shape(10, 18841, 6)),
        (Resources(vcpus=1, memory_gib=0.5), 8, Shape(1, 471, 8)),
        (Resources(vcpus=64), 8, Shape(64, 120586, 1)),
    ],
)
def test_a_ceiling_is_divided_among_tasks(resources: Resources, asked: int | None, shape: Shape) -> None:
    assert make_shape(64, ("m5", "c5"), resources, asked) == shape


def test_all_folds_together_fill_every_slot_twice() -> None:
    assert [Shape(4, 1, 16).tasks_per_fold(folds) for folds in (1, 5, 10, 1000)] == [32, 7, 4, 1]


def test_more_vcpus_than_the_ceiling_are_refused() -> None:
    with pytest.raises(LimitError, match=r"65 vCPUs.*64 at most.*submit infra up --max-vcpus 65"):
        make_shape(64, ("m5",), Resources(vcpus=65), None)


@pytest.mark.parametrize("types", [("c5.xlarge", "c5.2xlarge"), ("c5.large",)])
def test_what_fits_no_instance_is_refused(types: tuple[str, ...]) -> None:
    with pytest.raises(LimitError, match=r"no instance of the stack.*--instance-types"):
        make_shape(64, types, Resources(vcpus=2, memory_gib=32), None)


def test_an_unknown_family_may_be_large_enough() -> None:
    assert make_shape(64, ("c5.large", "x9zz"), Resources(vcpus=2, memory_gib=900), None).vcpus == 2


OTHER = make_record(parts=make_record().parts.model_copy(update={"packages": here() | {"numpy": "1.0"}}))


@pytest.mark.parametrize(
    ("data", "same", "other"),
    [
        (DataSpec(builtin="iris"), True, False),
        (DataSpec(path="s3://bucket/table.csv", target="y"), False, False),
        (DataSpec(path="table.csv", target="y"), True, None),
    ],
)
def test_where_the_data_are_prepared(data: DataSpec, same: bool, other: bool | None) -> None:
    assert prepares_here(data, make_record()) is same
    if other is not None:
        assert prepares_here(data, OTHER) is other


def test_local_data_with_other_libraries_can_be_prepared_nowhere() -> None:
    with pytest.raises(NotFoundError, match=r"numpy .* here, 1.0 in the image.*pip install numpy==1.0.*s3://"):
        prepares_here(DataSpec(path="table.csv", target="y"), OTHER)
