"""Types of CloudFormation resources, and properties, that moto's CloudFormation leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

from moto.cloudformation import parsing
from moto.core.common_models import CloudFormationModel
from moto.logs.models import LogGroup
from moto.s3.models import FakeBucket, PublicAccessBlock, S3Backend, s3_backends
from moto.s3.responses import S3Response
from moto.sqs.models import sqs_backends
from moto.stepfunctions.models import StateMachine

from tests.aws.standin.identity import ACCOUNT, PARTITION, REGION
from tests.aws.standin.patching import replace

MakeBucket = Callable[[str], None]


class _Named:
    """A resource that is nothing but a setting of another."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def physical_resource_id(self) -> str:
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return False


class BucketPolicy(_Named, CloudFormationModel):
    """AWS::S3::BucketPolicy."""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::S3::BucketPolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> BucketPolicy:
        properties = cloudformation_json["Properties"]
        document = json.dumps(properties["PolicyDocument"]).encode()
        _s3().put_bucket_policy(properties["Bucket"], document)
        return cls(properties["Bucket"])

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Any, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> BucketPolicy:
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)

    def delete(self, _account_id: str, _region_name: str) -> None:
        if self.name in _s3().buckets:
            _s3().delete_bucket_policy(self.name)


class QueuePolicy(_Named, CloudFormationModel):
    """AWS::SQS::QueuePolicy; who may send is not evaluated, only kept."""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SQS::QueuePolicy"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **_: Any
    ) -> QueuePolicy:
        properties = cloudformation_json["Properties"]
        for url in properties["Queues"]:
            queue = sqs_backends[ACCOUNT][REGION].get_queue(url.rpartition("/")[2])
            queue._set_attributes({"Policy": json.dumps(properties["PolicyDocument"])})
        return cls(resource_name)

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource: Any, new_resource_name: str, cloudformation_json: Any, account_id: str, region_name: str
    ) -> QueuePolicy:
        return cls.create_from_cloudformation_json(new_resource_name, cloudformation_json, account_id, region_name)

    def delete(self, _account_id: str, _region_name: str) -> None:
        """Leave the queue alone: it goes by itself."""


def _s3() -> S3Backend:
    return s3_backends[ACCOUNT][PARTITION]


def install(make_bucket: MakeBucket, remove_bucket: Callable[[str], bool]) -> None:
    """Teach moto these types and properties.

    Args:
        make_bucket: makes a bucket where objects lie.
        remove_bucket: removes it there; False if it holds objects.
    """
    for cache in (parsing.get_model_list, parsing.get_model_map, parsing.get_name_type_map):
        cache.cache_clear()
    _patch_buckets(make_bucket, remove_bucket)
    _patch_notifications()
    _patch_state_machines()
    _patch_log_groups()
    _patch_intrinsics()


def _patch_buckets(make_bucket: MakeBucket, remove_bucket: Callable[[str], bool]) -> None:
    make, remove = S3Backend.create_bucket, S3Backend.delete_bucket
    deploy = FakeBucket.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]
    redeploy = FakeBucket.update_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def make_both(backend: S3Backend, bucket_name: str, *given: Any, **named: Any) -> Any:
        bucket = make(backend, bucket_name, *given, **named)
        make_bucket(bucket_name)
        return bucket

    def remove_both(backend: S3Backend, bucket_name: str) -> Any:
        backend.get_bucket(bucket_name)
        return remove(backend, bucket_name) if remove_bucket(bucket_name) else None

    def deploy_whole(cls: Any, name: str, document: Any, *given: Any, **named: Any) -> Any:
        bucket = deploy(cls, name, document, *given, **named)
        set_bucket(name, document["Properties"])
        return bucket

    def redeploy_whole(
        cls: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *given: Any, **named: Any
    ) -> Any:
        cloudformation_json["Properties"].setdefault("BucketName", original_resource.name)
        bucket = redeploy(cls, original_resource, new_resource_name, cloudformation_json, *given, **named)
        set_bucket(bucket.name, cloudformation_json["Properties"])
        return bucket

    def delete_deployed(cls: Any, name: str, *_given: Any) -> None:
        if _s3().delete_bucket(name) is None:
            raise ValueError("The bucket you tried to delete is not empty")

    replace(S3Backend, create_bucket=make_both, delete_bucket=remove_both)
    replace(
        FakeBucket,
        create_from_cloudformation_json=classmethod(deploy_whole),
        update_from_cloudformation_json=classmethod(redeploy_whole),
        delete_from_cloudformation_json=classmethod(delete_deployed),
    )


