"""Let a committed run go on without this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from submitter.liveness import Liveness
from submitter.preparation import Desk

START_SECONDS = 10.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Detached:
    """A background process: its log, and what it ended with if it has ended already."""

    log: Path
    exit_code: int | None

    def last_words(self) -> str:
        """Return the last line of its log, which is why it ended."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "It said nothing.")


def start_detached(desk: Desk, liveness: Liveness, workers: int) -> Detached:
    """Start ``submit resume`` in a session of its own; return once it drives the run, or has ended.

    A machine so slow that neither is true after `START_SECONDS` is believed to be starting it.
    """
    run_id = liveness.run_id
    log = liveness.settings.cache / "logs" / f"{run_id}-detached-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "submitter", "resume", run_id, "--store", desk.store.url]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*command, "--workers", str(workers)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None and not liveness.is_driven():
        time.sleep(POLL_SECONDS)
    exit_code = child.poll()
    child.returncode = 0  # it is to outlive us: no warning about a child left behind
    return Detached(log, exit_code)
