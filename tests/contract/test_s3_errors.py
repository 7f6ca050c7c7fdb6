"""Every refusal of S3 and its client has its sentence: a table, and a test that nothing falls through it."""

from __future__ import annotations

from typing import Any

import botocore.exceptions as botocore
import pytest
from botocore.exceptions import ClientError

from jobspec.errors import AccessError, DataError, FoldfleetError, NotFoundError, TryLaterError, UsageError
from jobspec.stores.s3errors import Asked, explain

ASKED = Asked("GetObject", "bkt", "team/store/", "team/store/runs/a", "https://s3.eu-west-1.amazonaws.com")


def refusal(status: int, code: str, message: str = "said S3", region: str = "") -> ClientError:
    headers = {"x-amz-bucket-region": region} if region else {}
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers},
    }
    return ClientError(answer, "GetObject")


ABSENT = refusal(404, "NoSuchKey")
FORBIDDEN = refusal(403, "AccessDenied")

CODES: dict[tuple[int, str], tuple[type[FoldfleetError], str]] = {
    (404, "NoSuchBucket"): (NotFoundError, "aws s3 mb s3://bkt"),
    (404, "NoSuchKey"): (NotFoundError, "s3://bkt/team/store/runs/a"),
    (400, "InvalidBucketName"): (UsageError, "'bkt'"),
    (400, "ExpiredToken"): (AccessError, "expired.*aws sso login.*same command again"),
    (403, "ExpiredTokenException"): (AccessError, "expired"),
    (403, "RequestExpired"): (AccessError, "expired"),
    (403, "InvalidAccessKeyId"): (AccessError, "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch"): (AccessError, "AWS_SECRET_ACCESS_KEY"),
    (400, "InvalidToken"): (AccessError, "AWS_PROFILE"),
    (403, "RequestTimeTooSkewed"): (AccessError, "clock"),
    (403, "InvalidObjectState"): (DataError, "restore-object"),
    (501, "NotImplemented"): (UsageError, "If-None-Match"),
    (503, "SlowDown"): (TryLaterError, "after every retry: SlowDown"),
    (500, "InternalError"): (TryLaterError, "same command again"),
    (502, "502"): (TryLaterError, "after every retry"),
    (429, "TooManyRequests"): (TryLaterError, "after every retry"),
    (400, "RequestTimeout"): (TryLaterError, "RequestTimeout"),
    (403, "AllAccessDisabled"): (AccessError, "s3:GetObject"),
    (403, "SomethingNew"): (AccessError, "s3:GetObject"),
    (400, "InvalidRequest"): (AccessError, "InvalidRequest"),
}


@pytest.mark.parametrize(("status", "code"), list(CODES))
def test_a_refusal_has_its_sentence(status: int, code: str) -> None:
    kind, told = CODES[status, code]
    error = explain(refusal(status, code), ASKED, lambda: ABSENT)
    assert type(error) is kind
    assert_told(error, told)


def assert_told(error: FoldfleetError, told: str) -> None:
    with pytest.raises(type(error), match=told):
        raise error
    assert "\n" not in error.message and error.message.endswith(".")


