"""What the first process of a container owes the others, for a plain ``docker run`` without ``--init``.

The kernel drops every signal for which process 1 has no handler, and a Python handler does not run while compiled
code holds the main thread: 29 s late inside ``SVC.fit``. A step that is process 1 itself could not be stopped gently
then. So it runs in a child, where signals act as anywhere, and process 1 passes them on and reaps orphans.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def run_in_child(run: Callable[[], int]) -> int:
    """Run in a child process and return its exit code, 128 + n if signal n ended it.

    Call it before there are threads and before anything large is imported.
    """
    watched = {*_PASSED_ON, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # what is blocked waits for sigwait, in process 1 too
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
        return run()
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            os.kill(child, number)
        elif (status := _reap(child)) is not None:
            exit_code = os.waitstatus_to_exitcode(status)
            return exit_code if exit_code >= 0 else 128 - exit_code


def _reap(child: int) -> int | None:
    """Reap every process that has ended; return the status of ``child`` if it is among them."""
    status = None
    while True:
        try:
            ended, found = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if ended == 0:
            return status
        if ended == child:
            status = found
