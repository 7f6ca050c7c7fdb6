"""What an image computes with: asked once for each image and CPU, then remembered."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from jobspec.engine import EngineParts, current_engine, named_modules
from jobspec.errors import FoldfleetError, NotFoundError, UsageError
from jobspec.modules import module_digest, own_files
from jobspec.settings import Settings
from submitter.backends.docker.engine import explained

if TYPE_CHECKING:
    from docker import DockerClient


def image_parts(
    client: DockerClient, image: str, cache: Path, environment: Mapping[str, str] | None = None
) -> EngineParts:
    """Return what an image computes with on the engine's machine, by running its ``describe`` step at most once.

    Args:
        client: a client of the Docker SDK.
        image: a name or an id.
        cache: the folder in which answers are remembered, by image and CPU.
        environment: variables that choose kernels, if its tasks will have any.

    Raises:
        NotFoundError: there is no such image, or one of another version of foldfleet.
        UsageError: it is made for another architecture, or it is none of foldfleet's.
    """
    api: Any = client.api
    with explained(image):
        found, host = api.inspect_image(image), api.version()
    _check_architecture(image, str(found["Architecture"]), str(host["Arch"]))
    facts = [found["Id"], api.base_url, host["KernelVersion"], current_engine("native").kernel]
    digest = hashlib.sha256(json.dumps([*facts, sorted((environment or {}).items())]).encode()).hexdigest()
    path = cache / "images" / f"{digest[:32]}.json"
    parts = _recall(path)
    if parts is None:
        parts = parse_parts(describe_image(client, found["Id"], environment, name=image), image)
        _remember(path, parts)
    if parts.foldfleet != version("foldfleet"):
        raise NotFoundError(
            f"The image {image} holds foldfleet {parts.foldfleet}, and this is {version('foldfleet')}. "
            "`submit image build` makes one of this version; FOLDFLEET_IMAGE names another one."
        )
    return parts


def check_modules(parts: EngineParts, identity: object, settings: Settings, image: str) -> None:
    """Refuse a spec that names modules of the user's own which the image lacks, or has in another version.

    Raises:
        NotFoundError: it says which.
    """
    remedy = "`submit image build` puts the modules of your configuration file, as they are now, into an image."
    for name in named_modules(identity):
        if name not in parts.modules:
            raise NotFoundError(f"The spec names {name}, a module of your own that the image {image} lacks. {remedy}")
        if own_files(name, settings.module_path) and module_digest(name, settings.module_path) != parts.modules[name]:
            raise NotFoundError(f"The module {name} was edited after the image {image} was built. {remedy}")


def describe_image(
    client: DockerClient, image_id: str, environment: Mapping[str, str] | None = None, *, name: str = ""
) -> dict[str, Any]:
    """Run an image's ``describe`` step without network and with nothing to write on, and return its answer.

    Raises:
        UsageError: the image cannot run here, or does not answer as foldfleet's.
        FoldfleetError: what the step itself refused.
    """
    api: Any = client.api
    limits = api.create_host_config(
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - inside the container
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
    )
    with explained(name or image_id):
        made = api.create_container(image_id, ["describe"], environment=dict(environment or {}), host_config=limits)
        try:
            _start(api, made["Id"], name or image_id)
            exit_code = int(api.wait(made["Id"])["StatusCode"])
            answer = api.logs(made["Id"], stdout=True, stderr=False)
            words = api.logs(made["Id"], stdout=False, stderr=True, tail=3)
        finally:
            api.remove_container(made["Id"], force=True, v=True)
    return _parse_answer(answer, words, exit_code, name or image_id)


def parse_parts(document: Mapping[str, Any], image: str) -> EngineParts:
    """Read what ``describe`` answered.

    Raises:
        NotFoundError: it is the answer of another version of foldfleet.
    """
    try:
        return EngineParts.model_validate(document)
    except ValidationError:
        raise NotFoundError(
            f"The image {image} was made by another version of foldfleet (this is {version('foldfleet')}). "
            "`submit image build` makes one of this version."
        ) from None


def _start(api: Any, container: str, image: str) -> None:
    from docker.errors import APIError

    try:
        api.start(container)
    except APIError as error:
        if error.status_code != 400 and "exec format error" not in str(error):
            raise
        raise _foreign(image, str(error.explanation)) from None


def _parse_answer(answer: bytes, words: bytes, exit_code: int, image: str) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _foreign(image, f"exit code {exit_code}: {words.decode('utf-8', 'replace')}")
    if "error" in document:
        raise FoldfleetError.from_json(document["error"])
    return document


def _foreign(image: str, words: str) -> UsageError:
    return UsageError(
        f"The image {image} does not answer as foldfleet's ({' '.join(words.split())[-500:]}). `submit image build` "
        "makes one that does; FOLDFLEET_IMAGE names the image of a run."
    )


def _check_architecture(image: str, given: str, host: str) -> None:
    if given != host:
        raise UsageError(
            f"The image {image} is made for {given}, and the Docker engine's machine is {host}: emulated, it would be "
            f"slow and its scores others. Build one for this machine: `submit image build --platform linux/{host}`."
        )


def _recall(path: Path) -> EngineParts | None:
    try:
        return EngineParts.model_validate_json(path.read_bytes())
    except (OSError, ValueError):  # never asked, or a torn file: ask again
        return None


def _remember(path: Path, parts: EngineParts) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(parts.model_dump_json().encode())
    Path(name).replace(path)



