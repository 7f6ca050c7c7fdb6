"""The definitions as texts: sound by statelint's rules and ours, pure, and small enough."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from statelint.linter import Linter

from submitter.backends.aws.reasons import decode
from submitter.machines.conclude import conclude_definition
from submitter.machines.intake import intake_definition
from submitter.machines.names import HOLES, Names
from submitter.machines.search import search_definition
from submitter.machines.states import join, minify
from submitter.machines.stuck import SIGNS, explain
from tests.machines import checks
from tests.machines.world import NAMES

DEFINITIONS: dict[str, Callable[[Names], dict[str, Any]]] = {
    "search": search_definition,
    "intake": intake_definition,
    "conclude": conclude_definition,
}
UNCAUGHT = ("Reduce",)
"""Of the conclude machine: its failure is the machine's own, and nothing is left to do."""

BRACKETS = "$.object.o['version-id']"
"""A name with a hyphen needs brackets and quotation marks, which statelint does not know as a path."""

MAX_BYTES = 60_000
"""Of the three together, minified: each travels to CloudFormation in parameters of 4,096 bytes."""


@pytest.fixture(params=DEFINITIONS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def lint(definition: dict[str, Any]) -> list[str]:
    text = json.dumps(definition).replace(BRACKETS, "$.object.o.version")
    return list(Linter.validate(text))


@pytest.mark.parametrize("names", [HOLES, NAMES], ids=["holes", "names"])
def test_statelint_finds_nothing(name: str, names: Names) -> None:
    assert lint(DEFINITIONS[name](names)) == []


def test_statelint_would_find_something() -> None:
    definition = search_definition(NAMES)
    definition["States"]["Count"]["Next"] = "Nowhere"
    assert any("Nowhere" in problem for problem in lint(definition))


def test_our_checks_find_nothing(name: str) -> None:
    definition = DEFINITIONS[name](HOLES)
    uncaught = UNCAUGHT if name == "conclude" else ()
    assert checks.check_transitions(definition) == []
    assert checks.check_tasks(definition, uncaught=uncaught) == []
    assert checks.check_catches(definition) == []
    assert checks.check_patterns(definition) == []
    assert checks.check_names(definition) == []
    assert checks.check_parameters(definition) == []
    assert checks.check_holes(definition, set(dataclasses.asdict(HOLES).values())) == []


def test_the_machines_end_some_day(name: str) -> None:
    assert DEFINITIONS[name](HOLES)["TimeoutSeconds"] > 0


def broken(path: list[str], value: Any) -> dict[str, Any]:
    definition = copy.deepcopy(search_definition(NAMES))
    node: Any = definition["States"]
    for key in path[:-1]:
        node = node[key]
    if value is None:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return definition


@pytest.mark.parametrize(
    ("path", "value", "check", "problem"),
    [
        (["Count", "Next"], "Nowhere", checks.check_transitions, "Nowhere is not there"),
        (["Lonely"], {"Type": "Succeed"}, checks.check_transitions, "Lonely is never reached"),
        (["Url", "Next"], None, checks.check_transitions, "Url leads nowhere"),
        (["Plan", "TimeoutSeconds"], None, checks.check_tasks, "Plan has no timeout"),
        (["Plan", "Retry"], None, checks.check_tasks, "Plan is not retried"),
        (["Plan", "Retry"], [{"ErrorEquals": ["States.ALL"]}], checks.check_tasks, "Plan is retried without jitter"),
        (["Plan", "Catch"], None, checks.check_tasks, "Plan ends the execution"),
        (["Plan", "Catch"], [{"ErrorEquals": ["States.ALL"]}], checks.check_catches, "Plan forgets everything"),
        (["Plan", "Parameters", "PropagateTags"], True, checks.check_parameters, "Plan gives PropagateTags"),
        (["Each", "ItemProcessor", "States", "Plan"], {"Type": "Succeed"}, checks.check_names, "Plan is there twice"),
    ],
)
def test_our_checks_would_find_something(path: list[str], value: Any, check: Any, problem: str) -> None:
    assert problem in check(broken(path, value))


def test_patterns_and_holes_would_be_found() -> None:
    rule = {"Variable": "$.x", "StringMatches": "a?b*", "Next": "Plan"}
    assert checks.check_patterns(broken(["Topic", "Choices"], [rule])) == ["Topic has the pattern a?b*"]
    assert checks.check_holes({"a": "${Unknown}"}, {"${Queue}"}) == ["${Unknown} is no hole"]


def test_the_same_names_give_the_same_bytes_and_nothing_is_shared() -> None:
    for make in DEFINITIONS.values():
        first = make(NAMES)
        text = minify(first)
        first["States"].clear()
        assert minify(make(NAMES)) == text


def test_they_are_small() -> None:
    sizes = {name: len(minify(make(HOLES))) for name, make in DEFINITIONS.items()}
    assert sum(sizes.values()) <= MAX_BYTES, sizes


def test_no_request_depends_on_how_old_the_sdk_of_step_functions_is() -> None:
    """A definition with a parameter that it does not know yet is refused as a whole, and the stack with it."""
    known = {
        "aws-sdk:s3:getObject": {"Bucket", "Key"},
        "aws-sdk:s3:putObject": {"Body", "Bucket", "ContentType", "Key"},
        "aws-sdk:batch:listJobs": {"ArrayJobId", "Filters", "JobQueue", "JobStatus", "MaxResults"},
        "aws-sdk:batch:describeJobs": {"Jobs"},
        "aws-sdk:batch:terminateJob": {"JobId", "Reason"},
        "aws-sdk:sfn:describeExecution": {"ExecutionArn"},
        "aws-sdk:cloudwatch:putMetricData": {"MetricData", "Namespace"},
    }
    asked: dict[str, set[str]] = {}
    for make in DEFINITIONS.values():
        for _, state in checks.states(make(NAMES)):
            integration = state.get("Resource", "").partition(":states:::")[2]
            if integration.startswith("aws-sdk:"):
                asked.setdefault(integration, set()).update(key.removesuffix(".$") for key in state["Parameters"])
    assert asked == known


def test_every_name_is_used() -> None:
    whole = "".join(minify(make(HOLES)) for make in DEFINITIONS.values())
    assert [hole for hole in dataclasses.asdict(HOLES).values() if hole not in whole] == []


def test_two_states_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="name A"):
        join({"A": {}}, {"A": {}})


