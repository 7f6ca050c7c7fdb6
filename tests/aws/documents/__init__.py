"""Events of S3 and Step Functions as AWS sends them (README.md says where each is from)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in HERE.glob("*.json")))
EXECUTIONS = tuple(sorted(path.stem for path in (HERE / "executions").glob("*.json")))


def load(name: str, *, bucket: str = "", key: str = "", account: str = "", region: str = "") -> dict[str, Any]:
    """Return a document, as it would be of another object."""
    event: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
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


def load_execution(name: str, *, machine: str = "", execution: str = "") -> dict[str, Any]:
    """Return a document about an execution, as it would be of another one; both are ARNs."""
    event: dict[str, Any] = json.loads((HERE / "executions" / f"{name}.json").read_text(encoding="utf-8"))
    if machine:
        event["detail"]["stateMachineArn"] = machine
    if execution:
        event["resources"] = [execution]
        event["detail"] |= {"executionArn": execution, "name": execution.rpartition(":")[2]}
    return event
