"""The one module that makes clients of AWS; everything else gets them as an argument."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any, cast

from jobspec.errors import AccessError

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.session import Session
    from mypy_boto3_batch import BatchClient
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_stepfunctions import SFNClient
    from mypy_boto3_sts import STSClient

_ATTEMPTS = 8
"""Tries of one request. boto3's own default of 3 gives up in the first storm of throttling."""

_CONNECT_TIMEOUT_S = 10
_READ_TIMEOUT_S = 60


class Clients:
    """Make each client when it is first asked for; all share one session, one configuration and one region."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @functools.cached_property
    def region(self) -> str:
        """Return the region that is used.

        Raises:
            AccessError: none is set, or a profile that does not exist is.
        """
        from submitter.cloud.errors import explained

        with explained("Reading your AWS settings"):
            # boto3 alone among AWS's tools reads only AWS_DEFAULT_REGION; all others take AWS_REGION first.
            region = os.environ.get("AWS_REGION") or self._session.get_config_variable("region")
        if not region:
            raise AccessError(
                "No AWS region is set. Set one, for example 'export AWS_REGION=us-east-1' or 'aws configure set region "
                "us-east-1', then run the same command again."
            )
        return str(region)

    @functools.cached_property
    def _caller(self) -> tuple[str, str]:
        from submitter.cloud.errors import explained

        with explained("Asking AWS whose credentials these are"):
            told = self.sts.get_caller_identity()
        return told["Account"], told["Arn"]

    @property
    def account(self) -> str:
        """Return the number of the account; asks AWS once."""
        return self._caller[0]

    @property
    def caller(self) -> str:
        """Return the ARN of the user or role in use; asks AWS once."""
        return self._caller[1]

    @functools.cached_property
    def partition(self) -> str:
        """Return the part of AWS in which the region lies: aws, aws-cn, aws-us-gov."""
        return self._session.get_partition_for_region(self.region)

    @functools.cached_property
    def batch(self) -> BatchClient:
        """Return the client of AWS Batch."""
        return cast("BatchClient", self._make("batch"))

    @functools.cached_property
    def batch_once(self) -> BatchClient:
        """Return a client of AWS Batch that sends each request once.

        SubmitJob has no idempotency token: after a lost answer, whoever sent it looks by name before it sends again.
        """
        return cast("BatchClient", self._make("batch", attempts=1))

    @functools.cached_property
    def cloudformation(self) -> CloudFormationClient:
        """Return the client of CloudFormation."""
        return cast("CloudFormationClient", self._make("cloudformation"))

    @functools.cached_property
    def ec2(self) -> EC2Client:
        """Return the client of EC2."""
        return cast("EC2Client", self._make("ec2"))

    @functools.cached_property
    def ecr(self) -> ECRClient:
        """Return the client of the container registry."""
        return cast("ECRClient", self._make("ecr"))

    @functools.cached_property
    def events(self) -> EventBridgeClient:
        """Return the client of EventBridge."""
        return cast("EventBridgeClient", self._make("events"))

    @functools.cached_property
    def iam(self) -> IAMClient:
        """Return the client of IAM."""
        return cast("IAMClient", self._make("iam"))

    @functools.cached_property
    def logs(self) -> CloudWatchLogsClient:
        """Return the client of CloudWatch Logs."""
        return cast("CloudWatchLogsClient", self._make("logs"))

    @functools.cached_property
    def quotas(self) -> ServiceQuotasClient:
        """Return the client of Service Quotas."""
        return cast("ServiceQuotasClient", self._make("service-quotas"))

    @functools.cached_property
    def s3(self) -> S3Client:
        """Return the client of S3, for buckets; objects of a store go through `jobspec.stores`."""
        return cast("S3Client", self._make("s3"))

    @functools.cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        """Return the client of EventBridge Scheduler."""
        return cast("EventBridgeSchedulerClient", self._make("scheduler"))

    @functools.cached_property
    def stepfunctions(self) -> SFNClient:
        """Return the client of Step Functions."""
        return cast("SFNClient", self._make("stepfunctions"))

    @functools.cached_property
    def sts(self) -> STSClient:
        """Return the client that tells whose credentials these are."""
        return cast("STSClient", self._make("sts"))

    @functools.cached_property
    def config(self) -> Config:
        """Return the configuration of every client."""
        from botocore.config import Config

        return Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            tcp_keepalive=True,
            user_agent_extra="foldfleet",
            s3=cast("Any", {"addressing_style": "path"}) if self._elsewhere() else None,
        )

    def _elsewhere(self) -> bool:
        """Say whether S3 is another server than AWS: bucket.localhost has no address."""
        told = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        return bool(told) and ".amazonaws." not in told

    def _make(self, service: str, attempts: int = _ATTEMPTS) -> Any:
        from botocore.config import Config

        from submitter.cloud.errors import explained

        config = self.config.merge(Config(retries={"mode": "standard", "total_max_attempts": attempts}))
        with explained(f"Making a client of {service}"):
            client = self._session.create_client(service, region_name=self.region, config=config)
        client.meta.events.register("after-call", _note_service)
        return client


def _note_service(parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Note in an answer which service gave it, so that an error can name the IAM action that is missing."""
    from submitter.cloud.errors import SERVICE

    parsed.setdefault("ResponseMetadata", {})[SERVICE] = model.service_model.signing_name


def make_clients() -> Clients:
    """Return clients with the credentials, region and endpoints that every AWS tool takes; sends no request."""
    import botocore.session

    return Clients(botocore.session.Session())
