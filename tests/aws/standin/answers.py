"""Refusals in the words and the wire form of each AWS protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass
from xml.sax.saxutils import escape

Headers = list[tuple[str, str]]

_REST = {
    "throttle": (429, "TooManyRequestsException", "Too Many Requests"),
    "internal": (500, "ServerException", "We encountered an internal error. Please try again."),
    "denied": (403, "AccessDeniedException", ""),
    "expired": (403, "ExpiredTokenException", "The security token included in the request is expired"),
    "unknown_key": (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "signature": (403, "InvalidSignatureException", "The request signature we calculated does not match."),
}
_JSON = {
    "throttle": (400, "ThrottlingException", "Rate exceeded"),
    "internal": (500, "InternalFailure", "The request processing has failed because of an unknown error."),
    "denied": (400, "AccessDeniedException", ""),
    "expired": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    "unknown_key": (400, "UnrecognizedClientException", "The security token included in the request is invalid."),
    "signature": (400, "InvalidSignatureException", "The request signature we calculated does not match."),
}
_QUERY = {
    "throttle": (400, "Throttling", "Rate exceeded"),
    "internal": (500, "InternalFailure", "The request processing has failed because of an unknown error."),
    "denied": (403, "AccessDenied", ""),
    "expired": (403, "ExpiredToken", "The security token included in the request is expired"),
    "unknown_key": (403, "InvalidClientTokenId", "The security token included in the request is invalid."),
    "signature": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
}
_EC2 = _QUERY | {
    "throttle": (503, "RequestLimitExceeded", "Request limit exceeded."),
    "denied": (403, "UnauthorizedOperation", ""),
    "unknown_key": (401, "AuthFailure", "AWS was not able to validate the provided access credentials"),
}
_SNS = _QUERY | {"denied": (403, "AuthorizationError", "")}
_S3 = {
    "throttle": (503, "SlowDown", "Please reduce your request rate."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "denied": (403, "AccessDenied", ""),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "unknown_key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "signature": (403, "SignatureDoesNotMatch", "The request signature we calculated does not match."),
}
_TABLES = {"rest-json": _REST, "json": _JSON, "query": _QUERY, "ec2": _EC2, "s3": _S3, "sns": _SNS}


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def refuse(protocol: str, kind: str, message: str = "") -> Answer:
    """Return the answer of a service of this protocol to a call that fails in this way."""
    status, code, usual = _TABLES[protocol][kind]
    return make_error(protocol, status, code, message or usual)


def make_error(protocol: str, status: int, code: str, message: str) -> Answer:
    """Return an error in the form of a protocol."""
    if protocol == "rest-json":
        body = json.dumps({"message": message}).encode()
        return Answer(status, [("Content-Type", "application/json"), ("x-amzn-ErrorType", code)], body)
    if protocol == "json":
        body = json.dumps({"__type": code, "message": message}).encode()
        return Answer(status, [("Content-Type", "application/x-amz-json-1.1")], body)
    told = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    request_id = "<RequestId>00000000-0000-0000-0000-000000000000</RequestId>"
    if protocol == "ec2":
        text = f"<Response><Errors><Error>{told}</Error></Errors><RequestID>0</RequestID></Response>"
    elif protocol == "s3":
        text = f"<Error>{told}{request_id}</Error>"
    else:
        text = f"<ErrorResponse><Error><Type>Sender</Type>{told}</Error>{request_id}</ErrorResponse>"
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()
    return Answer(status, [("Content-Type", "application/xml" if protocol == "s3" else "text/xml")], body)


def explain_refusal(arn: str, action: str, resource: str, decision: str) -> str:
    """Return AWS's sentence about a missing right."""
    reason = (
        "with an explicit deny in a policy"
        if decision == "denied"
        else f"because no identity-based policy allows the {action} action"
    )
    shown = f'"{resource}"' if action.startswith("s3:") else resource
    return f"User: {arn} is not authorized to perform: {action} on resource: {shown} {reason}"
