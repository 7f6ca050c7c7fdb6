"""The CloudFormation template of the stack, as it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jobspec.errors import LimitError

MAX_TEMPLATE_BYTES = 51_200
"""A longer template would have to lie in a bucket first.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
"""


def load_template() -> dict[str, Any]:
    """Read the template; what its anchors share is written out."""
    from ruamel.yaml import YAML

    text = files("submitter.cloud").joinpath("template.yaml").read_text(encoding="utf-8")
    document = YAML(typ="safe", pure=True).load(text)
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def render_template(*, indent: int | None = None) -> str:
    """Return the template as JSON, which CloudFormation takes as it takes YAML; without ``indent`` the shortest.

    Raises:
        LimitError: it has become too long for a request.
    """
    separators = None if indent else (",", ":")
    body = json.dumps(load_template(), indent=indent, separators=separators)
    if indent is None and len(body.encode()) > MAX_TEMPLATE_BYTES:
        raise LimitError(f"The template has {len(body.encode())} bytes; CloudFormation takes {MAX_TEMPLATE_BYTES}.")
    return body


def defaults(template: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that parameters have unless they are told otherwise."""
    return {
        name: str(parameter["Default"]) for name, parameter in template["Parameters"].items() if "Default" in parameter
    }
