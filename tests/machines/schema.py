"""The documented schema of our events."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FILE = Path(__file__).parents[2] / "docs" / "events.schema.json"


@cache
def validator() -> Any:
    """Return the validator of an event's detail."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_event(detail: dict[str, Any]) -> None:
    """Check the detail of an event."""
    validator().validate(detail)
