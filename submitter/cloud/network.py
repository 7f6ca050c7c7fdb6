"""The network of the hosts: given subnets or the default VPC, and whether anything leads from there to AWS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from jobspec.errors import NotFoundError, UsageError
from jobspec.stores.s3errors import code_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained, message_of

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import RouteTableTypeDef, RouteTypeDef, SubnetTypeDef, VpcEndpointTypeDef

ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "logs")
"""What a host without a way to the internet needs an interface endpoint for, S3's gateway beside them."""


@dataclass(frozen=True)
class Network:
    """Where hosts start; ``route_tables`` get an S3 gateway endpoint from the stack."""

    vpc: str
    subnets: tuple[str, ...]
    route_tables: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def parameters(self) -> dict[str, str]:
        """Return the template's parameters about it."""
        return {
            "VpcId": self.vpc,
            "SubnetIds": ",".join(self.subnets),
            "RouteTableIds": ",".join(self.route_tables),
        }


def find_network(
    clients: Clients, stack: str, subnets: Sequence[str] | None, before: Mapping[str, str], *, s3_endpoint: bool | None
) -> Network:
    """Return the network of the stack; costs three or four requests.

    Args:
        clients: clients of AWS.
        stack: the stack's name; its own endpoint is not taken for somebody else's.
        subnets: what was asked for, None to keep what the stack has, or to take the default VPC's.
        before: the parameters of the deployed stack.
        s3_endpoint: whether the stack may add an S3 gateway endpoint where there is none; None keeps what it did.

    Raises:
        NotFoundError: a subnet does not exist, or nothing was named and there is no default VPC.
        UsageError: the subnets lie in several VPCs.
    """
    kept = tuple(part for part in before.get("SubnetIds", "").split(",") if part)
    found = _named_subnets(clients, subnets or kept) if subnets or kept else _default_subnets(clients)
    vpcs = sorted({subnet["VpcId"] for subnet in found})
    if len(vpcs) > 1:
        raise UsageError(f"--subnets names subnets of several VPCs: {', '.join(vpcs)}. Name subnets of one.")
    names = tuple(sorted(subnet["SubnetId"] for subnet in found))
    with explained("Reading the routes of the subnets"):
        tables = clients.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": vpcs}])["RouteTables"]
        endpoints = clients.ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": vpcs}])["VpcEndpoints"]
    used = {subnet["SubnetId"]: table_of(subnet["SubnetId"], tables) for subnet in found}
    covered = _covered_by_others(endpoints, clients.region, stack)
    bare = sorted({table["RouteTableId"] for table in used.values() if table} - covered)
    if s3_endpoint is None and before and names == tuple(sorted(kept)):
        wanted = tuple(part for part in before.get("RouteTableIds", "").split(",") if part)
    else:
        wanted = () if s3_endpoint is False else tuple(bare)
    warnings = tuple(_warnings(found, used, endpoints, clients.region, has_s3=set(bare) <= set(wanted)))
    return Network(vpcs[0], names, wanted, warnings)


def _named_subnets(clients: Clients, names: Sequence[str]) -> list[SubnetTypeDef]:
    from botocore.exceptions import ClientError

    with explained("Reading the subnets"):
        try:
            return clients.ec2.describe_subnets(SubnetIds=list(names))["Subnets"]
        except ClientError as error:
            if not code_of(error).lower().startswith("invalidsubnetid"):
                raise
            raise NotFoundError(
                f"--subnets names what is not in {clients.region}: {message_of(error)} 'aws ec2 describe-subnets' "
                "lists what there is."
            ) from None


def _default_subnets(clients: Clients) -> list[SubnetTypeDef]:
    with explained("Looking for the default VPC"):
        vpcs = clients.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
        mine = [{"Name": "vpc-id", "Values": [vpc["VpcId"] for vpc in vpcs]}]
        found = clients.ec2.describe_subnets(Filters=mine)["Subnets"] if vpcs else []  # type: ignore[arg-type]
    if not found:
        what = "no subnets in the default VPC" if vpcs else "no default VPC"
        raise NotFoundError(
            f"There is {what} in {clients.region}. Make it with 'aws ec2 create-default-"
            f"{'subnet --availability-zone ZONE' if vpcs else 'vpc'}', or name subnets of a VPC of yours: --subnets "
            "subnet-1,subnet-2."
        )
    return found


