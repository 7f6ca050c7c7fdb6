"""Who calls: keys of users, temporary keys of roles, and the policies of each as they are deployed in moto's IAM."""

from __future__ import annotations

import datetime as dt
import functools
import json
import secrets
import threading
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from tests.aws.standin import iam
from tests.aws.standin.signing import Signature

ACCOUNT = "123456789012"
REGION = "us-east-1"
PARTITION = "aws"

ADMIN = "admin"
DESK = "desk"
"""The users: one who sets up the cloud, and one who submits."""

_LIFETIME = dt.timedelta(hours=6)
"""What ECS gives a task."""


@dataclass(frozen=True)
class Principal:
    """Somebody who calls: ``kind`` is user, role or service; ``session`` names a role's session."""

    kind: str
    name: str
    session: str = ""

    @property
    def label(self) -> str:
        """Return the name that the recorder uses."""
        return f"{self.kind}/{self.name}"

    @property
    def is_free(self) -> bool:
        """Say whether nothing is asked of IAM: the administrator, and AWS's services on their own behalf."""
        return self.kind == "service" or self == Principal("user", ADMIN)

    @property
    def arn(self) -> str:
        """Return the ARN that errors name."""
        if self.kind == "role":
            return f"arn:{PARTITION}:sts::{ACCOUNT}:assumed-role/{self.name}/{self.session}"
        return f"arn:{PARTITION}:iam::{ACCOUNT}:{self.kind}/{self.name}"

    @property
    def arns(self) -> list[str]:
        """Return the ARNs under which a resource's policy may speak of the principal."""
        own = role_arn(self.name) if self.kind == "role" else self.arn
        return [self.arn, own, f"arn:{PARTITION}:iam::{ACCOUNT}:root", ACCOUNT]


@dataclass(frozen=True)
class Key:
    """An access key; ``expires`` and ``token`` only of temporary ones."""

    access_key: str
    secret: str
    principal: Principal
    token: str | None = None
    expires: dt.datetime | None = None


class RefusedIdentity(Exception):
    """Nobody stands behind a request; ``code`` is S3's word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def role_arn(name: str) -> str:
    """Return the ARN of a role as it is deployed; a role may lie below a path."""
    return str(_iam().get_role(name).arn)


def _iam() -> Any:
    return iam_backends[ACCOUNT][PARTITION]


@dataclass
class Identities:
    """All access keys of the account. Keys made through IAM or STS are found too."""

    keys: dict[str, Key] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make_user(self, name: str) -> Key:
        """Make a user with an access key."""
        _iam().create_user(REGION, name)
        made = _iam().create_access_key(name)
        return self._keep(Key(made.access_key_id, made.secret_access_key, Principal("user", name)))

    def make_session(
        self, arn: str, service: str, session: str, now: dt.datetime, context: iam.Context | None = None
    ) -> Key:
        """Let an AWS service take a role on.

        Raises:
            RefusedIdentity: the role does not exist, or its trust policy does not name the service.
        """
        name = arn.rpartition("/")[2]
        role = next((role for role in _iam().get_roles() if role.arn == arn), None)
        if role is None:
            raise RefusedIdentity("NoSuchEntity", f"The role {arn} does not exist.")
        known = {"aws:sourceaccount": [ACCOUNT], **(context or {})}
        if not iam.trusts(read_document(role.assume_role_policy_document), service, known):
            raise RefusedIdentity("AccessDenied", f"{service} is not allowed to assume {arn}.")
        made = sts_backends[ACCOUNT][PARTITION].assume_role(REGION, session, arn, "", 3600, "")
        principal = Principal("role", name, session)
        return self._keep(
            Key(made.access_key_id, made.secret_access_key, principal, made.session_token, now + _LIFETIME)
        )

    def find(self, signature: Signature, now: dt.datetime) -> Key:
        """Return the key that a request was signed with.

        Raises:
            RefusedIdentity: it does not exist, has expired, or its token is not the one it came with.
        """
        key = self.keys.get(signature.access_key) or self._find_in_moto(signature.access_key)
        if key is None:
            raise RefusedIdentity("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist.")
        if key.token is not None and signature.token != key.token:
            raise RefusedIdentity("InvalidToken", "The provided token is malformed or otherwise invalid.")
        if key.expires is not None and now > key.expires:
            raise RefusedIdentity("ExpiredToken", "The provided token has expired.")
        return key

    def expire(self, name: str) -> int:
        """Let all keys of a role expire now; return how many."""
        past = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        with self.lock:
            mine = [key for key in self.keys.values() if key.token and key.principal.name == name]
            for key in mine:
                self.keys[key.access_key] = Key(key.access_key, key.secret, key.principal, key.token, past)
        return len(mine)

    def _keep(self, key: Key) -> Key:
        with self.lock:
            self.keys[key.access_key] = key
        return key

    def _find_in_moto(self, access_key: str) -> Key | None:
        """Return a key that somebody made through IAM or STS."""
        session = sts_backends[ACCOUNT][PARTITION].get_assumed_role_from_access_key(access_key)
        if session is not None:
            principal = Principal("role", session.role_arn.rpartition("/")[2], session.session_name)
            return self._keep(Key(access_key, session.secret_access_key, principal, session.session_token))
        for user in _iam().list_users("/", None, None):
            for made in user.access_keys:
                if made.access_key_id == access_key:
                    return self._keep(Key(access_key, made.secret_access_key, Principal("user", user.name)))
        return None


def read_document(document: Any) -> iam.Document:
    """Return a policy as moto keeps it: parsed, as text, or as text quoted for a URL."""
    return _parse(document) if isinstance(document, str) else dict(document)


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> iam.Document:
    """Parse a policy once: it is asked for with every request, and nobody changes what comes back."""
    return dict(json.loads(text if text.lstrip().startswith("{") else urllib.parse.unquote(text)))


def policies_of(principal: Principal) -> tuple[Sequence[iam.Document], iam.Document | None]:
    """Return a user's or a role's own policies, inline and attached, and its permissions boundary."""
    backend = _iam()
    if principal.kind == "role":
        role = backend.get_role(principal.name)
        found = [read_document(text) for text in list(role.policies.values())]
        found += [_managed(policy) for policy in list(role.managed_policies.values())]
        boundary = getattr(role, "permissions_boundary_arn", None)
        return found, _managed(backend.get_policy(boundary)) if boundary else None
    user = backend.get_user(principal.name)
    found = [read_document(text) for text in list(user.policies.values())]
    found += [_managed(policy) for policy in list(user.managed_policies.values())]
    return found, None


def _managed(policy: Any) -> iam.Document:
    version = next(version for version in policy.versions if version.version_id == policy.default_version_id)
    return read_document(version.document)


def make_secret() -> str:
    """Return a secret of the stand-in's own."""
    return secrets.token_hex(16)
