"""What carries a change set out: resource after resource, with an event for each, and back again when one fails."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from moto.cloudformation.models import Event, Stack
from moto.cloudformation.parsing import parse_and_update_resource

from tests.aws.standin.templates import Change, Template, references

_LOG = logging.getLogger(__name__)


def create(
    stack: Stack, template: Template, parameters: Mapping[str, str], tags: Mapping[str, str], changes: Sequence[Change]
) -> None:
    """Make a stack; what fails is removed again, and the stack stays as ROLLBACK_COMPLETE."""
    try:
        _adopt(stack, template, parameters, tags)
        for change in _in_order(template, changes):
            _make(stack, change)
        stack.resource_map.create(copy.deepcopy(dict(template.document)))  # tags
        stack.output_map = stack._create_output_map()
        assert stack.outputs is None or stack.outputs  # each is computed
    except Exception as error:  # noqa: BLE001 - whatever a service refuses is told in the stack's events
        _LOG.warning("stack failed", exc_info=True)
        set_status(stack, "ROLLBACK_IN_PROGRESS", f"The following resource(s) failed to create: {error}")
        _remove(stack, [change.name for change in changes], keep_retained=False)
        set_status(stack, "ROLLBACK_COMPLETE")
        return
    set_status(stack, "CREATE_COMPLETE")


def update(
    stack: Stack, template: Template, parameters: Mapping[str, str], tags: Mapping[str, str], changes: Sequence[Change]
) -> None:
    """Bring a stack to a new template; what fails leads back to the one before."""
    before = Template(str(stack.template), stack.template_dict)
    had, old_tags = dict(stack.parameters), dict(stack.tags)
    physical = dict(stack.resource_map._parsed_resources)
    try:
        _adopt(stack, template, parameters, tags)
        stack.resource_map._parsed_resources.update(
            {name: found for name, found in physical.items() if name in before.resources}
        )
        for change in _in_order(template, changes):
            (_make if change.action == "Add" else _modify)(stack, change)
        stack.output_map = stack._create_output_map()
        assert stack.outputs is None or stack.outputs
    except Exception as error:  # noqa: BLE001 - as above
        _LOG.warning("update failed", exc_info=True)
        set_status(stack, "UPDATE_ROLLBACK_IN_PROGRESS", f"The following resource(s) failed to update: {error}")
        _remove(stack, [change.name for change in changes if change.action == "Add"], keep_retained=False)
        _adopt(stack, before, had, old_tags)
        kept = {name: physical[name] for name in before.resources if name in physical}
        stack.resource_map._parsed_resources.update(kept)
        stack.output_map = stack._create_output_map()
        set_status(stack, "UPDATE_ROLLBACK_COMPLETE")
        return
    set_status(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    gone = [change.name for change in changes if change.action == "Remove"]
    stack.resource_map._resource_json_map = {**{n: before.resources[n] for n in gone}, **template.resources}
    _remove(stack, gone, keep_retained=True)
    stack.resource_map._resource_json_map = dict(template.resources)
    set_status(stack, "UPDATE_COMPLETE")


def delete(stack: Stack, retained: set[str]) -> bool:
    """Remove a stack's resources but those to retain; return whether all went, and the stack may go."""
    names = [name for name in stack.resource_map if name not in retained]
    failed = _remove(stack, names, keep_retained=True)
    if failed:
        set_status(stack, "DELETE_FAILED", f"The following resource(s) failed to delete: [{', '.join(failed)}]. ")
        return False
    return True


def _adopt(stack: Stack, template: Template, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
    stack.template = template.text
    stack.template_dict = copy.deepcopy(dict(template.document))
    stack.description = stack.template_dict.get("Description")
    stack.parameters = dict(parameters)
    stack.tags = dict(tags)
    stack.resource_map = stack._create_resource_map()


def _in_order(template: Template, changes: Sequence[Change]) -> list[Change]:
    """Return the additions and changes, each behind what it speaks of."""
    by_name = {change.name: change for change in changes if change.action != "Remove"}
    ordered: dict[str, Change] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"Circular dependency between resources: [{', '.join(path)}]")
        if name in ordered or name not in template.resources:
            return
        resource = template.resources[name]
        given = resource.get("DependsOn", [])
        after = [given] if isinstance(given, str) else list(given)
        for other in [*after, *references(resource.get("Properties", {}))]:
            visit(other, (*path, name))
        if name in by_name:
            ordered[name] = by_name[name]

    for name in by_name:
        visit(name, ())
    return list(ordered.values())


