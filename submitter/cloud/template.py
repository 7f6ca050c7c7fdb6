"""The CloudFormation template of the stack: as people read it, and as it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jobspec.errors import LimitError

MAX_TEMPLATE_BYTES = 51_200
"""A longer template would have to lie in a bucket first, which a new stack does not have yet.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
"""

MAX_PARAMETER_BYTES = 4_096
MAX_PARAMETERS = 200

_MACHINE = "AWS::StepFunctions::StateMachine"


@dataclass(frozen=True)
class Sent:
    """A template as it is sent: definitions of state machines travel beside it, as parameters of its own."""

    body: str
    parameters: Mapping[str, str]


def load_template() -> dict[str, Any]:
    """Read the template; what its anchors share is written out, and its state machines are put in."""
    from ruamel.yaml import YAML

    text = files("submitter.cloud").joinpath("template.yaml").read_text(encoding="utf-8")
    document = YAML(typ="safe", pure=True).load(text)
    plain: dict[str, Any] = json.loads(json.dumps(document))
    _put_machines_in(plain)
    return plain


def _put_machines_in(template: dict[str, Any]) -> None:
    """Replace the name of each definition by the definition, whose holes CloudFormation fills."""
    from submitter.machines.conclude import conclude_definition
    from submitter.machines.intake import intake_definition
    from submitter.machines.names import HOLES
    from submitter.machines.search import search_definition

    definitions = {"search": search_definition, "intake": intake_definition, "conclude": conclude_definition}
    for resource in template["Resources"].values():
        if resource["Type"] == _MACHINE:
            properties = resource["Properties"]
            text = _dump(definitions[properties["DefinitionString"]](HOLES))
            known = properties["DefinitionSubstitutions"]
            properties["DefinitionString"] = text
            properties["DefinitionSubstitutions"] = {
                name: value for name, value in known.items() if f"${{{name}}}" in text
            }


def render_template() -> str:
    """Return the whole template as JSON, which CloudFormation takes as it takes YAML: for people, and from a bucket."""
    return json.dumps(load_template(), indent=2)


def pack_template() -> Sent:
    """Return the template as it fits into a request: parameters do not count to its length.

    Raises:
        LimitError: it has become too long even so.
    """
    template = load_template()
    given: dict[str, str] = {}
    for name, resource in template["Resources"].items():
        if resource["Type"] == _MACHINE:
            properties = resource["Properties"]
            pieces = dict(_pieces(name, properties["DefinitionString"]))
            properties["DefinitionString"] = {"Fn::Join": ["", [{"Ref": piece} for piece in pieces]]}
            given |= pieces
    template["Parameters"] |= {name: {"Type": "String"} for name in given}
    body = _dump(template)
    if len(body.encode()) > MAX_TEMPLATE_BYTES or len(template["Parameters"]) > MAX_PARAMETERS:
        raise LimitError(
            f"The template has {len(body.encode())} bytes and {len(template['Parameters'])} parameters; CloudFormation "
            f"takes {MAX_TEMPLATE_BYTES} and {MAX_PARAMETERS}."
        )
    return Sent(body, given)


def _pieces(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Cut a definition into values of parameters; none of them begins or ends with a blank, which might get lost."""
    number = 0
    while text:
        end = MAX_PARAMETER_BYTES
        while end < len(text) and " " in text[end - 1 : end + 1]:
            end -= 1
        number += 1
        yield f"{name}Definition{number:02}", text[:end]
        text = text[end:]


def defaults(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that parameters have unless they are told otherwise."""
    return {
        name: str(parameter["Default"]) for name, parameter in template["Parameters"].items() if "Default" in parameter
    }


def _dump(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))
