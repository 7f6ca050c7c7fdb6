"""EventBridge: events reach the rules as they are deployed, and their targets under the targets' own roles.

https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-transform-target-input.html
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import queue
import re
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from moto.events.models import EventsBackend, Rule, events_backends
from moto.sqs.models import Queue, sqs_backends

from tests.aws.standin import iam
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, REGION, Principal, RefusedIdentity
from tests.aws.standin.machines import start_execution
from tests.aws.standin.patching import replace

_LOG = logging.getLogger(__name__)
SERVICE = "events.amazonaws.com"
_HOLE = re.compile(r"<([^<>]+)>")


class Undelivered(Exception):
    """An event did not reach a target; ``code`` is what a dead letter says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Bus:
    """The account's default bus. Events are delivered by a thread, in order, each ``copies`` times."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.copies = 1
        self.is_held = False
        self.undelivered: list[dict[str, str]] = []
        self.published: list[dict[str, Any]] = []
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue()
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._deliver_all, name="events", daemon=True).start()

    def install(self) -> None:
        """Let what is put go the way of what services emit; moto's own services emit nothing."""
        _keep_letters()
        replace(Rule, send_to_targets=lambda _rule, _event, _transform_input=True: None)
        check = EventsBackend.put_events

        def put(backend: EventsBackend, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
            told = check(backend, events)
            for at, (entry, answer) in enumerate(zip(events, told, strict=True)):
                if entry.get("Source", "").startswith("aws."):
                    told[at] = {
                        "ErrorCode": "NotAuthorizedForSourceException",
                        "ErrorMessage": "Not authorized for the source.",
                    }
                elif "EventId" in answer:
                    self.emit(self._publish(entry, answer["EventId"]))
            return told

        replace(EventsBackend, put_events=put)

    def _publish(self, entry: Mapping[str, Any], identity: str) -> dict[str, Any]:
        """Keep and return an event that somebody put."""
        event = {
            "id": identity,
            "source": entry["Source"],
            "detail-type": entry["DetailType"],
            "detail": json.loads(entry["Detail"]),
            "resources": list(entry.get("Resources", [])),
        }
        self.published.append(event)
        return event

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take an event of an AWS service; what it does not say is filled in."""
        self._waiting.put(
            {
                "version": "0",
                "id": str(uuid.uuid4()),
                "account": ACCOUNT,
                "time": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "region": REGION,
                "resources": [],
                **event,
            }
        )

    def hold(self, on: bool) -> None:
        """Keep events back, or let them go."""
        if on:
            self._open.clear()
        else:
            self._open.set()

    def _deliver_all(self) -> None:
        while True:
            event = self._waiting.get()
            self._open.wait()
            for _ in range(self.copies):
                for rule in list(events_backends[ACCOUNT][REGION].event_buses["default"].rules.values()):
                    try:
                        self.offer(rule, event)
                    except Exception:  # noqa: BLE001 - the other rules still get theirs
                        _LOG.exception("an event was lost to rule %s", rule.name)

    def offer(self, rule: Rule, event: Mapping[str, Any]) -> None:
        """Send an event to a rule's targets, if the rule is about it."""
        if rule.state != "ENABLED" or not rule.event_pattern.get_pattern():
            return
        if not rule.event_pattern.matches_event(event):  # type: ignore[arg-type]
            return
        for target in rule.targets:
            try:
                self._send(rule, target, event)
            except Undelivered as error:
                self._bury(rule, target, event, error)

    def _send(self, rule: Rule, target: Mapping[str, Any], event: Mapping[str, Any]) -> None:
        arn = target["Arn"]
        service = arn.split(":")[2]
        text = make_input(target, event)
        if service == "states":
            self._check_role(rule, target, "states:StartExecution", arn)
            # What names executions on AWS cannot be chosen: two ids.
            start_execution(arn, f"{event['id']}_{uuid.uuid4()}", text)
        elif service == "sqs":
            sqs_backends[ACCOUNT][REGION].send_message(arn.rpartition(":")[2], text)
        elif service == "logs":
            rule._send_to_cw_log_group(arn.split(":")[6], json.loads(text))
        else:
            raise Undelivered("NO_RESOURCE", f"the stand-in delivers nothing to {arn}")

    def _check_role(self, rule: Rule, target: Mapping[str, Any], action: str, resource: str) -> None:
        role = target.get("RoleArn")
        if not role:
            raise Undelivered("NO_PERMISSIONS", f"the target {target['Id']} of {rule.name} has no role")
        try:
            context = {"aws:sourcearn": [rule.arn]}
            key = self.guard.identities.make_session(role, SERVICE, "events", dt.datetime.now(dt.UTC), context)
        except RefusedIdentity as error:
            self._note(Principal("role", role.rpartition("/")[2], "events"), "sts:AssumeRole", role, iam.NOT_ALLOWED)
            raise Undelivered("NO_PERMISSIONS", str(error)) from error
        decision = self.guard.decide(key.principal, iam.Asked(action, resource))
        self._note(key.principal, action, resource, decision)
        if decision != iam.ALLOWED:
            raise Undelivered("NO_PERMISSIONS", f"{role} may not {action} on {resource}")

    def _note(self, principal: Principal, action: str, resource: str, decision: str) -> None:
        self.guard.record(principal, iam.Asked(action, resource), decision, self.guard.recorder.next_number())

    def _bury(self, rule: Rule, target: Mapping[str, Any], event: Mapping[str, Any], error: Undelivered) -> None:
        """Put what a target did not take into the rule's dead-letter queue, if it has one."""
        _LOG.warning("undelivered: %s", error)
        self.undelivered.append({"rule": rule.name, "code": error.code, "message": str(error)})
        dead = target.get("DeadLetterConfig", {}).get("Arn")
        if dead:
            named = {"RULE_ARN": rule.arn, "TARGET_ARN": target["Arn"], "ERROR_CODE": error.code}
            attributes = {name: {"data_type": "String", "string_value": value} for name, value in named.items()}
            backend = sqs_backends[ACCOUNT][REGION]
            backend.send_message(dead.rpartition(":")[2], json.dumps(event), message_attributes=attributes)


def _keep_letters() -> None:
    """Let no letter be lost that is delivered while another is deleted: moto puts a new list in the place of all."""
    delete = Queue.delete_message

    def delete_alone(queue: Queue, receipt_handle: str) -> None:
        with queue._messages_lock:
            delete(queue, receipt_handle)

    replace(Queue, delete_message=delete_alone)


def make_input(target: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """Return what a target gets: a constant, a part of the event, a template that was filled in, or the event."""
    if "Input" in target:
        return str(target["Input"])
    if "InputPath" in target:
        return json.dumps(find_path(event, target["InputPath"]))
    if "InputTransformer" not in target:
        return json.dumps(event)
    transformer = target["InputTransformer"]
    found = {name: find_path(event, path) for name, path in transformer.get("InputPathsMap", {}).items()}
    found["aws.events.event.json"] = event
    text = fill_in(transformer["InputTemplate"], found)
    try:
        json.loads(text)
    except ValueError as error:
        raise Undelivered("INVALID_JSON", f"the input template makes {text!r}: {error}") from error
    return text


def fill_in(template: str, found: Mapping[str, Any]) -> str:
    """Fill a template's holes: within quotes bare text, outside of them JSON; what the event lacks is left out."""
    parts, at, quoted = [], 0, False
    for hole in _HOLE.finditer(template):
        before = template[at : hole.start()]
        quoted ^= len(re.findall(r'(?<!\\)"', before)) % 2 == 1
        value = found.get(hole[1])
        if value is None:
            text = ""
        elif quoted:
            plain = value if isinstance(value, str) else json.dumps(value)
            text = json.dumps(plain)[1:-1]
        else:
            text = json.dumps(value)
        parts += [before, text]
        at = hole.end()
    return "".join([*parts, template[at:]])


def find_path(event: Mapping[str, Any], path: str) -> Any:
    """Return what lies at a path such as ``$.detail.parameters.run`` or ``$.resources[0]``; None if nothing does."""
    node: Any = event
    for name, index in re.findall(r"\.([\w-]+)|\[(\d+)\]", path.removeprefix("$")):
        if name:
            node = node.get(name) if isinstance(node, Mapping) else None
        else:
            node = node[int(index)] if isinstance(node, list) and int(index) < len(node) else None
    return node
