"""What a task hears from its host: the notice that it goes, its id, the log stream; and from a host that is silent."""

from __future__ import annotations

import http.server
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from containers.tasks import work as step
from containers.tasks.metadata import InstanceMetadata, ask
from containers.tasks.place import describe_place
from containers.tasks.spot import SpotWatch
from containers.tasks.work import work
from jobspec.errors import NotFoundError
from jobspec.protocol import job_stream, parse_job_stream
from jobspec.stores.base import open_store

NOON = 1_768_996_800.0  # 2026-01-21T12:00:00Z


@dataclass
class Host:
    """Pretends to be the metadata service: paths -> text; ``down`` answers nothing, ``spent`` refuses old tokens."""

    paths: dict[str, str] = field(default_factory=dict)
    down: bool = False
    status: int = 200
    asked: list[str] = field(default_factory=list)
    tokens: int = 0

    def __call__(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append(f"{method} {url}")
        if self.down:
            raise OSError("timed out")
        if url == "http://imds/latest/api/token":
            assert method == "PUT" and int(headers["X-aws-ec2-metadata-token-ttl-seconds"]) >= 60
            self.tokens += 1
            return self.status, f"token-{self.tokens}".encode()
        if headers.get("X-aws-ec2-metadata-token") != f"token-{self.tokens}":
            return 401, b""
        text = self.paths.get(url.removeprefix("http://imds/latest/meta-data/"))
        return (404, b"") if text is None else (200, text.encode())


@dataclass
class Clock:
    """A clock that moves when it is told to."""

    time: float = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make_watch(host: Host, clock: Clock) -> SpotWatch:
    metadata = InstanceMetadata("http://imds/", host, clock)
    return SpotWatch(metadata, clock, lambda: NOON + clock.time)


def notice(time: str) -> str:
    return json.dumps({"action": "terminate", "time": time})


# --- the notice ---------------------------------------------------------------------------------------------


def test_the_host_is_asked_every_five_seconds_with_one_token(host: Host, clock: Clock) -> None:
    watch = make_watch(host, clock)
    for _ in range(21):
        assert watch.deadline() is None
        clock.time += 1.0
    looks = [line for line in host.asked if line == "GET http://imds/latest/meta-data/spot/instance-action"]
    assert len(looks) == 5 and host.tokens == 1


def test_a_token_is_renewed_before_it_ends_and_when_it_is_refused(host: Host, clock: Clock) -> None:
    watch = make_watch(host, clock)
    watch.deadline()
    clock.time = 6 * 3600
    watch.deadline()
    assert host.tokens == 2
    host.tokens = 7  # the host was stopped and started
    clock.time += 5
    assert watch.deadline() is None and host.tokens == 8


@pytest.mark.parametrize(
    ("text", "deadline"),
    [
        (notice("2026-01-21T12:02:10Z"), 110.0),
        (notice("2026-01-21T12:01:00Z"), 40.0),
        (notice("2026-01-21T12:01:00"), 40.0),
        (notice("2026-01-21T12:00:15Z"), 10.0),
        (notice("2026-01-21T11:00:00Z"), 10.0),
        (notice("2027-01-21T12:00:00Z"), 110.0),
        (notice("soon"), 10.0),
        ("{}", 10.0),
        ("<html>", 10.0),
        ("[]", 10.0),
    ],
)
def test_work_may_go_on_until_there_is_just_time_to_write(host: Host, clock: Clock, text: str, deadline: float) -> None:
    watch = make_watch(host, clock)
    assert watch.deadline() is None
    host.paths["spot/instance-action"] = text
    assert watch.deadline() is None, "it is not yet time to look again"
    clock.time = 10.0
    assert watch.deadline() == deadline
    del host.paths["spot/instance-action"]
    clock.time = 60.0
    assert watch.deadline() == deadline, "a notice is final"


def test_a_silent_host_is_noted_once_and_left_alone(host: Host, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    host.down = True
    watch = make_watch(host, clock)
    for _ in range(100):
        assert watch.deadline() is None
        clock.time += 1.0
    assert len(host.asked) == 3
    assert [record.message.split()[0] for record in caplog.records if record.levelno >= logging.WARNING] == [
        "spot_notice_unknown"
    ]


def test_a_host_that_misses_a_question_is_asked_again(host: Host, clock: Clock) -> None:
    watch = make_watch(host, clock)
    for number in range(12):
        host.down = number % 3 != 2
        watch.deadline()
        clock.time += 5
    host.down, host.paths["spot/instance-action"] = False, notice("2026-01-21T12:02:30Z")
    assert watch.deadline() is not None


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_host_without_tokens_is_a_silent_one(host: Host, clock: Clock, status: int) -> None:
    host.status = status
    with pytest.raises(OSError, match=str(status)):
        InstanceMetadata("http://imds", host, clock).get("instance-id")
    assert make_watch(host, clock).deadline() is None


def test_nobody_is_asked_where_there_is_no_service() -> None:
    assert SpotWatch(None).deadline() is None
    assert InstanceMetadata.find({"AWS_EC2_METADATA_DISABLED": "true"}) is None
    assert InstanceMetadata.find({}) is not None


# --- the start row ------------------------------------------------------------------------------------------

BATCH = {"AWS_BATCH_JOB_ID": "job-1:7", "AWS_BATCH_JOB_ATTEMPT": "2", "ECS_CONTAINER_METADATA_URI_V4": "http://ecs/v4"}


def answer(document: object, status: int = 200) -> Callable[..., tuple[int, bytes]]:
    return lambda *_: (status, json.dumps(document).encode())


def test_a_start_row_on_batch_names_stream_attempt_and_instance(host: Host) -> None:
    host.paths["instance-id"] = "i-0123"
    asks = answer({"LogDriver": "awslogs", "LogOptions": {"awslogs-group": "g", "awslogs-stream": "d/default/abc"}})
    place = describe_place(BATCH, InstanceMetadata("http://imds", host), asks)
    assert place["log"] == "d/default/abc" and place["instance"] == "i-0123"
    assert (place["job"], place["attempt"]) == ("job-1:7", 2)
    assert place["host"] and place["pid"]


@pytest.mark.parametrize(
    "asks",
    [
        answer({}),
        answer({"LogOptions": None}),
        answer([]),
        answer({"LogOptions": {"awslogs-stream": 1}}, 200),
        answer({}, 500),
    ],
)
def test_without_the_stream_the_job_and_its_attempt_tell(host: Host, asks: Any) -> None:
    host.down = True
    place = describe_place(BATCH, InstanceMetadata("http://imds", host), asks)
    assert parse_job_stream(place["log"]) == ("job-1:7", 2) and place["instance"] is None


def test_elsewhere_nobody_is_asked() -> None:
    def refuse(*_: object) -> tuple[int, bytes]:
        raise AssertionError("asked")

    place = describe_place({"FOLDFLEET_LOG_STREAM": "x.log", "AWS_BATCH_JOB_ATTEMPT": "1"}, None, refuse)
    assert place.keys() == {"host", "pid", "log"} and place["log"] == "x.log"


def test_a_job_stands_for_a_stream_and_no_stream_for_a_job() -> None:
    assert parse_job_stream(job_stream("a-b:12", 3)) == ("a-b:12", 3)
    assert parse_job_stream(job_stream("a-b", 1)) == ("a-b", 1)
    assert parse_job_stream("definition/default/abc") is None and parse_job_stream("/tmp/x.log") is None


# --- the step -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "waits"),
    [
        ({"AWS_BATCH_JOB_ID": "j:0", "AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 1),
        ({"AWS_BATCH_JOB_ID": "j"}, 0),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "0"}, 0),
    ],
)
def test_children_of_an_array_do_not_ask_the_store_at_one_moment(
    store_url: str, environment: dict[str, str], waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    slept: list[float] = []
    with pytest.raises(NotFoundError):
        work(open_store(store_url), "none", 0, 0, slept.append)
    assert len(slept) == waits and all(0 <= seconds <= 2 for seconds in slept)


@pytest.mark.parametrize(
    ("finished", "reclaimed", "exit_code"), [(True, True, 0), (True, False, 0), (False, True, 75), (False, False, 130)]
)
def test_the_exit_code_says_whether_to_try_again(
    store_url: str, finished: bool, reclaimed: bool, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SimpleNamespace(run=lambda *_: finished, was_reclaimed=reclaimed)
    monkeypatch.setattr(step, "load_round", lambda *_: None)
    monkeypatch.setattr(step, "_make_session", lambda *_: session)
    assert work(open_store(store_url), "r", 0, 0) == exit_code


@pytest.mark.parametrize(("job", "exit_code"), [("", 130), ("job-1", 75)])
def test_a_signal_on_batch_means_that_the_host_goes(
    store_url: str, job: str, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return False

    monkeypatch.setenv("AWS_BATCH_JOB_ID", job)
    monkeypatch.setattr(step, "load_round", lambda *_: None)
    monkeypatch.setattr(step, "_make_session", lambda *_: SimpleNamespace(run=run, was_reclaimed=False))
    assert work(open_store(store_url), "r", 0, 0) == exit_code


# --- over a socket ------------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204 if self.path == "/there?a=1" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_one_request_goes_past_every_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert ask("GET", f"{address}/there?a=1", {}) == (204, b"")
    assert ask("GET", f"{address}/elsewhere", {})[0] == 404


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://[::bad/x", "nowhere", "http://127.0.0.1:x/"])
def test_nobody_there_is_one_kind_of_error(url: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
        ask("GET", url, {})
