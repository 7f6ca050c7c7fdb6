"""The IAM actions that `submit infra` needs, as policies to hand to whoever grants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grant:
    """Some actions, on which resources, and what for."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Encode as a statement of a policy."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": list(self.resources),
        }
        return statement if self.condition is None else {**statement, "Condition": self.condition}


def make_policies(
    stack: str, *, partition: str = "aws", region: str = "*", account: str = "*"
) -> dict[str, dict[str, Any]]:
    """Return the policies for `submit infra` and `submit events enable` of one stack by their names.

    Whoever builds needs all of them: together they are longer than IAM lets one be. CloudFormation acts with the rights
    of whoever calls it, so each part of the stack needs the actions to make, change and remove it. The schema of a type
    tells which (``handlers``; `aws cloudformation describe-type`).
    """
    arn, place = f"arn:{partition}", f"{region}:{account}"
    parts = {
        "stack": (
            *_stack_grants(stack, arn, place),
            *_role_grants(stack, arn, account),
            *_handing_grants(stack, arn, account),
            *_bucket_grants(stack, arn),
        ),
        "parts": (
            *_batch_grants(stack, arn, place),
            *_image_grants(stack, arn, place),
            *_host_grants(arn, place),
            *_event_grants(stack, arn, place),
        ),
    }
    return {
        f"{stack}-builder-{name}": {"Version": "2012-10-17", "Statement": [grant.to_json() for grant in grants]}
        for name, grants in parts.items()
    }


def _stack_grants(stack: str, arn: str, place: str) -> Sequence[Grant]:
    return (
        Grant(
            "Stack",
            (
                "cloudformation:CreateChangeSet",
                "cloudformation:DeleteChangeSet",
                "cloudformation:DeleteStack",
                "cloudformation:DescribeChangeSet",
                "cloudformation:DescribeStackEvents",
                "cloudformation:DescribeStacks",
                "cloudformation:ExecuteChangeSet",
            ),
            (f"{arn}:cloudformation:{place}:stack/{stack}/*",),
        ),
        # None of these knows a resource, or none before the resource exists (Service Authorization Reference).
        Grant(
            "Look",
            (
                "batch:DescribeComputeEnvironments",
                "batch:DescribeJobDefinitions",
                "batch:DescribeJobQueues",
                "batch:DescribeJobs",
                "batch:ListJobs",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInstances",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:DescribeLaunchTemplates",
                "ec2:DescribeRouteTables",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcEndpoints",
                "ec2:DescribeVpcs",
                "logs:DescribeLogGroups",
                "logs:DescribeResourcePolicies",
            ),
            ("*",),
        ),
        Grant("Quotas", ("servicequotas:GetServiceQuota",), (f"{arn}:servicequotas:{place}:ec2/*",)),
    )


def _role_grants(stack: str, arn: str, account: str) -> Sequence[Grant]:
    roles = f"{arn}:iam::{account}:role/{stack}-*"
    return (
        Grant(
            "Roles",
            (
                "iam:AddRoleToInstanceProfile",
                "iam:AttachRolePolicy",
                "iam:CreateInstanceProfile",
                "iam:CreatePolicy",
                "iam:CreatePolicyVersion",
                "iam:CreateRole",
                "iam:DeleteInstanceProfile",
                "iam:DeletePolicy",
                "iam:DeletePolicyVersion",
                "iam:DeleteRole",
                "iam:DeleteRolePermissionsBoundary",
                "iam:DeleteRolePolicy",
                "iam:DetachRolePolicy",
                "iam:GetInstanceProfile",
                "iam:GetPolicy",
                "iam:GetPolicyVersion",
                "iam:GetRolePolicy",
                "iam:ListAttachedRolePolicies",
                "iam:ListEntitiesForPolicy",
                "iam:ListPolicyVersions",
                "iam:ListRolePolicies",
                "iam:PutRolePermissionsBoundary",
                "iam:PutRolePolicy",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagPolicy",
                "iam:TagRole",
                "iam:UntagPolicy",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
                "iam:UpdateRole",
                "iam:UpdateRoleDescription",
            ),
            (roles, f"{arn}:iam::{account}:policy/{stack}-*", f"{arn}:iam::{account}:instance-profile/{stack}-*"),
        ),
    )


def _handing_grants(stack: str, arn: str, account: str) -> Sequence[Grant]:
    roles = f"{arn}:iam::{account}:role/{stack}-*"
    return (
        # Of a linked role that is not there yet, nobody knows the path.
        Grant(
            "SeeRoles",
            ("iam:GetRole",),
            (
                roles,
                f"{arn}:iam::{account}:role/aws-service-role/*",
                f"{arn}:iam::{account}:role/AWSServiceRoleFor*",
            ),
        ),
        Grant(
            "HandRolesOver",
            ("iam:PassRole",),
            (roles,),
            {
                "StringEquals": {
                    "iam:PassedToService": [
                        "batch.amazonaws.com",
                        "ec2.amazonaws.com",
                        "events.amazonaws.com",
                        "states.amazonaws.com",
                    ],
                }
            },
        ),
        Grant(
            "LinkedRoles",
            ("iam:CreateServiceLinkedRole",),
            (f"{arn}:iam::{account}:role/aws-service-role/*",),
            {
                "StringEquals": {
                    "iam:AWSServiceName": ["batch.amazonaws.com", "ecs.amazonaws.com", "spot.amazonaws.com"],
                }
            },
        ),
    )


