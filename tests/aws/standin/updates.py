"""Updates in place of roles, managed policies and rules, which moto's CloudFormation leaves as they were or renames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moto.events.models import Rule
from moto.iam.models import IAMBackend, ManagedPolicy, Role, iam_backends

from tests.aws.standin.identity import ACCOUNT, PARTITION
from tests.aws.standin.patching import replace


def install() -> None:
    """Teach moto these."""
    # Whoever looks for a role goes through all of them, while other requests make more.
    replace(IAMBackend, get_roles=lambda backend: list(backend.roles.values()))
    _patch_roles()
    _patch_managed_policies()
    redeploy = Rule.update_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def redeploy_rule(
        cls: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *given: Any, **named: Any
    ) -> Any:
        return redeploy(cls, original_resource, original_resource.name, cloudformation_json, *given, **named)

    replace(Rule, update_from_cloudformation_json=classmethod(redeploy_rule))


def _iam() -> Any:
    return iam_backends[ACCOUNT][PARTITION]


def _patch_roles() -> None:
    redeploy = Role.update_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def redeploy_whole(
        cls: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *given: Any, **named: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        role = redeploy(cls, original_resource, new_resource_name, cloudformation_json, *given, **named)
        role.assume_role_policy_document = json.dumps(properties["AssumeRolePolicyDocument"])
        before, after = (_inline(one) for one in (_properties_of(original_resource), properties))
        for name in before.keys() - after.keys():
            role.policies.pop(name, None)
        for name, document in after.items():
            role.put_policy(name, document)
        _remember(role, properties)
        return role

    deploy = Role.create_from_cloudformation_json.__func__  # type: ignore[attr-defined]

    def deploy_whole(cls: Any, resource_name: str, cloudformation_json: Any, *given: Any, **named: Any) -> Any:
        role = deploy(cls, resource_name, cloudformation_json, *given, **named)
        _remember(role, cloudformation_json["Properties"])
        return role

    replace(
        Role,
        create_from_cloudformation_json=classmethod(deploy_whole),
        update_from_cloudformation_json=classmethod(redeploy_whole),
    )


def _remember(role: Any, properties: Mapping[str, Any]) -> None:
    """Keep which inline policies are the role's own: AWS::IAM::Policy may have put others there."""
    role.deployed_policies = _inline(properties)


def _properties_of(role: Any) -> Mapping[str, Any]:
    own = getattr(role, "deployed_policies", {})
    return {"Policies": [{"PolicyName": name, "PolicyDocument": document} for name, document in own.items()]}


def _inline(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {one["PolicyName"]: one["PolicyDocument"] for one in properties.get("Policies", [])}


def _patch_managed_policies() -> None:
    def redeploy(
        cls: Any, original_resource: Any, new_resource_name: str, cloudformation_json: Any, *given: Any, **named: Any
    ) -> Any:
        properties = cloudformation_json["Properties"]
        policy = _iam().get_policy(original_resource.arn)
        _iam().create_policy_version(policy.arn, json.dumps(properties["PolicyDocument"]), "true")
        for stale in [one for one in policy.versions if not one.is_default]:
            _iam().delete_policy_version(policy.arn, stale.version_id)
        wanted = set(properties.get("Roles", []))
        for role in _iam().get_roles():
            attached = policy.arn in role.managed_policies
            if attached and role.name not in wanted and "Roles" in properties:
                policy.detach_from(role)
            elif not attached and role.name in wanted:
                policy.attach_to(role)
        return policy

    replace(ManagedPolicy, update_from_cloudformation_json=classmethod(redeploy))
