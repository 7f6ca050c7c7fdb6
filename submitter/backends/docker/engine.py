"""What the backend asks of a Docker engine, each call once: names in, plain answers and our own errors out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobspec.errors import AccessError, FoldfleetError, NotFoundError, TryLaterError

if TYPE_CHECKING:
    from docker import DockerClient

ALIVE = frozenset({"running", "paused", "restarting"})
"""States of a container that has processes; the others are created, exited, dead and removing."""

ENDED = frozenset({"exited", "dead"})

STOPPED = frozenset({130, 143})
"""Exit codes of a process that was asked to stop: our own, and 128 + SIGTERM where no handler was set yet."""

_SIGNALS = 128
_CALL_SECONDS = 60


class EngineGoneError(TryLaterError):
    """The engine does not answer; what it ran may or may not go on."""


class EngineRefusedError(TryLaterError):
    """The engine answered with a refusal that is none of a person's making."""


@dataclass(frozen=True)
class Machine:
    """The engine's machine, in CPUs and bytes, and how it maps user ids."""

    cpus: int
    memory_bytes: int
    rootless: bool = False
    remaps_users: bool = False


@dataclass(frozen=True)
class Seen:
    """A container as the engine lists it."""

    name: str
    state: str
    labels: Mapping[str, str]
    created: float = 0.0
    """When it was made, in seconds since 1970, by the clock of the engine's machine."""

    @property
    def ended(self) -> bool:
        """Say whether it ran and runs no more; one that was made a moment ago has yet to start."""
        return self.state in ENDED

    @property
    def alive(self) -> bool:
        """Say whether it has processes."""
        return self.state in ALIVE


@dataclass(frozen=True)
class End:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    words: str

    @property
    def killed(self) -> bool:
        """Say whether a signal ended it that no task answers, or nothing started at all."""
        return self.exit_code > _SIGNALS and self.exit_code not in STOPPED


class DockerEngine:
    """The engine behind a client of the Docker SDK; every method costs one request."""

    def __init__(self, client: DockerClient) -> None:
        self.client = client
        self._api = client.api

    def machine(self) -> Machine:
        """Return what the engine's machine has."""
        with explained():
            info = self._api.info()
        security = " ".join(info.get("SecurityOptions") or ())
        return Machine(info["NCPU"], info["MemTotal"], "name=rootless" in security, "name=userns" in security)

    def image_id(self, image: str) -> str:
        """Return the digest behind an image's name.

        Raises:
            NotFoundError: there is no such image.
        """
        with explained(image):
            found = self.client.images.get(image)
        return str(found.id)

    def create(self, name: str, image: str, config: Mapping[str, Any], host_config: Mapping[str, Any]) -> bool:
        """Make a container without starting it; return False if the name is taken.

        Args:
            name: its name.
            image: its image, as a person knows it.
            config: keywords of `docker.APIClient.create_container`.
            host_config: keywords of `docker.types.HostConfig`.
        """
        from docker.errors import APIError

        with explained(image):
            try:
                host = self._api.create_host_config(**host_config)
                self._api.create_container(name=name, host_config=host, **config)
            except APIError as error:
                if error.status_code == 409:
                    return False
                raise
        return True

    def start(self, name: str) -> None:
        """Start what `create` made."""
        with explained():
            self._api.start(name)

    def seen(self, labels: Mapping[str, str | None]) -> list[Seen]:
        """Return the containers with all these labels, None for any value, ended ones among them."""
        filters = {"label": [key if value is None else f"{key}={value}" for key, value in labels.items()]}
        with explained():
            found = self._api.containers(all=True, filters=filters)
        return [
            Seen(entry["Names"][0].lstrip("/"), entry["State"], entry["Labels"], entry["Created"]) for entry in found
        ]

    def state(self, name: str) -> str | None:
        """Return a container's state, or None if there is none of that name."""
        document = self._inspect(name)
        return None if document is None else str(document["State"]["Status"])

    def end_of(self, name: str) -> End | None:
        """Return how a container ended, or None if it is gone."""
        document = self._inspect(name)
        if document is None:
            return None
        state = document["State"]
        return End(int(state["ExitCode"]), bool(state["OOMKilled"]), str(state.get("Error") or ""))

    def await_end(self, name: str) -> None:
        """Wait until a container has ended, or is gone."""
        with explained(), _absent_is_fine():
            self._api.wait(name)

    def log(self, name: str, *, answers: bool, num_lines: int | None = None) -> bytes | None:
        """Return what a container wrote to stdout (``answers``) or to stderr; None if it is gone."""
        with explained(), _absent_is_fine():
            body: bytes = self._api.logs(
                name, stdout=answers, stderr=not answers, tail="all" if num_lines is None else num_lines
            )
            return body
        return None

    def signal(self, name: str, signal_name: str) -> None:
        """Send a signal; one that has ended or is gone is no error."""
        from docker.errors import APIError

        with explained(), _absent_is_fine():
            try:
                self._api.kill(name, signal_name)
            except APIError as error:
                if error.status_code not in (409, 500):  # "is not running": it ended between two looks
                    raise

    def remove(self, name: str) -> None:
        """Remove a container, killing it if it runs; one that is gone or going is no error."""
        from docker.errors import APIError

        with explained(), _absent_is_fine():
            try:
                self._api.remove_container(name, force=True, v=True)
            except APIError as error:
                if error.status_code != 409:  # "removal is already in progress"
                    raise

    def _inspect(self, name: str) -> dict[str, Any] | None:
        with explained(), _absent_is_fine():
            document: dict[str, Any] = self._api.inspect_container(name)
            return document
        return None


