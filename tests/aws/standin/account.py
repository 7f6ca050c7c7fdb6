"""The account around the stack: its quotas, its default network, what a new account lacks."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

from moto.core.config import default_user_config
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import InstanceTypeOfferingBackend
from moto.iam.models import SERVICE_NAME_CONVERSION
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse

from tests.aws.standin.identity import ACCOUNT, PARTITION, REGION
from tests.aws.standin.patching import replace

SPOT_VCPUS = "L-34B43A08"
ON_DEMAND_VCPUS = "L-1216C47A"
_NAMES = {
    SPOT_VCPUS: "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ON_DEMAND_VCPUS: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
}


class Quotas:
    """EC2's quotas that bound a compute environment; tests set them."""

    def __init__(self) -> None:
        self.values = {SPOT_VCPUS: 640.0, ON_DEMAND_VCPUS: 640.0}

    def install(self) -> None:
        """Answer Service Quotas' calls."""

        def get(response: Any) -> str:
            asked = json.loads(response.body)
            if asked["ServiceCode"] != "ec2" or asked["QuotaCode"] not in self.values:
                raise NoSuchResource
            return json.dumps({"Quota": self._describe(asked["QuotaCode"])})

        def listed(response: Any) -> str:
            known = self.values if json.loads(response.body)["ServiceCode"] == "ec2" else {}
            return json.dumps({"Quotas": [self._describe(code) for code in known]})

        replace(
            ServiceQuotasResponse,
            get_service_quota=get,
            get_aws_default_service_quota=get,
            list_service_quotas=listed,
        )

    def _describe(self, code: str) -> dict[str, Any]:
        return {
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:{PARTITION}:servicequotas:{REGION}:{ACCOUNT}:ec2/{code}",
            "QuotaCode": code,
            "QuotaName": _NAMES[code],
            "Value": self.values[code],
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }


def install() -> None:
    """Load AWS's managed policies, and give the default network its way out."""
    default_user_config["iam"] = {"load_aws_managed_policies": True}
    default_user_config["core"]["mock_credentials"] = False
    SERVICE_NAME_CONVERSION.update({"batch": "Batch", "spot": "EC2Spot", "spotfleet": "EC2SpotFleet", "ecs": "ECS"})
    _let_filters_match_wildcards()
    ec2 = ec2_backends[ACCOUNT][REGION]
    vpc = ec2.get_default_vpc()
    assert vpc is not None
    gateway = ec2.create_internet_gateway()
    ec2.attach_internet_gateway(gateway.id, vpc.id)
    table = ec2.get_main_route_table_for_vpc(vpc.id) if hasattr(ec2, "get_main_route_table_for_vpc") else None
    tables = [table] if table else [one for one in ec2.route_tables.values() if one.vpc_id == vpc.id]
    for one in tables:
        ec2.create_route(one.id, "0.0.0.0/0", None, gateway_id=gateway.id)


def _let_filters_match_wildcards() -> None:
    """Match types of instances as EC2's filters do, with ``*`` and ``?``; moto compares them as they stand."""
    match = InstanceTypeOfferingBackend.matches_filters

    def match_any(backend: Any, offering: dict[str, Any], filters: dict[str, list[str]], location_type: str) -> bool:
        given = dict(filters)
        types = given.pop("instance-type", None)
        found = types is None or any(fnmatch.fnmatchcase(offering["InstanceType"], one) for one in types)
        return found and match(backend, offering, given, location_type)

    replace(InstanceTypeOfferingBackend, matches_filters=match_any)
