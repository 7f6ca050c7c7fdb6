"""The search machine within a workflow of somebody else, and the command that prints it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from statelint.linter import Linter
from typer.testing import CliRunner

from submitter.cli import stepfunctions_commands
from submitter.cli.app import app as whole
from submitter.cli.stepfunctions_app import app
from submitter.machines.names import HOLES
from submitter.machines.search import search_definition
from tests.machines import checks
from tests.machines.interpreter import Call, Execution, Failure, execute
from tests.machines.world import NAMES, RUN, World, order, summary

EXAMPLE = Path(__file__).parents[2] / "examples" / "nested-workflow.json"


def example() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    return loaded


def nest(world: World, threshold: float) -> Execution:
    """Execute the example, and what it starts."""

    def serve(call: Call) -> Any:
        assert call.integration == "states:startExecution.sync:2"
        inner = execute(search_definition(NAMES), call.parameters["Input"], world)
        if inner.error is not None:
            described = {"ExecutionArn": inner.arn, "Status": "FAILED", "Error": inner.error, "Cause": inner.cause}
            raise Failure("States.TaskFailed", json.dumps(described))
        return {"ExecutionArn": inner.arn, "Status": "SUCCEEDED", "Output": inner.output}

    return execute(example(), {"spec": "s3://bucket-1/a.yaml", "threshold": threshold}, serve, name="outer")


def test_the_example_is_sound() -> None:
    assert list(Linter.validate(json.dumps(example()))) == []
    assert checks.check_transitions(example()) == []
    assert checks.check_tasks(example()) == []
    assert checks.check_parameters(example()) == []


def test_the_example_goes_on_with_the_best_candidate() -> None:
    execution = nest(World([order("send")], [summary()]), 0.8)
    assert execution.output["deployed"] == RUN
    assert execution.output["params"] == summary()["best"]["params"]
    assert execution.output["files"] == summary()["files"]


@pytest.mark.parametrize(("best", "threshold"), [(summary()["best"], 0.95), (None, 0.1)])
def test_the_example_deploys_nothing_worse(best: Any, threshold: float) -> None:
    assert nest(World([order("send")], [summary(best=best)]), threshold).output["deployed"] is None


def test_the_example_fails_as_the_search_does() -> None:
    world = World([order("refuse", error={"exit": 2, "message": "No such estimator."})])
    execution = nest(world, 0.8)
    assert execution.error == "SearchFailed"
    assert "No such estimator." in str(execution.cause)


def test_the_command_prints_the_definition_offline() -> None:
    done = CliRunner().invoke(app, ["template", "--offline"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == search_definition(HOLES)


def test_the_command_prints_that_of_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = search_definition(NAMES)

    def describe_state_machine(**asked: str) -> dict[str, str]:
        assert asked == {"stateMachineArn": "arn:search"}
        return {"definition": json.dumps(definition)}

    clients = SimpleNamespace(stepfunctions=SimpleNamespace(describe_state_machine=describe_state_machine))
    monkeypatch.setattr(stepfunctions_commands, "make_clients", lambda: clients)
    monkeypatch.setattr(
        stepfunctions_commands, "find_stack", lambda _, name: SimpleNamespace(search_machine_arn=f"arn:{name[3:]}")
    )
    done = CliRunner().invoke(app, ["template", "--stack", "ff-search"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == definition
    assert "startExecution.sync:2" in done.stderr
    assert "arn:search" in done.stderr


def test_the_group_without_a_command_shows_its_help() -> None:
    assert CliRunner().invoke(app, []).exit_code == 2


def test_the_command_line_has_the_group() -> None:
    assert CliRunner().invoke(whole, ["stepfunctions", "template", "--offline"]).exit_code == 0
