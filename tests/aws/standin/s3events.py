"""The events of S3: "Object Created" for buckets that send theirs to EventBridge.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
"""

from __future__ import annotations

import datetime as dt
import secrets
import string
import threading
from collections.abc import Mapping
from typing import Any

from moto.s3.models import s3_backends

from tests.aws.standin.identity import ACCOUNT, PARTITION, REGION
from tests.servers.faulty import Request

_LETTERS = string.ascii_uppercase + string.digits


class _Sequence:
    """Count upwards, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = int(dt.datetime.now(dt.UTC).timestamp() * 1e6)

    def __next__(self) -> int:
        with self._lock:
            self._number += 1
            return self._number


_SEQUENCE = _Sequence()


def wants_events(bucket: str) -> bool:
    """Say whether a bucket's events go to EventBridge."""
    found = s3_backends[ACCOUNT][PARTITION].buckets.get(bucket)
    configuration = getattr(found, "notification_configuration", None)
    return configuration is not None and configuration.event_bridge is not None


def is_versioned(bucket: str) -> bool:
    """Say whether versioning is on for a bucket."""
    found: Any = s3_backends[ACCOUNT][PARTITION].buckets.get(bucket)
    return found is not None and found.versioning_status == "Enabled"


def why_created(request: Request) -> str:
    """Return the reason that the event of a new object gives."""
    if request.method == "POST":
        return "CompleteMultipartUpload"
    return "CopyObject" if request.header("x-amz-copy-source") else "PutObject"


def make_event(bucket: str, key: str, head: Mapping[str, str], reason: str, requester: str = ACCOUNT) -> dict[str, Any]:
    """Return the event of a new object.

    Args:
        bucket: its bucket.
        key: as it is, nothing is encoded.
        head: the object's headers: Content-Length, ETag and, where there are versions, x-amz-version-id.
        reason: the API that made it.
        requester: the account, or the AWS service.
    """
    about = {
        "key": key,
        "size": int(head.get("content-length", 0)),
        "etag": head.get("etag", "").strip('"'),
        "sequencer": f"{next(_SEQUENCE):018X}",
    }
    if is_versioned(bucket):
        about["version-id"] = head.get("x-amz-version-id") or secrets.token_urlsafe(24)
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "region": REGION,
        "resources": [f"arn:{PARTITION}:s3:::{bucket}"],
        "detail": {
            "version": "0",
            "event-version": "1.0",
            "bucket": {"name": bucket},
            "object": about,
            "request-id": "".join(secrets.choice(_LETTERS) for _ in range(16)),
            "requester": requester,
            "source-ip-address": "127.0.0.1",
            "reason": reason,
        },
    }
