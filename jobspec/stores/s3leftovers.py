"""Multipart uploads that killed writers left behind: no listing of objects shows them, and their parts are billed."""

from __future__ import annotations

from collections.abc import Iterator

from jobspec.stores.base import Entry
from jobspec.stores.layout import Layout
from jobspec.stores.s3errors import status_of
from jobspec.stores.s3requests import S3Requests

_MARK = "#"
"""Stands between the key and the id of an upload; ids hold no such sign."""


def find_unfinished(requests: S3Requests, before: float) -> Iterator[Entry]:
    """Yield the uploads below the store's prefix that were begun before a moment, each with the length of its parts."""
    prefix = requests.address.prefix
    with requests.explained("ListMultipartUploads", ""):
        pages = requests.client().get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=requests.address.bucket, Prefix=prefix):
            for upload in page.get("Uploads", []):
                begun = upload["Initiated"].timestamp()
                key = upload["Key"].removeprefix(prefix)
                # Some servers list every upload of the bucket; and beside the store others may keep what is theirs.
                ours = upload["Key"].startswith(prefix) and key.partition("/")[0] in Layout.tops()
                if begun < before and ours:
                    size = _measure(requests, upload["Key"], upload["UploadId"])
                    yield Entry(f"{key}{_MARK}{upload['UploadId']}", size, begun)


def discard_unfinished(requests: S3Requests, upload: Entry) -> None:
    """Abort an upload; one that is gone meanwhile is no error."""
    from botocore.exceptions import ClientError

    key, _, upload_id = upload.key.rpartition(_MARK)
    with requests.explained("AbortMultipartUpload", key):
        try:
            requests.client().abort_multipart_upload(
                Bucket=requests.address.bucket, Key=requests.full_key(key), UploadId=upload_id
            )
        except ClientError as error:
            if status_of(error) != 404:
                raise


def _measure(requests: S3Requests, full_key: str, upload_id: str) -> int:
    pages = requests.client().get_paginator("list_parts")
    parts = pages.paginate(Bucket=requests.address.bucket, Key=full_key, UploadId=upload_id)
    return sum(part["Size"] for page in parts for part in page.get("Parts", []))
