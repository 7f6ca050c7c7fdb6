"""Checks of a Docker engine: does it answer, is the image there, what does it compute with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobspec.engine import current_engine
from submitter.backends.docker.engine import DockerEngine, Machine
from submitter.doctor.findings import Finding, ok, warning
from submitter.images.parts import image_parts

GIB = 1 << 30
_LEAST_MEMORY_BYTES = 2 * GIB


def check_engine(engine: DockerEngine) -> Iterator[Finding]:
    """Say what the engine's machine has."""
    machine = engine.machine()
    yield ok("engine", f"the Docker engine answers: {machine.cpus} CPUs, {machine.memory_bytes / GIB:.1f} GiB")
    yield from _check_memory(machine)


def check_image(engine: DockerEngine, image: str, cache: Path) -> Iterator[Finding]:
    """Ask the image what it computes with; an absent or foreign one, or one of another version, is refused."""
    parts = image_parts(engine.client, image, cache)
    packages = ", ".join(f"{name} {number}" for name, number in parts.packages.items())
    engine_id = parts.whole_engine("portable").engine_id
    yield ok("image", f"{image} answers: Python {parts.python}, {packages}; {engine_id}")
    here = current_engine("portable").packages
    others = [
        f"{name} {number} there, {here[name]} here" for name, number in parts.packages.items() if here[name] != number
    ]
    if others:
        text = f"the image computes with other versions than this machine ({'; '.join(others)}): runs of their own"
        yield warning("versions", text, "`submit image build` makes one with the versions of the lock.")


def _check_memory(machine: Machine) -> Iterator[Finding]:
    if machine.memory_bytes < _LEAST_MEMORY_BYTES:
        text = f"the engine's machine has only {machine.memory_bytes / GIB:.1f} GiB for all containers"
        yield warning("memory", text, "Give it more in the settings of Docker Desktop, or use --on local.")
