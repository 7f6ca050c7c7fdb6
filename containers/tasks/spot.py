"""The notice that a spot host is about to be taken back: about two minutes ahead, best effort.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from containers.tasks.metadata import InstanceMetadata

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""How often AWS advises to look."""

RESERVE_SECONDS = 20.0
"""Before the host goes: time to write down what is finished, also while the store answers slowly."""

NOTICE_SECONDS = 120.0
"""The longest notice; a later time would only mean that this host's clock is wrong."""

_PATH = "spot/instance-action"
_TRIES = 3
"""A service that was silent this often in a row is left alone: where it is missing, each look costs its whole time."""


class SpotWatch:
    """Look for the notice now and then, in the task's parent; a look takes at most some seconds, mostly none.

    Without ``metadata`` the host is nobody's to take back.
    """

    def __init__(
        self,
        metadata: InstanceMetadata | None,
        now: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metadata = metadata
        self._now = now
        self._clock = clock
        self._due = float("-inf")
        self._silent = 0
        self._deadline: float | None = None

    def deadline(self) -> float | None:
        """Return until when (by ``now``) work may go on, or None while no notice has come.

        Whatever is not written down by then may be lost.
        """
        waits = self._deadline is None and self._silent < _TRIES
        if self._metadata is not None and waits and self._now() >= self._due:
            self._look(self._metadata)
            self._due = self._now() + POLL_SECONDS
        return self._deadline

    def _look(self, metadata: InstanceMetadata) -> None:
        try:
            notice = metadata.get(_PATH)
        except OSError as error:
            self._silent += 1
            if self._silent == _TRIES:
                log.warning("spot_notice_unknown reason=%s: a reclaimed host will be gone without a warning", error)
            return
        self._silent = 0
        if notice is not None:
            left = _seconds_left(notice, self._clock())
            self._deadline = self._now() + max(left - RESERVE_SECONDS, 0.0)
            log.warning("spot_notice host goes in %.0f s: no more cells are begun notice=%s", left, notice.strip())


def _seconds_left(notice: str, clock: float) -> float:
    """Return how long the host stays, none where the notice does not tell."""
    try:
        at = datetime.fromisoformat(json.loads(notice)["time"])
    except (ValueError, KeyError, TypeError):
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return min(max(at.timestamp() - clock, 0.0), NOTICE_SECONDS)
