"""What an image is built from: foldfleet as it is installed here, and the user's own requirements and modules."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from jobspec.errors import DataError, LimitError, NotFoundError, UsageError
from jobspec.modules import module_digest, own_files
from jobspec.settings import Settings

LOCK = "requirements.lock"
REQUIREMENTS = "requirements.txt"
MODULES = "modules"
"""Where the Dockerfile looks for the user's own."""

MAX_MODULE_BYTES = 200 * 2**20
"""Modules are code; what is larger is data that strayed beside it."""

_PACKAGES = ("jobspec", "containers", "submitter")
_TOP_FILES = ("Dockerfile", LOCK, "requirements-h2o.lock", "pyproject.toml", "README.md", "LICENSE")

# In a checkout links to the files at its top, in an installation copies of them.
_HERE = Path(__file__).resolve().parent / "context"

# pip runs where nothing of this machine but the context is: `-r other.txt`, `-e .`, `./a.whl`, `name @ file:...`.
_LOCAL = re.compile(
    r"-[rcef]|--(requirement|constraint|editable|find-links)\b|[./~]"
    r"|(?!\S*://)\S+\.(whl|zip|tar\.gz)\b|.*\bfile:"
)


@dataclass(frozen=True)
class Context:
    """Files by their place in the build's context, and the digests that name what is in them.

    ``modules`` holds the digest of each of the user's allowed modules.
    """

    files: dict[str, Path]
    modules: dict[str, str]

    @property
    def lock_digest(self) -> str:
        """Return the SHA-256 of the lock, in hex digits."""
        return hashlib.sha256(self.files[LOCK].read_bytes()).hexdigest()

    @contextmanager
    def packed(self) -> Iterator[IO[bytes]]:
        """Give the context as a tar file; the same files give the same bytes."""
        with TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name, path in sorted(self.files.items()):
                    body = path.read_bytes()
                    archive.addfile(_entry(name, len(body)), io.BytesIO(body))
            file.seek(0)
            yield file


def assemble(settings: Settings, requirements: Path | None) -> Context:
    """Find everything that an image is built from.

    Args:
        settings: they name the user's own modules.
        requirements: a pip requirements file, or None.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the requirements name files of this machine.
        SpecError: an allowed module cannot be found.
        LimitError: the modules hold more than code.
    """
    files = {name: _HERE / name for name in _TOP_FILES} | dict(_own_packages())
    if requirements is not None:
        _check_requirements(requirements)
        files[REQUIREMENTS] = requirements
    names = sorted(set(settings.allowed_modules))
    for label, path in _module_files(names, settings.module_path).items():
        files[f"{MODULES}/{label}"] = path
    return Context(files, {name: module_digest(name, settings.module_path) for name in names})


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry


def _own_packages() -> Iterator[tuple[str, Path]]:
    """Yield foldfleet's files: they lie beside each other in a checkout as in an installation."""
    top = Path(__file__).resolve().parents[2]
    for package in _PACKAGES:
        for path in _walk(top / package):
            if not path.is_relative_to(_HERE):
                yield path.relative_to(top).as_posix(), path


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder but byte code and hidden ones; linked folders are followed, once each."""
    visited = set[str]()
    for place, names, entries in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        names[:] = [] if real in visited else [n for n in names if n != "__pycache__" and not n.startswith(".")]
        visited.add(real)
        paths = (Path(place) / entry for entry in entries if not entry.startswith(".") and not entry.endswith(".pyc"))
        yield from (path for path in paths if path.is_file())


def _module_files(names: Sequence[str], module_path: Sequence[str]) -> dict[str, Path]:
    """Return the user's own code behind the modules, and what lies beside it in its packages' folders."""
    files: dict[str, Path] = {}
    for name in names:
        code = own_files(name, module_path)
        for label, path in code.items():
            files[label] = path
            if "/" in label:
                folder = path.parents[label.count("/")]  # the folder of the search path
                top = folder / label.partition("/")[0]
                files |= {found.relative_to(folder).as_posix(): found for found in _walk(top)} if top.is_dir() else {}
    num_bytes = sum(path.stat().st_size for path in files.values())
    if num_bytes > MAX_MODULE_BYTES:
        raise LimitError(
            f"The allowed modules {', '.join(names)} and what lies in their folders are {num_bytes >> 20} MiB; an "
            f"image takes at most {MAX_MODULE_BYTES >> 20} MiB of them. Move data out of the packages' folders: data "
            "belongs to the spec."
        )
    return files


def _check_requirements(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise NotFoundError(f"There is no file {path}. Name one that exists: --requirements FILE.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a requirements file: {error}.") from None
    for number, line in enumerate(text.splitlines(), 1):
        if _LOCAL.match(line.strip()):
            raise UsageError(
                f"{path}:{number}: {line.strip()!r} names a file of this machine, which the build does not see. "
                "Allowed are names of packages with versions, as in `lightgbm==4.6.0`, and URLs; your own code goes "
                "into the image as an allowed module (`modules` in the configuration file)."
            )
