"""What was called: by whom, which action, on what, and how IAM decided. Tests hold the deployed roles against it."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """One authorization. A request that needs several rights (SubmitJob: queue and definition) leaves several.

    Attributes:
        principal: ``user/NAME``, ``role/NAME``, or ``service/NAME`` for AWS acting on its own.
        action: as IAM names it, such as ``batch:SubmitJob``.
        resource: an ARN, or ``*``.
        decision: ``allowed``, ``denied`` (a statement denies it) or ``not allowed`` (no statement allows it).
        context: the condition keys that the request carried.
        number: counts the requests; those of one request share it.
    """

    principal: str
    action: str
    resource: str
    decision: str
    context: tuple[tuple[str, str], ...] = ()
    number: int = 0


class Recorder:
    """Keep the calls in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._number = 0

    def next_number(self) -> int:
        """Return the number of a request that has just come."""
        with self._lock:
            self._number += 1
            return self._number

    def note(self, call: Call) -> None:
        """Keep a call."""
        with self._lock:
            self._calls.append(call)

    def read(self, start: int = 0) -> list[dict[str, object]]:
        """Return the calls from a position on, as plain data."""
        with self._lock:
            return [dataclasses.asdict(call) for call in self._calls[start:]]

    def clear(self) -> None:
        """Forget all calls."""
        with self._lock:
            self._calls.clear()
