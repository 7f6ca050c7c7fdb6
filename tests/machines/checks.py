"""What statelint does not look at in a definition: each check returns its problems in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

ENDS = {"Succeed", "Fail"}
MATCH_ALL = "States.ALL"


def machines(definition: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a definition and those inside of its Maps."""
    yield definition
    for state in definition["States"].values():
        if "ItemProcessor" in state:
            yield from machines(state["ItemProcessor"])


def states(definition: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all states with their names."""
    for machine in machines(definition):
        yield from machine["States"].items()


def targets(state: Mapping[str, Any]) -> set[str]:
    """Return where a state leads."""
    rules = [*state.get("Choices", []), *state.get("Catch", [])]
    return {one[key] for one in (state, *rules) for key in ("Next", "Default") if key in one}


def check_transitions(definition: Mapping[str, Any]) -> list[str]:
    """Find states that are not there, are never reached, or lead nowhere."""
    problems = []
    for machine in machines(definition):
        known = machine["States"]
        reached, ahead = set(), [machine["StartAt"]]
        while ahead:
            name = ahead.pop()
            if name not in known:
                problems.append(f"{name} is not there")
            elif name not in reached:
                reached.add(name)
                ahead.extend(targets(known[name]))
        problems += [f"{name} is never reached" for name in known.keys() - reached]
        for name, state in known.items():
            if not targets(state) and state["Type"] not in ENDS and not state.get("End"):
                problems.append(f"{name} leads nowhere")
    return problems


def check_tasks(definition: Mapping[str, Any], *, uncaught: tuple[str, ...] = ()) -> list[str]:
    """Find tasks that may wait for ever, give up at once, come back all at the same moment, or end an execution."""
    problems = []
    for name, state in states(definition):
        if state["Type"] != "Task":
            continue
        if "TimeoutSeconds" not in state and "TimeoutSecondsPath" not in state:
            problems.append(f"{name} has no timeout")
        retriers = [one for one in state.get("Retry", []) if one.get("MaxAttempts") != 0]
        if not retriers:
            problems.append(f"{name} is not retried")
        if any(one.get("JitterStrategy") != "FULL" for one in retriers):
            problems.append(f"{name} is retried without jitter")
        caught = [error for one in state.get("Catch", []) for error in one["ErrorEquals"]]
        if MATCH_ALL not in caught and name not in uncaught:
            problems.append(f"{name} ends the execution")
    return problems


def check_catches(definition: Mapping[str, Any]) -> list[str]:
    """Find failures that would replace what an execution knows."""
    return [
        f"{name} forgets everything"
        for name, state in states(definition)
        for one in state.get("Catch", [])
        if not one.get("ResultPath", "$").startswith("$.")
    ]


def check_patterns(definition: Mapping[str, Any]) -> list[str]:
    """Find patterns that AWS and others read differently: only the star is special on AWS."""
    found = []

    def look(node: Any, name: str) -> None:
        if isinstance(node, dict):
            if "StringMatches" in node and re.search(r"[?\[\]\\]", node["StringMatches"]):
                found.append(f"{name} has the pattern {node['StringMatches']}")
            for value in node.values():
                look(value, name)
        elif isinstance(node, list):
            for item in node:
                look(item, name)

    for name, state in states(definition):
        look(state.get("Choices", []), name)
    return found


def check_names(definition: Mapping[str, Any]) -> list[str]:
    """Find names of states that are taken twice."""
    names = [name for name, _ in states(definition)]
    return [f"{name} is there twice" for name in sorted({name for name in names if names.count(name) > 1})]


def check_holes(definition: Mapping[str, Any], known: set[str]) -> list[str]:
    """Find holes that nothing fills."""
    return [f"{hole} is no hole" for hole in sorted(set(re.findall(r"\$\{[^}]*\}?", json.dumps(definition))) - known)]


OPTIMIZED = {
    "batch:submitJob": "ArrayProperties ContainerOverrides DependsOn JobDefinition JobName JobQueue Parameters "
    "RetryStrategy Tags Timeout",
    "events:putEvents": "Entries",
    "sns:publish": "Message MessageAttributes MessageStructure PhoneNumber Subject TargetArn TopicArn",
    "states:startExecution": "Input Name StateMachineArn",
}
"""What the optimized integrations take; a definition with any other parameter is refused as a whole.

https://docs.aws.amazon.com/step-functions/latest/dg/connect-batch.html
"""


def check_parameters(definition: Mapping[str, Any]) -> list[str]:
    """Find parameters that an optimized integration does not know, though the service does."""
    problems = []
    for name, state in states(definition):
        integration = state.get("Resource", "").partition(":states:::")[2].partition(".")[0]
        if integration in OPTIMIZED:
            given = {key.removesuffix(".$") for key in state["Parameters"]}
            problems += [f"{name} gives {key}" for key in sorted(given - set(OPTIMIZED[integration].split()))]
    return problems
