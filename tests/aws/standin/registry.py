"""Debian's docker-registry, and the gate before it that speaks for ECR: its token, its rights, its immutable tags."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from moto.ecr.models import ecr_backends

from tests.aws.standin.answers import Answer
from tests.aws.standin.guard import Guard
from tests.aws.standin.iam import Asked
from tests.aws.standin.identity import ACCOUNT, REGION, Principal
from tests.aws.standin.proxying import Forward, Proxy
from tests.aws.standin.rights import arn
from tests.servers.faulty import Request
from tests.servers.process import serving_at_free_ports

PROGRAM = "docker-registry"
_LIFETIME = dt.timedelta(hours=12)
_PATH = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs|tags)/(?P<rest>.*)")

_ACTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("GET", "manifests"): ("BatchGetImage",),
    ("HEAD", "manifests"): ("BatchGetImage",),
    ("PUT", "manifests"): ("PutImage",),
    ("GET", "blobs"): ("GetDownloadUrlForLayer",),
    ("HEAD", "blobs"): ("BatchCheckLayerAvailability",),
    ("POST", "blobs"): ("InitiateLayerUpload",),
    ("PATCH", "blobs"): ("UploadLayerPart",),
    ("PUT", "blobs"): ("CompleteLayerUpload",),
    ("GET", "tags"): ("ListImages",),
}


def find_registry() -> str | None:
    """Return the program, if it is installed."""
    return shutil.which(PROGRAM)


@contextlib.contextmanager
def running_registry(folder: Path) -> Iterator[tuple[int, Path]]:
    """Run a registry without users until the block ends; yield its port and the folder of its images."""
    program = find_registry()
    if program is None:
        raise FileNotFoundError(f"{PROGRAM}: apt-get install {PROGRAM}")
    images = folder / "images"
    images.mkdir(parents=True)

    def prepare(ports: list[int]) -> list[str]:
        config = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(images)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{ports[0]}", "secret": secrets.token_hex(16)},
        }
        (folder / "registry.json").write_text(json.dumps(config))  # YAML reads JSON
        return [program, "serve", str(folder / "registry.json")]

    with serving_at_free_ports(1, prepare, folder / "registry.log") as [port]:
        yield port, images


@dataclass
class Tokens:
    """What GetAuthorizationToken hands out: passwords of the user AWS, each for one principal and 12 hours."""

    known: dict[str, tuple[Principal, dt.datetime]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, principal: Principal, now: dt.datetime) -> tuple[str, dt.datetime]:
        """Return a password and when it expires."""
        password = secrets.token_urlsafe(48)
        with self.lock:
            self.known[password] = (principal, now + _LIFETIME)
        return password, now + _LIFETIME

    def find(self, header: str | None, now: dt.datetime) -> Principal | None:
        """Return whom an Authorization header speaks for."""
        kind, _, text = (header or "").partition(" ")
        if kind.lower() != "basic":
            return None
        with contextlib.suppress(ValueError):
            user, _, password = base64.b64decode(text).decode().partition(":")
            principal, expires = self.known.get(password, (None, now))
            return principal if user == "AWS" and now < expires else None
        return None


@dataclass
class RegistryGate:
    """Decide on every request of a Docker engine."""

    guard: Guard
    tokens: Tokens
    port: int
    images: Path

    def make_proxy(self, port: int) -> Proxy:
        """Return the proxy to start."""
        return Proxy(("127.0.0.1", self.port), self.decide, port)

    def decide(self, request: Request, read_all: Callable[[], bytes]) -> Forward | Answer | None:
        """Return what becomes of a request."""
        principal = self.tokens.find(request.header("authorization"), dt.datetime.now(dt.UTC))
        if principal is None:
            challenge = ("WWW-Authenticate", f'Basic realm="https://127.0.0.1/",service="{ACCOUNT}.dkr.ecr"')
            return refuse(401, "UNAUTHORIZED", "no basic auth credentials", challenge)
        headers = [(name, value) for name, value in request.headers if name.lower() not in {"authorization", "expect"}]
        found = _PATH.fullmatch(request.target.partition("?")[0])
        if found is None:
            return Forward(request.target, headers)
        return self._decide(request, principal, found, Forward(request.target, headers))

    def _decide(
        self, request: Request, principal: Principal, found: re.Match[str], forward: Forward
    ) -> Forward | Answer | None:
        name, kind, rest = found["name"], found["kind"], found["rest"]
        resource = arn("ecr", f"repository/{name}")
        rights = [Asked(f"ecr:{action}", resource) for action in _ACTIONS.get((request.method, kind), ("Unknown",))]
        refusal, cut = self.guard.admit(principal, rights, "json")
        if refusal is not None:
            message = json.loads(refusal.body)["message"]
            return refuse(403 if refusal.status == 400 else refusal.status, "DENIED", message)
        if cut == "reset_before":
            return None
        repository = ecr_backends[ACCOUNT][REGION].repositories.get(name)
        if repository is None:
            told = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            return refuse(404, "NAME_UNKNOWN", told)
        is_tagged = request.method == "PUT" and kind == "manifests" and not rest.startswith("sha256:")
        if is_tagged and repository.is_tag_immutable() and rest in Shelf(self.images, name).tags():
            told = f"tag invalid: The image tag '{rest}' already exists in the '{name}' repository"
            return refuse(400, "TAG_INVALID", f"{told} and cannot be overwritten because the tag is immutable.")
        return forward if cut is None else Forward(forward.target, forward.headers, cut)


def refuse(status: int, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    """Return an error in the registry's form."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    version = ("Docker-Distribution-Api-Version", "registry/2.0")
    return Answer(status, [("Content-Type", "application/json"), version, *headers], body)


@dataclass(frozen=True)
class Shelf:
    """The images of one repository, as the registry keeps them on disk."""

    images: Path
    name: str

    @property
    def _manifests(self) -> Path:
        return self.images / "docker/registry/v2/repositories" / self.name / "_manifests"

    def tags(self) -> dict[str, str]:
        """Return the digest of each tag."""
        links = self._manifests.glob("tags/*/current/link")
        return {link.parts[-3]: link.read_text() for link in links}

    def digests(self) -> dict[str, dt.datetime]:
        """Return when each manifest was pushed."""
        links = self._manifests.glob("revisions/sha256/*/link")
        return {link.read_text(): dt.datetime.fromtimestamp(link.stat().st_mtime, dt.UTC) for link in links}

    def blob(self, digest: str) -> bytes:
        """Return a manifest or a layer."""
        return self._blob(digest).read_bytes()

    def _blob(self, digest: str) -> Path:
        digits = digest.removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise FileNotFoundError(digest)
        return self.images / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"

    def remove_tag(self, tag: str) -> None:
        """Take a tag off its image; an image that had no other goes with it, as in ECR."""
        digest = self.tags()[tag]
        shutil.rmtree(self._manifests / "tags" / tag)
        if digest not in self.tags().values():
            self.remove(digest)

    def remove(self, digest: str) -> None:
        """Remove an image and its tags."""
        for tag in [tag for tag, of in self.tags().items() if of == digest]:
            shutil.rmtree(self._manifests / "tags" / tag)
        shutil.rmtree(self._manifests / "revisions/sha256" / digest.removeprefix("sha256:"), ignore_errors=True)

    def clear(self) -> None:
        """Remove the repository's images."""
        shutil.rmtree(self._manifests.parent, ignore_errors=True)
