"""The submitter's end of the local helper process, `containers.host`."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

GENTLE_SECONDS = 15.0
"""How long a helper may take to end; it gives its step 10 s to write down what is finished."""

_READ_BYTES = 65536


class HostDiedError(Exception):
    """The helper process ended by itself, or was killed."""


@dataclass(frozen=True)
class Reply:
    """A step's end: its exit code (negative: killed by that signal) and what it wrote to stdout."""

    exit_code: int
    stdout: str


class HostProcess:
    """A running helper: steps go in as JSON lines, replies come out in the same order."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stderr, _deaf_to_sigint():
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
            )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Return the helper's process id."""
        return self._process.pid

    def send(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Hand in a step; it starts when the steps before it have ended."""
        line = json.dumps({"argv": list(arguments), "env": dict(environment)})
        try:
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise HostDiedError from None

    def receive(self, seconds: float | None) -> Reply | None:
        """Return the next reply, or None if there is none within ``seconds`` (None: wait).

        Raises:
            HostDiedError: there will be none.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._buffer:
            patience = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._stdout], [], [], patience)[0]:
                return None
            block = os.read(self._stdout.fileno(), _READ_BYTES)
            if not block:
                raise HostDiedError
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        document = json.loads(line)
        return Reply(int(document["exit"]), str(document["stdout"]))

    def terminate(self) -> None:
        """Ask the helper and its step to end."""
        self._process.send_signal(signal.SIGTERM)

    def end(self, seconds: float = GENTLE_SECONDS) -> None:
        """Close the helper's input, which ends it, and wait; kill it after ``seconds``. Idempotent."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._stdout.close()

    def kill(self) -> None:
        """End the helper at once; the kernel then asks its step to end."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def _deaf_to_sigint() -> Iterator[None]:
    """Let a child inherit an ignored SIGINT: Ctrl-C reaches the whole process group, and only we answer it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
