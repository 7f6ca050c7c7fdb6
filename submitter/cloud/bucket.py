"""The bucket of the store: the stack's own, one that an earlier stack left, or one that the user names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobspec.errors import AccessError, NotFoundError, UsageError
from jobspec.stores.s3errors import code_of, status_of
from submitter.cloud.clients import Clients
from submitter.cloud.errors import explained

STACK_TAG = "foldfleet:stack"
_OWN_SID = "ResultsAreCreatedOnce"


@dataclass(frozen=True)
class Home:
    """Name the bucket, and say who made it and its policy."""

    bucket: str
    partition: str
    is_new: bool
    has_own_policy: bool
    origin: str = "made"
    """Where it comes from: made, found (it was there before this stack), or kept (the stack has it)."""

    def parameters(self) -> dict[str, str]:
        """Return the template's parameters about it."""
        return {
            "BucketName": self.bucket,
            "MakeBucket": "yes" if self.is_new else "no",
            "MakeBucketPolicy": "yes" if self.has_own_policy else "no",
        }


def default_bucket(clients: Clients, stack: str) -> str:
    """Return the name under which every stack of this name, account and region keeps its data."""
    return f"{stack}-{clients.account}-{clients.region}"


def find_home(clients: Clients, stack: str, named: str | None, before: Mapping[str, str]) -> Home:
    """Return the bucket to use: what the stack has, what was named, or the default one, made or found.

    Raises:
        NotFoundError: a bucket that was named does not exist.
        UsageError: it lies in another region.
        AccessError: it is another account's, or the right to look is missing.
    """
    partition = clients.partition
    kept = before.get("BucketName")
    if kept and named in {None, kept}:
        own, policy = before["MakeBucket"] == "yes", before["MakeBucketPolicy"] == "yes"
        return Home(kept, partition, is_new=own, has_own_policy=policy, origin="kept")
    name = named or default_bucket(clients, stack)
    if not exists(clients, name):
        if named:
            raise NotFoundError(
                f"There is no bucket {named!r}. Make it with 'aws s3 mb s3://{named}', or leave out --bucket: then "
                f"{default_bucket(clients, stack)!r} is made."
            )
        return Home(name, partition, is_new=True, has_own_policy=True)
    return Home(name, partition, is_new=False, has_own_policy=not _has_policy(clients, name), origin="found")


def exists(clients: Clients, bucket: str) -> bool:
    """Say whether a bucket of this account exists in this region.

    Raises:
        AccessError: it is another account's: names of buckets are shared by all the world.
        UsageError: it lies in another region.
    """
    from botocore.exceptions import ClientError

    with explained(f"Looking for the bucket {bucket!r}"):
        try:
            clients.s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=clients.account)
        except ClientError as error:
            if status_of(error) == 404:
                return False
            if status_of(error) in {301, 400} and _region_of(error) not in {"", clients.region}:
                raise UsageError(
                    f"The bucket {bucket!r} lies in {_region_of(error)}, and the stack in {clients.region}: reading it "
                    "would be slow and billed. Name a bucket of this region, or set AWS_REGION."
                ) from None
            if status_of(error) == 403:
                raise AccessError(
                    f"The bucket {bucket!r} cannot be used: it belongs to another account than {clients.account}, or "
                    f"s3:ListBucket on arn:{clients.partition}:s3:::{bucket} is missing. Name another one with "
                    "--bucket, or allow that to the credentials in use."
                ) from None
            raise
    return True


def _region_of(error: Any) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("x-amz-bucket-region", ""))


def _has_policy(clients: Clients, bucket: str) -> bool:
    """Say whether the bucket has a policy, which CloudFormation would refuse to replace."""
    from botocore.exceptions import ClientError

    with explained(f"Reading the policy of the bucket {bucket!r}"):
        try:
            clients.s3.get_bucket_policy(Bucket=bucket)
        except ClientError as error:
            if code_of(error) == "NoSuchBucketPolicy":
                return False
            raise
    return True


