"""Push an image to a stack: registry, job definitions, record, each only if it is not there yet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobspec.engine import EngineParts
from jobspec.errors import NotFoundError, TryLaterError, UsageError
from jobspec.stores.base import Store
from submitter.backends.docker.engine import explained, image_missing
from submitter.cloud.clients import Clients
from submitter.cloud.definitions import register_all, register_planner
from submitter.cloud.record import ImageRecord, Step, list_records, save_record
from submitter.cloud.refusals import ExpiredLoginError, TagTakenError, explain_push
from submitter.cloud.registry import PLATFORM, RemoteImage, find_image, login, platforms_of
from submitter.cloud.stack import Stack
from submitter.images.build import ENGINE_LABEL, Tell
from submitter.images.parts import describe_image, image_parts, parse_parts

if TYPE_CHECKING:
    from docker import DockerClient

_TITLE_LABEL = "org.opencontainers.image.title"

SILENCE_SECONDS = 900
"""The engine may be silent while the registry takes over a large layer."""


@dataclass(frozen=True)
class LocalImage:
    """An image of the Docker engine that was checked: ``tag`` is its name there, ``image_id`` its digest there."""

    tag: str
    image_id: str
    parts: EngineParts

    @property
    def engine_id(self) -> str:
        """Return what it computes with, with portable numerics and all of its modules."""
        return self.parts.whole_engine("portable").engine_id

    @property
    def remote_tag(self) -> str:
        """Return its tag in the registry: one for each build, so that none is ever moved away from an older image."""
        return f"{self.engine_id}-{self.image_id.removeprefix('sha256:')[:12]}"


@dataclass(frozen=True)
class PushReport:
    """What was done, and what there is now: ``sent`` says whether anything was sent, ``recorded`` whether it is new.

    ``planner`` is the ARN of the stack's job definition for planning, which a record of an image does not name.
    """

    record: ImageRecord
    planner: str
    sent: bool
    recorded: bool

    @property
    def definitions(self) -> dict[Step, str]:
        """Return the ARN, with its revision, of each step's job definition, that of planning among them."""
        return {**self.record.definitions, "plan": self.planner}

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        record = self.record.model_dump(mode="json", exclude={"parts", "format_version"})
        told = {"engine_id": self.record.engine_id, "sent": self.sent, "recorded": self.recorded}
        return {**record, "definitions": self.definitions, **told}


def push_image(
    client: DockerClient,
    clients: Clients,
    local: LocalImage,
    stack: Stack,
    store: Store,
    tell: Tell,
    *,
    now: Callable[[], float] = time.time,
) -> PushReport:
    """Make an image the one that new runs of a stack use; idempotent, and complete after any interruption.

    The record comes behind all that it names, and the planner of the stack's state machines behind the record.

    Args:
        client: a client of the Docker SDK.
        clients: clients of AWS.
        local: what `check_local` returned.
        stack: where to.
        store: the store of the stack.
        tell: is told each step.
        now: the time, in seconds since 1970.

    Raises:
        AccessError: a right is missing, which is named; credentials have expired.
        NotFoundError: the repository is gone.
        TryLaterError: the network, the engine or its disk stands in the way.
    """
    remote = find_image(clients, stack, tag=local.remote_tag)
    sent = remote is None
    try:
        if remote is None:
            tell(f"Pushing {local.tag} to {stack.repository_uri}")
            _send(client, clients, local, stack, tell)
            remote = find_image(clients, stack, tag=local.remote_tag)
    finally:
        _untag(client.api, f"{stack.repository_uri}:{local.remote_tag}")  # also what a push that was killed left
    if remote is None:
        raise TryLaterError(f"{local.tag} was pushed, and the registry does not have it. Type the same command again.")
    _check_remote(clients, stack, local, remote)
    image = f"{stack.repository_uri}@{remote.digest}"
    known = list_records(store, stack.name)
    record = ImageRecord(
        image=image,
        tag=local.tag,
        image_digest=remote.digest,
        platform=PLATFORM,
        pushed_at=now(),
        stack=stack.name,
        parts=_portable(local.parts),
        definitions=register_all(clients, stack, image, local.engine_id, tell),
    )
    saved = save_record(store, record)
    # Behind the record: a planner that knows no record of its own version would refuse.
    planner = register_planner(clients, stack, image, local.engine_id, tell)
    return PushReport(saved, planner, sent, saved not in known)


