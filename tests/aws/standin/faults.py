"""Faults on demand: the n-th request of an action fails in a named way."""

from __future__ import annotations

import fnmatch
import threading
from dataclasses import dataclass, replace

KINDS = ("throttle", "internal", "denied", "lost_ack", "reset_before", "expired")
"""``lost_ack``: the call takes effect, the connection is closed without an answer. ``reset_before``: it takes none."""


@dataclass(frozen=True)
class Fault:
    """Which requests fail, and how.

    Args:
        action: an IAM action with wildcards, such as ``batch:SubmitJob`` or ``s3:*``.
        kind: one of `KINDS`.
        times: so many fail.
        after: so many matching requests pass first.
        resource: the ARN, with wildcards.
        principal: as in `recorder.Call`, with wildcards.
    """

    action: str
    kind: str
    times: int = 1
    after: int = 0
    resource: str = "*"
    principal: str = "*"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of fault; allowed are {', '.join(KINDS)}")

    def matches(self, principal: str, action: str, resource: str) -> bool:
        """Say whether this fault is about a request."""
        pairs = ((action.lower(), self.action.lower()), (resource, self.resource), (principal, self.principal))
        return all(fnmatch.fnmatchcase(value, pattern) for value, pattern in pairs)


class Faults:
    """Choose what happens to each request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Plan a fault beside those that are planned."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Plan none."""
        with self._lock:
            self._faults.clear()

    def left(self) -> list[Fault]:
        """Return the faults that have not been used up."""
        with self._lock:
            return list(self._faults)

    def choose(self, principal: str, action: str, resource: str) -> str | None:
        """Return the kind of the fault of a request that has just come, if any."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if not fault.matches(principal, action, resource):
                    continue
                if fault.after > 0:
                    self._faults[index] = replace(fault, after=fault.after - 1)
                    return None
                left = replace(fault, times=fault.times - 1)
                self._faults[index : index + 1] = [left] if left.times > 0 else []
                return fault.kind
        return None