def protects_results(clients: Clients, bucket: str) -> bool:
    """Say whether a bucket's policy keeps results from being overwritten, as the stack's own does."""
    from botocore.exceptions import ClientError

    with explained(f"Reading the policy of the bucket {bucket!r}"):
        try:
            policy = json.loads(clients.s3.get_bucket_policy(Bucket=bucket)["Policy"])
        except ClientError as error:
            if code_of(error) == "NoSuchBucketPolicy":
                return False
            raise
    return any(statement.get("Sid") == _OWN_SID for statement in policy.get("Statement", ()))


_EVENTBRIDGE = "EventBridgeConfiguration"


def tells_events(clients: Clients, bucket: str) -> bool:
    """Say whether a bucket tells EventBridge of new objects."""
    return _EVENTBRIDGE in _notices(clients, bucket)


def other_notices(clients: Clients, bucket: str) -> bool:
    """Say whether a bucket tells others than EventBridge of its objects: queues, topics, functions."""
    return bool(_notices(clients, bucket).keys() - {_EVENTBRIDGE})


def turn_on_notices(clients: Clients, bucket: str) -> bool:
    """Have a bucket that the stack did not make tell EventBridge of new objects, beside what it tells already.

    Returns:
        Whether that was new.

    Raises:
        AccessError: the right to is missing.
    """
    there = _notices(clients, bucket)
    if _EVENTBRIDGE in there:
        return False
    whole: Any = {**there, _EVENTBRIDGE: {}}
    with explained(f"Having the bucket {bucket!r} tell EventBridge of new objects"):
        # The request replaces everything. What was there was checked when it was made, and is not ours to check.
        clients.s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration=whole,
            SkipDestinationValidation=True,
            ExpectedBucketOwner=clients.account,
        )
    return True


def _notices(clients: Clients, bucket: str) -> dict[str, Any]:
    """Return what a bucket tells to whom."""
    with explained(f"Reading the notifications of the bucket {bucket!r}"):
        there = clients.s3.get_bucket_notification_configuration(Bucket=bucket)
    return {name: value for name, value in there.items() if name != "ResponseMetadata"}


def is_ours(clients: Clients, bucket: str) -> bool:
    """Say whether a stack of foldfleet made this bucket."""
    from botocore.exceptions import ClientError

    with explained(f"Reading the tags of the bucket {bucket!r}"):
        try:
            tags = clients.s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
        except ClientError as error:
            if code_of(error) == "NoSuchTagSet":
                return False
            raise
    return any(tag["Key"] == STACK_TAG for tag in tags)


def empty(clients: Clients, bucket: str, prefix: str) -> int:
    """Delete every object below a prefix, old versions and unfinished uploads among them; return how many."""
    num_deleted = 0
    with explained(f"Emptying the bucket {bucket!r}"):
        for page in clients.s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
            found: list[Any] = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            doomed: list[Any] = [{"Key": item["Key"], "VersionId": item["VersionId"]} for item in found]
            if doomed:
                answer = clients.s3.delete_objects(Bucket=bucket, Delete={"Objects": doomed, "Quiet": True})
                if refused := answer.get("Errors"):
                    raise AccessError(
                        f"{len(refused)} objects of the bucket {bucket!r} could not be deleted, the first is "
                        f"{refused[0].get('Key')!r}: {refused[0].get('Message')}. s3:DeleteObject and "
                        f"s3:DeleteObjectVersion on arn:{clients.partition}:s3:::{bucket}/* are needed."
                    )
                num_deleted += len(doomed)
        for uploads in clients.s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
            for upload in uploads.get("Uploads", []):
                clients.s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return num_deleted


def delete(clients: Clients, bucket: str) -> None:
    """Delete an empty bucket."""
    with explained(f"Deleting the bucket {bucket!r}"):
        clients.s3.delete_bucket(Bucket=bucket)
