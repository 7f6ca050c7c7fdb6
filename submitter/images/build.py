"""Build an image through the Docker SDK, ask it what it computes with, and say so on its label."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jobspec.engine import EngineParts
from jobspec.errors import FoldfleetError, NotFoundError, SpecError, TryLaterError, UsageError
from jobspec.settings import Settings
from submitter.backends.docker.engine import explained
from submitter.images.context import LOCK, Context, assemble
from submitter.images.parts import describe_image, parse_parts

if TYPE_CHECKING:
    from docker import DockerClient

TARGETS = ("sklearn", "h2o")
PLATFORM = "linux/amd64"
"""What the cloud's machines are; an image built on another kind of laptop must not become one for the laptop."""

ENGINE_LABEL = "foldfleet.engine_id"

_NUM_LAST_LINES = 15
_MAX_WORDS = 20_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_INDEXES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")

Tell = Callable[[str], None]
"""Says how far the build is."""


@dataclass(frozen=True)
class ImageOptions:
    """What a person asks for; without a base, the Dockerfile's own."""

    tag: str
    base: str | None = None
    requirements: Path | None = None
    target: str = TARGETS[0]
    platform: str = PLATFORM


@dataclass(frozen=True)
class ImageReport:
    """What was built: ``added`` are the packages beyond the lock, ``engine_id`` is that of portable numerics."""

    image: str
    image_id: str
    base: str
    target: str
    platform: str
    python: str
    packages: dict[str, str]
    added: dict[str, str]
    modules: dict[str, str]
    lock: str
    engine_id: str
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Encode for printing."""
        return asdict(self)


def default_tag() -> str:
    """Return the name of the image that runs use unless told otherwise."""
    return f"foldfleet:{version('foldfleet')}"


def build_image(client: DockerClient, options: ImageOptions, settings: Settings, tell: Tell) -> ImageReport:
    """Build an image with the user's requirements and allowed modules, and tag it once it has answered.

    Args:
        client: a client of the Docker SDK.
        options: what is asked for.
        settings: they name the user's own modules.
        tell: is told each step of the build.

    Raises:
        NotFoundError: no such base image, requirements file or module.
        UsageError: the requirements contradict the lock or cannot be installed; the target does not exist.
        TryLaterError: the engine, the disk or the network stand in the way.
    """
    if options.target not in TARGETS:
        raise UsageError(f"There is no target {options.target!r}; allowed are {' and '.join(TARGETS)}.")
    context = assemble(settings, options.requirements)
    with context.packed() as archive:
        built = _build(client, archive, _request(options, context), options, tell)
    tell("Asking the image what it computes with")
    try:
        described = describe_image(client, built, settings.cache, name=options.tag)
    except SpecError as error:
        raise _not_installed(error, options) from None
    parts = parse_parts(described, options.tag)
    _check_modules(parts, context)
    engine_id = parts.whole_engine("portable").engine_id
    image_id = _label(client, built, engine_id, options)
    api: Any = client.api
    with explained(options.tag):
        size = int(api.inspect_image(image_id)["Size"])
    return ImageReport(
        image=options.tag,
        image_id=image_id,
        base=options.base or default_base(context),
        target=options.target,
        platform=options.platform,
        python=parts.python,
        packages=parts.packages,
        added=_added(described["distributions"], context),
        modules=parts.modules,
        lock=context.lock_digest,
        engine_id=engine_id,
        size_bytes=size,
    )


def default_base(context: Context) -> str:
    """Return the base image that the Dockerfile names."""
    text = context.files["Dockerfile"].read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", text, flags=re.MULTILINE)
    return found[1] if found is not None else "unknown"


def _request(options: ImageOptions, context: Context) -> dict[str, Any]:
    arguments = {
        "ALLOWED_MODULES": ",".join(context.modules),
        "LOCK_DIGEST": context.lock_digest,
        "VERSION": version("foldfleet"),
        **({} if options.base is None else {"BASE_IMAGE": options.base}),
        **{name: os.environ[name] for name in _PROXIES if os.environ.get(name)},
        # A file: URL means nothing inside of the build.
        **{name: os.environ[name] for name in _INDEXES if os.environ.get(name, "").startswith("http")},
    }
    return {"buildargs": arguments, "target": options.target}


def _build(
    client: DockerClient, archive: IO[bytes], request: Mapping[str, Any], options: ImageOptions, tell: Tell
) -> str:
    """Send a build and follow it to its end; return the image's id."""
    with explained(options.base):
        events = client.api.build(
            fileobj=archive,
            custom_context=True,
            network_mode="host",  # an engine without a bridge has no other way to an index
            platform=options.platform,
            rm=True,
            forcerm=True,
            decode=True,
            timeout=None,  # a step may be silent for minutes
            **request,
        )
        return _follow(events, options, tell)


