"""A Docker engine and the project's image; without an engine their tests are skipped, and in CI they fail."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from jobspec.errors import FoldfleetError
from jobspec.hostlock import HostLock
from jobspec.settings import Settings
from submitter.backends.docker.engine import connect
from submitter.images.build import ImageOptions, build_image

if TYPE_CHECKING:
    from docker import DockerClient

REPOSITORY = Path(__file__).resolve().parents[2]
BASE = "foldfleet-base:bookworm"

# One for each checkout: two of them may be tested at once, on one engine.
TAG = f"foldfleet-test:{hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:8]}"


def refuse(reason: str) -> NoReturn:
    """Skip, saying so in capitals in the summary; a container test that is skipped in CI is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} In CI no container test may be skipped.")
    pytest.skip(f"CONTAINERS ARE NOT TESTED. {reason}")


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerClient]:
    """Return a client of the engine that answers."""
    try:
        client = connect().client
    except FoldfleetError as error:
        refuse(f"{error.message} `.ci/engine` installs and starts one.")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(docker_engine: DockerClient) -> str:
    """Return the name of a base image that needs no registry."""
    from docker.errors import ImageNotFound

    try:
        docker_engine.images.get(BASE)
    except ImageNotFound:
        refuse(f"The engine has no image {BASE}. `.ci/base-image` makes it.")
    return BASE


@pytest.fixture(scope="session")
def image(docker_engine: DockerClient, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of the image of this checkout; one test process builds it, the others wait for it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built = shared / "image-is-built"
    with HostLock(shared / "image.lock"):
        if not built.exists():
            build(docker_engine, ImageOptions(tag=TAG, base=base_image))
            built.touch()
    return TAG


def build(client: DockerClient, options: ImageOptions, modules: tuple[str, ...] = (), path: Path | None = None) -> Any:
    """Build an image with some modules of a user's own."""
    with tempfile.TemporaryDirectory() as cache:
        settings = Settings(
            store="store",
            cache=Path(cache),
            workers=None,
            allowed_modules=modules,
            module_path=(str(path),) if path else (),
        )
        return build_image(client, options, settings, lambda _line: None)
