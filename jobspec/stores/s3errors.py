"""What S3 and its client refuse, as errors that name the missing right, the right region or the next command."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobspec.errors import AccessError, DataError, FoldfleetError, NotFoundError, TryLaterError, UsageError

Probe = Callable[[], Exception | None]
"""Reads an object that is never there; returns what S3 said to that."""

_KEPT = "What is finished is kept: run the same command again"
_TOLD_ACTION = re.compile(r"not authorized to perform: (?P<action>[\w:-]+)(?: on resource: \"?(?P<resource>[^\s\"]+))?")

_ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
    "ListObjectsV2": "s3:ListBucket",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
}
"""The IAM action that each operation needs; replacing a version that was read needs s3:GetObject beside it."""


@dataclass(frozen=True)
class Asked:
    """Name what a request was about."""

    operation: str
    bucket: str
    prefix: str
    key: str
    endpoint: str
    partition: str = "aws"

    @property
    def url(self) -> str:
        """Return the URL of the object, or of the prefix that was listed."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def action(self) -> str:
        """Return the IAM action that the operation needs."""
        return _ACTIONS.get(self.operation, f"s3:{self.operation}")

    @property
    def bucket_arn(self) -> str:
        """Return the bucket as IAM names it."""
        return f"arn:{self.partition}:s3:::{self.bucket}"

    @property
    def resource(self) -> str:
        """Return what the action is missing on, as IAM names it."""
        if self.action.startswith("s3:ListBucket"):
            return f"{self.bucket_arn} (s3:prefix {self.prefix}*)"
        return f"{self.bucket_arn}/{self.prefix}*"


@dataclass(frozen=True)
class _Refusal:
    """Hold what S3 answered."""

    code: str
    status: int
    message: str
    region: str


def status_of(error: BaseException) -> int:
    """Return the HTTP status that S3 answered, or 0 if it did not answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: BaseException) -> str:
    """Return S3's word for a refusal; the status as text where S3 gave none, as to every HEAD; "" for no answer."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def explain(error: Exception, asked: Asked, probe: Probe) -> FoldfleetError:
    """Return the error to raise for what botocore raised.

    Args:
        error: a ClientError or BotoCoreError.
        asked: what the request was about.
        probe: tells a forbidden object from an absent one, and asks again for a reason that HEAD does not carry.
    """
    if not status_of(error):
        return _explain_no_answer(error, asked)
    refusal = _read(error)
    # A HEAD answers without a body: the same question put as a GET says why.
    if refusal.code.isdigit() and (said := probe()) is not None:
        told = _read(said)
        if told.code not in {"AccessDenied", "NoSuchKey", ""} and not told.code.isdigit():
            refusal = told
    denied = refusal.status == 403 and refusal.code in {"AccessDenied", "Forbidden", "403"}
    if denied and asked.action == "s3:GetObject":
        return _explain_forbidden_read(refusal, asked, probe)
    return _explain_refusal(refusal, asked)


def _read(error: Exception) -> _Refusal:
    response: dict[str, Any] = getattr(error, "response", None) or {}
    told = response.get("Error", {})
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or told.get("Region") or ""
    return _Refusal(code_of(error), status_of(error), str(told.get("Message", "")), str(region))


def _explain_refusal(refusal: _Refusal, asked: Asked) -> FoldfleetError:
    for codes, make in _TABLE:
        if refusal.code in codes:
            return make(refusal, asked)
    if refusal.status == 403:
        return _missing_right(refusal, asked)
    if refusal.status in {301, 307, 308}:
        return _wrong_region(refusal, asked)
    if refusal.status == 404:
        return _no_object(refusal, asked)
    if refusal.status >= 500 or refusal.status in {408, 409, 429}:
        return _busy(refusal, asked)
    return AccessError(
        f"S3 refused {asked.operation} of {asked.url} at {asked.endpoint}: {refusal.code} ({refusal.message}). Check "
        "the bucket's settings and AWS_ENDPOINT_URL, then run the same command again."
    )


def _explain_forbidden_read(refusal: _Refusal, asked: Asked, probe: Probe) -> FoldfleetError:
    if _TOLD_ACTION.search(refusal.message):
        return _missing_right(refusal, asked)
    said = probe()
    if said is not None and status_of(said) == 403:
        return AccessError(
            f"S3 answered 'access denied' for {asked.url}. s3:ListBucket on {asked.bucket_arn} is missing, so an "
            f"absent object cannot be told from a forbidden one. Allow s3:ListBucket on {asked.bucket_arn} and "
            f"s3:GetObject on {asked.bucket_arn}/{asked.prefix}* to the credentials in use, then run the same "
            "command again."
        )
    return _missing_right(refusal, asked)


def _missing_right(refusal: _Refusal, asked: Asked) -> AccessError:
    told = _TOLD_ACTION.search(refusal.message)
    action = told["action"] if told else asked.action
    resource = (told["resource"] if told else None) or asked.resource
    return AccessError(
        f"S3 answered 'access denied' to {asked.operation} of {asked.url}: {action} is missing. Allow {action} on "
        f"{resource} to the credentials in use (a bucket policy or a key policy may also deny it), then run the same "
        "command again."
    )


def _no_bucket(_: _Refusal, asked: Asked) -> NotFoundError:
    return NotFoundError(
        f"There is no bucket {asked.bucket!r} at {asked.endpoint}. Make it with 'aws s3 mb s3://{asked.bucket}', or "
        "name another one: --store s3://BUCKET/PREFIX."
    )


def _no_object(_: _Refusal, asked: Asked) -> NotFoundError:
    return NotFoundError(f"There is no object {asked.url} at {asked.endpoint}.")