def set_bucket(name: str, properties: Mapping[str, Any]) -> None:
    """Set what CloudFormation says of a bucket beside its encryption and its tags."""
    bucket = _s3().get_bucket(name)
    if "PublicAccessBlockConfiguration" in properties:
        wanted = properties["PublicAccessBlockConfiguration"]
        names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        bucket.public_access_block = PublicAccessBlock(*(str(wanted.get(one, False)).lower() for one in names))
    if "OwnershipControls" in properties:
        rule = properties["OwnershipControls"]["Rules"][0]
        bucket.ownership_rule = {"Rule": {"ObjectOwnership": rule["ObjectOwnership"]}}
    if "VersioningConfiguration" in properties:
        bucket.versioning_status = properties["VersioningConfiguration"]["Status"]
    if "LifecycleConfiguration" in properties:
        bucket.set_lifecycle([_lifecycle_rule(rule) for rule in properties["LifecycleConfiguration"]["Rules"]])
    events = properties.get("NotificationConfiguration", {}).get("EventBridgeConfiguration", {})
    is_on = str(events.get("EventBridgeEnabled", False)).lower() == "true"
    bucket.set_notification_configuration({"EventBridgeConfiguration": {}} if is_on else None)


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule in the form of the API: CloudFormation's names differ in places."""
    made: dict[str, Any] = {"ID": rule.get("Id", ""), "Status": rule["Status"], "Filter": {"Prefix": ""}}
    if "Prefix" in rule:
        made["Filter"] = {"Prefix": rule["Prefix"]}
    if "AbortIncompleteMultipartUpload" in rule:
        made["AbortIncompleteMultipartUpload"] = dict(rule["AbortIncompleteMultipartUpload"])
    if "ExpirationInDays" in rule:
        made["Expiration"] = {"Days": rule["ExpirationInDays"]}
    return made


def _patch_notifications() -> None:
    """Say of a bucket that it tells EventBridge, where it does."""
    answer = S3Response.get_bucket_notification

    def answer_whole(response: Any) -> Any:
        status, headers, body = answer(response)
        found = response.backend.get_bucket_notification_configuration(response.bucket_name)
        if found is not None and found.event_bridge is not None:
            document = ET.fromstring(body)
            ET.SubElement(document, "EventBridgeConfiguration")
            body = ET.tostring(document, encoding="unicode")
        return status, headers, body

    replace(S3Response, get_bucket_notification=answer_whole)


def _patch_state_machines() -> None:
    """Let a definition be an object, and put its substitutions in."""
    deploy = StateMachine.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]
    redeploy = StateMachine.update_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def written(document: Any) -> Any:
        properties = document["Properties"]
        if "Definition" in properties:
            properties["DefinitionString"] = json.dumps(properties.pop("Definition"))
        for name, value in (properties.pop("DefinitionSubstitutions", None) or {}).items():
            properties["DefinitionString"] = properties["DefinitionString"].replace(f"${{{name}}}", str(value))
        return document

    def deploy_written(cls: Any, name: str, document: Any, *given: Any, **named: Any) -> Any:
        return deploy(cls, name, written(document), *given, **named)

    def redeploy_written(
        cls: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *given: Any, **named: Any
    ) -> Any:
        cloudformation_json["Properties"].setdefault("StateMachineName", original_resource.name)
        document = written(cloudformation_json)
        return redeploy(cls, original_resource, new_resource_name, document, *given, **named)

    replace(
        StateMachine,
        create_from_cloudformation_json=classmethod(deploy_written),
        update_from_cloudformation_json=classmethod(redeploy_written),
    )


def _patch_log_groups() -> None:
    """Fn::GetAtt gives a log group's ARN with ``:*`` behind it, which policies count on."""
    replace(LogGroup, get_cfn_attribute=lambda group, _name: f"{group.arn}:*")


def _patch_intrinsics() -> None:
    """AWS::NoValue vanishes from lists too; Fn::Equals compares as text, as CloudFormation does."""
    clean, judge = parsing.clean_json, parsing.parse_condition

    def clean_whole(node: Any, resources: Any) -> Any:
        made = clean(node, resources)
        return [entry for entry in made if entry is not None] if isinstance(node, list) else made

    def judge_texts(condition: Any, resources: Any, known: Any) -> Any:
        if isinstance(condition, dict) and "Fn::Equals" in condition:
            left, right = (_as_text(clean_whole(side, resources)) for side in condition["Fn::Equals"])
            return left == right
        return judge(condition, resources, known)

    replace(parsing, clean_json=clean_whole, parse_condition=judge_texts)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
