"""A Docker engine in this process: what the SDK's client would be asked, by table; no socket, no waiting.

A container runs until the clock has moved on by its time, then ends as its script says. Errors are the SDK's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import HostConfig

GIB = 1 << 30
IMAGE_ID = "sha256:" + "ab" * 32


@dataclass
class Play:
    """How a container goes: it lives for ``seconds``, then ends; SIGTERM ends it at once unless it is deaf.

    ``fails`` is what starting it raises; ``vanishes``: somebody removes it while it runs.
    """

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 1.0
    out_of_memory: bool = False
    deaf: bool = False
    fails: Exception | None = None
    vanishes: bool = False


@dataclass
class Container:
    name: str
    config: dict[str, Any]
    play: Play
    state: str = "created"
    ends: float = float("inf")
    exit_code: int = 0
    created: float = field(default_factory=time.time)

    def tell(self) -> dict[str, Any]:
        labels = self.config["labels"]
        return {"Names": [f"/{self.name}"], "State": self.state, "Labels": labels, "Created": self.created}


def refusal(status: int, words: str) -> APIError:
    response = requests.Response()
    response.status_code = status
    kind = NotFound if status == 404 else APIError
    return kind(words, response=response, explanation=words)


@dataclass
class FakeApi:
    """The low-level client. ``script`` says how a container of some name and settings goes."""

    script: Callable[[str, dict[str, Any]], Play] = lambda _name, _config: Play()
    cpus: int = 4
    memory_bytes: int = 16 * GIB
    security: list[str] = field(default_factory=lambda: ["name=seccomp"])
    clock: float = 0.0
    silent_until: float = 0.0
    containers_by_name: dict[str, Container] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    most_alive: int = 0

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def info(self) -> dict[str, Any]:
        self._hear("info")
        return {"NCPU": self.cpus, "MemTotal": self.memory_bytes, "SecurityOptions": self.security}

    def create_host_config(self, **keywords: Any) -> HostConfig:
        return HostConfig(version="1.41", **keywords)

    def create_container(self, *, name: str, **config: Any) -> None:
        self._hear(f"create {name}")
        if name in self.containers_by_name:
            raise refusal(409, f"Conflict. The container name {name} is already in use")
        self.containers_by_name[name] = Container(name, config, self.script(name, config))

    def start(self, name: str) -> None:
        self._hear(f"start {name}")
        container = self._get(name)
        if container.play.fails is not None:
            raise container.play.fails
        container.state, container.ends = "running", self.clock + container.play.seconds
        self.most_alive = max(self.most_alive, len(self.alive()))

    def containers(self, *, all: bool, filters: dict[str, list[str]]) -> list[dict[str, Any]]:  # noqa: A002 - the SDK's name
        self._hear("list")
        wanted = [label.partition("=") for label in filters["label"]]
        return [
            container.tell()
            for container in self.containers_by_name.values()
            if all and has_labels(container, wanted)
        ]

    def inspect_container(self, name: str) -> dict[str, Any]:
        self._hear(f"inspect {name}")
        container = self._get(name)
        memory = container.play.out_of_memory and container.state == "exited"
        state = {"Status": container.state, "ExitCode": container.exit_code, "OOMKilled": memory, "Error": ""}
        return {"State": state}

    def wait(self, name: str) -> None:
        self.clock = self._get(name).ends
        self._hear(f"wait {name}")

    def logs(self, name: str, *, stdout: bool, stderr: bool, tail: str | int) -> bytes:
        self._hear(f"logs {name}")
        play = self._get(name).play
        return play.stdout if stdout else play.stderr

    def kill(self, name: str, signal: str) -> None:
        self._hear(f"{signal} {name}")
        container = self._get(name)
        if container.state != "running":
            raise refusal(409, f"Container {name} is not running")
        if signal == "SIGKILL" or not container.play.deaf:
            container.state, container.exit_code = "exited", 137 if signal == "SIGKILL" else 130

    def remove_container(self, name: str, *, force: bool, v: bool) -> None:
        self._hear(f"remove {name}")
        self._get(name)
        del self.containers_by_name[name]

    def alive(self) -> list[str]:
        return [c.name for c in self.containers_by_name.values() if c.state == "running"]

    def _get(self, name: str) -> Container:
        if name not in self.containers_by_name:
            raise refusal(404, f"No such container: {name}")
        return self.containers_by_name[name]

    def _hear(self, call: str) -> None:
        self.calls.append(call)
        if self.clock < self.silent_until:
            raise requests.exceptions.ConnectionError("Connection refused")
        for container in list(self.containers_by_name.values()):
            if container.state == "running" and container.ends <= self.clock:
                container.state, container.exit_code = "exited", container.play.exit_code
                if container.play.vanishes:
                    del self.containers_by_name[container.name]


def has_labels(container: Container, wanted: list[tuple[str, str, str]]) -> bool:
    labels = container.config["labels"]
    return all(labels.get(key) == value if sign else key in labels for key, sign, value in wanted)


class FakeImages:
    def __init__(self, names: set[str]) -> None:
        self.names = names

    def get(self, name: str) -> Any:
        if name not in self.names:
            response = requests.Response()
            response.status_code = 404
            raise ImageNotFound(f"No such image: {name}", response=response, explanation=f"No such image: {name}")
        return type("Image", (), {"id": IMAGE_ID})()


class FakeClient:
    """What `docker.from_env` would return."""

    def __init__(self, api: FakeApi, *images: str) -> None:
        self.api = api
        self.images = FakeImages(set(images))
