"""How moto's interpreter keeps time, reads paths and stops: waits as a test wants, one value for a definite path."""

from __future__ import annotations

import re
from typing import Any

from tests.aws.standin.patching import replace


class Tempo:
    """How long a second of Wait states and of pauses between retries takes."""

    def __init__(self) -> None:
        self.wait_scale = 1.0


TEMPO = Tempo()


def scale_waits() -> None:
    """Let Wait states and the pauses before retries take as long as the test wants; timeouts stay as they are."""
    import time

    from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
    from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction

    def wait(self: Any, env: Any, wait_seconds: float) -> None:
        until = time.monotonic() + wait_seconds * TEMPO.wait_scale
        while env.is_running() and (left := until - time.monotonic()) > 0:
            env.program_state_event.wait(min(left, 0.2))

    class Clock:
        @staticmethod
        def sleep(seconds: float) -> None:
            time.sleep(seconds * TEMPO.wait_scale)

    replace(WaitFunction, _wait_interval=wait)
    replace(retrier_decl, time=Clock)


def patch_paths() -> None:
    """Let a path without wildcards be its one value, as `$.Jobs[0].Status`; moto makes a list of that one."""
    import sys

    from moto.stepfunctions.parser.asl.utils import json_path

    usual = json_path.extract_json

    def extract(path: str, data: Any) -> Any:
        found = usual(path, data)
        if re.search(r"[*?:,]|\.\.", path) or not re.search(r"\[\d+\]\.\w+$", path):
            return found
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    for name, module in list(sys.modules.items()):
        if name.startswith("moto.stepfunctions") and getattr(module, "extract_json", None) is usual:
            replace(module, extract_json=extract)


def keep_stops() -> None:
    """Let what is stopped end as ABORTED, whatever its states still run into."""
    from moto.stepfunctions.parser.asl.component.state.exec.state_map.iteration import iteration_worker
    from moto.stepfunctions.parser.asl.eval.environment import Environment
    from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped

    fail, time_out = Environment.set_error, Environment.set_timed_out

    def set_error(env: Any, error: Any) -> None:
        with env._state_mutex:
            if not isinstance(env._program_state, ProgramStopped):
                fail(env, error)

    def set_timed_out(env: Any) -> None:
        with env._state_mutex:
            if not isinstance(env._program_state, ProgramStopped):
                time_out(env)

    replace(Environment, set_error=set_error, set_timed_out=set_timed_out)
    replace(iteration_worker, FailureEvent=_make_failure)


def _make_failure(env: Any, error_name: Any, event_type: Any, event_details: Any = None) -> Any:
    """Return the failure of a Map's iteration; moto gives a stopped one its error, a text, in the place of details."""
    from moto.stepfunctions.parser.api import HistoryEventType
    from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent

    if event_type == HistoryEventType.MapIterationAborted:
        stopped = env.program_state()
        told = {"error": stopped.error, "cause": stopped.cause}
        details = {name: text for name, text in told.items() if text is not None}
        event_details = {"executionFailedEventDetails": details}
    return FailureEvent(env=env, error_name=error_name, event_type=event_type, event_details=event_details)
