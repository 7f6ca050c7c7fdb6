"""Processes of test servers: ports that are free, readiness asked for, an end that comes whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LONGEST_START_S = 120
_TRIES = 3
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def serving_at_free_ports(count: int, prepare: Callable[[list[int]], Sequence[str]], log: Path) -> Iterator[list[int]]:
    """Run a server until the block ends; yield its ports when HTTP is answered at the first of them.

    Another process may take a port between choosing it and using it: then others are chosen.

    Args:
        count: how many ports it listens at.
        prepare: gets the ports, and returns the command.
        log: what it writes.
    """
    with contextlib.ExitStack() as stack:
        for left in reversed(range(_TRIES)):
            ports = free_ports(count)
            command = prepare(ports)
            try:
                stack.enter_context(serving(command, ports[0], log))
                break
            except TimeoutError:  # at its port: it hangs
                raise
            except OSError:
                if not left:
                    raise
        yield ports


@contextlib.contextmanager
def serving(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends; enter it when HTTP is answered at ``port``.

    Raises:
        OSError: the server ended before, as when another process took one of its ports.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, which takes no lock
        )
    try:
        _await_answer(process, port, log)
        yield
    finally:
        process.kill()
        process.wait()


def _die_with_parent() -> None:
    """Let the kernel end the server when the tests are killed (Linux)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + LONGEST_START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise OSError(f"the server ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}")
        if _answers(port):
            return
        # The process's end wakes this early; there is nothing else to wait upon.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise TimeoutError(f"no answer within {LONGEST_START_S} s: {log.read_text(errors='replace')[-2000:]}")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as asked:
            asked.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return asked.recv(5) == b"HTTP/"
    except OSError:
        return False
