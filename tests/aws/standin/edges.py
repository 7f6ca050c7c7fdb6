"""What the Batch core asks of the rest: its `Hooks`, over the registry, the identities, the logs and the bus."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from moto.batch.models import batch_backends
from moto.logs.models import logs_backends

from tests.aws.standin import iam
from tests.aws.standin.batch.hooks import Hooks, LogLine
from tests.aws.standin.guard import Guard
from tests.aws.standin.identity import ACCOUNT, REGION, Principal, RefusedIdentity
from tests.aws.standin.registry import Shelf, Tokens
from tests.aws.standin.rights import arn

_LOG = logging.getLogger(__name__)
ECS = "ecs-tasks.amazonaws.com"


@dataclass
class Edges:
    """Answer the Batch core.

    Args:
        guard: decides and records.
        tokens: with which engines log in at the registry.
        shelf_of: the images of a repository.
        registry_host: where images are pushed to and pulled from.
        own_url: of the server, where containers ask for credentials.
        environment: endpoints and the region.
    """

    guard: Guard
    tokens: Tokens
    images: Any
    registry_host: str
    own_url: str
    environment: dict[str, str]
    emit: Any
    _streams: set[tuple[str, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _paths: dict[str, str] = field(default_factory=dict)

    def hooks(self) -> Hooks:
        """Return the functions that the core calls."""
        return Hooks(
            emit=self.emit,
            credentials_uri=self.credentials_uri,
            container_environment=lambda: dict(self.environment),
            put_log=self.put_log,
            pull=self.pull,
        )

    def credentials_uri(self, role_arn: str, task_id: str) -> str:
        """Return where a task asks for the credentials of its role: a path that nobody can guess, as ECS's."""
        path = f"/_credentials/{task_id}"
        with self._lock:
            self._paths[path] = role_arn
        return self.own_url + path

    def hand_out(self, path: str) -> dict[str, str] | None:
        """Return credentials in the ECS agent's form; None for a path that was never given out."""
        role = self._paths.get(path)
        if role is None:
            return None
        now = dt.datetime.now(dt.UTC)
        session = path.rpartition("/")[2]
        context = {"aws:sourcearn": [arn("ecs", f"task/{session}")]}
        key = self.guard.identities.make_session(role, ECS, session, now, context)
        assert key.expires is not None and key.token is not None
        return {
            "RoleArn": role,
            "AccessKeyId": key.access_key,
            "SecretAccessKey": key.secret,
            "Token": key.token,
            "Expiration": key.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def put_log(self, group: str, stream: str, lines: Sequence[LogLine]) -> None:
        """Append lines as the awslogs driver does, with the rights of the execution role."""
        backend = logs_backends[ACCOUNT][REGION]
        resource = arn("logs", f"log-group:{group}:log-stream:{stream}")
        if group not in backend.groups:
            _LOG.warning("the log group %s does not exist", group)
            return
        with self._lock:
            if (group, stream) not in self._streams:
                principal = self._agent("awslogs-group", group)
                rights = [iam.Asked(f"logs:{action}", resource) for action in ("CreateLogStream", "PutLogEvents")]
                if self.guard.admit(principal, rights, "json") != (None, None):
                    return
                if stream not in backend.groups[group].streams:
                    backend.create_log_stream(group, stream)
                self._streams.add((group, stream))
            entries = [{"timestamp": when, "message": text} for when, text in lines]
            backend.put_log_events(group, stream, entries)

    def pull(self, image: str) -> str | None:
        """Make an image present in the Docker engine, or say why it cannot be had."""
        if not image.startswith(f"{self.registry_host}/"):
            return self._find_local(image)
        name, _, reference = image.removeprefix(f"{self.registry_host}/").partition("@")
        if not reference:
            name, _, reference = name.rpartition(":")
        principal = self._agent("image", image)
        resource = arn("ecr", f"repository/{name}")
        rights = [iam.Asked("ecr:GetAuthorizationToken", "*")]
        rights += [iam.Asked(f"ecr:{one}", resource) for one in ("BatchGetImage", "GetDownloadUrlForLayer")]
        refusal, _cut = self.guard.admit(principal, rights, "json")
        if refusal is not None:
            return f"CannotPullECRContainerError: AccessDeniedException: {principal.arn} is not authorized"
        shelf = Shelf(self.images, name)
        if reference not in shelf.digests() and reference not in shelf.tags():
            return (
                f"CannotPullContainerError: Error response from daemon: manifest for {image} not found: manifest "
                "unknown: Requested image not found"
            )
        return self._pull(image, principal)

    def _find_local(self, image: str) -> str | None:
        import docker

        client: Any = docker.APIClient(version="auto")
        try:
            client.inspect_image(image)
        except docker.errors.ImageNotFound:
            return (
                f"CannotPullContainerError: Error response from daemon: pull access denied for {image}, repository "
                "does not exist or may require 'docker login'"
            )
        finally:
            client.close()
        return None

    def _pull(self, image: str, principal: Principal) -> str | None:
        """Pull, unless the engine has it (ECS_IMAGE_PULL_BEHAVIOR=prefer-cached)."""
        import docker

        if self._find_local(image) is None:
            return None
        password, _ = self.tokens.make(principal, dt.datetime.now(dt.UTC))
        client: Any = docker.APIClient(version="auto", timeout=600)
        try:
            client.pull(image, auth_config={"username": "AWS", "password": password})
        except docker.errors.APIError as error:
            return f"CannotPullContainerError: Error response from daemon: {error.explanation or error}"[:255]
        finally:
            client.close()
        return None

    def _agent(self, key: str, value: str) -> Principal:
        """Return the execution role of the definitions that name an image or a log group, else the ECS agent."""
        for container in _containers():
            options = (container.get("logConfiguration") or {}).get("options", {})
            if value in {container.get(key), options.get(key)} and container.get("executionRoleArn"):
                role = str(container["executionRoleArn"])
                return self._session(role)
        return Principal("service", "ecs-agent")

    def _session(self, role: str) -> Principal:
        try:
            return self.guard.identities.make_session(role, ECS, "agent", dt.datetime.now(dt.UTC)).principal
        except RefusedIdentity as error:
            _LOG.warning("%s", error)
            return Principal("role", role.rpartition("/")[2], "agent")


def _containers() -> Iterator[dict[str, Any]]:
    for entry in list(batch_backends[ACCOUNT][REGION]._job_definitions.values()):
        yield entry.container_properties or {}
