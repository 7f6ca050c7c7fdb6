"""A healthy account and stack as answers of AWS, one table to change by each test; no client, no network."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from botocore.exceptions import ClientError

from submitter.cloud.record import ImageRecord
from submitter.cloud.stack import Stack
from tests.unit.cloudy import ACCOUNT, REGION, make_record, make_stack

NOW = 1_750_000_000.0
DATE = "Sun, 15 Jun 2025 15:06:40 GMT"
"""NOW, as AWS tells it."""

ENVIRONMENT = make_stack().spot_environment_arn


def client_error(code: str, words: str, operation: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": words}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def denied(action: str) -> ClientError:
    words = f"User: arn:aws:iam::{ACCOUNT}:user/me is not authorized to perform: {action} on resource: *"
    return client_error("AccessDeniedException", words, action.partition(":")[2], 403)


def outputs(stack: Stack) -> list[dict[str, str]]:
    """Return a stack as CloudFormation tells it."""
    values = {name: value for name, value in vars(stack).items() if name not in ("name", "region", "account")}
    values |= {"max_vcpus": str(stack.max_vcpus), "instance_types": ",".join(stack.instance_types)}
    values |= {"data_places": ",".join(stack.data_places), "events": "yes" if stack.events else "no"}
    return [
        {"OutputKey": "".join(part.capitalize() for part in name.split("_")), "OutputValue": value}
        for name, value in values.items()
        if value is not None
    ]


def healthy() -> dict[str, Any]:
    """Return what AWS answers where all is well, by operation."""
    stack = make_stack()
    name = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/foldfleet/1"
    subnet = {"SubnetId": "subnet-1", "VpcId": "vpc-1", "MapPublicIpOnLaunch": True, "AvailableIpAddressCount": 250}
    return {
        "get_caller_identity": {
            "Account": ACCOUNT,
            "Arn": f"arn:aws:iam::{ACCOUNT}:user/me",
            "ResponseMetadata": {"HTTPHeaders": {"date": DATE}},
        },
        "describe_stacks": {
            "Stacks": [
                {
                    "StackName": "foldfleet",
                    "StackId": name,
                    "StackStatus": "CREATE_COMPLETE",
                    "Outputs": outputs(stack),
                }
            ]
        },
        "get_role": {"Role": {}},
        "get_service_quota": {"Quota": {"Value": 256.0}},
        "describe_job_queues": {"jobQueues": [{"state": "ENABLED", "status": "VALID"}]},
        "describe_compute_environments": {
            "computeEnvironments": [
                {
                    "computeEnvironmentArn": ENVIRONMENT,
                    "state": "ENABLED",
                    "status": "VALID",
                    "computeResources": {"desiredvCpus": 8, "maxvCpus": 64, "subnets": ["subnet-1"]},
                }
            ]
        },
        "describe_subnets": {"Subnets": [subnet]},
        "describe_route_tables": {
            "RouteTables": [
                {
                    "RouteTableId": "rtb-1",
                    "VpcId": "vpc-1",
                    "Associations": [{"Main": True}],
                    "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1", "State": "active"}],
                }
            ]
        },
        "describe_vpc_endpoints": {
            "VpcEndpoints": [
                {
                    "ServiceName": f"com.amazonaws.{REGION}.s3",
                    "State": "available",
                    "VpcEndpointType": "Gateway",
                    "RouteTableIds": ["rtb-1"],
                }
            ]
        },
        "list_jobs": {"jobSummaryList": []},
        "describe_jobs": {"jobs": []},
        **image_answers(make_record()),
    }


def image_answers(record: ImageRecord) -> dict[str, Any]:
    """Return what the registry and Batch say of an image that is whole."""
    arns = record.definitions.values()
    return {
        "batch_get_image": {
            "images": [{"imageId": {"imageDigest": record.image_digest}, "imageManifest": json.dumps({})}]
        },
        "describe_job_definitions": {"jobDefinitions": [{"jobDefinitionArn": arn, "status": "ACTIVE"} for arn in arns]},
    }


class FakeAws:
    """Stands for `Clients`: every service answers from ``answers``; an exception there is raised."""

    region = REGION
    account = ACCOUNT

    def __init__(self) -> None:
        self.answers = copy.deepcopy(healthy())
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in {"batch", "cloudformation", "ec2", "ecr", "iam", "quotas", "sts"}:
            return self
        if name.startswith("_") or name not in self.__dict__.get("answers", {}):
            raise AttributeError(name)
        return lambda **asked: self._answer(name, asked)

    def _answer(self, name: str, asked: dict[str, Any]) -> Any:
        self.calls.append(name)
        answer = self.answers[name]
        if callable(answer):
            answer = answer(**asked)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def change(self, operation: str, path: str, value: Any) -> None:
        """Set a value within an answer, named by keys and positions with dots between them."""
        *steps, last = path.split(".")
        place = self.answers[operation]
        for step in steps:
            place = place[int(step)] if step.isdigit() else place[step]
        place[int(last) if last.isdigit() else last] = value


def stacks(name: str = "foldfleet") -> Iterator[Stack]:
    """Yield a stack with and one without an on-demand environment."""
    yield make_stack(name)
    yield replace(make_stack(name), on_demand_environment_arn=ENVIRONMENT.replace("spot", "demand"))
