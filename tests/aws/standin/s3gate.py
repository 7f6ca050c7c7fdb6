"""The gate before SeaweedFS: signatures, IAM, the bucket's policy, faults, and S3's answers where SeaweedFS's differ.

Objects lie in SeaweedFS; what is set on a bucket (policy, lifecycle, encryption, ...) lies in moto, where
CloudFormation puts it. The gate signs anew for SeaweedFS, which knows one user.
"""

from __future__ import annotations

import datetime as dt
import http.client
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from moto.s3.models import s3_backends

from tests.aws.standin import iam
from tests.aws.standin.answers import Answer, explain_refusal, make_error, refuse
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, PARTITION, Principal, read_document
from tests.aws.standin.proxying import Forward, Proxy
from tests.aws.standin.s3calls import S3Call, bucket_arn, read_s3_call
from tests.aws.standin.s3events import make_event, wants_events, why_created
from tests.aws.standin.signing import EMPTY, Head, sign_again
from tests.servers.faulty import Request

_LONGEST_KEY = 1024
_PATIENCE_S = 60
_DOTS = {"..": "\u2025", ".": "\u2024"}
_AS_IT_IS = "%!$&'()*+,;=:@~"
"""What stands in a path already encoded stays so."""

_CREATED = {"s3:PutObject", "s3:PutObjectTagging"}


@dataclass(frozen=True)
class Upstream:
    """SeaweedFS and its one user."""

    host: str
    port: int
    access_key: str
    secret: str


@dataclass
class S3Gate:
    """Decide on every request.

    Args:
        ask_moto: sends a request about a bucket's settings to moto and returns its answer.
        emit: takes the event of a new object, for buckets that send theirs to EventBridge.
    """

    guard: Guard
    upstream: Upstream
    ask_moto: Callable[[Request, bytes], Answer]
    emit: Callable[[dict[str, Any]], None]

    def make_proxy(self, port: int) -> Proxy:
        """Return the proxy to start."""
        return Proxy((self.upstream.host, self.upstream.port), self.decide, port)

    def decide(self, request: Request, read_all: Callable[[], bytes]) -> Forward | Answer | None:
        """Return what becomes of a request."""
        head = read_wire_head(request)
        key = self.guard.identify(head, EMPTY, "s3")
        if isinstance(key, Answer):
            return key
        has_list = request.method == "POST" and "delete" in request.target.partition("?")[2].split("=")[0].split("&")
        call = read_s3_call(request, read_all() if has_list else b"")
        policy = policy_of(call.bucket)
        if has_list:
            return self._delete_many(request, head, key.principal, call, policy)
        refusal, cut = self.guard.admit(key.principal, call.rights, "s3", policy)
        if refusal is not None or cut == "reset_before":
            return refusal
        if call.is_setting:
            return self.ask_moto(request, read_all())
        if (wrong := check_object_call(request, call)) is not None:
            return wrong
        return self._pass_on(request, head, call, key.principal, cut)

    def _pass_on(self, request: Request, head: Head, call: S3Call, principal: Principal, cut: str | None) -> Forward:
        target, headers = self._sign(head)

        def check(status: int) -> Answer | None:
            if status == 404 and call.action == "s3:GetObject":
                return self._hide_absence(call, principal)
            return None

        def after(status: int, answered: Sequence[tuple[str, str]]) -> None:
            created = call.rights[0].context.get("s3:objectcreationoperation") == ["true"]
            if status == 200 and call.action in _CREATED and created:
                self._announce(call, request, dict(answered))

        edit = show_dots if request.method == "GET" and not call.key else None
        return Forward(target, headers, cut, check, after, edit)

    def _hide_absence(self, call: S3Call, principal: Principal) -> Answer | None:
        """Answer 403 for an absent key to whom may not list the bucket.

        A condition on s3:prefix is held against the key (https://github.com/ceph/ceph/pull/68577: "to match aws
        behavior").
        """
        asked = iam.Asked("s3:ListBucket", bucket_arn(call.bucket), {"s3:prefix": [call.key]})
        decision = self.guard.decide(principal, asked, policy_of(call.bucket))
        self.guard.record(principal, asked, decision, self.guard.recorder.next_number())
        if decision == iam.ALLOWED:
            return None
        return refuse("s3", "denied", explain_refusal(principal.arn, asked.action, asked.resource, decision))

    def _delete_many(
        self, request: Request, head: Head, principal: Principal, call: S3Call, policy: iam.Document | None
    ) -> Forward | Answer | None:
        """Delete objects in one request: S3 answers 200 and names the keys that it refused."""
        refused = {}
        for asked in call.rights:
            refusal, cut = self.guard.admit(principal, [asked], "s3", policy)
            if cut == "reset_before":
                return None
            if refusal is not None:
                refused[asked.resource.partition("/")[2]] = refusal
        if not refused:
            target, headers = self._sign(head)
            return Forward(target, headers)
        if any(refusal.status != 403 for refusal in refused.values()):
            return next(iter(refused.values()))
        keys = [asked.resource.partition("/")[2] for asked in call.rights]
        for name in keys:
            if name not in refused:
                ask_seaweed(self.upstream, "DELETE", f"/{call.bucket}/{name}")
        parts = [
            f"<Error><Key>{escape(name)}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            if name in refused
            else f"<Deleted><Key>{escape(name)}</Key></Deleted>"
            for name in keys
        ]
        body = f"<DeleteResult>{''.join(parts)}</DeleteResult>".encode()
        return Answer(200, [("Content-Type", "application/xml")], body)

    def _sign(self, head: Head) -> tuple[str, list[tuple[str, str]]]:
        host = {**head.headers, "host": f"{self.upstream.host}:{self.upstream.port}"}
        if "x-amz-copy-source" in host:
            host["x-amz-copy-source"] = hide_dots(host["x-amz-copy-source"])
        behind = Head(head.method, hide_dots(head.path), head.query, host)
        query, headers = sign_again(behind, self.upstream.access_key, self.upstream.secret, dt.datetime.now(dt.UTC))
        return behind.path + (f"?{query}" if query else ""), list(headers.items())

    def _announce(self, call: S3Call, request: Request, answered: dict[str, str]) -> None:
        """Emit "Object Created" for buckets that ask for it."""
        if not wants_events(call.bucket):
            return
        told = {name.lower(): value for name, value in answered.items()}
        reason = why_created(request)
        if reason == "PutObject":
            told["content-length"] = (
                request.header("x-amz-decoded-content-length") or request.header("content-length") or "0"
            )
        else:  # neither request nor answer says how large the object has become
            path = f"/{call.bucket}/{call.key}"
            told |= {name.lower(): value for name, value in head_seaweed(self.upstream, path).items()}
        self.emit(make_event(call.bucket, call.key, told, reason))


