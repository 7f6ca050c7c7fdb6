"""What `submit infra` decides, with AWS's answers made by hand: no requests, no waiting."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from jobspec.errors import (
    AccessError,
    FoldfleetError,
    InterruptedRun,
    LimitError,
    NotFoundError,
    TryLaterError,
    UsageError,
)
from submitter.cli import infra_commands
from submitter.cloud.bucket import Home
from submitter.cloud.clients import Clients
from submitter.cloud.errors import SERVICE, explained
from submitter.cloud.following import Follower, explain_failure
from submitter.cloud.infra import Proposal, deploy, propose_stack
from submitter.cloud.network import Network, find_network
from submitter.cloud.overview import count_tasks, explain_reason
from submitter.cloud.stack import check_stack_name, find_stack, read_stack
from submitter.cloud.teardown import Doomed, Holder, Request, check_name_typed, remove
from submitter.cloud.template import defaults, load_template
from submitter.cloud.wishes import Wishes, make_parameters

TEMPLATE = load_template()
ARN = "arn:aws:cloudformation:us-east-1:123456789012:stack/foldfleet/1"
OUTPUTS = {
    **dict.fromkeys(TEMPLATE["Outputs"], "x"),
    "QueueArn": "arn:aws:batch:us-east-1:123456789012:job-queue/foldfleet",
    "MaxVcpus": "64",
    "InstanceTypes": "m5, c5",
}


def refusal(code: str, words: str = "", operation: str = "DescribeStacks", status: int = 400) -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": words},
        "ResponseMetadata": {"HTTPStatusCode": status, SERVICE: "cloudformation"},
    }
    return ClientError(answer, operation)


def described(status: str, **more: Any) -> dict[str, Any]:
    outputs = [{"OutputKey": key, "OutputValue": value} for key, value in OUTPUTS.items()]
    tags = [{"Key": "foldfleet:stack", "Value": "foldfleet"}]
    return {"StackName": "foldfleet", "StackId": ARN, "StackStatus": status, "Outputs": outputs, "Tags": tags, **more}


class Answers:
    """A CloudFormation that gives prepared answers, one after another; the last one again and again."""

    def __init__(self, *stacks: Any, events: list[list[dict[str, str]]] | None = None) -> None:
        self.stacks, self.events, self.asked = list(stacks), events or [[]], list[str]()

    def describe_stacks(self, StackName: str) -> Any:
        answer = self.stacks.pop(0) if len(self.stacks) > 1 else self.stacks[0]
        if isinstance(answer, BaseException):
            raise answer
        return {"Stacks": [answer]}

    def delete_stack(self, StackName: str) -> None:
        self.asked.append(f"delete {StackName}")

    def get_paginator(self, name: str) -> Any:
        events = self.events.pop(0) if len(self.events) > 1 else self.events[0]
        return SimpleNamespace(paginate=lambda **_: [{"StackEvents": list(reversed(events))}])


def clients_of(**services: Any) -> Clients:
    made = SimpleNamespace(region="us-east-1", account="123456789012", partition="aws", **services)
    return cast("Clients", made)


def ignore(_: object) -> None:
    """Take what is told, or the seconds to wait, and do nothing."""


ABSENT = refusal("ValidationError", "Stack with id foldfleet does not exist")


# --- the stack ----------------------------------------------------------------------------------------------------


def test_a_stack_is_read_from_its_outputs() -> None:
    stack = find_stack(clients_of(cloudformation=Answers(described("UPDATE_COMPLETE"))), "foldfleet")
    assert stack.account == "123456789012"
    assert stack.max_vcpus == 64
    assert stack.instance_types == ("m5", "c5")
    assert stack.partition == "aws"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (ABSENT, NotFoundError, "submit infra up"),
        (described("REVIEW_IN_PROGRESS"), NotFoundError, "submit infra up"),
        (described("CREATE_IN_PROGRESS"), TryLaterError, "infra status"),
        (described("UPDATE_IN_PROGRESS"), TryLaterError, "infra status"),
        (described("ROLLBACK_COMPLETE"), UsageError, "infra up"),
        (described("UPDATE_COMPLETE", Outputs=[]), UsageError, "outputs lack"),
        (refusal("AccessDenied", status=403), AccessError, "cloudformation:DescribeStacks"),
    ],
)
def test_a_stack_that_cannot_be_used(answer: Any, kind: type[FoldfleetError], words: str) -> None:
    with pytest.raises(kind, match=words):
        find_stack(clients_of(cloudformation=Answers(answer)), "foldfleet")


@pytest.mark.parametrize("name", ["a", "a--b", "a-", "-a", "A", "1a", "a" * 33, "a_b", ""])
def test_names_that_a_bucket_or_a_repository_cannot_begin_with_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="2 to 32 lower-case"):
        check_stack_name(name)


def test_an_output_that_is_no_number_is_told() -> None:
    bad = [{"OutputKey": key, "OutputValue": "x"} for key in OUTPUTS]
    with pytest.raises(FoldfleetError, match="cannot be read"):
        read_stack(described("UPDATE_COMPLETE", Outputs=bad), "us-east-1")


# --- what AWS refuses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (refusal("AccessDeniedException", "User: x is not authorized to perform: batch:SubmitJob on resource: arn:y"),
         AccessError, "batch:SubmitJob is missing. Allow batch:SubmitJob on arn:y"),
        (refusal("UnauthorizedOperation", operation="CreateChangeSet"), AccessError, "cloudformation:CreateChangeSet"),
        (refusal("ExpiredToken"), AccessError, "expired"),
        (refusal("InvalidClientTokenId"), AccessError, "does not accept the credentials"),
        (refusal("RequestTimeTooSkewed"), AccessError, "clock"),
        (refusal("ThrottlingException", "Rate exceeded"), TryLaterError, "in some minutes"),
        (refusal("Whatever", status=503), TryLaterError, "in some minutes"),
        (refusal("ValidationError", "Parameter X is bad"), FoldfleetError, "Parameter X is bad."),
        (NoCredentialsError(), AccessError, "aws configure"),
        (EndpointConnectionError(endpoint_url="https://x"), TryLaterError, "AWS_REGION"),
    ],
)  # fmt: skip
def test_refusals_name_the_remedy(error: Exception, kind: type[FoldfleetError], words: str) -> None:
    with pytest.raises(kind) as told, explained("Looking"):
        raise error
    assert type(told.value) is kind
    assert words in told.value.message
    assert told.value.message.startswith("Looking")


def test_an_endpoint_that_is_no_url_is_told() -> None:
    with pytest.raises(UsageError, match="whole URL"), explained("Looking"):
        raise ValueError("Invalid endpoint: localhost")


# --- up -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("UPDATE_IN_PROGRESS", TryLaterError, "being changed already"),
        ("UPDATE_ROLLBACK_FAILED", UsageError, "continue-update-rollback"),
        ("DELETE_FAILED", UsageError, "infra down"),
        ("ROLLBACK_COMPLETE", UsageError, "--yes"),
    ],
)
def test_up_leaves_a_stack_alone_that_it_cannot_change(status: str, kind: type[FoldfleetError], words: str) -> None:
    clients = clients_of(cloudformation=Answers(described(status)))
    with pytest.raises(kind, match=words):
        propose_stack(clients, Wishes("foldfleet"), may_clear=False, tell=ignore, sleep=ignore)


def test_up_tells_before_it_clears_a_failed_first_attempt() -> None:
    failed, gone = described("ROLLBACK_COMPLETE"), described("DELETE_COMPLETE")
    cloudformation = Answers(failed, gone)
    said: list[str] = []
    ec2 = SimpleNamespace(describe_vpcs=lambda **_: {"Vpcs": []})
    with pytest.raises(NotFoundError, match="create-default-vpc"):
        propose_stack(
            clients_of(cloudformation=cloudformation, ec2=ec2),
            Wishes("foldfleet"),
            may_clear=True,
            tell=said.append,
            sleep=ignore,
        )
    assert cloudformation.asked == ["delete foldfleet"]
    assert "ROLLBACK_COMPLETE" in said[0]


@pytest.mark.parametrize(
    ("yes", "may_ask", "reply", "ending"),
    [
        (True, False, None, None),
        (False, True, True, None),
        (False, True, False, InterruptedRun),
        (False, False, None, UsageError),
    ],
)
def test_nothing_is_done_that_nobody_agreed_to(
    monkeypatch: pytest.MonkeyPatch,
    *,
    yes: bool,
    may_ask: bool,
    reply: bool | None,
    ending: type[FoldfleetError] | None,
) -> None:
    monkeypatch.setattr("typer.confirm", lambda *_, **__: reply)
    taken_back: list[bool] = []
    with nullcontext() if ending is None else pytest.raises(ending, match="Nothing was changed"):
        infra_commands._agree(lambda: taken_back.append(True), "Really?", yes=yes, may_ask=may_ask)
    assert bool(taken_back) == (ending is not None)


def test_data_are_deleted_only_when_their_bucket_was_typed() -> None:
    doomed = Doomed("foldfleet", "r", "a", ARN, "X", "q", "bucket", "foldfleet", True, True, (), (), 0)
    check_name_typed(doomed, " bucket ")
    with pytest.raises(UsageError, match="nothing was removed"):
        check_name_typed(doomed, "y")


class FakeIam:
    """IAM: which calls came, and which are refused."""

    def __init__(self, refused: bool = False) -> None:
        self.calls: list[tuple[str, ...]] = []
        self._refused = refused

    def __getattr__(self, name: str) -> Any:
        def call(PolicyArn: str, **given: str) -> None:
            self.calls.append((name, *given.values()))
            if self._refused:
                told: Any = {
                    "Error": {"Code": "AccessDenied", "Message": f"not authorized to perform: iam:{name}"},
                    "ResponseMetadata": {"HTTPStatusCode": 403},
                }
                raise ClientError(told, "DetachUserPolicy")

        return call


HELD = Doomed(
    "foldfleet", "r", "a", None, "X", "q", "bucket", "foldfleet", False, True, (), ("arn",), 0,
    (Holder("user", "ann", "policy"), Holder("group", "ml", "policy"), Holder("role", "ci", "other")),
)  # fmt: skip


def test_the_policy_is_taken_from_whoever_has_it() -> None:
    iam, batch = FakeIam(), mock.Mock()
    remove(mock.Mock(iam=iam, batch=batch), HELD, delete_data=False, tell=lambda _: None, sleep=lambda _: None)
    wanted = [("detach_user_policy", "ann"), ("detach_group_policy", "ml"), ("detach_role_policy", "ci")]
    assert iam.calls == wanted
    batch.deregister_job_definition.assert_called_once_with(jobDefinition="arn")


def test_nothing_is_removed_by_whom_may_not_take_the_policy_away() -> None:
    batch = mock.Mock()
    clients = mock.Mock(iam=FakeIam(refused=True), batch=batch)
    with pytest.raises(AccessError, match="iam:"):
        remove(clients, HELD, delete_data=False, tell=lambda _: None, sleep=lambda _: None)
    batch.deregister_job_definition.assert_not_called()


HOME = Home("foldfleet-1-us-east-1", "aws", is_new=True, has_own_policy=True)
NETWORK = Network("vpc-1", ("subnet-1", "subnet-2"), ("rtb-1",))


def test_what_is_not_asked_for_stays_as_it_is() -> None:
    before = {"MaxVcpus": "16", "OnDemand": "yes", "DataArns": "arn:aws:s3:::x/*", "Gone": "1"}
    made = make_parameters(Wishes("foldfleet", log_days=7), before, defaults(TEMPLATE), NETWORK, HOME)
    assert made["MaxVcpus"] == "16"
    assert made["OnDemand"] == "yes"
    assert made["DataArns"] == "arn:aws:s3:::x/*"
    assert made["LogDays"] == "7"
    assert made["SubnetIds"] == "subnet-1,subnet-2"
    assert set(made) == set(TEMPLATE["Parameters"])


def test_data_places_become_arns() -> None:
    wishes = Wishes("foldfleet", data=("s3://lake/tables/", "s3://other"))
    made = make_parameters(wishes, {}, defaults(TEMPLATE), NETWORK, HOME)
    assert made["DataArns"] == "arn:aws:s3:::lake/tables/*,arn:aws:s3:::other/*"
    assert make_parameters(Wishes("foldfleet"), {}, defaults(TEMPLATE), NETWORK, HOME)["DataArns"] == (
        "arn:aws:s3:::foldfleet-1-us-east-1/incoming/*"
    )


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes("foldfleet", log_days=6),
        Wishes("foldfleet", root_volume_gib=8),
        Wishes("foldfleet", max_price_percent=101),
        Wishes("foldfleet", instance_types=("optimal",)),
        Wishes("foldfleet", instance_types=("c7gn.large",)),
        Wishes("foldfleet", data=("s3://bucket/*",)),
        Wishes("foldfleet", data=('s3://bucket/a"b',)),
        Wishes("foldfleet", data=("s3://bucket/${aws:username}",)),
        Wishes("foldfleet", permissions_boundary="boundary"),
        Wishes("Foldfleet"),
        Wishes("-x"),
    ],
)
def test_wishes_that_no_stack_can_grant(wishes: Wishes) -> None:
    with pytest.raises(UsageError):
        wishes.check(TEMPLATE)


# --- the network --------------------------------------------------------------------------------------------------


def ec2_with(routes: list[dict[str, str]], *, public: bool = True, endpoints: list[Any] | None = None) -> Any:
    subnets = [{"SubnetId": f"subnet-{number}", "VpcId": "vpc-1", "MapPublicIpOnLaunch": public} for number in (1, 2)]
    tables = [{"RouteTableId": "rtb-1", "Associations": [{"Main": True}], "Routes": routes}]
    return SimpleNamespace(
        describe_vpcs=lambda **_: {"Vpcs": [{"VpcId": "vpc-1"}]},
        describe_subnets=lambda **_: {"Subnets": subnets},
        describe_route_tables=lambda **_: {"RouteTables": tables},
        describe_vpc_endpoints=lambda **_: {"VpcEndpoints": endpoints or []},
    )


INTERNET = [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}]
NAT = [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}]
GATEWAY = {"VpcEndpointType": "Gateway", "ServiceName": "com.amazonaws.us-east-1.s3", "RouteTableIds": ["rtb-1"]}


def test_the_default_network_gets_an_endpoint_where_there_is_none() -> None:
    found = find_network(clients_of(ec2=ec2_with(INTERNET)), "foldfleet", None, {}, s3_endpoint=None)
    assert found == Network("vpc-1", ("subnet-1", "subnet-2"), ("rtb-1",))
    assert found.warnings == ()
    clients = clients_of(ec2=ec2_with(INTERNET, endpoints=[GATEWAY]))
    with_one = find_network(clients, "foldfleet", None, {}, s3_endpoint=None)
    assert with_one.route_tables == ()


def test_the_stacks_own_endpoint_is_kept() -> None:
    own = {**GATEWAY, "Tags": [{"Key": "foldfleet:stack", "Value": "foldfleet"}]}
    clients = clients_of(ec2=ec2_with(INTERNET, endpoints=[own]))
    assert find_network(clients, "foldfleet", ["subnet-1"], {}, s3_endpoint=None).route_tables == ("rtb-1",)
    before = {"SubnetIds": "subnet-2,subnet-1", "RouteTableIds": "rtb-1"}
    assert find_network(clients, "foldfleet", None, before, s3_endpoint=None).route_tables == ("rtb-1",)
    assert find_network(clients, "foldfleet", None, before, s3_endpoint=False).route_tables == ()


@pytest.mark.parametrize(
    ("ec2", "words"),
    [
        (ec2_with(INTERNET, public=False), "no public address"),
        (ec2_with([]), "no endpoints for ecs, ecs-agent"),
        (ec2_with([{**NAT[0], "State": "blackhole"}]), "no way out"),
        (ec2_with(NAT), "billed by the GB"),
    ],
)
def test_networks_that_lead_nowhere_are_warned_of(ec2: Any, words: str) -> None:
    found = find_network(clients_of(ec2=ec2), "foldfleet", None, {}, s3_endpoint=False)
    assert any(words in warning for warning in found.warnings)


# --- waiting ------------------------------------------------------------------------------------------------------


def event(number: int, resource: str, status: str, reason: str = "") -> dict[str, str]:
    return {
        "EventId": str(number),
        "LogicalResourceId": resource,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
        "PhysicalResourceId": f"id-{resource}",
        "StackId": ARN,
    }


def test_each_thing_is_told_once_and_the_first_failure_is_the_reason() -> None:
    old = [event(1, "Old", "CREATE_COMPLETE")]
    later = [*old, event(2, "Bucket", "CREATE_COMPLETE")]
    last = [
        *later,
        event(3, "Queue", "CREATE_FAILED", "Resource creation cancelled"),
        event(4, "SpotEnvironment", "CREATE_FAILED", "API: batch:CreateComputeEnvironment You are not authorized"),
    ]
    stacks = [described("CREATE_IN_PROGRESS"), described("ROLLBACK_COMPLETE")]
    said: list[str] = []
    waited: list[float] = []
    clients = clients_of(cloudformation=Answers(*stacks, events=[old, later, last]))
    follower = Follower(clients, ARN, "foldfleet", said.append, waited.append)
    follower.begin()
    assert follower.wait() == "ROLLBACK_COMPLETE"
    assert said[0] == "Bucket made"
    assert [name for name, _ in follower.failures] == ["SpotEnvironment"]
    assert waited == [5.0]
    error = explain_failure("foldfleet", "ROLLBACK_COMPLETE", follower.failures, "run it again")
    assert isinstance(error, AccessError)
    assert "SpotEnvironment" in error.message


def test_a_stack_that_has_not_begun_to_change_is_not_taken_for_changed() -> None:
    old = [event(1, "Old", "CREATE_COMPLETE")]
    news = [*old, event(2, "Queue", "UPDATE_COMPLETE")]
    stacks = [described(status) for status in ("CREATE_COMPLETE", "UPDATE_IN_PROGRESS", "UPDATE_COMPLETE")]
    waited: list[float] = []
    clients = clients_of(cloudformation=Answers(*stacks, events=[old, old, news]))
    follower = Follower(clients, ARN, "foldfleet", ignore, waited.append)
    follower.begin()
    assert follower.wait() == "UPDATE_COMPLETE"
    assert len(waited) == 2


def test_a_stack_to_which_nothing_happens_is_believed_in_the_end() -> None:
    waited: list[float] = []
    clients = clients_of(cloudformation=Answers(described("UPDATE_COMPLETE")))
    assert Follower(clients, ARN, "foldfleet", ignore, waited.append).wait() == "UPDATE_COMPLETE"
    assert len(waited) == 6


def test_linked_roles_are_made_for_a_stack_that_stays_as_it_is() -> None:
    made: list[str] = []
    iam = SimpleNamespace(create_service_linked_role=lambda **asked: made.append(asked["AWSServiceName"]))
    clients = clients_of(iam=iam, cloudformation=Answers(described("UPDATE_COMPLETE")))
    home = Home("bucket", "aws", is_new=False, has_own_policy=True)
    network = Network("vpc-1", ("subnet-1",))
    proposal = Proposal("foldfleet", "us-east-1", "1", None, (), ("AWSServiceRoleForBatch",), home, network, {})
    assert not proposal.is_empty
    assert deploy(clients, proposal, tell=ignore, sleep=ignore).name == "foldfleet"
    assert made == ["batch.amazonaws.com"]


def test_failures_are_told_apart() -> None:
    attached = [("SubmitterPolicy", "Cannot delete a policy attached to entities.")]
    assert "Entities attached" in explain_failure("f", "DELETE_FAILED", attached, "again").message
    limit = explain_failure("f", "ROLLBACK_COMPLETE", [("X", "Maximum number of VPCs was reached")], "again")
    assert isinstance(limit, LimitError)
    assert isinstance(explain_failure("f", "ROLLBACK_COMPLETE", [("X", "already exists")], "again"), UsageError)
    assert "no reason" in explain_failure("f", "ROLLBACK_COMPLETE", [], "again").message


def test_ctrl_c_ends_the_waiting_and_says_what_goes_on() -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    cloudformation = Answers(described("CREATE_IN_PROGRESS"))
    follower = Follower(clients_of(cloudformation=cloudformation), ARN, "foldfleet", ignore, interrupt)
    with pytest.raises(InterruptedRun, match="AWS goes on"):
        follower.wait()


def test_a_stack_that_is_gone_was_deleted() -> None:
    follower = Follower(clients_of(cloudformation=Answers(ABSENT)), ARN, "foldfleet", ignore, ignore)
    assert follower.wait() == "DELETE_COMPLETE"


# --- status -------------------------------------------------------------------------------------------------------


def test_an_array_counts_its_children_and_not_itself() -> None:
    needs = {"resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "MEMORY", "value": "1024"}]}
    details = [
        {
            "status": "PENDING",
            "arrayProperties": {"size": 10, "statusSummary": {"RUNNING": 3, "RUNNABLE": 2, "SUCCEEDED": 5}},
            "container": needs,
        },
        {"status": "RUNNING", "container": needs},
    ]
    batch = SimpleNamespace(describe_jobs=lambda jobs: {"jobs": details})
    requests = [Request("1", "a", "PENDING"), Request("2", "b", "RUNNING")]
    counts, vcpus = count_tasks(clients_of(batch=batch), requests)
    assert counts == {"SUBMITTED": 0, "PENDING": 0, "RUNNABLE": 2, "STARTING": 0, "RUNNING": 4}
    assert vcpus == 16


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ComputeEnvironment Healthy", ""),
        ("", ""),
        ("CLIENT_ERROR - Not authorized to perform sts:AssumeRole", "infra down"),
        ("CLIENT_ERROR - The subnet ID 'subnet-1' does not exist", "--subnets"),
        ("INTERNAL_ERROR - You have requested more vCPU: VcpuLimitExceeded", "quota"),
        ("CLIENT_ERROR - Launch template lt-1 not found", "launch template"),
    ],
)
def test_reasons_of_batch_are_decoded(reason: str, words: str) -> None:
    assert words in explain_reason(reason)
    assert bool(words) == bool(explain_reason(reason))
