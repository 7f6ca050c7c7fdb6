"""What a container is started with: pure, and without a secret in anything that is shown or recorded."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobspec.errors import UsageError
from submitter.backends.docker.shape import Shape

HOME = "/tmp"  # noqa: S108 - inside the container, where it is a file system of its own

STOP_SECONDS = 15
"""How long a container may take to write down what is finished once it was asked to end."""

_IMAGES_OWN = tuple(
    map(Path, (HOME, "/opt/foldfleet", "/usr", "/bin", "/lib", "/lib64", "/etc", "/dev", "/proc", "/sys"))
)
"""What a mounted folder must not hide."""

_MAX_PROCESSES = 4096
_FEW_PARTS = 2
"""Folders such as / and /home are everybody's."""

LOG_CONFIG = {"max-size": "100m", "max-file": "2"}
"""Whatever the engine's default is, a log must be readable, and it must not fill the disk."""

_FILE_VARIABLES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "REQUESTS_CA_BUNDLE",
)
_LOGIN_CACHE = "AWS_LOGIN_CACHE_DIRECTORY"
_AWS_CACHES = ("sso/cache", "login/cache", "cli/cache")
"""Below ~/.aws: a token that is about to expire is refreshed by whoever uses it, and written down there."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine inside a container; the same path, unless ``..`` or a link stands in it."""

    source: str
    target: str
    writable: bool


@dataclass(frozen=True)
class Launch:
    """Everything that a container is made from but its name, its labels and the values of ``passed_on`` variables.

    ``memory_bytes`` is without swap. ``passed_on`` are variables of the caller's environment; their values are read
    when the container is made and stand nowhere else. ``groups`` are those of the user besides the one in ``user``.
    """

    image: str
    command: tuple[str, ...]
    environment: dict[str, str]
    user: str
    network: str
    vcpus: int
    memory_bytes: int
    mounts: tuple[Mount, ...]
    passed_on: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Encode what a person wants to see beside command and environment."""
        document = asdict(self)
        return {name: value for name, value in document.items() if name not in ("command", "environment")}

    def config(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return the keywords of `docker.APIClient.create_container`."""
        passed_on = {name: os.environ[name] for name in self.passed_on if name in os.environ}
        hostname = {} if self.network == "host" else {"hostname": _host_name()}
        return {
            "image": self.image,
            "command": list(self.command),
            "environment": {**passed_on, **self.environment},
            "user": self.user,
            "labels": dict(labels),
            "working_dir": HOME,
            "stop_timeout": STOP_SECONDS,
            "use_config_proxy": self.network == "host",
            **hostname,
        }

    def host_config(self, *, own_user_ids: bool = False) -> dict[str, Any]:
        """Return the keywords of `docker.types.HostConfig`: nothing is allowed that a step does not need.

        Args:
            own_user_ids: the engine maps user ids, which must be those of this machine for the files' sake.
        """
        from docker.types import LogConfig
        from docker.types import Mount as BindMount

        binds = [BindMount(m.target, m.source, type="bind", read_only=not m.writable) for m in self.mounts]
        root = self.user.partition(":")[0] == "0"
        return {
            "mounts": binds,
            "network_mode": self.network,
            "nano_cpus": self.vcpus * 10**9,
            "mem_limit": self.memory_bytes,
            "memswap_limit": self.memory_bytes,
            "pids_limit": _MAX_PROCESSES,
            "group_add": list(self.groups),
            "read_only": True,
            "tmpfs": {HOME: "mode=1777"},
            "cap_drop": ["ALL"],
            # Under sudo files are another's; a root without capabilities could neither read nor write them.
            "cap_add": ["DAC_OVERRIDE"] if root else [],
            "security_opt": ["no-new-privileges"],
            "log_config": LogConfig(type="json-file", config=LOG_CONFIG),
            **({"userns_mode": "host"} if own_user_ids else {}),
        }


