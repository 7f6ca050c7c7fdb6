"""Signature Version 4: who signed a request, whether the signature is right, and signing it anew for the server behind.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
_SAFE = "-_.~"


@dataclass(frozen=True)
class Head:
    """A request as signatures see it: path and query as they stood on the wire, header names in small letters."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Signature:
    """What a request says of its signature; ``expires_s`` only in presigned URLs."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    token: str | None
    moment: str
    expires_s: int | None = None

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def read_signature(head: Head) -> Signature | None:
    """Return what signs a request, in its header or in its query; None for an anonymous one."""
    given = head.headers.get("authorization", "")
    if given.startswith("AWS4-HMAC-SHA256 "):
        parts = dict(part.strip().split("=", 1) for part in given.partition(" ")[2].split(","))
        return _make(parts["Credential"], parts["SignedHeaders"], parts["Signature"], head.headers, None)
    query = dict(urllib.parse.parse_qsl(head.query, keep_blank_values=True))
    if "X-Amz-Signature" in query:
        told = {"x-amz-date": query["X-Amz-Date"]}
        if "X-Amz-Security-Token" in query:
            told["x-amz-security-token"] = query["X-Amz-Security-Token"]
        expires_s = int(query["X-Amz-Expires"])
        return _make(query["X-Amz-Credential"], query["X-Amz-SignedHeaders"], query["X-Amz-Signature"], told, expires_s)
    return None


def _make(credential: str, signed: str, signature: str, told: Mapping[str, str], expires_s: int | None) -> Signature:
    key, date, region, service, _ = credential.split("/")
    names = tuple(signed.split(";"))
    token, moment = told.get("x-amz-security-token"), told.get("x-amz-date", "")
    return Signature(key, date, region, service, names, signature, token, moment, expires_s)


def is_right(head: Head, signature: Signature, secret: str, body_digest: str) -> bool:
    """Say whether the holder of the secret signed this request."""
    digest = UNSIGNED if signature.expires_s is not None else head.headers.get("x-amz-content-sha256", body_digest)
    made = _sign(head, signature, secret, digest)
    return hmac.compare_digest(made, signature.signature)


def is_late(signature: Signature, now: dt.datetime) -> bool:
    """Say whether a presigned URL is no longer good, or a signature is older than a quarter of an hour."""
    made = dt.datetime.strptime(signature.moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    return now > made + dt.timedelta(seconds=900 if signature.expires_s is None else signature.expires_s)


def sign_again(head: Head, access_key: str, secret: str, now: dt.datetime) -> tuple[str, dict[str, str]]:
    """Return the query and the headers of the same request signed by another user; the digest of the body stays.

    ``headers`` must hold the host that the server behind will see.
    """
    presigned = {"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Security-Token"}
    presigned |= {"X-Amz-Expires", "X-Amz-Algorithm"}
    parts = [part for part in head.query.split("&") if part and part.partition("=")[0] not in presigned]
    left_out = {"authorization", "x-amz-security-token", "x-amz-date", "expect"}
    headers = {name: value for name, value in head.headers.items() if name not in left_out}
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    headers["x-amz-date"] = moment
    headers.setdefault("x-amz-content-sha256", UNSIGNED)
    names = tuple(sorted(name for name in headers if name == "host" or name.startswith("x-amz-")))
    fresh = Signature(access_key, moment[:8], "us-east-1", "s3", names, "", None, moment)
    again = Head(head.method, head.path, "&".join(parts), headers)
    made = _sign(again, fresh, secret, headers["x-amz-content-sha256"])
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access_key}/{fresh.scope}, SignedHeaders={';'.join(names)}, Signature={made}"
    )
    return again.query, headers


def _sign(head: Head, signature: Signature, secret: str, digest: str) -> str:
    canonical = "\n".join(
        [
            head.method,
            _canonical_path(head.path, signature.service),
            _canonical_query(head.query),
            *(f"{name}:{' '.join(head.headers.get(name, '').split())}" for name in signature.signed_headers),
            "",
            ";".join(signature.signed_headers),
            digest,
        ]
    )
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", signature.moment, signature.scope, hashed])
    key = f"AWS4{secret}".encode()
    for part in (*signature.scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def _canonical_path(path: str, service: str) -> str:
    """Return the path as it is signed: every service but S3 encodes what the wire has encoded already."""
    return (path or "/") if service == "s3" else urllib.parse.quote(path or "/", safe="/" + _SAFE)


def _canonical_query(query: str) -> str:
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    quoted = [tuple(urllib.parse.quote(urllib.parse.unquote(side), safe=_SAFE) for side in pair) for pair in pairs]
    return "&".join(f"{name}={value}" for name, value in sorted(quoted) if name != "X-Amz-Signature")
