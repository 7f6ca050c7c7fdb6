"""A task whose host is about to go, as a real process with a metadata service of its own: nothing finished is lost."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobspec.grammar.load import load
from jobspec.protocol import containers_command, prepare_arguments, reduce_arguments, work_arguments
from jobspec.runs.results import read_log
from jobspec.runs.rounds import RoundPlan, commit_round, draft_round
from jobspec.search.inspection import Inspection
from jobspec.search.planning import plan_tasks
from jobspec.stores.base import Store, open_store
from submitter.search import keep, make_search
from tests.e2e.gate import PATIENCE_S, Gate

MODULES = ("FOLDFLEET_ALLOWED_MODULES", "FOLDFLEET_MODULE_PATH")


class HostService:
    """Answers as the metadata services of a host do; ``notice`` says that it goes in two minutes."""

    def __init__(self) -> None:
        self.notice = False
        self.asked: list[str] = []
        self.looked_after_notice = threading.Event()
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer("token")

            def do_GET(self) -> None:
                host.asked.append(self.path)
                texts = {"/v4/container": json.dumps({"LogOptions": {"awslogs-stream": "work/default/1"}})}
                if self.headers.get("X-aws-ec2-metadata-token") == "token":
                    texts |= {"/latest/meta-data/instance-id": "i-1"} | host.instance_action()
                self._answer(texts.get(self.path))

            def _answer(self, text: str | None) -> None:
                self.send_response(404 if text is None else 200)
                self.send_header("Content-Length", str(len(text or "")))
                self.end_headers()
                self.wfile.write((text or "").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def instance_action(self) -> dict[str, str]:
        if not self.notice:
            return {}
        self.looked_after_notice.set()
        at = (datetime.now(UTC) + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"/latest/meta-data/spot/instance-action": json.dumps({"action": "terminate", "time": at})}

    @contextmanager
    def serving(self) -> Iterator[HostService]:
        thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        thread.start()
        yield self
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def host() -> Iterator[HostService]:
    with HostService().serving() as host:
        yield host


class Task:
    """A round of one task of three cells, the last of which waits at the gate, and processes that work on it."""

    def __init__(self, gate: Gate, host: HostService) -> None:
        self.gate, self.host = gate, host
        self.store: Store = open_store(str(gate.store))
        self.plan = self._commit()

    def start(self, attempt: int) -> subprocess.Popen[str]:
        arguments = work_arguments(self.store.url, self.plan.run_id, 0, 0)
        batch = {
            "AWS_BATCH_JOB_ID": "job-1:0",
            "AWS_BATCH_JOB_ARRAY_INDEX": "0",
            "AWS_BATCH_JOB_ATTEMPT": str(attempt),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.host.address,
            "ECS_CONTAINER_METADATA_URI_V4": f"{self.host.address}/v4/container",
            "FOLDFLEET_WORKERS": "1",
        }
        return self._popen(arguments, batch)

    def parts(self) -> list[dict[str, Any]]:
        folder = self.gate.store / "runs" / self.plan.run_id / "rounds" / "000" / "log" / "000000"
        return [json.loads(path.read_text())["part"] for path in sorted(folder.glob("*.json"))]

    def finished(self) -> set[int]:
        return set(read_log(self.store, self.plan, 0).rows)

    def reduce(self) -> dict[str, Any]:
        return self._call(reduce_arguments(self.store.url, self.plan.run_id, refit=True))

    def _commit(self) -> RoundPlan:
        options: Any = {"max_folds": 10, "allow_small_classes": False, "numerics": "native"}
        told = self._call(prepare_arguments(self.store.url, self.gate.spec, **options))
        search = keep(self.store, make_search(load(self.gate.spec), Inspection.model_validate(told)))
        fields = {"round": 0, "num_known": 0, "workers": 1, "space_digest": search.space.frozen.digest()}
        tasks = plan_tasks(search.num_candidates, search.num_splits, 1)
        return commit_round(self.store, draft_round(search.fields | fields, tasks, None))

    def _call(self, arguments: list[str]) -> dict[str, Any]:
        output, errors = self._popen(arguments, {}).communicate(timeout=PATIENCE_S)
        assert output, errors
        document: dict[str, Any] = json.loads(output)
        return document

    def _popen(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            containers_command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.gate.environment | environment,
        )


@pytest.fixture
def task(tmp_path: Path, host: HostService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    gate = Gate(tmp_path)
    for name in MODULES:
        monkeypatch.setenv(name, gate.environment[name])
    gate.write_spec(free="[0, 1]", held="[2, 3]")
    yield Task(gate, host)
    gate.open()


def wait_for(task: Task, cells: set[int]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not task.finished() >= cells:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


def test_the_cell_in_hand_is_kept_no_other_is_begun_and_the_next_attempt_goes_on(task: Task, host: HostService) -> None:
    task.gate.close()
    process = task.start(1)
    try:
        wait_for(task, {0, 1})
        host.notice = True
        assert host.looked_after_notice.wait(PATIENCE_S)
        task.gate.open()
        exit_code, errors = end(process)
    finally:
        process.kill()
    assert exit_code == 75, errors
    assert errors.count("spot_notice") == 1
    assert task.finished() == {0, 1, 2}
    parts = task.parts()
    assert [part["end"] for part in parts if part["end"]] == ["reclaimed"]
    start = parts[0]["start"]
    assert {name: start[name] for name in ("log", "job", "attempt", "instance")} == {
        "log": "work/default/1",
        "job": "job-1:0",
        "attempt": 1,
        "instance": "i-1",
    }
    host.notice = False
    assert end(task.start(2))[0] == 0
    assert task.finished() == {0, 1, 2, 3}
    log = read_log(task.store, task.plan, 0)
    assert [attempt.start["attempt"] for attempt in log.attempts.values()] == [1, 2]
    assert not any(log.deaths(candidate) for candidate in range(4))


def test_a_host_that_goes_begins_nothing(task: Task, host: HostService) -> None:
    host.notice = True
    exit_code, errors = end(task.start(1))
    assert exit_code == 75, errors
    assert task.parts() == []


def test_a_host_that_says_nothing_is_noted_once(task: Task, host: HostService) -> None:
    host.address = "http://127.0.0.1:1"
    exit_code, errors = end(task.start(1))
    assert exit_code == 0, errors
    assert task.finished() == {0, 1, 2, 3}
    (start,) = (attempt.start for attempt in read_log(task.store, task.plan, 0).attempts.values())
    assert (start["log"], start["instance"]) == ("batch:job-1:0:1", None)
    told = task.reduce()
    assert (told["complete"], told["cells"]["missing"]) == (False, 8) and told["refit"]["model"] is None