def hide_dots(path: str) -> str:
    """Spell the parts `.` and `..` of a key another way: S3 takes them as they are, SeaweedFS refuses them."""
    return "/".join(urllib.parse.quote(_DOTS.get(part, part), safe=_AS_IT_IS) for part in path.split("/"))


def show_dots(listing: bytes) -> bytes:
    """Spell keys in a listing as they were given."""
    text = listing.decode()
    for part, hidden in _DOTS.items():
        text = text.replace(hidden, part).replace(urllib.parse.quote(hidden), part)
    return text.encode()


def read_wire_head(request: Request) -> Head:
    """Return a request's head as signatures see it."""
    path, _, query = request.target.partition("?")
    return Head(request.method, path, query, {name.lower(): value for name, value in request.headers})


def policy_of(bucket: str) -> iam.Document | None:
    """Return the policy of a bucket as it is deployed."""
    found = s3_backends[ACCOUNT][PARTITION].buckets.get(bucket)
    if found is None or not found.policy:
        return None
    return read_document(found.policy.decode() if isinstance(found.policy, bytes) else found.policy)


def check_object_call(request: Request, call: S3Call) -> Answer | None:
    """Refuse what S3 refuses and SeaweedFS takes."""
    if call.bucket not in s3_backends[ACCOUNT][PARTITION].buckets:
        return make_error("s3", 404, "NoSuchBucket", "The specified bucket does not exist")
    if len(call.key.encode()) > _LONGEST_KEY:
        return make_error("s3", 400, "KeyTooLongError", "Your key is too long")
    if request.header("x-amz-copy-source") and (request.header("if-none-match") or request.header("if-match")):
        return make_error("s3", 501, "NotImplemented", "A header you provided implies functionality not implemented")
    if (request.header("if-none-match") or "*") != "*" and request.method in {"PUT", "POST"}:
        return make_error("s3", 501, "NotImplemented", "If-None-Match takes * alone")
    return None


def remove_bucket(upstream: Upstream, bucket: str) -> bool:
    """Remove a bucket from SeaweedFS, which would take its objects with it; return False if it holds any."""
    status, listing = ask_seaweed(upstream, "GET", f"/{bucket}", "list-type=2&max-keys=1")
    if status == 404:
        return True
    return b"<Key>" not in listing and ask_seaweed(upstream, "DELETE", f"/{bucket}")[0] in {204, 404}


def ask_seaweed(upstream: Upstream, method: str, path: str, query: str = "") -> tuple[int, bytes]:
    """Send a request of the stand-in's own to SeaweedFS; return the status and the body."""
    status, _headers, body = _ask(upstream, method, path, query)
    return status, body


def head_seaweed(upstream: Upstream, path: str) -> dict[str, str]:
    """Return the headers of an object, none if it has gone in the meantime."""
    status, headers, _body = _ask(upstream, "HEAD", path)
    return headers if status == 200 else {}


def _ask(upstream: Upstream, method: str, path: str, query: str = "") -> tuple[int, dict[str, str], bytes]:
    head = Head(method, hide_dots(urllib.parse.quote(path)), query, {"host": f"{upstream.host}:{upstream.port}"})
    signed, headers = sign_again(head, upstream.access_key, upstream.secret, dt.datetime.now(dt.UTC))
    connection = http.client.HTTPConnection(upstream.host, upstream.port, timeout=_PATIENCE_S)
    try:
        connection.request(method, head.path + (f"?{signed}" if signed else ""), headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()
