"""What the newest round of a run leads to, who may send it, and what attempts that are killed leave behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobspec.runs.answers import Answer, write_answer
from jobspec.runs.rounds import load_round
from jobspec.stores.layout import Layout
from submitter import claims
from submitter.backends.aws.request import round_name
from submitter.backends.stepfunctions.request import execution_arn, execution_name
from submitter.cloud.record import save_record
from submitter.machines.messages import FORMAT_VERSION, Order, Owner
from submitter.machines.orders import NO_DEADLINE
from submitter.search import draft_next, keep, stored_search
from tests.planner.desk import HOUR, MACHINE, NOW, STORE, Execution, Killed, Stack, arn
from tests.unit.fakebatch import ARN, make_record
from tests.unit.pretend import PretendBackend


def lose(candidate: int, split: int) -> str | None:
    return "lost" if candidate == split == 1 else "ok"


def miss(candidate: int, split: int) -> str | None:
    return None if candidate == split == 1 else "ok"


def handles(stack: Stack, order: Order) -> list[dict[str, Any]]:
    return claims.all_handles(stack.store.folder, stack.newest(order), 0)


def test_a_new_run_is_prepared_then_sent(stack: Stack) -> None:
    execution = stack.execution("e1")
    order = execution.ask()
    assert order.next == "prepare"
    assert order.prepare is not None
    assert order.prepare.definition == f"{ARN}:job-definition/foldfleet-prepare:3"
    assert order.prepare.name.startswith("flowers-prepare-")
    assert stack.store.folder.get(order.prepare.spec.removeprefix(f"{STORE}/")).startswith(b"name: flowers")
    assert order.tags == {"foldfleet:stack": "foldfleet"}
    assert order.deadline == NOW + 24 * HOUR
    stack.prepare(order)
    order = execution.ask(prepared=order.prepare.token)
    plan = stack.newest(order)
    assert order.model_dump(exclude={"run_id", "name", "plan", "parameters", "message"}) == {
        "format_version": FORMAT_VERSION,
        "next": "send",
        "round": 0,
        "bucket": "fleet",
        "definitions": {step: f"{ARN}:job-definition/foldfleet-{step}:3" for step in ("work", "reduce")},
        "overrides": {
            "ResourceRequirements": [{"Type": "VCPU", "Value": "4"}, {"Type": "MEMORY", "Value": "7536"}],
            "Environment": [{"Name": "FOLDFLEET_WORKERS", "Value": "4"}],
        },
        "tags": {"foldfleet:stack": "foldfleet", "foldfleet:run": plan.run_id},
        "timeout": {"AttemptDurationSeconds": 24 * 3600},
        "work_seconds": 24 * 3600,
        "step_seconds": 24 * 3600,
        "deadline": NOW + 24 * HOUR,
        "num_tasks": 6,
        "num_cells": 12,
        "prepare": None,
        "owners": (),
        "summary": None,
        "error": None,
    }
    assert order.run_id == plan.run_id
    assert round_name(plan, "a0") == f"{order.name}-a0"
    assert order.plan == f"foldfleet/{Layout.plan(plan.run_id, 0)}"
    assert order.parameters["execution"] == arn("e1")
    assert "first_task" not in order.parameters
    assert (plan.backend, plan.image, plan.workers) == ("stepfunctions", make_record().image, 8)
    [handle] = handles(stack, order)
    assert handle == {
        "format_version": 1,
        "name": order.name,
        "backend": "stepfunctions",
        "execution": arn("e1"),
        "region": "us-east-1",
        "time": NOW,
    }


def test_what_is_known_is_not_prepared_again(stack: Stack) -> None:
    first, order = stack.prepared()
    assert order.next == "send"
    assert stack.execution().ask().next == "follow"
    assert first.again().next == "send"


def test_a_refusal_of_prepare_is_the_refusal_of_the_run(stack: Stack) -> None:
    execution = stack.execution()
    prepare = execution.ask().prepare
    assert prepare is not None
    assert prepare.spec != stack.keep_spec()
    message = f"{prepare.spec}:7:3: Row 7 is odd."
    write_answer(stack.store.folder, prepare.token, Answer(3, None, {"exit": 3, "message": message}))
    order = execution.ask(prepared=prepare.token)
    assert order.next == "refuse"
    assert order.error is not None
    assert (order.error.exit, order.error.message) == (3, f"{stack.keep_spec()}:7:3: Row 7 is odd.")


def test_a_prepare_step_without_an_answer_is_an_end(stack: Stack) -> None:
    execution = stack.execution()
    prepare = execution.ask().prepare
    assert prepare is not None
    order = execution.ask(prepared=prepare.token)
    assert order.error is not None
    assert order.error.exit == 75
    assert "memory_gib" in order.error.message


def test_a_prepare_step_of_another_spec_does_not_count(stack: Stack) -> None:
    execution = stack.execution()
    prepare = execution.ask().prepare
    assert prepare is not None
    key = execution.started["spec"].removeprefix(f"{STORE}/")
    stack.store.folder.put(key, stack.store.folder.get(key).replace(b"cv: 3", b"cv: 4"))
    other = execution.ask(prepared=prepare.token).prepare
    assert other is not None
    assert other.token != prepare.token
    assert other.spec != prepare.spec


def test_a_finished_run_is_done(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order)
    for one in (execution.ask(run=order.run_id, spec=None), stack.execution().ask()):
        assert one.next == "done"
        assert one.summary is not None
        assert one.summary["cells"] == {"total": 12, "done": 12, "failed": 0, "lost": 0, "missing": 0}
        assert one.summary["files"]["best"] == f"{STORE}/runs/{order.run_id}/views/best.json"


def test_rows_without_views_are_reduced(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order, reduce=False)
    assert execution.ask(run=order.run_id, spec=None).next == "reduce"


def test_a_missing_model_is_made(stack: Stack) -> None:
    execution, order = stack.prepared(spec=stack.keep_spec(refit="true"))
    stack.work(order)
    again = execution.ask(run=order.run_id, spec=None)
    assert again.next == "reduce"
    assert again.definitions["reduce"]
    PretendBackend(stack.store.folder).step(["refit", "--run", order.run_id])
    done = execution.ask(run=order.run_id, spec=None)
    assert done.next == "done"
    assert done.summary is not None
    assert done.summary["files"]["model"].endswith("model.joblib")


def test_very_long_parameters_are_not_told_again(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order)
    key = Layout.view(order.run_id, "best.json")
    view = json.loads(stack.store.folder.get(key))
    view["best"]["params"] = {f"class {i}": i for i in range(2000)}
    stack.store.folder.put(key, json.dumps(view).encode())
    done = execution.ask(run=order.run_id, spec=None)
    assert done.summary is not None
    assert (done.summary["best"]["params"], done.summary["best"]["candidate"]) == (None, 0)
    assert len(done.model_dump_json()) < 10_000


@pytest.mark.parametrize("judge", [lose, miss])
def test_what_is_unfinished_is_a_round_of_its_own(stack: Stack, judge: Any) -> None:
    execution, order = stack.prepared()
    stack.work(order, judge)
    stack.now += HOUR
    again = execution.ask(run=order.run_id, spec=None)
    assert (again.next, again.round, again.num_tasks) == ("send", 1, 1)
    assert again.deadline == order.deadline
    stack.work(again)
    assert execution.ask(run=order.run_id, spec=None).next == "done"


def test_another_execution_is_followed_until_it_is_over(stack: Stack) -> None:
    _, order = stack.prepared("e1")
    other = stack.execution()
    followed = other.ask()
    assert (followed.next, followed.owners) == ("follow", (Owner(execution=arn("e1")),))
    assert other.ask().next == "follow"
    stack.work(order, miss)
    again = other.ask(over=0)
    assert (again.next, again.round) == ("send", 1)


def test_of_two_that_followed_a_third_one_sends(stack: Stack) -> None:
    stack.prepared("e1")
    two, three = stack.execution("e2"), stack.execution("e3")
    assert two.ask().next == three.ask().next == "follow"
    assert two.ask(over=0).next == "send"
    followed = three.ask(over=0)
    assert (followed.next, followed.round, followed.owners) == ("follow", 1, (Owner(execution=arn("e2")),))


def test_a_desk_that_has_claimed_and_not_said_more_is_followed_by_its_name(stack: Stack) -> None:
    plan = commit(stack, "stepfunctions")
    stack.store.folder.create(Layout.claim(plan.run_id, 0, 0, 0), json.dumps({"host": "desk", "pid": 7}).encode())
    name = execution_name(plan)
    [owner] = stack.execution().ask().owners
    assert owner.execution == execution_arn(MACHINE, name) == arn(name)
    own = Execution(stack, name, NO_DEADLINE, 1, {"run": plan.run_id})
    order = own.ask()  # it is the desk's execution itself that asks, once it has had the round in hand
    assert (order.next, order.round, order.deadline) == ("send", 1, NO_DEADLINE)


def test_requests_of_batch_are_followed_by_their_ids_and_names(stack: Stack) -> None:
    plan = commit(stack, "aws")
    folder = stack.store.folder
    execution = stack.execution()
    for index in (0, 1):
        folder.create(Layout.claim(plan.run_id, 0, index, 0), b"{}")
    folder.create(Layout.handle(plan.run_id, 0, 0, 0), json.dumps({"job_id": "j-1", "name": "n"}).encode())
    owners = execution.ask().owners
    assert owners == (Owner(job="j-1", name="n"), Owner(name=round_name(plan, "reduce")))
    assert execution.ask(over=0).next == "send"


def test_a_desk_that_has_planned_for_batch_this_moment_is_waited_for(stack: Stack) -> None:
    plan = commit(stack, "aws")
    stack.now = plan.created + 5
    execution = stack.execution()
    assert execution.ask().owners == (Owner(name=round_name(plan, "a0")),)
    assert execution.ask(over=0).next == "send"
    stack.now += 3600
    assert stack.execution().ask().round == 1


@pytest.mark.parametrize("backend", ["local", "docker", "aws"])
def test_rounds_of_others_that_were_not_sent_are_planned_anew(stack: Stack, backend: str) -> None:
    commit(stack, backend)
    order = stack.execution().ask()
    assert (order.next, order.round) == ("send", 1)


def test_a_round_that_nobody_sent_is_adopted(stack: Stack) -> None:
    plan = commit(stack, "stepfunctions")
    order = stack.execution().ask()
    assert (order.next, order.round) == ("send", 0)
    assert stack.newest(order).token == plan.token


def stop(stack: Stack, order: Order, when: float | str) -> None:
    key = Layout.stop(order.run_id, order.round)
    stack.store.folder.create(key, json.dumps({"format_version": 1, "time": when}).encode())


def test_a_cancelled_run_is_not_gone_on_with_by_its_own_execution(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order, miss)
    stop(stack, order, NOW + 60)
    stack.now += HOUR
    refused = execution.ask(run=order.run_id, spec=None)
    assert refused.error is not None
    assert (refused.next, refused.error.exit) == ("refuse", 130)
    assert "submit resume" in refused.message


@pytest.mark.parametrize("when", [NOW + 60, "2033-05-18T03:34:20.000Z"])
def test_a_cancelled_run_is_resumed_by_a_new_execution(stack: Stack, when: float | str) -> None:
    _, order = stack.prepared("e1")
    stack.work(order, miss)
    stop(stack, order, when)
    stack.now += HOUR
    new = stack.execution()
    assert new.ask().next == "follow"
    again = new.ask(over=0)
    assert (again.next, again.round) == ("send", 1)


def test_a_run_that_is_cancelled_while_it_is_followed_stays_cancelled(stack: Stack) -> None:
    _, order = stack.prepared("e1")
    new = stack.execution()
    assert new.ask().next == "follow"
    stop(stack, order, NOW + 60)
    stack.now += HOUR
    assert new.ask(over=0).next == "refuse"


def test_a_run_that_was_cancelled_before_it_was_sent_is_not_sent(stack: Stack) -> None:
    execution, order = stack.prepared()
    stop(stack, order, NOW + 1)
    assert execution.again().next == "refuse"


def test_a_run_is_gone_on_with_in_its_own_image(stack: Stack) -> None:
    execution, order = stack.prepared()
    stack.work(order, miss)
    newer = "sha256:" + "b" * 64
    image = make_record().image.partition("@")[0]
    save_record(stack.store.folder, make_record(image=f"{image}@{newer}", image_digest=newer, pushed_at=9.0))
    again = execution.ask(run=order.run_id, spec=None)
    assert stack.newest(again).image == make_record().image


@pytest.mark.parametrize("run", ["nothing-0123456789ab", "../x", "a/b", "", "x" * 400, "latest\n"])
def test_runs_that_are_not_there_are_refused(stack: Stack, run: str) -> None:
    order = stack.execution(run=run).ask()
    assert order.error is not None
    assert order.error.exit == 5


def commit(stack: Stack, backend: str) -> Any:
    """Plan the run's first round as another backend does, and send nothing."""
    _, order = stack.prepared("before")
    plan = stack.newest(order)
    folder = stack.store.folder
    search = stored_search(folder, plan)
    for key in list(folder.keys(f"runs/{plan.run_id}/rounds/")):
        folder.delete(key)
    other = PretendBackend(folder, name=backend, image=plan.image)
    draft = draft_next(folder, keep(folder, search), None, other, reuse=True)
    folder.create(Layout.plan(plan.run_id, 0), draft_body(draft.plan))
    for name, body in draft.objects.items():
        folder.create(Layout.draft(plan.run_id, 0, draft.plan.token, name), body)
    return load_round(folder, plan.run_id, 0)