def table_of(subnet: str, tables: Sequence[RouteTableTypeDef]) -> RouteTableTypeDef | None:
    """Return the route table of a subnet: its own, else the main one of the VPC."""
    links = [(table, link) for table in tables for link in table.get("Associations", [])]
    own = next((table for table, link in links if link.get("SubnetId") == subnet), None)
    return own or next((table for table, link in links if link.get("Main")), None)


def _covered_by_others(endpoints: Sequence[VpcEndpointTypeDef], region: str, stack: str) -> set[str]:
    """Return the route tables that have an S3 gateway endpoint which is not the stack's own."""
    covered: set[str] = set()
    for endpoint in endpoints:
        tags = {tag["Key"]: tag["Value"] for tag in endpoint.get("Tags", [])}
        is_gateway = endpoint.get("VpcEndpointType") == "Gateway" and endpoint["ServiceName"].endswith(f".{region}.s3")
        if is_gateway and tags.get("foldfleet:stack") != stack:
            covered |= set(endpoint.get("RouteTableIds", []))
    return covered


def _warnings(
    subnets: Sequence[SubnetTypeDef],
    used: Mapping[str, RouteTableTypeDef | None],
    endpoints: Sequence[VpcEndpointTypeDef],
    region: str,
    *,
    has_s3: bool,
) -> Iterator[str]:
    missing = missing_endpoints(endpoints, region)
    for subnet in subnets:
        name, table = subnet["SubnetId"], used[subnet["SubnetId"]]
        obstacle = find_obstacle(subnet, table, missing)
        way = _way_out(table)
        if obstacle == "nameless":
            yield (
                f"The subnet {name} leads to the internet and gives its hosts no public address: they will not reach "
                f"ECS. 'aws ec2 modify-subnet-attribute --subnet-id {name} --map-public-ip-on-launch', or name other "
                "subnets."
            )
        elif obstacle is not None:
            yield (
                f"The subnet {name} has no way out of its VPC, and the VPC has no endpoints for {', '.join(missing)}: "
                "hosts will start and never take a task. Give it a NAT gateway or these interface endpoints, or name "
                "other subnets."
            )
        elif way is not None and not _is_internet(way) and not has_s3:
            yield f"The subnet {name} reaches S3 through a NAT gateway, which is billed by the GB: allow --s3-endpoint."


def find_obstacle(
    subnet: SubnetTypeDef, table: RouteTableTypeDef | None, missing: Sequence[str]
) -> Literal["closed", "gone", "nameless"] | None:
    """Return what keeps hosts of a subnet from ECS, the registry and the logs, None where nothing does.

    Args:
        subnet: the subnet.
        table: its route table.
        missing: the services for which its network has no endpoint.

    Returns:
        ``closed``: no route leads out; ``gone``: what the route leads to is gone; ``nameless``: it is an internet
        gateway, which translates no address, and hosts have no public one.
    """
    if not missing:
        return None
    route = _way_out(table)
    if route is None:
        return "closed"
    if route.get("State") == "blackhole":
        return "gone"
    return "nameless" if _is_internet(route) and not subnet.get("MapPublicIpOnLaunch") else None


def _way_out(table: RouteTableTypeDef | None) -> RouteTypeDef | None:
    routes = table.get("Routes", []) if table else []
    return next((route for route in routes if route.get("DestinationCidrBlock") == "0.0.0.0/0"), None)


def _is_internet(route: RouteTypeDef) -> bool:
    return str(route.get("GatewayId", "")).startswith("igw-")


def missing_endpoints(endpoints: Sequence[VpcEndpointTypeDef], region: str) -> list[str]:
    """Return the services for which a network has no endpoint that can be used."""
    present = {endpoint["ServiceName"].rpartition(f"{region}.")[2] for endpoint in endpoints if is_up(endpoint)}
    return [service for service in ENDPOINTS if service not in present]


def is_up(endpoint: VpcEndpointTypeDef) -> bool:
    """Say whether an endpoint can be used."""
    return str(endpoint.get("State", "")).lower() == "available"
