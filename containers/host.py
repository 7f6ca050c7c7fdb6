"""The local backend's helper process: one import of scikit-learn serves every step of a run.

A fresh interpreter needs more than a second for ``import sklearn``; prepare, work, reduce and refit would each pay
it. This process pays once, then forks a child for each step that its standard input names. It starts no threads,
so that its children can fork again.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import selectors
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from containers.tasks.pool import die_with_parent
from containers.tasks.signals import Wakeup

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long a step may take to write down what is finished once it was asked to end."""

RunStep = Callable[[list[str]], int]
"""Carries out a step's command line and returns its exit code."""

_PRELOADED = (
    "sklearn.base",
    "sklearn.ensemble",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "containers.prepare",
    "containers.views.refit",
    "containers.tasks.work",
)


def serve(run_step: RunStep) -> int:
    """Answer one JSON line for each JSON line on standard input; return when the input ends.

    A request is ``{"argv": [...], "env": {...}}``, its answer ``{"exit": n, "stdout": "..."}``. When the input ends
    or SIGTERM comes while a step runs, the step gets SIGTERM, time to write down what is finished, then SIGKILL.
    """
    for name in _PRELOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a library prints may come between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Wakeup(signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD) as wakeup:
        requests = _Requests(wakeup)
        while (request := requests.next()) is not None:
            answer = _run_step(request, requests, run_step)
            with contextlib.suppress(BrokenPipeError):
                answers.write(json.dumps(answer) + "\n")
                answers.flush()
    return 0


class _Requests:
    """Lines of standard input, read without blocking signals."""

    def __init__(self, wakeup: Wakeup) -> None:
        self.wakeup = wakeup
        self.ended = False
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(wakeup.descriptor, selectors.EVENT_READ)

    def next(self) -> Mapping[str, Any] | None:
        """Return the next request, or None once the input has ended or a signal asks to end."""
        while b"\n" not in self._buffer and not self.ended:
            self.listen(None)
        if self.ended:
            return None
        line, _, self._buffer = self._buffer.partition(b"\n")
        document: Mapping[str, Any] = json.loads(line)
        return document

    def listen(self, timeout: float | None) -> None:
        """Wait for input or a signal, at most ``timeout`` seconds."""
        for key, _ in self._selector.select(timeout):
            if key.fd == 0:
                self._read()
        if {signal.SIGTERM, signal.SIGHUP} & self.wakeup.caught():
            self.ended = True

    def _read(self) -> None:
        block = os.read(0, 65536)
        self._buffer += block
        if not block:
            self.ended = True
            self._selector.unregister(0)


def _run_step(request: Mapping[str, Any], requests: _Requests, run_step: RunStep) -> dict[str, Any]:
    with tempfile.TemporaryFile() as output:
        child = _fork_step(request, output.fileno(), run_step)
        exit_code = _await(child, requests)
        output.seek(0)
        return {"exit": exit_code, "stdout": output.read().decode("utf-8", "replace")}


def _fork_step(request: Mapping[str, Any], output: int, run_step: RunStep) -> int:
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    exit_code = 1
    try:
        die_with_parent(parent, signal.SIGTERM)
        _become_step(request, output)
        exit_code = run_step(list(request["argv"]))
    except BaseException:
        log.exception("step_failed argv=%s", request["argv"])
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_code)


def _become_step(request: Mapping[str, Any], output: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.environ.update(request.get("env", {}))


def _await(child: int, requests: _Requests) -> int:
    """Wait for a step; once the requests have ended, end it: gently first."""
    asked: float | None = None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if requests.ended and asked is None:
            asked = time.monotonic()
            os.kill(child, signal.SIGTERM)
        if asked is not None and time.monotonic() - asked > GRACE_SECONDS:
            os.kill(child, signal.SIGKILL)
        requests.listen(1.0)
