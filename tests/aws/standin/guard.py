"""The door of every request: who signed it, may they, is it to fail; every decision is recorded."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.aws.standin import iam
from tests.aws.standin.answers import Answer, explain_refusal, refuse
from tests.aws.standin.faults import Faults
from tests.aws.standin.identity import ACCOUNT, Identities, Key, Principal, RefusedIdentity, policies_of
from tests.aws.standin.recorder import Call, Recorder
from tests.aws.standin.signing import Head, is_late, is_right, read_signature

_KINDS = {
    "InvalidAccessKeyId": "unknown_key",
    "InvalidToken": "unknown_key",
    "ExpiredToken": "expired",
    "SignatureDoesNotMatch": "signature",
}


@dataclass
class Guard:
    """Shared by the APIs, the S3 gate and the registry's gate."""

    identities: Identities = field(default_factory=Identities)
    recorder: Recorder = field(default_factory=Recorder)
    faults: Faults = field(default_factory=Faults)

    def identify(self, head: Head, body_digest: str, protocol: str) -> Key | Answer:
        """Return the key that signed a request, or the refusal to send."""
        signature = read_signature(head)
        if signature is None:
            return refuse(protocol, "denied", "Anonymous requests are not allowed.")
        now = dt.datetime.now(dt.UTC)
        try:
            key = self.identities.find(signature, now)
        except RefusedIdentity as error:
            return refuse(protocol, _KINDS[error.code], str(error))
        if not is_right(head, signature, key.secret, body_digest):
            return refuse(protocol, "signature")
        if is_late(signature, now):
            return refuse(protocol, "denied", "Request has expired")
        return key

    def admit(
        self,
        principal: Principal,
        rights: Sequence[iam.Asked],
        protocol: str,
        resource_policy: iam.Document | None = None,
    ) -> tuple[Answer | None, str | None]:
        """Decide on a request: the refusal to send, if any, and the fault of the connection, if any."""
        number = self.recorder.next_number()
        refused = None
        for asked in rights:
            decision = self.decide(principal, asked, resource_policy)
            self.record(principal, asked, decision, number)
            if decision != iam.ALLOWED and refused is None:
                refused = refuse(
                    protocol, "denied", explain_refusal(principal.arn, asked.action, asked.resource, decision)
                )
        if refused is not None or not rights:
            return refused, None
        first = rights[0]
        kind = self.faults.choose(principal.label, first.action, first.resource)
        if kind in {"lost_ack", "reset_before"}:
            return None, kind
        if kind == "denied":
            return refuse(protocol, kind, explain_refusal(principal.arn, first.action, first.resource, "")), None
        return (refuse(protocol, kind) if kind else None), None

    def decide(self, principal: Principal, asked: iam.Asked, resource_policy: iam.Document | None = None) -> str:
        """Return IAM's decision. A bucket's denial binds the administrator too; AWS's own services it does not."""
        if principal.kind == "service":
            return iam.ALLOWED
        context = {
            "aws:principalarn": [principal.arns[1]],
            "aws:principalaccount": [ACCOUNT],
            "aws:securetransport": ["true"],  # loopback stands for TLS
            "aws:username": [principal.name],
            "aws:requestedregion": ["us-east-1"],
            **{name.lower(): values for name, values in asked.context.items()},
        }
        full = iam.Asked(asked.action, asked.resource, context)
        if principal.is_free:
            everything = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
            return iam.decide(full, [everything], None, resource_policy, principal.arns)
        own, boundary = policies_of(principal)
        return iam.decide(full, own, boundary, resource_policy, principal.arns)

    def record(self, principal: Principal, asked: iam.Asked, decision: str, number: int) -> None:
        """Keep a decision."""
        context = tuple((name, ",".join(values)) for name, values in sorted(asked.context.items()))
        self.recorder.note(Call(principal.label, asked.action, asked.resource, decision, context, number))
