"""The controls of the stand-in, over HTTP: what tests turn, and what they ask. `cloud.Cloud` is their face."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Callable
from typing import Any

from tests.aws.standin import iam
from tests.aws.standin.account import Quotas
from tests.aws.standin.answers import Answer
from tests.aws.standin.events import Bus
from tests.aws.standin.faults import Fault
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ADMIN, DESK, Principal
from tests.aws.standin.interpreting import TEMPO
from tests.aws.standin.metrics import Metrics, read_notices
from tests.aws.standin.schedules import Scheduler

Given = dict[str, Any]


def answer_json(document: Any, status: int = 200) -> Answer:
    """Return an answer that holds a document."""
    body = json.dumps(document, default=str).encode()
    return Answer(status, [("Content-Type", "application/json")], body)


class Controls:
    """Each method of the table takes the posted document and returns what is answered."""

    def __init__(
        self,
        guard: Guard,
        bus: Bus,
        quotas: Quotas,
        batch: Any,
        environment: dict[str, str],
        scheduler: Scheduler,
        metrics: Metrics,
    ) -> None:
        self.guard = guard
        self.bus = bus
        self.quotas = quotas
        self.batch = batch
        self.environment = environment
        self.metrics = metrics
        self._table: dict[str, Callable[[Given], Any]] = {
            "environments": self.environments,
            "calls": lambda given: guard.recorder.read(given.get("start", 0)),
            "forget_calls": lambda _given: guard.recorder.clear(),
            "fault": lambda given: guard.faults.add(Fault(**given)),
            "faults": lambda _given: [dataclasses.asdict(fault) for fault in guard.faults.left()],
            "no_faults": lambda _given: guard.faults.clear(),
            "expire": lambda given: guard.identities.expire(given["role"]),
            "events": self.set_events,
            "undelivered": lambda _given: bus.undelivered,
            "emit": bus.emit,
            "published": lambda given: bus.published[given.get("start", 0) :],
            "metrics": lambda _given: metrics.points,
            "notices": lambda _given: read_notices(),
            "fire_schedule": lambda given: scheduler.fire(**given),
            "quota": lambda given: quotas.values.update({given["code"]: given["value"]}),
            "may": self.may,
            "hosts": lambda given: batch.hosts(**given),
            "reclaim": lambda given: batch.reclaim(given["instance_id"], given.get("notice_s", 0.0)),
            "simulate": lambda given: batch.simulate(given["on"]),
            "options": self.set_options,
            "hold": lambda _given: batch.hold(),
            "release": lambda _given: batch.release(),
            "jobs": lambda _given: batch.jobs(),
            "forget_ended": lambda _given: batch.forget_ended(),
            "close": self.close,
        }

    def answer(self, name: str, given: Given) -> Answer:
        """Do what is asked; an error is told, not raised."""
        if name not in self._table:
            return answer_json({"error": f"there is no control {name!r}; there are {', '.join(self._table)}"}, 404)
        try:
            return answer_json({"answer": self._table[name](given)})
        except Exception as error:  # noqa: BLE001 - the test that asked is told
            return answer_json({"error": f"{type(error).__name__}: {error}"}, 400)

    def environments(self, _given: Given) -> dict[str, dict[str, str]]:
        """Return the environment of each user."""
        made = {}
        for key in self.guard.identities.keys.values():
            if key.principal in {Principal("user", ADMIN), Principal("user", DESK)}:
                own = {"AWS_ACCESS_KEY_ID": key.access_key, "AWS_SECRET_ACCESS_KEY": key.secret}
                made[key.principal.name] = {**self.environment, **own, "AWS_EC2_METADATA_DISABLED": "true"}
        return made

    def set_options(self, given: Given) -> None:
        """Set options of the fleet, and how long a second of a state machine's waiting takes."""
        TEMPO.wait_scale = given.pop("wait_scale", TEMPO.wait_scale)
        if given:
            self.batch.set_options(**given)

    def set_events(self, given: Given) -> None:
        """Hold events back or let them go, and say how often each is delivered."""
        self.bus.copies = given.get("copies", self.bus.copies)
        if "hold" in given:
            self.bus.hold(given["hold"])

    def may(self, given: Given) -> str:
        """Return IAM's decision without recording it."""
        kind, _, name = given["principal"].partition("/")
        context = {key: [value] for key, value in given.get("context", {}).items()}
        asked = iam.Asked(given["action"], given["resource"], context)
        return self.guard.decide(Principal(kind, name, "asked"), asked)

    def close(self, _given: Given) -> None:
        """End all containers, then the process."""
        self.batch.close()
        threading.Timer(0.05, os._exit, args=(0,)).start()