def _batch_grants(stack: str, arn: str, place: str) -> Sequence[Grant]:
    return (
        Grant(
            "Batch",
            (
                "batch:CreateComputeEnvironment",
                "batch:CreateJobQueue",
                "batch:DeleteComputeEnvironment",
                "batch:DeleteJobQueue",
                "batch:DeregisterJobDefinition",
                "batch:TagResource",
                "batch:TerminateJob",
                "batch:UntagResource",
                "batch:UpdateComputeEnvironment",
                "batch:UpdateJobQueue",
            ),
            (
                f"{arn}:batch:{place}:compute-environment/*",
                f"{arn}:batch:{place}:job-queue/{stack}",
                f"{arn}:batch:{place}:job-definition/{stack}-*",
                f"{arn}:batch:{place}:job/*",
            ),
        ),
    )


def _bucket_grants(stack: str, arn: str) -> Sequence[Grant]:
    return (
        Grant(
            "Bucket",
            (
                "s3:AbortMultipartUpload",
                "s3:CreateBucket",
                "s3:DeleteBucket",
                "s3:DeleteBucketPolicy",
                "s3:DeleteObject",
                "s3:DeleteObjectVersion",
                "s3:GetBucketNotification",
                "s3:GetBucketPolicy",
                "s3:GetBucketTagging",
                "s3:ListBucket",
                "s3:ListBucketMultipartUploads",
                "s3:ListBucketVersions",
                "s3:PutBucketNotification",
                "s3:PutBucketOwnershipControls",
                "s3:PutBucketPolicy",
                "s3:PutBucketPublicAccessBlock",
                "s3:PutBucketTagging",
                "s3:PutEncryptionConfiguration",
                "s3:PutLifecycleConfiguration",
                "s3:TagResource",
            ),
            (f"{arn}:s3:::{stack}-*",),
        ),
    )


def _image_grants(stack: str, arn: str, place: str) -> Sequence[Grant]:
    return (
        Grant(
            "Images",
            (
                "ecr:BatchDeleteImage",
                "ecr:CreateRepository",
                "ecr:DeleteLifecyclePolicy",
                "ecr:DeleteRepository",
                "ecr:DescribeImages",
                "ecr:DescribeRepositories",
                "ecr:GetLifecyclePolicy",
                "ecr:GetRepositoryPolicy",
                "ecr:ListImages",
                "ecr:ListTagsForResource",
                "ecr:PutImageScanningConfiguration",
                "ecr:PutImageTagMutability",
                "ecr:PutLifecyclePolicy",
                "ecr:TagResource",
                "ecr:UntagResource",
            ),
            (f"{arn}:ecr:{place}:repository/{stack}",),
        ),
    )


def _host_grants(arn: str, place: str) -> Sequence[Grant]:
    return (
        Grant(
            "Hosts",
            (
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:CreateLaunchTemplate",
                "ec2:CreateLaunchTemplateVersion",
                "ec2:CreateSecurityGroup",
                "ec2:CreateTags",
                "ec2:CreateVpcEndpoint",
                "ec2:DeleteLaunchTemplate",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteTags",
                "ec2:DeleteVpcEndpoints",
                "ec2:ModifyVpcEndpoint",
                "ec2:RevokeSecurityGroupEgress",
            ),
            tuple(
                f"{arn}:ec2:{place}:{kind}/*"
                for kind in ("launch-template", "route-table", "security-group", "vpc", "vpc-endpoint")
            ),
        ),
    )


def _event_grants(stack: str, arn: str, place: str) -> Sequence[Grant]:
    return (
        Grant(
            "LogsAndEvents",
            (
                "events:DeleteRule",
                "events:DescribeRule",
                "events:ListTagsForResource",
                "events:ListTargetsByRule",
                "events:PutRule",
                "events:PutTargets",
                "events:RemoveTargets",
                "events:TagResource",
                "events:UntagResource",
                "logs:CreateLogGroup",
                "logs:DeleteDataProtectionPolicy",
                "logs:DeleteLogGroup",
                "logs:DescribeIndexPolicies",
                "logs:GetDataProtectionPolicy",
                "logs:ListTagsForResource",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
                "logs:UntagResource",
                "scheduler:CreateScheduleGroup",
                "scheduler:DeleteSchedule",
                "scheduler:DeleteScheduleGroup",
                "scheduler:GetScheduleGroup",
                "scheduler:ListTagsForResource",
                "scheduler:TagResource",
                "scheduler:UntagResource",
                "sqs:CreateQueue",
                "sqs:DeleteQueue",
                "sqs:GetQueueAttributes",
                "sqs:GetQueueUrl",
                "sqs:ListQueueTags",
                "sqs:SetQueueAttributes",
                "sqs:TagQueue",
                "sqs:UntagQueue",
                "states:CreateStateMachine",
                "states:DeleteStateMachine",
                "states:DescribeStateMachine",
                "states:ListTagsForResource",
                "states:TagResource",
                "states:UntagResource",
                "states:UpdateStateMachine",
            ),
            (
                f"{arn}:events:{place}:rule/{stack}-*",
                f"{arn}:logs:{place}:log-group:{stack}-*",
                f"{arn}:scheduler:{place}:schedule/{stack}/*",
                f"{arn}:scheduler:{place}:schedule-group/{stack}",
                f"{arn}:sqs:{place}:{stack}-*",
                f"{arn}:states:{place}:stateMachine:{stack}-*",
            ),
        ),
    )
