"""IAM's decisions and EventBridge's inputs as the stand-in makes them, rule by rule, without a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import botocore.session
import pytest

from tests.aws.standin import iam
from tests.aws.standin.answers import refuse
from tests.aws.standin.events import Undelivered, fill_in, find_path, make_input
from tests.aws.standin.faults import Fault, Faults
from tests.aws.standin.integrations import to_request, to_result
from tests.aws.standin.rights import read_call
from tests.aws.standin.s3calls import read_s3_call
from tests.aws.standin.templates import judge, references
from tests.servers.faulty import Request

ALLOW_ALL = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def policy(effect: str = "Allow", action: Any = "s3:*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": effect, "Action": action, "Resource": resource, **more}]}


def asked(action: str = "s3:GetObject", resource: str = "arn:aws:s3:::b/k", **context: str) -> iam.Asked:
    return iam.Asked(action, resource, {name.replace("__", ":").replace("_", "-"): [v] for name, v in context.items()})


@pytest.mark.parametrize(
    ("document", "decision"),
    [
        (policy(), "allowed"),
        (policy(action="S3:getobject"), "allowed"),
        (policy(action="s3:Get*"), "allowed"),
        (policy(action="s3:Put*"), "not allowed"),
        (policy(resource="arn:aws:s3:::b/*"), "allowed"),
        (policy(resource="arn:aws:s3:::b/?"), "allowed"),
        (policy(resource="arn:aws:s3:::b"), "not allowed"),
        (policy(resource=["arn:aws:s3:::c/*", "arn:aws:s3:::b/k"]), "allowed"),
        (policy("Deny"), "denied"),
        ({"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}]}, "allowed"),
        ({"Statement": [{"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::b/*"}]}, "not allowed"),
        ({"Statement": []}, "not allowed"),
    ],
)
def test_a_statement_speaks_of_actions_and_resources(document: dict[str, Any], decision: str) -> None:
    assert iam.decide(asked(), [document]) == decision


def test_a_denial_wins_wherever_it_stands() -> None:
    denial = policy("Deny", Principal="*")
    assert iam.decide(asked(), [ALLOW_ALL, policy("Deny")]) == "denied"
    assert iam.decide(asked(), [ALLOW_ALL], resource_policy=denial, principal_arns=["me"]) == "denied"
    assert iam.decide(asked(), [ALLOW_ALL], boundary=policy("Deny")) == "denied"


def test_a_boundary_bounds_and_gives_nothing() -> None:
    assert iam.decide(asked(), [ALLOW_ALL], boundary=policy(action="ec2:*")) == "not allowed"
    assert iam.decide(asked(), [], boundary=ALLOW_ALL) == "not allowed"
    assert iam.decide(asked(), [ALLOW_ALL], boundary=ALLOW_ALL) == "allowed"


def test_a_bucket_policy_alone_may_allow_whom_it_names() -> None:
    mine = policy(Principal={"AWS": "arn:me"})
    assert iam.decide(asked(), [], resource_policy=mine, principal_arns=["arn:me"]) == "allowed"
    assert iam.decide(asked(), [], resource_policy=mine, principal_arns=["arn:you"]) == "not allowed"


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"StringLike": {"s3:prefix": "p/*"}}, {"s3__prefix": "p/x"}, True),
        ({"StringLike": {"s3:prefix": ["q", "p/*"]}}, {"s3__prefix": "p/x"}, True),
        ({"StringLike": {"s3:prefix": "p/*"}}, {}, False),
        ({"StringLikeIfExists": {"s3:prefix": "p/*"}}, {}, True),
        ({"StringNotLike": {"s3:prefix": "p/*"}}, {}, True),
        ({"StringNotEquals": {"s3:prefix": "p"}}, {"s3__prefix": "p"}, False),
        ({"StringEquals": {"S3:Prefix": "p"}}, {"s3__prefix": "p"}, True),
        ({"Null": {"s3:if-none-match": "true"}}, {}, True),
        ({"Null": {"s3:if-none-match": "true"}}, {"s3__if_none_match": "*"}, False),
        ({"Null": {"s3:if-none-match": False}}, {"s3__if_none_match": "*"}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, {"aws__securetransport": "true"}, False),
        ({"Bool": {"aws:SecureTransport": False}}, {"aws__securetransport": "false"}, True),
        ({"Bool": {"s3:ObjectCreationOperation": "true"}}, {}, False),
        ({"ArnLike": {"aws:a": "arn:aws:events:*:1:rule/s-*"}}, {"aws__a": "arn:aws:events:eu:1:rule/s-r"}, True),
        ({"ArnLike": {"aws:a": "arn:aws:*"}}, {"aws__a": "arn:aws:events:eu:1:rule/s-r"}, False),
        ({"ArnEquals": {"aws:a": "arn:aws:sqs:eu:1:q"}}, {"aws__a": "arn:aws:sqs:eu:1:q"}, True),
        ({"NumericLessThan": {"s3:max-keys": "10"}}, {"s3__max_keys": "9"}, True),
        ({"StringEquals": {"a": "1"}, "StringLike": {"b": "2"}}, {"a": "1", "b": "3"}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, {}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": ["a"]}}, {}, False),
        ({"StringEquals": {"aws:user": "${aws:username}"}}, {"aws__user": "me", "aws__username": "me"}, True),
    ],
)
def test_conditions(condition: dict[str, Any], context: dict[str, str], holds: bool) -> None:
    found = iam.decide(asked(**context), [policy(Condition=condition)])
    assert found == ("allowed" if holds else "not allowed")


@pytest.mark.parametrize("condition", [{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"StringAlike": {"a": "b"}}])
def test_what_is_not_understood_is_not_passed_over(condition: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        iam.decide(
            iam.Asked("s3:GetObject", "*", {"aws:sourceip": ["10.0.0.1"], "a": ["b"]}), [policy(Condition=condition)]
        )


def test_a_trust_policy_names_a_service_and_a_source() -> None:
    condition = {"StringEquals": {"aws:SourceAccount": "1"}}
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "e"}, "Condition": condition}]}
    trust["Statement"][0]["Action"] = "sts:AssumeRole"
    assert iam.trusts(trust, "e", {"aws:sourceaccount": ["1"]})
    assert not iam.trusts(trust, "e", {"aws:sourceaccount": ["2"]})
    assert not iam.trusts(trust, "f", {"aws:sourceaccount": ["1"]})


@pytest.mark.parametrize(
    ("method", "target", "headers", "actions"),
    [
        ("GET", "/b/k", {}, ["s3:GetObject"]),
        ("HEAD", "/b/k", {}, ["s3:GetObject"]),
        ("GET", "/b/k?versionId=1", {}, ["s3:GetObjectVersion"]),
        ("GET", "/b?list-type=2&prefix=p", {}, ["s3:ListBucket"]),
        ("HEAD", "/b", {}, ["s3:ListBucket"]),
        ("GET", "/b?uploads", {}, ["s3:ListBucketMultipartUploads"]),
        ("GET", "/b/k?uploadId=1", {}, ["s3:ListMultipartUploadParts"]),
        ("POST", "/b/k?uploads", {}, ["s3:PutObject"]),
        ("PUT", "/b/k?partNumber=1&uploadId=1", {}, ["s3:PutObject"]),
        ("POST", "/b/k?uploadId=1", {}, ["s3:PutObject"]),
        ("DELETE", "/b/k?uploadId=1", {}, ["s3:AbortMultipartUpload"]),
        ("DELETE", "/b/k", {}, ["s3:DeleteObject"]),
        ("PUT", "/b/k", {"if-match": "x"}, ["s3:PutObject", "s3:GetObject"]),
        ("PUT", "/b/k", {"x-amz-copy-source": "/c/d"}, ["s3:PutObject", "s3:GetObject"]),
        ("GET", "/b?policy", {}, ["s3:GetBucketPolicy"]),
        ("GET", "/", {}, ["s3:ListAllMyBuckets"]),
    ],
)
def test_the_rights_that_s3_asks_for(method: str, target: str, headers: dict[str, str], actions: list[str]) -> None:
    call = read_s3_call(Request(method, target, tuple(headers.items())))
    assert [right.action for right in call.rights] == actions


def test_creation_is_told_from_its_parts() -> None:
    def told(method: str, target: str) -> Any:
        return read_s3_call(Request(method, target, ())).rights[0].context["s3:objectcreationoperation"]

    assert told("PUT", "/b/k") == told("POST", "/b/k?uploadId=1") == ["true"]
    assert told("POST", "/b/k?uploads") == told("PUT", "/b/k?partNumber=1&uploadId=1") == ["false"]


def test_batch_calls_are_found_by_their_paths() -> None:
    call = read_call("batch", "POST", "/v1/terminatejob", "", b'{"jobId": "j", "reason": "r"}')
    assert call is not None
    assert call.action == "batch:TerminateJob"
    assert call.parameters["jobId"] == "j"


def test_a_log_group_needs_the_star_behind_its_arn() -> None:
    call = read_call("logs", "POST", "/", "Logs.FilterLogEvents", b'{"logGroupName": "g"}')
    assert call is not None
    [right] = call.rights
    assert iam.is_like(right.resource, "arn:aws:logs:us-east-1:123456789012:log-group:g:*")
    assert not iam.is_like(right.resource, "arn:aws:logs:us-east-1:123456789012:log-group:g")


EVENT = {"id": "e", "detail": {"job": 'a "b"', "n": 3, "list": [{"x": 1}], "parameters": {"first_task": "0"}}}


def test_paths_of_an_event() -> None:
    assert find_path(EVENT, "$.detail.parameters.first_task") == "0"
    assert find_path(EVENT, "$.detail.list[0].x") == 1
    assert find_path(EVENT, "$.detail.none.more") is None
    assert find_path(EVENT, "$") == EVENT


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ('{"job": <job>, "n": <n>}', '{"job": "a \\"b\\"", "n": 3}'),
        ('{"text": "<job>-<n>"}', '{"text": "a \\"b\\"-3"}'),
        ('{"text": "none:<none>"}', '{"text": "none:"}'),
        ("<all>", '{"x": 1}'),
    ],
)
def test_an_input_template_is_filled_in(template: str, made: str) -> None:
    found = {"job": 'a "b"', "n": 3, "all": {"x": 1}}
    assert fill_in(template, found) == made
    json.loads(made)


def test_an_input_that_is_no_json_is_not_delivered() -> None:
    transformer = {"InputPathsMap": {"none": "$.detail.none"}, "InputTemplate": '{"a": <none>}'}
    with pytest.raises(Undelivered):
        make_input({"InputTransformer": transformer}, EVENT)
    assert make_input({"Input": '{"a": 1}'}, EVENT) == '{"a": 1}'
    assert make_input({"InputPath": "$.detail.n"}, EVENT) == "3"
    assert json.loads(make_input({}, EVENT)) == EVENT


def test_parameters_of_a_machine_are_respelled_but_the_users_own() -> None:
    given = {"JobName": "j", "Parameters": {"MixedCase": "v"}, "ContainerOverrides": {"Environment": [{"Name": "N"}]}}
    made = {"jobName": "j", "parameters": {"MixedCase": "v"}, "containerOverrides": {"environment": [{"name": "N"}]}}
    shape = botocore.session.get_session().get_service_model("batch").operation_model("SubmitJob").input_shape
    assert to_request(shape, given, loose=False) == made
    assert to_result(shape, made) == given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"jobName": "j"}, "'jobName' is not supported"),
        ({"Parameters": {"run": 3}}, "must be a STRING"),
        ({"ArrayProperties": {"Size": "3"}}, "must be a number"),
        ({"ContainerOverrides": "none"}, "must be a structure"),
    ],
)
def test_parameters_that_step_functions_would_not_take_are_refused(given: dict[str, Any], words: str) -> None:
    shape = botocore.session.get_session().get_service_model("batch").operation_model("SubmitJob").input_shape
    with pytest.raises(ValueError, match=words):
        to_request(shape, given, loose=False)


def test_faults_pass_then_fail_then_are_used_up() -> None:
    faults = Faults()
    faults.add(Fault("batch:Submit*", "throttle", times=2, after=1, principal="user/*"))
    ask: Callable[..., Any] = lambda principal="user/desk": faults.choose(principal, "batch:SubmitJob", "q")  # noqa: E731
    assert [ask("role/x"), ask(), ask(), ask(), ask()] == [None, None, "throttle", "throttle", None]
    with pytest.raises(ValueError, match="lost_ack"):
        Fault("s3:*", "slow")


def test_each_protocol_has_its_own_form_of_a_refusal() -> None:
    assert refuse("rest-json", "throttle").status == 429
    assert json.loads(refuse("json", "denied", "no").body) == {"__type": "AccessDeniedException", "message": "no"}
    assert b"<Code>Throttling</Code>" in refuse("query", "throttle").body
    assert b"<Code>UnauthorizedOperation</Code>" in refuse("ec2", "denied", "a<b").body


def test_conditions_and_references_of_templates() -> None:
    document = {
        "Conditions": {
            "Zero": {"Fn::Equals": [{"Ref": "N"}, 0]},
            "Some": {"Fn::Not": [{"Condition": "Zero"}]},
            "Names": {"Fn::Not": [{"Fn::Equals": [{"Fn::Join": ["", {"Ref": "L"}]}, ""]}]},
        }
    }
    assert judge(document, "Zero", {"N": "0", "L": ""})
    assert not judge(document, "Some", {"N": "0", "L": ""})
    assert judge(document, "Names", {"N": "0", "L": "a,b"})
    node = {"A": {"Fn::Sub": "${B}/${AWS::Region}/${!not}/${C.Arn}"}, "D": {"Fn::If": ["E", {"Ref": "F"}, "g"]}}
    assert set(references(node)) == {"B", "AWS::Region", "C", "E", "F"}
