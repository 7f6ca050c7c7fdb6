"""Folding logs in the background: thousands of tasks, and a folding process that is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing.connection import wait
from typing import Any

import pytest

from containers.tasks.closer import Closer


def run_dry(closer: Closer) -> None:
    while closer.busy:
        wait(closer.handles(), 10)
        closer.poll()
    closer.end()


def test_thousands_of_tasks_may_end_before_anybody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(_: Closer, task: int) -> Iterator[tuple[str, Any]]:
        yield "closed", (task, b"x" * 1000)

    monkeypatch.setattr(Closer, "_serve", serve)
    closer = Closer(None, None)  # type: ignore[arg-type]
    for task in range(3000):
        closer.close(task)
    run_dry(closer)


def test_a_killed_folding_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(_: Closer, task: int) -> Iterator[tuple[str, Any]]:
        if task == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield "closed", task

    monkeypatch.setattr(Closer, "_serve", serve)
    closer = Closer(None, None)  # type: ignore[arg-type]
    for task in range(4):
        closer.close(task)
    run_dry(closer)
    assert not closer.busy
