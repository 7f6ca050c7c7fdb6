"""Checks of this machine: versions, store, cache, CPUs and memory."""

from __future__ import annotations

import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from jobspec.errors import ExitCode
from jobspec.protocol import usable_cpus
from jobspec.settings import Settings, config_path
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.doctor.findings import Finding, ok, warning, wrong

GIB = 1 << 30
_LEAST_CACHE_BYTES, _SMALL_CACHE_BYTES = GIB // 2, 5 * GIB
_SERIES = re.compile(r"Programming Language :: Python :: (\d+\.\d+)")
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(.*)")
_BOUND = re.compile(r"(>=|<)\s*([\d.]+)")

FreeBytes = Callable[[Path], int]


def free_bytes(path: Path) -> int:
    """Return how much the disk behind a folder has left."""
    return shutil.disk_usage(path).free


def check_versions(python: str = platform.python_version()) -> Iterator[Finding]:
    """Compare Python and the libraries with what foldfleet is made for and tested with."""
    series = [match[1] for text in metadata("foldfleet").get_all("Classifier") or [] if (match := _SERIES.match(text))]
    given = ".".join(python.split(".")[:2])
    here = f"Python {python}, foldfleet {version('foldfleet')}"
    if given in series:
        yield ok("python", here)
    else:
        told = f"{here}; it is tested with Python {', '.join(series)}"
        yield warning(
            "python", told, f"Make an environment with Python {series[-1]}: `python{series[-1]} -m venv ENV`."
        )
    yield from _check_libraries(requires("foldfleet") or [])


def _check_libraries(requirements: Iterable[str]) -> Iterator[Finding]:
    fine = []
    for text in requirements:
        match = _REQUIREMENT.match(text)
        if match is None or "extra" in match[3]:
            continue
        name, bounds = match[1], match[2].strip(" ()")
        found = _installed(name)
        if found is None or not _is_within(found, bounds):
            said = "is not installed" if found is None else f"is {found}"
            remedy = f"`python -m pip install '{name}{bounds}'`"
            yield wrong("libraries", f"{name} {said}, and foldfleet needs {bounds}", remedy, ExitCode.NOT_FOUND)
        else:
            fine.append(f"{name} {found}")
    shown = [text for text in fine if text.split()[0] in ("scikit-learn", "numpy", "scipy")]
    yield ok("libraries", f"{', '.join(shown)} and {len(fine) - len(shown)} more are of versions that are supported")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _is_within(found: str, bounds: str) -> bool:
    given = _numbers(found)
    return all(
        given >= _numbers(bound) if sign == ">=" else given < _numbers(bound) for sign, bound in _BOUND.findall(bounds)
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:4])


def check_settings(settings: Settings) -> Iterator[Finding]:
    """Say where the settings come from."""
    path = config_path()
    text = str(path) if path.is_file() else f"no configuration file ({path} would be one)"
    named = sorted(name for name in os.environ if name.startswith("FOLDFLEET_"))
    yield ok("settings", f"{text}; from the environment: {', '.join(named) or 'nothing'}")
    if settings.allowed_modules:
        yield ok("modules", f"allowed: {', '.join(settings.allowed_modules)}")


def check_store(store: Store) -> Iterator[Finding]:
    """Create and delete a small object; a store that does not exist yet is not made for that."""
    place = store.local_path(Layout.runs())
    root = None if place is None else place.parent
    if root is not None and not root.exists():
        folder = _nearest(root)
        if os.access(folder, os.W_OK | os.X_OK):
            yield ok("store", f"{store.url} will be made by the first run; {folder} can be written to")
        else:
            remedy = "Name a folder that you may write: --store DIR or FOLDFLEET_STORE."
            yield wrong("store", f"{store.url} cannot be made: {folder} is not yours to write", remedy, ExitCode.ACCESS)
        return
    # Absent first: on S3 a missing s3:ListBucket answers that an absent object is forbidden.
    key = Layout.upload(uuid.uuid4().hex, "doctor.json")  # a person may create and delete these
    store.get_or_none(key)
    store.create(key, b"{}")
    store.delete(key)
    yield ok("store", f"{store.url} can be read and written")


def check_cache(folder: Path, free: FreeBytes = free_bytes) -> Iterator[Finding]:
    """Look whether the fold cache can be written, and how much there is room for."""
    place = _nearest(folder)
    remedy = "Name another folder: FOLDFLEET_CACHE, or `cache` in the configuration file."
    if not os.access(place, os.W_OK | os.X_OK):
        yield wrong("cache", f"{folder} cannot be used: {place} is not yours to write", remedy, ExitCode.ACCESS)
        return
    left = free(place)
    text = f"{folder} has {left / GIB:.1f} GiB free"
    if left < _LEAST_CACHE_BYTES:
        yield wrong("cache", f"{text}: a fold hardly fits", f"Free some space there. {remedy}", ExitCode.TRY_LATER)
    elif left < _SMALL_CACHE_BYTES:
        yield warning("cache", f"{text}, enough for small data alone", remedy)
    else:
        yield ok("cache", text)


def check_workers(settings: Settings, cpus: int | None = None) -> Iterator[Finding]:
    """Compare the number of worker processes with the CPUs that this process may use."""
    usable = cpus or usable_cpus()
    asked = settings.workers
    if asked is not None and asked > usable:
        text = f"{asked} worker processes on {usable} CPUs slow each other down"
        yield warning("workers", text, f"Set FOLDFLEET_WORKERS={usable}, or unset it.")
    else:
        yield ok("workers", f"{asked or usable} worker processes on {usable} CPUs")


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
