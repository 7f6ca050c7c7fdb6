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
from jobspec.errors import FoldfleetError, NotFoundError, TryLaterError, UsageError
from jobspec.modules import module_digest, own_files
from jobspec.protocol import IMAGE_MODULE, image_command
from jobspec.settings import Settings
from submitter.backends.docker.engine import explained
from submitter.backends.docker.launch import HOME, LOG_CONFIG, container_name
from submitter.backends.docker.ownership import KIND, STEP, Owner, limit_labels

if TYPE_CHECKING:
    from docker import DockerClient

DESCRIBE_SECONDS = 120.0
"""It takes about a second: it imports none of the libraries that it names."""

_MEMORY_BYTES = 1 << 30
_MAX_PROCESSES = 256


def image_parts(client: DockerClient, image: str, cache: Path) -> EngineParts:
    """Return what an image computes with on the engine's machine, by running its ``describe`` step at most once.

    Variables of this process that choose kernels reach neither that step nor a task; those of the image reach both.

    Args:
        client: a client of the Docker SDK.
        image: a name or an id.
        cache: the folder in which answers are remembered, by image and CPU.

    Raises:
        NotFoundError: there is no such image, or one of another version of foldfleet.
        UsageError: it is made for another architecture, or it is none of foldfleet's.
    """
    api: Any = client.api
    with explained(image):
        found, host = api.inspect_image(image), api.version()
    _check_architecture(image, str(found["Architecture"]), str(host["Arch"]))
    # What an image of another entry point once answered says nothing of whether it can be started now.
    facts = [found["Id"], api.base_url, host["KernelVersion"], current_engine("native").kernel, IMAGE_MODULE]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    path = cache / "images" / f"{digest[:32]}.json"
    parts = _recall(path)
    if parts is None:
        parts = parse_parts(describe_image(client, found["Id"], cache, name=image), image)
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


def describe_image(client: DockerClient, image_id: str, cache: Path, *, name: str = "") -> dict[str, Any]:
    """Run an image's ``describe`` step without network and with nothing to write on, and return its answer.

    Raises:
        UsageError: the image cannot run here, or does not answer as foldfleet's.
        TryLaterError: it does not end.
        FoldfleetError: what the step itself refused.
    """
    owner = Owner(cache)
    owner.claim()  # a container of a process that is killed is found by its labels, and removed
    try:
        return _run_describe(client.api, image_id, owner, name or image_id)
    finally:
        owner.release()


def _run_describe(api: Any, image_id: str, owner: Owner, image: str) -> dict[str, Any]:
    with explained(image):
        made = api.create_container(
            image_id,
            image_command(["describe"]),
            name=container_name("describe", owner.token),
            labels={**owner.labels(), KIND: STEP, **limit_labels(0, _MEMORY_BYTES)},
            host_config=_limits(api),
        )
        try:
            _start(api, made["Id"], image)
            exit_code = _await_end(api, made["Id"], image)
            answer = api.logs(made["Id"], stdout=True, stderr=False)
            words = api.logs(made["Id"], stdout=False, stderr=True, tail=3)
        finally:
            api.remove_container(made["Id"], force=True, v=True)
    return _parse_answer(answer, words, exit_code, image)


def _limits(api: Any) -> Any:
    from docker.types import LogConfig

    return api.create_host_config(
        network_mode="none",
        mem_limit=_MEMORY_BYTES,
        memswap_limit=_MEMORY_BYTES,
        pids_limit=_MAX_PROCESSES,
        read_only=True,
        tmpfs={HOME: ""},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        log_config=LogConfig(type="json-file", config=LOG_CONFIG),
    )


def _await_end(api: Any, container: str, image: str) -> int:
    import requests

    try:
        return int(api.wait(container, timeout=DESCRIBE_SECONDS)["StatusCode"])
    except requests.RequestException as error:
        api.inspect_container(container)  # an engine that has gone says so here
        raise TryLaterError(
            f"The image {image} has not said within {DESCRIBE_SECONDS:.0f} s what it computes with ({error}). If this "
            "machine is busy, type the same command again later; else `submit image build` makes the image anew."
        ) from None


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