def draft_body(plan: Any) -> bytes:
    from jobspec.stores.sealed import seal

    return seal(plan.model_dump(mode="json"))


@pytest.mark.parametrize("late", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("again", [False, True], ids=["first", "second-round"])
def test_an_attempt_that_is_killed_at_any_write_comes_to_the_same_order(stack: Stack, late: bool, again: bool) -> None:
    """Every write of a step is its last one once; the next attempt gives the order, under one claim."""
    execution, order = stack.prepared("e1")
    if again:
        stack.work(order, miss)
    for number in range(100):
        name = f"k{number}"
        if again:
            one = Execution(stack, "e1", order.deadline, execution.step, {"run": order.run_id})
        else:
            for key in list(stack.store.folder.keys(f"runs/{order.run_id}/")):
                stack.store.folder.delete(key)
            one = stack.execution(name)
        for key in list(stack.store.folder.keys(f"runs/{order.run_id}/rounds/001/")):
            stack.store.folder.delete(key)
        stack.store.deaths, stack.store.num_writes, stack.store.late = number, 0, late
        try:
            one.ask()
        except Killed:
            stack.store.deaths = None
            sent = one.again()
            assert (sent.next, sent.round) == ("send", int(again))
            assert one.again() == sent
            assert len(handles(stack, sent)) == 1
            assert not stack.store.folder.exists(Layout.claim(sent.run_id, sent.round, 0, 1))
            assert stack.execution("other").ask().next == "follow"
        else:
            assert number > 4
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize("number", range(8))
def test_of_two_planners_at_once_one_sends_and_the_other_follows(stack: Stack, number: int) -> None:
    """The second acts from beginning to end before one of the writes of the first."""
    _, order = stack.prepared("before")
    for key in list(stack.store.folder.keys(f"runs/{order.run_id}/")):
        stack.store.folder.delete(key)
    first, second = stack.execution("e1"), stack.execution("e2")
    orders: list[Order] = []

    def between(_key: str) -> None:
        if stack.store.num_writes == number and not orders:
            orders.append(Order(next="done"))  # not again by what it writes itself
            orders[0] = second.ask()

    stack.store.num_writes, stack.store.before = 0, between
    orders.append(first.ask())
    stack.store.before = lambda _key: None
    if len(orders) == 2:
        assert sorted(one.next for one in orders) == ["follow", "send"]
    assert stack.newest(order).round == 0
    assert len(handles(stack, order)) == 1
