"""The ceilings, the identity of runs, and the process that answers a state machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import LimitError, NotFoundError
from jobspec.runs.answers import Answer, read_answer, write_answer
from jobspec.runs.rounds import commit_round
from jobspec.search.memo import PrepareOptions
from jobspec.search.planning import MAX_CELLS
from jobspec.settings import load_settings
from submitter import preparation
from submitter.backends.aws.backend import AwsBackend
from submitter.backends.aws.shape import Shape
from submitter.backends.base import BackendContext
from submitter.cloud.record import save_record
from submitter.machines.messages import Order
from submitter.machines.orders import LONGEST_SECONDS, NO_DEADLINE
from submitter.planner import __main__ as entry
from submitter.planner.ceilings import step_seconds
from submitter.planner.planner import StackFleet, Station
from submitter.preparation import Desk
from submitter.search import draft_next, stored_search
from tests.planner.desk import HOUR, NOW, SPEC, STORE, Execution, Stack, arn, make_site
from tests.planner.test_rounds import miss
from tests.unit.fakebatch import FakeClients, make_record, make_stack
from tests.unit.pretend import PretendBackend


def ask_for(stack: Stack, more: str, **site: Any) -> Order:
    stack.site = make_site(**site)
    return stack.execution(spec=stack.keep_spec(SPEC + more)).ask()


@pytest.mark.parametrize(
    ("more", "ceilings", "words"),
    [
        ("resources: {vcpus: 8}\n", {"max_task_vcpus": 4}, ["8 vCPUs", "may have 4", "enable --max-task-vcpus 8"]),
        ("resources: {memory_gib: 12.5}\n", {"max_task_memory_gib": 8}, ["12.5 GiB", "8", "--max-task-memory-gib 13"]),
    ],
)
def test_a_task_above_its_ceiling_is_refused_before_anything_is_started(
    stack: Stack, more: str, ceilings: dict[str, Any], words: list[str]
) -> None:
    order = ask_for(stack, more, ceilings=ceilings)
    assert order.error is not None
    assert order.error.exit == 7
    assert [word for word in words if word not in order.message] == []


@pytest.mark.parametrize(
    ("more", "ceilings", "vcpus", "mib"),
    [
        ("", {}, "4", "7536"),
        ("", {"max_task_vcpus": 2}, "2", "3768"),
        ("", {"max_task_memory_gib": 4}, "4", "3768"),
        ("resources: {vcpus: 8}\n", {"max_task_vcpus": 8}, "8", "15073"),
    ],
)
def test_what_a_spec_leaves_open_stays_below_the_ceilings(
    stack: Stack, more: str, ceilings: dict[str, Any], vcpus: str, mib: str
) -> None:
    order = ask_for(stack, more, ceilings=ceilings)
    assert order.overrides["ResourceRequirements"] == [
        {"Type": "VCPU", "Value": vcpus},
        {"Type": "MEMORY", "Value": mib},
    ]


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [(NO_DEADLINE, 86400), (NOW + 2 * HOUR, 2 * HOUR), (NOW + 60, HOUR), (NOW + 99 * HOUR, 86400)],
)
def test_a_step_may_take_what_is_left_but_enough_to_end_well(deadline: float, seconds: int) -> None:
    assert step_seconds(deadline, NOW) == seconds


def test_more_cells_than_the_ceiling_are_refused_with_both_numbers(stack: Stack) -> None:
    stack.site = make_site(ceilings={"max_cells": 11})
    _, order = stack.prepared()
    assert order.error is not None
    assert order.error.exit == 7
    for word in ("12 cells", "may have 11", "--max-cells 12", "submit run SPEC --on stepfunctions"):
        assert word in order.message
    assert list(stack.store.folder.keys("runs/")) == []


HUGE = "C: {range: [1, 31624]}, max_iter: {range: [1, 31624]}"


@pytest.mark.parametrize(
    ("cv", "words"),
    [
        ("3", ["3,000,042,387 cells", "may have 100.", "--max-cells 3000042387", "submit run SPEC --on stepfunctions"]),
        ("{kind: LeaveOneOut}", ["at least 1,000,014,129 cells", "may have 100.", "--max-cells N"]),
    ],
)
@pytest.mark.parametrize("data", ["builtin: iris", "path: s3://other/tables/gone.csv, target: y"])
def test_a_billion_cells_are_refused_before_anything_is_prepared(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, data: str, cv: str, words: list[str]
) -> None:
    monkeypatch.setattr("submitter.planner.planner.recall", None)  # not even asked what was seen before
    text = SPEC.replace("C: [1, 2, 3, 4]", HUGE).replace("builtin: iris", data).replace("cv: 3", f"cv: {cv}")
    spec = stack.keep_spec(text)
    order = stack.execution(spec=spec).ask()
    assert (order.next, order.prepare) == ("refuse", None)
    assert order.error is not None
    assert order.error.exit == 7
    assert [word for word in words if word not in order.message] == []
    assert stack.store.num_writes == 0


def test_what_the_data_alone_tell_is_counted_behind_the_prepare_step(stack: Stack) -> None:
    stack.site = make_site(ceilings={"max_cells": 300})
    _, order = stack.prepared(spec=stack.keep_spec(SPEC.replace("cv: 3", "cv: {kind: LeaveOneOut}")))
    assert order.error is not None
    assert "has 600 cells" in order.message


def test_a_person_may_send_a_billion(stack: Stack) -> None:
    """The ceilings are not for them, and a desk has counted before."""
    text = SPEC.replace("C: [1, 2, 3, 4]", HUGE)
    order = Execution(stack, "x1", NO_DEADLINE, 7, {"spec": stack.keep_spec(text)}).ask()
    assert order.next == "prepare"


@pytest.mark.parametrize("on", ["local", "docker", "aws", "stepfunctions"])
def test_a_desk_counts_before_it_reads_data_or_opens_a_backend(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    path = tmp_path / "huge.yaml"
    data = "path: gone.csv, target: y"
    path.write_text(SPEC.replace("REFIT", "false").replace("C: [1, 2, 3, 4]", HUGE).replace("builtin: iris", data))
    opened: list[object] = []
    monkeypatch.setattr(preparation, "make_backend", lambda *given: opened.append(given))
    desk = Desk(load_settings(), stack.store)
    with pytest.raises(LimitError, match=r"3,000,042,387 cells .* at most 1,000,000 .*--max-cells 3000042387"):
        preparation.prepare(desk, path, PrepareOptions(), on=on, workers=None, max_cells=MAX_CELLS)
    assert opened == []


def test_vcpu_hours_bound_how_long_arrays_may_take(stack: Stack) -> None:
    stack.site = make_site(ceilings={"max_vcpu_hours": 2})
    execution, order = stack.prepared()
    assert order.work_seconds == 2 * 3600 / 8  # two tasks of four vCPUs at once: no more than the stack starts
    assert order.timeout == {"AttemptDurationSeconds": 900}
    stack.work(order, miss)
    stack.now += 600
    again = execution.ask(run=order.run_id, spec=None)
    assert (again.next, again.num_tasks, again.work_seconds) == ("send", 1, (7200 - 600 * 8) // 4)
    stack.work(again, miss)
    stack.now += 590
    over = execution.ask(run=order.run_id, spec=None)
    assert over.error is not None
    assert over.error.exit == 7
    assert "--max-vcpu-hours" in over.message


@pytest.mark.parametrize(("environments", "at_once"), [(1, 4), (2, 8)])
def test_hosts_on_demand_beside_spot_hosts_take_vcpu_hours_too(stack: Stack, environments: int, at_once: int) -> None:
    stack.site = make_site(max_vcpus=4, environments=environments, ceilings={"max_vcpu_hours": 2})
    _, order = stack.prepared()
    assert order.work_seconds == 2 * 3600 / at_once


def test_what_was_spent_before_a_round_of_another_counts(stack: Stack) -> None:
    stack.site = make_site(ceilings={"max_vcpu_hours": 2})
    execution, order = stack.prepared()
    stack.work(order, miss)
    plan = stack.newest(order)
    search = stored_search(stack.store.folder, plan)
    other = PretendBackend(stack.store.folder, name="local")
    commit_round(stack.store.folder, draft_next(stack.store.folder, search, plan, other, reuse=True))
    stack.now += 600
    again = execution.ask(run=order.run_id, spec=None)
    assert (again.next, again.round, again.work_seconds) == ("send", 2, (7200 - 600 * 8) // 4)


def test_the_modules_of_the_newest_image_are_not_asked_of_the_image_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("edited = True\n")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    record = make_record()
    record = record.model_copy(update={"parts": record.parts.model_copy(update={"modules": {"mine": "as it was"}})})
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "mine,yours")
    fleet = StackFleet(Station("foldfleet"), record, STORE, Shape(4, 7536, 2))
    assert fleet.engine({"candidates": [{"estimator": "mine.Model"}]}).modules == {"mine": "as it was"}
    with pytest.raises(NotFoundError, match="yours"):
        fleet.engine({"candidates": [{"estimator": "yours.Model"}]})


def test_hours_bound_the_whole_execution(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order, miss)
    stack.now = NOW + 23 * HOUR
    again = execution.ask(run=order.run_id, spec=None)
    assert again.work_seconds == HOUR
    stack.work(again, miss)
    stack.now = NOW + 25 * HOUR
    over = execution.ask(run=order.run_id, spec=None)
    assert over.error is not None
    assert "24 hours" in over.message
    stack.work(again)
    assert execution.ask(run=order.run_id, spec=None).next == "done"  # which costs nothing


def test_an_execution_that_has_used_its_hours_prepares_no_more(stack: Stack) -> None:
    execution = stack.execution()
    execution.ask()
    stack.now += 30 * HOUR
    order = execution.again()
    assert order.error is not None
    assert order.error.exit == 7


def test_what_a_person_has_sent_goes_on_without_ceilings(stack: Stack) -> None:
    _, order = stack.prepared()
    stack.work(order, miss)
    stack.site = make_site(ceilings={"max_cells": 1, "max_vcpu_hours": 0, "max_task_vcpus": 1})
    own = Execution(stack, "x1", NO_DEADLINE, 7, {"run": order.run_id})
    again = own.ask()
    assert (again.next, again.deadline, again.work_seconds) == ("send", NO_DEADLINE, LONGEST_SECONDS)


def test_a_desk_finds_the_same_run(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for nothing to be prepared again, and gives the run the same id."""
    _, order = stack.prepared()
    path = tmp_path / "mine.yaml"
    path.write_text(SPEC.replace("REFIT", "false") + "resources: {vcpus: 2}  # said otherwise, and no part of it\n")

    def open_backend(desk: Desk, spec: Any, **_: Any) -> AwsBackend:
        context = BackendContext(desk.settings, desk.store, spec, None, spec.name)
        return AwsBackend(context, lambda _name: FakeClients().world(make_stack(STORE)))

    monkeypatch.setattr(preparation, "open_backend", open_backend)
    desk = Desk(load_settings(), stack.store)
    found = preparation.prepare(desk, path, PrepareOptions(), on="aws", workers=None, elsewhere=False)
    assert found.search.run_id == order.run_id