def make_launch(
    image: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    shape: Shape,
    *,
    folders: Sequence[Path],
    reads: Sequence[Path] = (),
    remote: bool = False,
    rootless: bool = False,
) -> Launch:
    """Return what a step or a task is started with.

    Args:
        image: its image.
        command: the arguments of the image's entry point.
        environment: what it is told by variables.
        shape: what it gets of the machine.
        folders: what it may write to; they exist when it is started.
        reads: files that it reads; absent ones are left to the step to complain about.
        remote: it talks to S3, with the caller's credentials.
        rootless: the engine runs as the caller, who is root inside.

    Raises:
        UsageError: a folder would hide what the image needs.
    """
    for folder in folders:
        _check_folder(folder)
    mounts = {mount.target: mount for mount in (_mount(path, writable=False) for path in reads if path.exists())}
    mounts |= {str(path): _mount(path, writable=True) for path in folders}
    passed_on: list[str] = []
    told: dict[str, str] = {}
    if remote:
        files = dict(_aws_files())
        told = {name: os.path.normpath(path) for name, path in files.items()}
        passed_on = _passed_on()
        given = [_mount_file(path) for path in files.values()]
        mounts = {mount.target: mount for mount in (*given, *_aws_folder(), *_login_cache())} | mounts
    return Launch(
        image=image,
        command=tuple(command),
        environment={"HOME": HOME, **told, **environment},
        user="0:0" if rootless else f"{os.getuid()}:{os.getgid()}",
        network="host" if remote else "none",
        vcpus=shape.vcpus,
        memory_bytes=shape.memory_bytes,
        mounts=tuple(mounts.values()),
        passed_on=tuple(passed_on),
        groups=() if rootless else tuple(sorted({*os.getgroups()} - {os.getgid()})),
    )


def container_name(*parts: object) -> str:
    """Return a name that an engine takes."""
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", "-".join(["foldfleet", *map(str, parts)]))


def _host_name() -> str:
    """Return this machine's name, which rows of results carry, as an engine takes it."""
    return re.sub(r"[^a-zA-Z0-9.-]", "-", socket.gethostname())[:63].strip(".-") or "container"


def _check_folder(folder: Path) -> None:
    target = os.path.normpath(folder)
    if any(own.is_relative_to(target) for own in _IMAGES_OWN):
        raise UsageError(
            f"The folder {target} cannot be given to a container, whose image has a folder of its own there. Name "
            "another one: --store DIR for the results, FOLDFLEET_CACHE for the cache."
        )


def _mount(path: Path, *, writable: bool) -> Mount:
    """Bind what the path means here to how it is spelled: inside there are no links, so ``..`` is plain there."""
    return Mount(os.path.realpath(path), os.path.normpath(path), writable)


def _passed_on() -> list[str]:
    names = [name for name in os.environ if name.startswith("AWS_") and not name.startswith("AWS_BATCH_")]
    return sorted([*names, *(name for name in (*_PROXIES, "REQUESTS_CA_BUNDLE") if name in os.environ)])


def _aws_files() -> Iterator[tuple[str, Path]]:
    """Yield the files that AWS's variables name, as absolute paths."""
    for name in _FILE_VARIABLES:
        path = Path(os.environ.get(name, "")).expanduser().absolute()
        if path.is_file():
            yield name, path


def _mount_file(path: Path) -> Mount:
    """Mount a file's folder, where there is no more in it than belongs there, else the file alone.

    Tokens are replaced by renaming new ones over them: who has the file alone keeps the old one.
    """
    folder = Path(os.path.normpath(path)).parent
    inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(path.parent))
    if not inside or _is_common(folder) or _is_common(Path(os.path.realpath(folder))):
        return _mount(path, writable=False)
    return _mount(path.parent, writable=False)


def _is_common(folder: Path) -> bool:
    """Say whether a folder is none for one purpose: of the whole machine, of the image, or all that a user has."""
    if len(folder.parts) <= _FEW_PARTS or Path.home().is_relative_to(folder):
        return True
    return any(own.is_relative_to(folder) or (own != Path(HOME) and folder.is_relative_to(own)) for own in _IMAGES_OWN)


def _aws_folder() -> Iterator[Mount]:
    """Yield the user's profiles and cached logins, mounted where every AWS tool looks for them: in the home folder.

    What holds refreshed tokens is writable, else a login ends a run when its first token expires.
    """
    folder = Path.home() / ".aws"
    if not folder.is_dir():
        return
    source = os.path.realpath(folder)
    yield Mount(source, f"{HOME}/.aws", writable=False)
    for name in _AWS_CACHES:
        cache = f"{source}/{name}"
        if Path(cache).is_dir() and os.path.realpath(cache) == cache:  # a link out of it leads nowhere inside
            yield Mount(cache, f"{HOME}/.aws/{name}", writable=True)


def _login_cache() -> Iterator[Mount]:
    """Yield the folder that a person named for the tokens of `aws login`."""
    path = Path(os.path.expandvars(os.environ.get(_LOGIN_CACHE, ""))).expanduser()
    if path.is_absolute() and path.is_dir() and not _is_common(path):
        yield _mount(path, writable=True)
