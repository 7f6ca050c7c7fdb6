"""Checks of a stack's network: hosts must reach ECS, the registry, S3 and the logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobspec.errors import ExitCode
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained
from submitter.cloud.network import find_obstacle, is_up, missing_endpoints, table_of
from submitter.cloud.stack import Stack
from submitter.doctor.findings import Finding, ok, warning, wrong

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import RouteTableTypeDef, SubnetTypeDef, VpcEndpointTypeDef

_FEW_ADDRESSES = 8


def check_network(clients: Clients, stack: Stack) -> Iterator[Finding]:
    """Look where the routes of the stack's subnets lead; four requests."""
    with explained("Looking at the compute environments"):
        found = clients.batch.describe_compute_environments(computeEnvironments=list(stack.environments))
    wanted = sorted({name for one in found["computeEnvironments"] for name in one["computeResources"]["subnets"]})
    if not wanted:
        yield wrong("network", "the compute environments have no subnets", "`submit infra up`", ExitCode.NOT_FOUND)
        return
    with explained("Looking at the subnets"):
        subnets = clients.ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": wanted}])["Subnets"]
    if absent := sorted(set(wanted) - {subnet["SubnetId"] for subnet in subnets}):
        text = f"subnets of the stack are gone: {', '.join(absent)}"
        yield wrong("network", text, "`submit infra up --subnets ...` with others", ExitCode.NOT_FOUND)
    if not subnets:
        return
    of_network: Any = [{"Name": "vpc-id", "Values": sorted({subnet["VpcId"] for subnet in subnets})}]
    with explained("Looking at the route tables"):
        tables = clients.ec2.describe_route_tables(Filters=of_network)["RouteTables"]
    with explained("Looking at the endpoints of the network"):
        endpoints = clients.ec2.describe_vpc_endpoints(Filters=of_network)["VpcEndpoints"]
    routed: dict[str, RouteTableTypeDef] = {
        subnet["SubnetId"]: table_of(subnet["SubnetId"], tables) or {} for subnet in subnets
    }
    yield from _check_ways(subnets, routed, missing_endpoints(endpoints, clients.region))
    yield from _check_s3(routed, endpoints)
    scarce = [one["SubnetId"] for one in subnets if one.get("AvailableIpAddressCount", 256) < _FEW_ADDRESSES]
    if scarce:
        text = f"hardly an address is left in {', '.join(scarce)}"
        yield warning("network", text, "`submit infra up --subnets ...` with larger ones")


def _check_ways(
    subnets: Sequence[SubnetTypeDef], routed: Mapping[str, RouteTableTypeDef], missing: Sequence[str]
) -> Iterator[Finding]:
    obstacles = {one["SubnetId"]: find_obstacle(one, routed[one["SubnetId"]], missing) for one in subnets}
    gone, closed, nameless = (
        [name for name, found in obstacles.items() if found == kind] for kind in ("gone", "closed", "nameless")
    )
    remedy = "`submit infra up --subnets ...` with subnets that have a route to the internet"
    if gone:
        text = f"the route out of {', '.join(gone)} leads to something that is gone (blackhole)"
        yield wrong("network", text, remedy, ExitCode.NOT_FOUND)
    if closed:
        text = f"no route leads out of {', '.join(closed)}: hosts there would never join"
        yield wrong("network", text, remedy, ExitCode.NOT_FOUND)
    for name in nameless:
        text = f"{name} leads to the internet and gives its hosts no public address: they would never join"
        remedy = f"`aws ec2 modify-subnet-attribute --subnet-id {name} --map-public-ip-on-launch`"
        yield wrong("network", text, remedy, ExitCode.NOT_FOUND)
    if not any(obstacles.values()):
        yield ok("network", f"{len(subnets)} subnets have a way to ECS, the registry and the logs")


def _check_s3(routed: Mapping[str, RouteTableTypeDef], endpoints: Sequence[VpcEndpointTypeDef]) -> Iterator[Finding]:
    gateways = [one for one in endpoints if str(one["ServiceName"]).endswith(".s3") and is_up(one)]
    served = {table for one in gateways for table in one.get("RouteTableIds") or ()}
    without = sorted(name for name, table in routed.items() if table.get("RouteTableId") not in served)
    if without:
        text = f"no S3 gateway endpoint serves {', '.join(without)}: behind a NAT gateway, S3 is billed by the GB"
        yield warning("network", text, "`submit infra up --s3-endpoint` makes one, free of charge.")
    else:
        yield ok("network", "an S3 gateway endpoint serves every subnet")