@pytest.mark.parametrize("sign", SIGNS)
def test_the_machine_says_what_the_desk_says(sign: str) -> None:
    reason = decode(sign)
    assert reason is not None
    assert reason.kind != "other"
    assert reason.text in explain(sign)
    assert "{" not in explain(sign)


def test_words_without_a_meaning_are_no_sign() -> None:
    with pytest.raises(ValueError, match=r"^$"):
        explain("")


def test_the_array_is_sent_as_this() -> None:
    states = search_definition(NAMES)["States"]["Each"]["ItemProcessor"]["States"]
    many, one = dict(states["Many"]["Parameters"]), dict(states["One"]["Parameters"])
    assert many.pop("ArrayProperties") == {"Size.$": "$.size"}
    assert (
        many
        == one
        == {
            "JobQueue": NAMES.queue_arn,
            "JobName.$": "$.item.name",
            "JobDefinition.$": "$.order.definitions.work",
            "Parameters.$": "States.JsonMerge($.order.parameters,$.first,false)",
            "ContainerOverrides.$": "$.order.overrides",
            "Timeout.$": "$.order.timeout",
            "Tags.$": "$.order.tags",
        }
    )
    assert states["Many"]["Retry"] == [
        {
            "ErrorEquals": ["Batch.AWSBatchException", "Batch.BatchException", "Batch.TooManyRequestsException"],
            "IntervalSeconds": 5,
            "MaxAttempts": 8,
            "MaxDelaySeconds": 300,
            "JitterStrategy": "FULL",
        }
    ]