def _follow(events: Iterable[Mapping[str, Any]], options: ImageOptions, tell: Tell) -> str:
    image_id, error, step, said = "", None, "", ""
    for event in events:  # to its end, also after an error: a stream half read keeps its socket
        error = event.get("error", error)
        image_id = (event.get("aux") or {}).get("ID", image_id)
        text = _COLOURS.sub("", str(event.get("stream", "")))  # the engine reddens what comes from stderr
        if text.startswith("Step "):
            step, said = text.strip(), ""
            tell(_shorten(step))
        elif not text.startswith((" --->", "Removing intermediate container")):
            said = (said + text)[-_MAX_WORDS:]  # an event may end within a line
    if error is not None:
        raise _explain(str(error), step, [line for line in said.splitlines() if line.strip()], options)
    return image_id


def _shorten(step: str) -> str:
    return step if len(step) <= 100 else step[:97] + "..."


def _label(client: DockerClient, image_id: str, engine_id: str, options: ImageOptions) -> str:
    """Set the label with the engine, which only the finished image could tell, and the tag."""
    recipe = f'FROM {image_id}\nLABEL {ENGINE_LABEL}="{engine_id}"\n'
    with explained(options.tag):
        events = client.api.build(
            fileobj=io.BytesIO(recipe.encode()), tag=options.tag, platform=options.platform, rm=True, decode=True
        )
        return _follow(events, options, lambda _line: None)


def _check_modules(parts: EngineParts, context: Context) -> None:
    """Make sure that code of the user's own is in the image as it is here; installed packages may differ."""
    copied = {label.partition("/")[2].partition("/")[0].removesuffix(".py") for label in context.files}
    changed = [
        name
        for name, digest in context.modules.items()
        if name.partition(".")[0] in copied and parts.modules[name] != digest
    ]
    if changed:
        raise TryLaterError(
            f"{', '.join(changed)} inside of the image is not what it is here: it was edited while the image was "
            "built. Type the same command again."
        )


def _added(distributions: Mapping[str, str], context: Context) -> dict[str, str]:
    locked = set(re.findall(r"^([a-z0-9.-]+)==", context.files[LOCK].read_text(encoding="utf-8"), flags=re.MULTILINE))
    return {name: number for name, number in distributions.items() if name not in locked | {"foldfleet"}}


# --- what went wrong, in one paragraph ------------------------------------------------------------------------


def _explain(error: str, step: str, lines: list[str], options: ImageOptions) -> FoldfleetError:
    words = " ".join(" ".join(lines[-_NUM_LAST_LINES:]).split())
    if "requirements.txt" in step and options.requirements is not None:
        return _explain_requirements(lines, options.requirements)
    if "no space left on device" in error + words:
        return TryLaterError(
            "The disk of the Docker engine is full. `docker system df` shows what is on it and `docker image prune` "
            "removes what no tag names; then type the same command again."
        )
    if re.search(r"not found|denied|manifest unknown|invalid reference", error) and "FROM" in step:
        return NotFoundError(
            f"The base image cannot be had: {error.strip()}. Name one that `docker images` lists or a registry has: "
            "--base IMAGE; it needs Python 3.11 or later with venv."
        )
    return TryLaterError(
        f"The image could not be built. {_shorten(step) or 'Its first step'} ended with: {words or error.strip()} "
        "Mend that (the network, the base image named by --base), then type the same command again."
    )


def _explain_requirements(lines: list[str], path: Path) -> FoldfleetError:
    text = " ".join(" ".join(_errors_of(lines)).split())
    return UsageError(
        f"{path} cannot be installed beside the versions that foldfleet's lock holds. pip says: {text} Change that "
        f"line of {path}; what the lock names stays at its versions, since scores depend on them."
    )


def _errors_of(lines: list[str]) -> Iterator[str]:
    """Yield pip's last words from its first error on, without its general advice."""
    start = next((index for index, line in enumerate(lines) if line.startswith("ERROR:")), 0)
    for line in lines[start:][:_NUM_LAST_LINES]:
        if line.startswith("To fix this"):
            return
        if not line.startswith("ERROR: ResolutionImpossible"):
            yield line


def _not_installed(error: SpecError, options: ImageOptions) -> UsageError:
    given = options.requirements
    remedy = "list it in a file: --requirements FILE" if given is None else f"add it to {given}"
    return UsageError(
        f"{error.message.partition('. ')[0]} inside of the image. It was installed on this machine by pip, and the "
        f"image holds only what the lock and your requirements name: {remedy}, or take it out of the allowed modules."
    )