def _bad_bucket(_: _Refusal, asked: Asked) -> UsageError:
    return UsageError(f"The server {asked.endpoint} allows no bucket named {asked.bucket!r}: name another one.")


def _expired(_: _Refusal, asked: Asked) -> AccessError:
    return AccessError(
        f"The AWS credentials have expired; {asked.url} could not be used. Get new ones (for example 'aws sso login', "
        f"or export them again). {_KEPT}."
    )


def _unknown_key(refusal: _Refusal, asked: Asked) -> AccessError:
    return AccessError(
        f"The server {asked.endpoint} does not accept the AWS credentials in use: {refusal.code}. Check "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and that they belong to this endpoint ('aws sts "
        "get-caller-identity' shows whose they are), then run the same command again."
    )


def _wrong_clock(_: _Refusal, asked: Asked) -> AccessError:
    return AccessError(
        f"S3 refused {asked.url}: this machine's clock is off by more than 15 minutes. Set it right (for example "
        "'timedatectl set-ntp true'), then run the same command again."
    )


def _wrong_region(refusal: _Refusal, asked: Asked) -> AccessError:
    lies = f"lies in the region {refusal.region}" if refusal.region else "lies in another region"
    region = refusal.region or "ITS-REGION"
    return AccessError(
        f"The bucket {asked.bucket!r} {lies}, {asked.endpoint} was asked. Run 'export AWS_REGION={region}' (or set "
        "the region of the profile), check AWS_ENDPOINT_URL, then run the same command again."
    )


def _busy(refusal: _Refusal, asked: Asked) -> TryLaterError:
    return TryLaterError(
        f"S3 at {asked.endpoint} did not carry out {asked.operation} of {asked.url} after every retry: {refusal.code} "
        f"({refusal.message}). {_KEPT} in some minutes."
    )


def _no_conditions(_: _Refusal, asked: Asked) -> UsageError:
    return UsageError(
        f"The server {asked.endpoint} does not know conditional writes (If-None-Match), which keep results from being "
        "overwritten. Use a store on AWS, on another S3 server, or in a folder: --store DIR."
    )


def _archived(_: _Refusal, asked: Asked) -> DataError:
    return DataError(
        f"The object {asked.url} is archived and cannot be read. Restore it ('aws s3api restore-object'), then run "
        "the same command again."
    )


_TABLE: tuple[tuple[frozenset[str], Callable[[_Refusal, Asked], FoldfleetError]], ...] = (
    (frozenset({"NoSuchBucket"}), _no_bucket),
    (frozenset({"NoSuchKey"}), _no_object),
    (frozenset({"InvalidBucketName"}), _bad_bucket),
    (frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}), _expired),
    (
        frozenset(
            {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "InvalidSecurity"}
        ),
        _unknown_key,
    ),
    (frozenset({"RequestTimeTooSkewed"}), _wrong_clock),
    (
        frozenset(
            {
                "AuthorizationHeaderMalformed",
                "IllegalLocationConstraint",
                "IllegalLocationConstraintException",
                "PermanentRedirect",
                "TemporaryRedirect",
                "BucketRegionError",
            }
        ),
        _wrong_region,
    ),
    (frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem"}), _missing_right),
    (frozenset({"InvalidObjectState"}), _archived),
    (frozenset({"NotImplemented", "501"}), _no_conditions),
    (
        frozenset(
            {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "TooManyRequests"}
        ),
        _busy,
    ),
)


def _explain_no_answer(error: Exception, asked: Asked) -> FoldfleetError:
    """Explain what the client raised by itself, by the name of its class: importing botocore here would be slow."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & NO_CREDENTIALS:
        return AccessError(
            f"There are no usable AWS credentials for {asked.url}: {_flat(error)}. Set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure' or 'aws sso login', then run the "
            "same command again."
        )
    if "SSLError" in names and "WRONG_VERSION_NUMBER" in str(error):
        return AccessError(
            f"{asked.endpoint} does not speak TLS. If it is meant to be plain, write http:// in AWS_ENDPOINT_URL."
        )
    if "SSLError" in names:
        return AccessError(
            f"The certificate of {asked.endpoint} is not trusted: {_flat(error)}. Set AWS_CA_BUNDLE to the file of "
            "your certificate authority, then run the same command again."
        )
    if names & _DAMAGED:
        return TryLaterError(
            f"{asked.url} arrived cut short or damaged from {asked.endpoint} after every retry: {_flat(error)}. "
            f"{_KEPT}."
        )
    if names & _UNREACHABLE:
        return TryLaterError(
            f"The S3 server {asked.endpoint} did not answer {asked.operation} of {asked.url} after every retry: "
            f"{_flat(error)}. Check the network, AWS_ENDPOINT_URL and AWS_REGION, and any proxy. {_KEPT}."
        )
    return AccessError(
        f"The AWS settings in use cannot reach {asked.url}: {_flat(error)}. Check AWS_PROFILE, AWS_REGION and "
        "AWS_ENDPOINT_URL, then run the same command again."
    )


def _flat(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "NoAuthTokenError",
    "TokenRetrievalError",
    "SSOError",
    "LoginError",
    "ProfileNotFound",
    "RefreshWithMFAUnsupportedError",
    "MetadataRetrievalError",
    "UnknownCredentialError",
}
"""What botocore raises where there are no credentials to sign with."""

_DAMAGED = {"FlexibleChecksumError", "ChecksumError", "IncompleteReadError", "ResponseStreamingError", "ShortBodyError"}
_UNREACHABLE = {"HTTPClientError", "ConnectionError", "ConnectionClosedError", "ReadTimeoutError", "OSError"}
