"""CloudWatch's PutMetricData and what SNS was given: kept for the tests to read."""

from __future__ import annotations

from typing import Any

from moto.sns.models import sns_backends

from tests.aws.standin.answers import Answer, make_error
from tests.aws.standin.identity import ACCOUNT, REGION
from tests.aws.standin.rights import ApiCall

SERVICE = "monitoring"


class Metrics:
    """Every value that was put, in order."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []

    def answer(self, call: ApiCall) -> Answer:
        """Carry a call out."""
        if call.operation != "PutMetricData":
            return make_error("json", 400, "UnknownOperationException", f"the stand-in has no {call.operation}")
        namespace = call.parameters.get("Namespace", "")
        given = call.parameters.get("MetricData", [])
        if not namespace or namespace.startswith("AWS/") or not given:
            told = "The value for parameter Namespace is invalid."
            return make_error("json", 400, "InvalidParameterValueException", told)
        for point in given:
            dimensions = {one["Name"]: one["Value"] for one in point.get("Dimensions", [])}
            self.points.append(
                {
                    "namespace": namespace,
                    "name": point["MetricName"],
                    "value": point.get("Value"),
                    "dimensions": dimensions,
                }
            )
        return Answer(200, [("Content-Type", "application/x-amz-json-1.0")], b"{}")


def read_notices() -> list[dict[str, str]]:
    """Return what was published to the account's topics."""
    return [
        {"topic": topic.arn, "message": str(sent[1]), "subject": str(sent[2] or "")}
        for topic in sns_backends[ACCOUNT][REGION].topics.values()
        for sent in topic.sent_notifications
    ]
