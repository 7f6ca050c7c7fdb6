"""Which rights an S3 request needs, with the condition keys that policies may ask for.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from tests.aws.standin.iam import Asked
from tests.aws.standin.identity import PARTITION
from tests.servers.faulty import Request

_BUCKET_PARTS = {
    "location": ("GetBucketLocation", None),
    "policy": ("GetBucketPolicy", "PutBucketPolicy"),
    "policyStatus": ("GetBucketPolicyStatus", None),
    "versioning": ("GetBucketVersioning", "PutBucketVersioning"),
    "lifecycle": ("GetLifecycleConfiguration", "PutLifecycleConfiguration"),
    "encryption": ("GetEncryptionConfiguration", "PutEncryptionConfiguration"),
    "publicAccessBlock": ("GetBucketPublicAccessBlock", "PutBucketPublicAccessBlock"),
    "ownershipControls": ("GetBucketOwnershipControls", "PutBucketOwnershipControls"),
    "notification": ("GetBucketNotification", "PutBucketNotification"),
    "tagging": ("GetBucketTagging", "PutBucketTagging"),
    "acl": ("GetBucketAcl", "PutBucketAcl"),
    "logging": ("GetBucketLogging", "PutBucketLogging"),
    "cors": ("GetBucketCORS", "PutBucketCORS"),
}


@dataclass(frozen=True)
class S3Call:
    """A request: what it is about, and whether the bucket's settings answer it instead of the objects' server."""

    bucket: str
    key: str
    rights: tuple[Asked, ...]
    is_setting: bool = False

    @property
    def action(self) -> str:
        return self.rights[0].action if self.rights else ""


def bucket_arn(bucket: str) -> str:
    """Return the bucket as IAM names it."""
    return f"arn:{PARTITION}:s3:::{bucket}"


def read_s3_call(request: Request, body: bytes = b"") -> S3Call:
    """Return what a request asks; ``body`` matters to the deletion of many objects alone."""
    path, _, text = request.target.partition("?")
    bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
    query = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))
    if not bucket:
        return S3Call("", "", (Asked("s3:ListAllMyBuckets", "*"),), is_setting=True)
    if not key:
        return _read_bucket_call(request, bucket, query, body)
    return S3Call(bucket, key, tuple(_object_rights(request, f"{bucket_arn(bucket)}/{key}", query)))


def _read_bucket_call(request: Request, bucket: str, query: Mapping[str, str], body: bytes) -> S3Call:
    arn = bucket_arn(bucket)
    for name, (reading, writing) in _BUCKET_PARTS.items():
        if name in query:
            action = reading if request.method in {"GET", "HEAD"} else writing
            if request.method == "DELETE" and name == "policy":
                action = "DeleteBucketPolicy"
            return S3Call(bucket, "", (Asked(f"s3:{action}", arn),), is_setting=True)
    if request.method == "POST" and "delete" in query:
        keys = [_unescape(found) for found in re.findall(rb"<Key>(.*?)</Key>", body, re.DOTALL)]
        return S3Call(bucket, "", tuple(Asked("s3:DeleteObject", f"{arn}/{key}") for key in keys))
    if request.method == "PUT":
        return S3Call(bucket, "", (Asked("s3:CreateBucket", arn),), is_setting=True)
    if request.method == "DELETE":
        return S3Call(bucket, "", (Asked("s3:DeleteBucket", arn),), is_setting=True)
    if "uploads" in query:
        return S3Call(bucket, "", (Asked("s3:ListBucketMultipartUploads", arn),))
    named = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys"}
    context = {key: [query[name]] for name, key in named.items() if name in query}
    action = "s3:ListBucketVersions" if "versions" in query else "s3:ListBucket"
    return S3Call(bucket, "", (Asked(action, arn, context),))


def _unescape(text: bytes) -> str:
    import html

    return html.unescape(text.decode())


def _object_rights(request: Request, arn: str, query: Mapping[str, str]) -> list[Asked]:
    version = "Version" if "versionId" in query else ""
    if request.method in {"GET", "HEAD"}:
        if "uploadId" in query:
            return [Asked("s3:ListMultipartUploadParts", arn)]
        kind = "Tagging" if "tagging" in query else "Acl" if "acl" in query else ""
        return [Asked(f"s3:GetObject{version}{kind}", arn)]
    if request.method == "DELETE":
        return [Asked("s3:AbortMultipartUpload" if "uploadId" in query else f"s3:DeleteObject{version}", arn)]
    if "tagging" in query:
        return [Asked("s3:PutObjectTagging", arn)]
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    creates = not ("partNumber" in query or "uploads" in query)
    context = {"s3:objectcreationoperation": [str(creates).lower()]}
    for name in ("if-none-match", "if-match"):
        if (value := request.header(name)) is not None:
            context[f"s3:{name}"] = [value]
    rights = [Asked("s3:PutObject", arn, context)]
    if "s3:if-match" in context:  # whether the object is still the same is something that it tells
        rights.append(Asked("s3:GetObject", arn))
    if (source := request.header("x-amz-copy-source")) is not None:
        name = urllib.parse.unquote(source).lstrip("/").partition("?")[0]
        rights.append(Asked("s3:GetObject", f"arn:{PARTITION}:s3:::{name}"))
    return rights