def check_local(client: DockerClient, tag: str, cache: Path) -> LocalImage:
    """Return an image of the Docker engine that a stack can run.

    Raises:
        NotFoundError: there is no such image, or one of another version of foldfleet.
        UsageError: it is made for other machines, none of foldfleet's, or not what its label says.
    """
    api: Any = client.api
    with explained(tag):
        found, host = api.inspect_image(tag), api.version()
    platform = f"{found['Os']}/{found['Architecture']}"
    labels = found["Config"].get("Labels") or {}
    _check_platform(tag, platform)
    _check_labels(tag, labels)
    image_id = str(found["Id"])
    # On another kind of laptop the image is asked emulated, as it was when it was built.
    if found["Architecture"] == host["Arch"]:
        parts = image_parts(client, tag, cache)
    else:
        parts = parse_parts(describe_image(client, image_id, cache, name=tag), tag)
    local = LocalImage(tag, image_id, parts)
    if labels[ENGINE_LABEL] != local.engine_id:
        raise UsageError(
            f"The image {tag} says on its label that it computes with {labels[ENGINE_LABEL]}, and it computes with "
            f"{local.engine_id}: it was changed after it was built. `submit image build` makes it anew."
        )
    return local


def _check_platform(tag: str, platform: str) -> None:
    if platform != PLATFORM:
        raise UsageError(
            f"The image {tag} is made for {platform}, and the machines of the stack are {PLATFORM}: every task would "
            f'end with "exec format error". Build one for them: `submit image build --platform {PLATFORM}`.'
        )


def _check_labels(tag: str, labels: Mapping[str, str]) -> None:
    if labels.get(_TITLE_LABEL) != "foldfleet" or ENGINE_LABEL not in labels:
        raise UsageError(
            f"The image {tag} is none of foldfleet's. `submit image build` makes one, with your packages and modules "
            "in it; name it with --image TAG."
        )
    made, here = labels.get("org.opencontainers.image.version"), version("foldfleet")
    if made != here:
        raise NotFoundError(
            f"The image {tag} holds foldfleet {made}, and this is {here}. `submit image build` makes one of this "
            "version."
        )


def _portable(parts: EngineParts) -> EngineParts:
    """Leave out the kernels of this machine's CPU, which no task meets: the same image gives the same record."""
    return parts.model_copy(update={"kernel": {"portable": parts.kernel["portable"]}})


def _check_remote(clients: Clients, stack: Stack, local: LocalImage, remote: RemoteImage) -> None:
    """Make sure that what lies in the registry is the image that was checked here."""
    if local.image_id in (remote.config, remote.digest):
        return
    platforms = platforms_of(clients, stack, remote)  # engines that name images by their index
    if PLATFORM not in platforms:
        raise UsageError(
            f"The image {local.remote_tag} in {stack.repository_uri} is made for {', '.join(sorted(platforms))}, and "
            f"the machines of the stack are {PLATFORM}. Build one for them: `submit image build --platform {PLATFORM}`."
        )


def _send(client: DockerClient, clients: Clients, local: LocalImage, stack: Stack, tell: Tell) -> None:
    """Push an image under its tag in the registry; layers that are there already are not sent again."""
    api: Any = client.api
    with explained(local.tag):
        if not api.tag(local.image_id, stack.repository_uri, tag=local.remote_tag):
            raise image_missing(local.tag)
    for is_last in (False, True):
        try:
            _push(api, local, stack, login(clients), tell)
        except ExpiredLoginError:
            if is_last:
                raise
            tell("The login has expired; logging in again")
        except TagTakenError:  # another process pushed the same image meanwhile
            return
        else:
            return


def _untag(api: Any, name: str) -> None:
    """Take the name in the registry away again: else every build that was ever pushed would stay on this disk."""
    import requests
    from docker.errors import DockerException

    # The name of an image that stays has no say in how the push ended.
    with contextlib.suppress(DockerException, requests.RequestException):
        api.remove_image(name, noprune=True)


def _push(api: Any, local: LocalImage, stack: Stack, credentials: dict[str, str], tell: Tell) -> None:
    with explained(local.tag), _patient(api):
        events = api.push(
            stack.repository_uri,
            tag=local.remote_tag,
            stream=True,
            decode=True,
            # As an argument: the user's own Docker configuration is neither read for this nor written.
            auth_config=credentials,
        )
        error = _follow(events, tell)
    if error is not None:
        raise explain_push(error, stack)


def _follow(events: Iterable[Mapping[str, Any]], tell: Tell) -> str | None:
    """Say how many layers have arrived; return the error that ended the push."""
    layers: dict[str, bool] = {}
    error = None
    for event in events:  # to its end, also after an error: a stream half read keeps its socket
        error = event.get("error", error)
        layer, status = event.get("id"), str(event.get("status", ""))
        if layer is None or status.startswith("The push refers"):
            continue
        is_done = status in ("Pushed", "Layer already exists") or status.startswith("Mounted from")
        if is_done and not layers.get(layer):
            layers[layer] = True
            tell(f"{sum(layers.values())} of {len(layers)} layers are in the registry")
        layers.setdefault(layer, False)
    return error


@contextlib.contextmanager
def _patient(api: Any) -> Iterator[None]:
    """Give the engine more time for one call."""
    before = api.timeout
    api.timeout = SILENCE_SECONDS
    try:
        yield
    finally:
        api.timeout = before