@pytest.mark.parametrize(
    ("status", "code"),
    [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed"), (400, "IllegalLocationConstraintException")],
)
def test_another_region_is_named(status: int, code: str) -> None:
    error = explain(refusal(status, code, region="ap-south-1"), ASKED, lambda: ABSENT)
    assert isinstance(error, AccessError)
    assert_told(error, "region ap-south-1, https://s3.eu-west-1.amazonaws.com was asked.*AWS_REGION=ap-south-1")


def test_a_head_redirected_without_a_word_names_the_region() -> None:
    assert_told(explain(refusal(301, "301", region="ap-south-1"), ASKED, lambda: ABSENT), "AWS_REGION=ap-south-1")


def test_absent_and_forbidden_are_told_apart_by_a_key_that_is_never_there() -> None:
    for code in ("AccessDenied", "403"):
        readable = explain(refusal(403, code), ASKED, lambda: ABSENT)
        assert_told(readable, r"s3:GetObject is missing\. Allow s3:GetObject on arn:aws:s3:::bkt/team/store/\*")
        unknown = explain(refusal(403, code), ASKED, lambda: FORBIDDEN)
        assert_told(unknown, "s3:ListBucket on arn:aws:s3:::bkt is missing, so an absent object cannot be told")
        assert readable.exit_code == unknown.exit_code == 4


@pytest.mark.parametrize(
    ("status", "reason", "told"),
    [
        (400, refusal(400, "ExpiredToken"), "expired"),
        (403, refusal(403, "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID"),
        (403, refusal(403, "SignatureDoesNotMatch"), "AWS_SECRET_ACCESS_KEY"),
        (404, refusal(404, "NoSuchBucket"), "no bucket 'bkt'"),
    ],
)
def test_a_head_without_a_reason_is_asked_again(status: int, reason: ClientError, told: str) -> None:
    assert_told(explain(refusal(status, str(status)), ASKED, lambda: reason), told)


def test_the_right_that_s3_names_is_passed_on() -> None:
    message = (
        "User: arn:aws:iam::123456789012:user/x is not authorized to perform: kms:Decrypt on resource: "
        '"arn:aws:kms:eu-west-1:123456789012:key/1" because no identity-based policy allows it'
    )
    error = explain(refusal(403, "AccessDenied", message), ASKED, lambda: FORBIDDEN)
    assert_told(error, "Allow kms:Decrypt on arn:aws:kms:eu-west-1:123456789012:key/1 to the credentials")


OPERATIONS = {
    "HeadObject": r"s3:GetObject on arn:aws-cn:s3:::bkt/team/store/\*",
    "PutObject": r"s3:PutObject on arn:aws-cn:s3:::bkt/team/store/\*",
    "CreateMultipartUpload": "s3:PutObject on",
    "UploadPart": "s3:PutObject on",
    "CompleteMultipartUpload": "s3:PutObject on",
    "AbortMultipartUpload": "s3:AbortMultipartUpload on",
    "DeleteObject": r"s3:DeleteObject on arn:aws-cn:s3:::bkt/team/store/\*",
    "ListObjectsV2": r"s3:ListBucket on arn:aws-cn:s3:::bkt \(s3:prefix team/store/\*\)",
    "ListMultipartUploads": r"s3:ListBucketMultipartUploads on arn:aws-cn:s3:::bkt ",
}


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_every_operation_names_its_action_and_resource(operation: str) -> None:
    asked = Asked(operation, "bkt", "team/store/", "team/store/runs/a", "https://s3.cn-north-1.x", "aws-cn")
    assert_told(explain(FORBIDDEN, asked, lambda: ABSENT), OPERATIONS[operation])


SILENT: dict[str, tuple[Exception, type[FoldfleetError], str]] = {
    "none": (botocore.NoCredentialsError(), AccessError, "AWS_PROFILE"),
    "partial": (botocore.PartialCredentialsError(provider="env", cred_var="x"), AccessError, "credentials"),
    "fetch": (botocore.CredentialRetrievalError(provider="x", error_msg="y"), AccessError, "credentials"),
    "sso": (botocore.UnauthorizedSSOTokenError(), AccessError, "aws sso login"),
    "profile": (botocore.ProfileNotFound(profile="lab"), AccessError, "lab"),
    "region": (botocore.InvalidRegionError(region_name="x y"), AccessError, "AWS_REGION"),
    "dns": (botocore.EndpointConnectionError(endpoint_url="http://x"), TryLaterError, "answer.*AWS_ENDPOINT_URL"),
    "connect": (botocore.ConnectTimeoutError(endpoint_url="http://x"), TryLaterError, "network"),
    "read": (botocore.ReadTimeoutError(endpoint_url="http://x"), TryLaterError, "did not answer"),
    "closed": (botocore.ConnectionClosedError(endpoint_url="http://x"), TryLaterError, "same command again"),
    "proxy": (botocore.ProxyConnectionError(proxy_url="http://x"), TryLaterError, "proxy"),
    "trust": (botocore.SSLError(endpoint_url="https://x", error=OSError("self-signed")), AccessError, "AWS_CA_BUNDLE"),
    "flipped": (botocore.FlexibleChecksumError(error_msg="x"), TryLaterError, "damaged"),
    "short": (botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), TryLaterError, "cut short"),
    "stream": (botocore.ResponseStreamingError(error="x"), TryLaterError, "cut short"),
    "config": (botocore.ConfigParseError(path="x"), AccessError, "AWS settings"),
}


@pytest.mark.parametrize("name", list(SILENT))
def test_what_the_client_raises_has_its_sentence(name: str) -> None:
    raised, kind, told = SILENT[name]
    error = explain(raised, ASKED, lambda: ABSENT)
    assert type(error) is kind
    assert_told(error, told)