def test_a_spec_without_an_image_is_refused_with_the_way_to_one(stack: Stack) -> None:
    for key in list(stack.store.folder.keys("images/")):
        stack.store.folder.delete(key)
    order = stack.execution().ask()
    assert order.error is not None
    assert order.error.exit == 5
    assert "submit image push" in order.message
    save_record(stack.store.folder, make_record(stack="another"))
    assert stack.execution().ask().next == "refuse"


# --- the process ----------------------------------------------------------------------------------------------


def arguments(stack: Stack, ask: dict[str, Any] | None = None, site: str | None = None) -> list[str]:
    asked = {"execution": arn("e1"), "spec": stack.keep_spec(), "over": -1, "deadline": 0, **(ask or {})}
    return ["--site", site or stack.site.model_dump_json(), "--ask", json.dumps(asked), "--answer", "t-p1"]


@pytest.fixture
def here(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """Return a stack whose store is opened by its URL."""
    monkeypatch.setattr(entry, "open_store", lambda url: {STORE: stack.store}[url])
    return stack


def told(stack: Stack) -> Order:
    answer = read_answer(stack.store.folder, "t-p1")
    assert answer is not None
    return Order.model_validate(answer.answer)


def test_the_order_is_left_under_the_token(here: Stack) -> None:
    assert entry.main(arguments(here)) == 0
    assert told(here).next == "prepare"


def test_a_refusal_is_an_answer_too(here: Stack) -> None:
    assert entry.main(arguments(here, {"spec": "s3://elsewhere/x"})) == 0
    assert told(here).next == "refuse"


def test_an_answer_that_is_there_stays(here: Stack) -> None:
    earlier = Order(next="done", message="earlier").model_dump(mode="json")
    write_answer(here.store.folder, "t-p1", Answer(0, earlier, None))
    assert entry.main(arguments(here)) == 0
    assert told(here).message == "earlier"


def test_an_answer_of_another_version_stays_for_the_machine_to_judge(here: Stack) -> None:
    earlier = Order(next="done").model_dump(mode="json") | {"moon": 1}
    write_answer(here.store.folder, "t-p1", Answer(0, earlier, None))
    assert entry.main(arguments(here)) == 0
    kept = read_answer(here.store.folder, "t-p1")
    assert kept is not None and kept.answer == earlier


def test_a_machine_of_another_version_is_told_so(here: Stack) -> None:
    site = json.dumps(json.loads(here.site.model_dump_json()) | {"moon": 1})
    assert entry.main(arguments(here, site=site)) == 0
    assert "submit infra up" in told(here).message
    assert entry.main(arguments(here, {"spec": 7})) == 0


@pytest.mark.parametrize("site", ["", "{", "[]", "{}"])
def test_a_call_that_cannot_be_answered_is_a_usage_error(here: Stack, site: str) -> None:
    assert entry.main(["--site", site, "--ask", "{}", "--answer", "t"]) == 2
    assert entry.main([*arguments(here)[:-1], "-"]) == 2


def test_it_imports_neither_the_command_line_nor_what_computes() -> None:
    code = "import sys, submitter.planner.__main__; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"typer", "rich", "docker", "requests", "numpy", "sklearn", "containers"}