Connect = Callable[[], DockerEngine]
"""Reaches the engine, or raises what stands in the way."""


def connect() -> DockerEngine:
    """Reach the engine that ``DOCKER_HOST`` names, else this machine's; tried once for each process.

    Raises:
        EngineGoneError: nothing answers.
        AccessError: the user may not talk to it.
    """
    found = _try_connect()
    if isinstance(found, FoldfleetError):
        raise found.with_traceback(None)
    return found


@functools.cache
def _try_connect() -> DockerEngine | FoldfleetError:
    """Remember a failure too: an address behind which nobody is costs a minute at each try."""
    import docker

    try:
        with explained():
            return DockerEngine(docker.from_env(timeout=_CALL_SECONDS))
    except FoldfleetError as error:
        return error


@contextlib.contextmanager
def explained(image: str | None = None) -> Iterator[None]:
    """Turn errors of the SDK into one paragraph each."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        raise _refusal(error.explanation or str(error), error.status_code or 500, image) from None
    except (DockerException, requests.RequestException) as error:
        raise _unreachable(str(error)) from None


def _absent_is_fine() -> contextlib.suppress:
    from docker.errors import NotFound

    return contextlib.suppress(NotFound)


def _refusal(words: str, status: int, image: str | None) -> FoldfleetError:
    if status == 404 and image is not None:
        return image_missing(image)
    if status == 403:
        return AccessError(f"The Docker engine does not allow this: {words}")
    return EngineRefusedError(f"The Docker engine refused: {words.strip()}. Type the same command again once it can.")


def image_missing(image: str) -> NotFoundError:
    """Return the error for an image that the engine does not have."""
    return NotFoundError(
        f"The Docker engine has no image {image}. `submit image build` makes it; FOLDFLEET_IMAGE or `image` in the "
        "configuration file names another one."
    )


def _unreachable(words: str) -> FoldfleetError:
    if "Permission" in words:
        return AccessError(
            "The Docker engine is there, but you may not talk to it (permission denied on its socket). Have yourself "
            "added to its group with `sudo usermod -aG docker $USER` and log in again, or set DOCKER_HOST to an engine "
            "of your own."
        )
    return EngineGoneError(
        "The Docker engine does not answer. Start it (`sudo systemctl start docker`, or Docker Desktop), or name "
        "another with DOCKER_HOST; `docker info` shows whether it answers. Then type the same command again, or run "
        "without it: --on local."
    )
