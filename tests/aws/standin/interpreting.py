"""How moto's interpreter keeps time and reads paths: waits as long as a test wants, definite paths as one value."""

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
