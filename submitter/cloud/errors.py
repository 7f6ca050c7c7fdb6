"""What AWS and its client refuse, as errors that name the missing right or the next command."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from jobspec.errors import AccessError, FoldfleetError, TryLaterError, UsageError
from jobspec.stores.s3errors import NO_CREDENTIALS, code_of, status_of

TOLD_ACTION = re.compile(
    r"not authorized to perform: (?P<action>[\w-]+:\w+)(?:.*?on resource: \"?(?P<resource>[^\s\"]+))?"
)
"""How a denial names the missing right."""

_AGAIN = "then run the same command again"

SERVICE = "Service"
"""Where `clients` notes in an answer's metadata which service gave it, in IAM's word; answers themselves do not say."""

_OTHER_NAMES = {
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:DeleteObjects": "s3:DeleteObject",
}
"""The IAM action of each operation that is not called like it."""

_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnauthorizedAccess",
    "AuthorizationError",
    "AuthFailure",
    "Forbidden",
    "403",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_UNKNOWN_KEY = {
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
}
_DISABLED_REGION = {"OptInRequired", "SubscriptionRequiredException"}
_BUSY = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "ServerException",
    "SlowDown",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "Unavailable",
}
_UNREACHABLE = {"HTTPClientError", "ConnectionError"}


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what botocore raises into one paragraph with an exit code.

    Args:
        what: what was being done, as the beginning of a sentence: "Sending the array", "Reading the stack 'foldfleet'".

    Raises:
        AccessError: credentials are missing, expired or lack a right; the IAM action is named.
        TryLaterError: AWS throttles, fails or does not answer.
        FoldfleetError: AWS refuses for another reason, which is told in its own words.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise explain(error, what) from error
    except ResponseParserError as error:  # a proxy's page, or no endpoint of AWS
        raise TryLaterError(
            f"{what} got an answer that is none of AWS's ({_flat(error)[:200]}). Check AWS_REGION, AWS_ENDPOINT_URL "
            f"and HTTPS_PROXY, {_AGAIN}."
        ) from None
    except ValueError as error:
        if "endpoint" not in str(error).lower():
            raise
        raise UsageError(
            f"{what} cannot be done with the AWS settings in use: {_flat(error)}. AWS_ENDPOINT_URL must be a whole "
            f"URL, such as http://localhost:5000; check it, AWS_REGION and ~/.aws/config, {_AGAIN}."
        ) from None


def explain(error: Exception, what: str) -> FoldfleetError:
    """Return the error to raise for a ClientError or BotoCoreError."""
    if not status_of(error) and not code_of(error):
        return _explain_no_answer(error, what)
    code, status, words = code_of(error), status_of(error), message_of(error)
    if remedy := _explain_credentials(code, words):
        return AccessError(f"{what} failed: {remedy}, {_AGAIN}.")
    if code in _DENIED or (status == 403 and "authoriz" in words):
        return missing_right(action_of(error), resource_of(error), what)
    if code in _BUSY or status >= 500 or status == 429:
        return TryLaterError(
            f"{what} did not succeed after every retry: {code} ({words}). Run the same command again in some minutes."
        )
    return FoldfleetError(f"{what} was refused by AWS: {code}: {words} Mend that, {_AGAIN}.")


def _explain_credentials(code: str, words: str) -> str:
    """Return what is wrong with the credentials and the remedy, "" if nothing is."""
    if code in _EXPIRED:
        return "the AWS credentials have expired. Get new ones (for example 'aws sso login', or export them again)"
    if code == "RequestTimeTooSkewed" or "Signature not yet current" in words or "Signature expired" in words:
        return (
            "this machine's clock is off by more than 5 minutes. Set it right (for example 'timedatectl set-ntp true')"
        )
    if code in _UNKNOWN_KEY:
        return (
            f"AWS does not accept the credentials in use ({code}). Check AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY ('aws sts get-caller-identity' shows whose they are)"
        )
    if code in _DISABLED_REGION:
        return f"{words or code} Choose a region of this account with AWS_REGION"
    return ""


def missing_right(action: str, resource: str, what: str) -> AccessError:
    """Return the error for a right that the credentials in use lack."""
    place = f" on {resource}" if resource else ""
    return AccessError(
        f"{what} was denied: {action} is missing. Allow {action}{place} to the credentials in use (a permissions "
        f"boundary or a policy of the organisation may also deny it), {_AGAIN}."
    )


def message_of(error: BaseException) -> str:
    """Return AWS's own words, ended by a full stop; "" where it gave none."""
    response: dict[str, Any] = getattr(error, "response", None) or {}
    words = " ".join(str(response.get("Error", {}).get("Message", "")).split())
    return words if not words or words.endswith((".", "!", "?")) else f"{words}."


def action_of(error: BaseException) -> str:
    """Return the IAM action that a denied call needs: what AWS names, else what the operation is called."""
    if told := TOLD_ACTION.search(message_of(error)):
        return told["action"]
    operation = str(getattr(error, "operation_name", "") or "the action")
    response: dict[str, Any] = getattr(error, "response", None) or {}
    service = response.get("ResponseMetadata", {}).get(SERVICE)
    action = f"{service}:{operation}" if service else operation
    return _OTHER_NAMES.get(action, action)


def resource_of(error: BaseException) -> str:
    """Return the ARN that AWS names in a denial, "" where it names none."""
    told = TOLD_ACTION.search(message_of(error))
    return (told["resource"] or "").rstrip(".") if told else ""


def _explain_no_answer(error: Exception, what: str) -> FoldfleetError:
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & NO_CREDENTIALS:
        return AccessError(
            f"{what} failed: there are no usable AWS credentials: {_flat(error)}. Set AWS_PROFILE, or "
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run 'aws configure' or 'aws sso login', {_AGAIN}."
        )
    if "NoRegionError" in names:
        return AccessError(f"{what} needs a region. Set one, for example 'export AWS_REGION=us-east-1', {_AGAIN}.")
    if "SSLError" in names:
        return AccessError(
            f"{what} failed: the certificate of the server is not trusted: {_flat(error)}. Set AWS_CA_BUNDLE to the "
            f"file of your certificate authority, {_AGAIN}."
        )
    if names & _UNREACHABLE:
        return TryLaterError(
            f"{what} failed: AWS did not answer after every retry: {_flat(error)}. Check the network, AWS_REGION (does "
            f"such a region exist?), AWS_ENDPOINT_URL and any proxy, {_AGAIN}."
        )
    return AccessError(
        f"{what} is not possible with the AWS settings in use: {_flat(error)}. Check AWS_PROFILE, AWS_REGION and "
        f"AWS_ENDPOINT_URL, {_AGAIN}."
    )


def _flat(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
