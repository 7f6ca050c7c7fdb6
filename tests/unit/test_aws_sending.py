"""Sending once: lost answers, throttling, and two desks at the same moment."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from jobspec.errors import AccessError, FoldfleetError, TryLaterError
from jobspec.runs.rounds import RoundPlan
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter import claims
from submitter.backends.aws.sending import find, send
from submitter.backends.base import ArrayRequest
from tests.unit.fakebatch import FakeClients, refuse
from tests.unit.pretend import PretendBackend
from tests.unit.test_aws_requests import make_plan

CALL = {"jobName": "run-r0-a0", "jobQueue": "queue", "jobDefinition": "d"}


class Sleeps:
    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def clients() -> FakeClients:
    return FakeClients()


def test_one_request_is_one_call(clients: FakeClients) -> None:
    assert send(clients.typed, CALL) == "job-0"
    assert clients.batch.calls == ["SubmitJob"]


@pytest.mark.parametrize("fault", ["lost"])
def test_a_lost_answer_gives_no_second_array(clients: FakeClients, fault: str) -> None:
    clients.batch.faults = [fault]
    assert send(clients.typed, CALL, Sleeps()) == "job-0"
    assert clients.batch.calls == ["SubmitJob", "ListJobs"]


@pytest.mark.parametrize(
    ("fault", "looks"),
    [
        (refuse("TooManyRequestsException", 429), False),
        (EndpointConnectionError(endpoint_url="https://batch"), False),
        (ReadTimeoutError(endpoint_url="https://batch"), True),
        (refuse("ServerException", 500), True),
    ],
)
def test_what_passes_is_sent_again(clients: FakeClients, fault: Exception, looks: bool) -> None:
    clients.batch.faults = [fault, None]
    assert send(clients.typed, CALL, sleeps := Sleeps()) == "job-0"
    assert clients.batch.calls == (["SubmitJob", "ListJobs", "SubmitJob"] if looks else ["SubmitJob", "SubmitJob"])
    assert sleeps.waits == [1.0]


def test_it_gives_up_after_half_a_minute(clients: FakeClients) -> None:
    clients.batch.faults = [refuse("TooManyRequestsException", 429)] * 6
    with pytest.raises(TryLaterError, match="run-r0-a0"):
        send(clients.typed, CALL, sleeps := Sleeps())
    assert sum(sleeps.waits) == 31.0
    assert clients.batch.sent == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refuse("AccessDeniedException", 403), AccessError),
        (refuse("ClientException", 400), FoldfleetError),
        (NoCredentialsError(), AccessError),
    ],
)
def test_what_will_never_do_is_told_at_once(clients: FakeClients, fault: Exception, kind: type[Exception]) -> None:
    clients.batch.faults = [fault]
    with pytest.raises(kind):
        send(clients.typed, CALL, sleeps := Sleeps())
    assert sleeps.waits == []


def test_a_disabled_queue_says_who_enables_it(clients: FakeClients) -> None:
    fault = refuse("ClientException")
    fault.response["Error"]["Message"] = "JobQueue arn:aws:batch:us-east-1:1:job-queue/foldfleet is DISABLED"
    clients.batch.faults = [fault]
    call = CALL | {"jobQueue": "arn:aws:batch:us-east-1:1:job-queue/foldfleet"}
    with pytest.raises(TryLaterError, match=r"update-job-queue --job-queue foldfleet --state ENABLED"):
        send(clients.typed, call, Sleeps())


def test_looking_by_name_takes_the_oldest_and_no_namesake(clients: FakeClients) -> None:
    for name in ("run-r0-a01", "RUN-R0-A0", "run-r0-a0", "run-r0-a0"):
        clients.batch.submit_job(**(CALL | {"jobName": name}))
    assert find(clients.typed, "queue", "run-r0-a0") == "job-2"
    assert find(clients.typed, "queue", "another") is None


class Desk(PretendBackend):
    """Knows by name what others sent."""

    known: dict[str, Any] | None = None

    def find(self, array: ArrayRequest) -> dict[str, Any] | None:
        self.calls.append("find")
        return self.known


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


ARRAY = ArrayRequest("a0", 0, 0, 3, ("run", "2"), {})
PLAN: RoundPlan = make_plan()
NOTHING: Callable[[float], None] = lambda _seconds: None  # noqa: E731 - a sleep that does not


def claim(store: Store, number: int, time: float) -> None:
    body = json.dumps({"format_version": 1, "host": "elsewhere", "pid": 1, "time": time}).encode()
    assert store.create(Layout.claim(PLAN.run_id, PLAN.round, 0, number), body)


def test_an_array_is_claimed_sent_and_recorded_once(store: Store) -> None:
    desk = Desk(store)
    first = claims.send_once(store, PLAN, ARRAY, desk)
    assert first == {"format_version": 1, "name": "a0", "backend": "local"}
    assert claims.send_once(store, PLAN, ARRAY, desk) == first
    assert desk.calls == ["submit"]
    assert claims.all_handles(store, PLAN, 0) == [first]


def test_a_fresh_claim_is_waited_for(store: Store) -> None:
    desk, other = Desk(store), {"name": "a0", "job_id": "theirs"}
    claim(store, 0, time=1000.0)

    def they_record(_seconds: float) -> None:
        store.create(Layout.handle(PLAN.run_id, PLAN.round, 0, 0), json.dumps(other).encode())

    assert claims.send_once(store, PLAN, ARRAY, desk, now=lambda: 1001.0, sleep=they_record) == other
    assert desk.calls == []


def test_an_old_claim_is_looked_for_by_name(store: Store) -> None:
    desk = Desk(store)
    desk.known = {"job_id": "theirs"}
    claim(store, 0, time=1.0)
    handle = claims.send_once(store, PLAN, ARRAY, desk, now=lambda: 1000.0, sleep=NOTHING)
    assert handle["job_id"] == "theirs"
    assert desk.calls == ["find"]
    assert claims.all_handles(store, PLAN, 0) == [handle]


def test_what_nobody_sent_is_claimed_again(store: Store) -> None:
    desk = Desk(store)
    claim(store, 0, time=1.0)
    claim(store, 1, time=2.0)
    claims.send_once(store, PLAN, ARRAY, desk, now=lambda: 1000.0, sleep=NOTHING)
    assert desk.calls == ["find", "find", "submit"]
    assert store.exists(Layout.handle(PLAN.run_id, PLAN.round, 0, 2))
    assert len(claims.all_handles(store, PLAN, 0)) == 1


def test_both_handles_of_a_doubled_array_are_known(store: Store) -> None:
    for number in (0, 1):
        claim(store, number, 1.0)
        store.create(Layout.handle(PLAN.run_id, PLAN.round, 0, number), json.dumps({"job_id": number}).encode())
    assert [handle["job_id"] for handle in claims.all_handles(store, PLAN, 0)] == [0, 1]


def test_a_claim_of_a_dead_process_of_this_machine_is_not_waited_for(store: Store) -> None:
    desk, sleeps = Desk(store), Sleeps()
    import os
    import socket
    import time

    body = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}).encode()
    store.create(Layout.claim(PLAN.run_id, PLAN.round, 0, 0), body)
    claims.send_once(store, PLAN, ARRAY, desk, sleep=sleeps)
    assert sleeps.waits == []