def _physical(found: Any) -> str:
    return str(getattr(found, "physical_resource_id", "") or "")


def _make(stack: Stack, change: Change) -> None:
    note_resource(stack, change.name, change.kind, "CREATE_IN_PROGRESS", "")
    try:
        made: Any = stack.resource_map[change.name]
        if made is None:
            raise ValueError(f"Unrecognized resource types: [{change.kind}]")
    except Exception as error:
        note_resource(stack, change.name, change.kind, "CREATE_FAILED", "", str(error))
        raise
    note_resource(stack, change.name, change.kind, "CREATE_COMPLETE", _physical(made))


def _modify(stack: Stack, change: Change) -> None:
    note_resource(stack, change.name, change.kind, "UPDATE_IN_PROGRESS", change.physical)
    resources = stack.resource_map
    try:
        document = copy.deepcopy(resources._resource_json_map[change.name])
        made: Any = parse_and_update_resource(
            change.name, document, resources, account_id=stack.account_id, region_name=stack.region_name
        )
    except Exception as error:
        note_resource(stack, change.name, change.kind, "UPDATE_FAILED", change.physical, str(error))
        raise
    if made is not None:  # None: moto cannot change this type in place, and the one that is there stays
        resources._parsed_resources[change.name] = made
    note_resource(stack, change.name, change.kind, "UPDATE_COMPLETE", change.physical)


def _remove(stack: Stack, names: Sequence[str], *, keep_retained: bool) -> list[str]:
    """Remove resources, dependants first; return the names of those that would not go."""
    resources = stack.resource_map
    left = {}
    for name in names:
        found = resources._parsed_resources.get(name)
        if found is None or isinstance(found, str):
            continue
        document = resources._resource_json_map[name]
        if keep_retained and document.get("DeletionPolicy") in {"Retain", "RetainExceptOnCreate"}:
            note_resource(stack, name, document["Type"], "DELETE_SKIPPED", _physical(found))
        else:
            left[name] = found
    reasons: dict[str, str] = {}
    while left:
        before = len(left)
        for name in _dependants_first(resources._resource_json_map, left):
            try:
                resources._delete_resource(left[name], copy.deepcopy(resources._resource_json_map[name]))
            except Exception as error:  # noqa: BLE001 - told in the stack's events, and tried again
                reasons[name] = str(error)
                continue
            kind = resources._resource_json_map[name]["Type"]
            note_resource(stack, name, kind, "DELETE_COMPLETE", _physical(left.pop(name)))
            resources._parsed_resources.pop(name, None)
        if len(left) == before:
            break
    for name, found in left.items():
        kind = resources._resource_json_map[name]["Type"]
        note_resource(stack, name, kind, "DELETE_FAILED", _physical(found), reasons[name])
    return list(left)


def _dependants_first(documents: Mapping[str, Any], names: Mapping[str, Any]) -> list[str]:
    ordered: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        for other in names:
            given = documents[other].get("DependsOn", [])
            after = [given] if isinstance(given, str) else list(given)
            if other != name and name in {*after, *references(documents[other].get("Properties", {}))}:
                visit(other)
        if name not in ordered:
            ordered.append(name)

    for name in names:
        visit(name)
    return ordered


def set_status(stack: Stack, status: str, reason: str | None = None) -> None:
    """Put a stack into a status, with an event that whoever finds the status finds too."""
    stack._add_stack_event(status, resource_status_reason=reason)
    stack.status = status


def note_resource(stack: Stack, name: str, kind: str, status: str, physical: str, reason: str | None = None) -> None:
    """Add an event about one resource."""
    event = Event(stack.stack_id, stack.name, name, physical, kind, status, reason, json.dumps({}))
    stack.events.append(event)
