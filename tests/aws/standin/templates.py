"""CloudFormation templates: parameters and capabilities checked, and what a change set would change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack

MAX_BODY_BYTES = 51_200
MAX_RESOURCES = 500

_NAMED_IAM = {
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::User": "UserName",
    "AWS::IAM::Group": "GroupName",
}
_IAM = {*_NAMED_IAM, "AWS::IAM::Policy", "AWS::IAM::AccessKey", "AWS::IAM::UserToGroupAddition"}


@dataclass(frozen=True)
class Template:
    """A template as it was sent, and read."""

    text: str
    document: Mapping[str, Any]

    @property
    def resources(self) -> Mapping[str, Any]:
        return self.document["Resources"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Change:
    """What happens to one resource."""

    action: str
    name: str
    kind: str
    physical: str = ""
    replacement: str = ""

    def describe(self) -> dict[str, Any]:
        """Return it as DescribeChangeSet does."""
        told = {
            "Action": self.action,
            "LogicalResourceId": self.name,
            "ResourceType": self.kind,
            **({"PhysicalResourceId": self.physical} if self.physical else {}),
            **({"Replacement": self.replacement} if self.replacement else {}),
            "Scope": ["Properties"] if self.action == "Modify" else [],
            "Details": [],
        }
        return {"Type": "Resource", "ResourceChange": told}


def read_template(text: str) -> Template:
    """Read a template.

    Raises:
        ValidationError: it is too long for a request, or no template.
    """
    if len(text.encode()) > MAX_BODY_BYTES:
        raise ValidationError(
            message="1 validation error detected: Value at 'templateBody' failed to satisfy constraint: Member must "
            f"have length less than or equal to {MAX_BODY_BYTES}"
        )
    document = Stack.parse_template(text)
    if not isinstance(document, dict):
        raise ValidationError(message="Template format error: unsupported structure.")
    if not document.get("Resources"):
        raise ValidationError(message="Template format error: At least one Resources member must be defined.")
    if len(document["Resources"]) > MAX_RESOURCES:
        raise ValidationError(message=f"Template format error: Number of resources exceeds the limit {MAX_RESOURCES}")
    _check_references(document)
    return Template(text, document)


def _check_references(document: Mapping[str, Any]) -> None:
    known = {*document.get("Parameters", {}), *document["Resources"]}
    asked = {name for name in references(document["Resources"]) if not name.startswith("AWS::")}
    missing = sorted(asked - known - set(document.get("Conditions", {})))
    if missing:
        raise ValidationError(
            message=f"Template format error: Unresolved resource dependencies [{', '.join(missing)}] in the Resources "
            "block of the template"
        )


def check_parameters(
    template: Template, given: Sequence[Mapping[str, Any]], previous: Mapping[str, str]
) -> dict[str, str]:
    """Return the value of every parameter as text.

    Raises:
        ValidationError: one is unknown, missing, or not allowed.
    """
    slots = template.document.get("Parameters", {})
    unknown = [one["ParameterKey"] for one in given if one["ParameterKey"] not in slots]
    if unknown:
        raise ValidationError(message=f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {name: _text(slot["Default"]) for name, slot in slots.items() if "Default" in slot}
    for one in given:
        name = one["ParameterKey"]
        kept = str(one.get("UsePreviousValue")).lower() == "true"
        values[name] = previous[name] if kept else str(one.get("ParameterValue", ""))
    missing = [name for name in slots if name not in values]
    if missing:
        raise ValidationError(message=f"Parameters: [{', '.join(missing)}] must have values")
    for name, slot in slots.items():
        _check_value(name, slot, values[name])
    return {name: values[name] for name in slots}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_value(name: str, slot: Mapping[str, Any], value: str) -> None:
    allowed = [_text(one) for one in slot.get("AllowedValues", [])]
    entries = value.split(",") if slot["Type"] == "CommaDelimitedList" else [value]
    if allowed and not set(entries) <= set(allowed):
        raise ValidationError(message=f"Template error: Parameter '{name}' must be one of AllowedValues")
    if "AllowedPattern" in slot and not all(re.fullmatch(slot["AllowedPattern"], entry) for entry in entries):
        raise ValidationError(message=f"Parameter '{name}' must match pattern {slot['AllowedPattern']}")
    if slot["Type"] == "Number":
        try:
            number = float(value)
        except ValueError:
            raise ValidationError(message=f"Parameter '{name}' must be a number.") from None
        if number < float(slot.get("MinValue", number)) or number > float(slot.get("MaxValue", number)):
            raise ValidationError(message=f"Parameter '{name}' must be a number between its MinValue and MaxValue")
    if len(value) < int(slot.get("MinLength", 0)) or len(value) > int(slot.get("MaxLength", 10**9)):
        raise ValidationError(message=f"Parameter '{name}' must contain at least MinLength, at most MaxLength")
    if slot["Type"].startswith("AWS::") and not value:
        raise ValidationError(
            message=f"Parameter validation failed: parameter value for parameter name {name} does not exist"
        )


def needed_capabilities(template: Template, given: Sequence[str]) -> str:
    """Return the capability that a template needs and a request lacks, or nothing."""
    kinds = [(one["Type"], one.get("Properties", {})) for one in template.resources.values()]
    if any(kind in _NAMED_IAM and _NAMED_IAM[kind] in properties for kind, properties in kinds):
        return "" if "CAPABILITY_NAMED_IAM" in given else "CAPABILITY_NAMED_IAM"
    if any(kind in _IAM for kind, _ in kinds):
        return "" if {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(given) else "CAPABILITY_IAM"
    return ""


# --- what changes -------------------------------------------------------------------------------------------------


def references(node: Any) -> Iterator[str]:
    """Yield the names of the parameters, resources and conditions that a part of a template speaks of."""
    if isinstance(node, list):
        for entry in node:
            yield from references(entry)
    elif isinstance(node, Mapping):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value[0] if isinstance(value, list) else value.partition(".")[0]
            elif key == "Fn::Sub":
                yield from _substituted(value)
            else:
                if key == "Fn::If":
                    yield value[0]
                yield from references(value)


def _substituted(value: Any) -> Iterator[str]:
    text, own = (value[0], value[1]) if isinstance(value, list) else (value, {})
    yield from references(own)
    for name in re.findall(r"\$\{([^!}][^}]*)\}", text):
        if name not in own:
            yield name.strip().partition(".")[0]


def find_changes(
    stack: Stack, template: Template, parameters: Mapping[str, str], tags: Mapping[str, str]
) -> list[Change]:
    """Return what carrying a template out would do to the resources of a stack."""
    # Read anew: moto completes the resources of the one that it holds.
    document = Stack.parse_template(str(stack.template)) if stack.template_dict else {}
    old, had = _effective(document, stack.parameters or {})
    new, has = _effective(template.document, parameters)
    physical = {
        name: str(getattr(found, "physical_resource_id", ""))
        for name, found in stack.resource_map._parsed_resources.items()
        if name in old
    }
    retagged = bool(old) and dict(stack.tags or {}) != dict(tags)
    changes = [Change("Add", name, new[name]["Type"]) for name in new if name not in old]
    for name in new:
        if name in old and (_differs(name, old, new, had, has) or retagged):
            renamed = "True" if _renamed(old[name], new[name]) else "False"
            changes.append(Change("Modify", name, new[name]["Type"], physical.get(name, ""), renamed))
    gone = [name for name in old if name not in new]
    return changes + [Change("Remove", name, old[name]["Type"], physical.get(name, "")) for name in gone]


def _effective(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the resources whose conditions hold, and the values of parameters and conditions."""
    if not document:
        return {}, {}
    values: dict[str, Any] = {name: _text(value) for name, value in parameters.items()}
    for name in document.get("Conditions", {}):
        values[name] = judge(document, name, parameters)
    kept = {
        name: resource
        for name, resource in document["Resources"].items()
        if "Condition" not in resource or values[resource["Condition"]]
    }
    return kept, values


