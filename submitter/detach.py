"""Let a committed run go on without this terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from submitter.liveness import Liveness
from submitter.preparation import Desk

START_SECONDS = 10.0
POLL_SECONDS = 0.05


def start_detached(desk: Desk, liveness: Liveness, workers: int) -> Path:
    """Start ``submit resume`` in a session of its own, and return its log once it drives the run (or has ended)."""
    run_id = liveness.run_id
    log = liveness.cache / "logs" / f"{run_id}-detached-{os.getpid()}.log"
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
    child.returncode = child.returncode or 0  # it is to outlive us: no warning about a child left behind
    return log
