"""Events of S3 as AWS sends them (README.md says where each is from)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.json")))


def load(name: str, *, bucket: str = "", key: str = "", account: str = "", region: str = "") -> dict[str, Any]:
    """Return a document, as it would be of another object."""
    event: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    if bucket:
        event["resources"] = [f"arn:aws:s3:::{bucket}"]
        event["detail"]["bucket"]["name"] = bucket
    if key:
        event["detail"]["object"]["key"] = key
    if account:
        event["account"] = event["detail"]["requester"] = account
    if region:
        event["region"] = region
    return event