def judge(document: Mapping[str, Any], name: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether a condition of a template holds."""

    def value_of(node: Any) -> str:
        if isinstance(node, Mapping):
            if "Ref" in node:
                return _text(parameters.get(node["Ref"], node["Ref"]))
            if "Fn::Join" in node:
                separator, entries = node["Fn::Join"]
                if isinstance(entries, Mapping):
                    return str(separator).join(value_of(entries).split(","))
                return str(separator).join(value_of(entry) for entry in entries)
            if "Fn::Select" in node:
                index, entries = node["Fn::Select"]
                return value_of(entries).split(",")[int(index)]
            raise NotImplementedError(f"{next(iter(node))} in a condition")
        return _text(node)

    def holds(node: Mapping[str, Any]) -> bool:
        if "Condition" in node:
            return judge(document, node["Condition"], parameters)
        [(operator, operands)] = node.items()
        if operator == "Fn::Equals":
            return value_of(operands[0]) == value_of(operands[1])
        if operator == "Fn::Not":
            return not holds(operands[0])
        return all(map(holds, operands)) if operator == "Fn::And" else any(map(holds, operands))

    return holds(document["Conditions"][name])


def _differs(
    name: str, old: Mapping[str, Any], new: Mapping[str, Any], had: Mapping[str, Any], has: Mapping[str, Any]
) -> bool:
    if json.dumps(old[name], sort_keys=True, default=str) != json.dumps(new[name], sort_keys=True, default=str):
        return True
    return any(had.get(one) != has.get(one) for one in references(new[name]))


def _renamed(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    def names(one: Mapping[str, Any]) -> list[str]:
        return [json.dumps(v) for k, v in sorted(one.get("Properties", {}).items()) if k.endswith("Name")]

    return names(old) != names(new)
