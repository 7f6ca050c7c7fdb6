"""The gate of `tests.e2e.gate` in containers: the estimator is in an image, the gate in the mounted cache."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.models.containers import Container

from tests.e2e.gate import ESTIMATOR, Gate

MODULE = (
    ESTIMATOR
    + """

class Greedy(Gated):
    def fit(self, X, y):
        self.hoard_ = np.ones(self.level << 17)  # `level` MiB
        return super().fit(X, y)
"""
)


def build_gated(client: DockerClient, image: str) -> str:
    """Return an image like ``image`` that allows the module with the gate."""
    return build_with(client, image, "gated_estimator", MODULE)


def build_with(
    client: DockerClient, image: str, module: str, text: str, environment: Mapping[str, str] | None = None
) -> str:
    """Return an image like ``image`` that has and allows a module, and has more in its environment."""
    name = "-".join([image, module.partition("_")[0], *map(str.lower, environment or ())])
    settings = {"FOLDFLEET_ALLOWED_MODULES": module, **(environment or {})}
    lines = (f"COPY {module}.py /opt/foldfleet-user/", *(f"ENV {key}={value}" for key, value in settings.items()))
    recipe = "\n".join([f"FROM {image}", *lines, ""])
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for path, body in (("Dockerfile", recipe), (f"{module}.py", text)):
            entry = tarfile.TarInfo(path)
            entry.size = len(body.encode())
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(body.encode()))
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=name, rm=True, network_mode="none")
    return name


class DockerGate(Gate):
    """A gate whose fits run in containers; everything it leaves behind in the engine is removed by `clear`."""

    def __init__(self, folder: Path, client: DockerClient, image: str) -> None:
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.client = client
        self.image = image
        super().__init__(folder)
        (folder / "modules" / "gated_estimator.py").write_text(MODULE)
        self.gate = self.cache / "gate"
        self.gate.write_text("")
        self.write_spec()

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"FOLDFLEET_IMAGE": self.image, "FOLDFLEET_CACHE": str(self.cache)}

    def run(self, *more: object, on: str = "docker") -> tuple[object, ...]:
        """Return the words of the command line that runs the spec."""
        return ("run", self.spec, "--on", on, *more)

    def containers(self, **labels: str) -> list[Container]:
        """Return the containers of this gate's store, ended ones among them."""
        wanted = [f"foldfleet.{name}={value}" for name, value in {"store": str(self.store), **labels}.items()]
        return self.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def alive(self) -> list[Container]:
        return [container for container in self.containers() if container.status == "running"]

    def clear(self) -> None:
        self.open()
        for container in self.containers():
            container.remove(force=True)

    def files(self) -> list[Path]:
        """Return everything that a run made."""
        return [Path(place) / name for place, _, names in os.walk(self.folder) for name in names]


def config_of(container: Container) -> dict[str, Any]:
    """Return the part of a container's settings that confines it."""
    container.reload()
    document: dict[str, Any] = container.attrs["HostConfig"]
    return document

