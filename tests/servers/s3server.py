"""What the tests know of a running S3 server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUCKET = "foldfleet-tests"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """Name a server and the credentials of one of its users."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    ca_bundle: str = ""
    """The file of the authority that vouches for an https endpoint."""

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process needs in its environment to use this server as it would use AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            **({"AWS_CA_BUNDLE": self.ca_bundle} if self.ca_bundle else {}),
        }

    def behind(self, endpoint: str) -> S3Server:
        """Return the same server as it is reached through a proxy."""
        return replace(self, endpoint=endpoint)

    def user(self, access_key: str, secret_key: str) -> S3Server:
        """Return the same server for another user."""
        return replace(self, access_key=access_key, secret_key=secret_key)

    def client(self) -> S3Client:
        """Return a client of the tests' own."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}),
        )

    def fresh_url(self) -> str:
        """Return the URL of a store that does not exist yet."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}/store"

