"""What computes the scores: library versions, the user's own modules, and the CPU kernels in use."""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jobspec.errors import SpecError

Numerics = Literal["native", "portable"]

ENGINE_VERSION = 1
"""Raise when foldfleet itself computes a score in another way, so that old scores are not reused."""

_PACKAGES = ("numpy", "scipy", "scikit-learn")

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_ONE_THREAD = dict.fromkeys(_THREAD_VARIABLES, "1")

# Kernels of Haswell exist on every x86-64 CPU of the last ten years; other kernels change last bits.
_PORTABLE = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "MKL_CBWR": "COMPATIBLE",
}

_KERNEL_VARIABLES = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES", "MKL_CBWR")


class Engine(BaseModel):
    """Everything besides spec and data that a score's last bit can depend on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = ENGINE_VERSION
    python: str
    packages: dict[str, str]
    modules: dict[str, str] = {}
    numerics: Numerics
    kernel: str

    @property
    def engine_id(self) -> str:
        """Return ``e-`` and 16 hex digits over all fields."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return "e-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def difference(self, other: Engine) -> str:
        """Say in words where ``other`` differs, for a refusal."""
        mine, theirs = self.model_dump(), other.model_dump()
        return "; ".join(f"{key}: {mine[key]} here, {theirs[key]} planned" for key in mine if mine[key] != theirs[key])


def current_engine(numerics: Numerics, identity: object = None) -> Engine:
    """Describe this machine without importing numpy or scikit-learn.

    Args:
        numerics: the numerics that the run asks for.
        identity: the spec's identity; the user's own modules named in it are digested.
    """
    return Engine(
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        modules={name: _module_digest(name) for name in sorted(set(_own_modules(identity)))},
        numerics=numerics,
        kernel=_kernel(numerics),
    )


def numeric_environment(numerics: Numerics) -> dict[str, str]:
    """Return the variables to set before numpy is imported: one thread, and pinned kernels if portable."""
    return _ONE_THREAD | (_PORTABLE if numerics == "portable" else {})


def _kernel(numerics: Numerics) -> str:
    machine = platform.machine()
    if numerics == "portable":
        return f"portable-1-{machine}"
    pins = {name: os.environ[name] for name in _KERNEL_VARIABLES if name in os.environ}
    text = json.dumps([machine, _cpu_features(), pins], sort_keys=True)
    return f"native-{machine}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@cache
def _cpu_features() -> tuple[str, ...]:
    """Return what numeric libraries choose their kernels by; on systems without /proc, the CPU's name."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").partition("\n\n")[0]
    except OSError:
        return (platform.processor(),)
    fields = dict(_cpu_fields(text))
    flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(("sse", "ssse", "avx", "fma", "amx"))]
    return (*(fields.get(name, "") for name in ("vendor_id", "cpu family", "model")), *sorted(flags))


def _cpu_fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def _own_modules(identity: object) -> Iterator[str]:
    """Yield the allowed modules from which the spec names anything (a prefix of any string in it)."""
    from jobspec.settings import allowed_modules

    allowed = allowed_modules()
    for text in _strings(identity) if allowed else ():
        yield from (module for module in allowed if text.startswith(module + "."))


def _strings(document: object) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for key, value in document.items():
            yield from _strings(key)
            yield from _strings(value)
    elif isinstance(document, Iterable):
        for value in document:
            yield from _strings(value)


def _module_digest(name: str) -> str:
    """Hash a module, and whatever it imports from beside itself, without importing any of it."""
    found: dict[str, bytes] = {}
    _collect(name, _search_path(), found)
    if not found:
        raise SpecError(
            f"The allowed module {name!r} cannot be found. Add its folder to modules.path in the configuration file."
        )
    digest = hashlib.sha256()
    for path, content in sorted(found.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:32]


def _search_path() -> list[str]:
    from jobspec.settings import load_settings

    return [*load_settings().module_path, *sys.path]


def _collect(name: str, path: list[str], found: dict[str, bytes]) -> None:
    spec = _find(name, path)
    if spec is None or spec.origin is None:
        return
    if spec.submodule_search_locations:
        _collect_package(name, Path(next(iter(spec.submodule_search_locations))), found)
    elif name not in found and spec.origin.endswith(".py"):
        found[name] = Path(spec.origin).read_bytes()
        for imported in _imports(found[name]):
            _collect_beside(imported, Path(spec.origin).parent, found)


def _find(name: str, path: list[str]) -> Any:
    spec = None
    for part in range(name.count(".") + 1):
        spec = importlib.machinery.PathFinder.find_spec(".".join(name.split(".")[: part + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def _collect_package(name: str, folder: Path, found: dict[str, bytes]) -> None:
    for file in sorted(folder.rglob("*.py")):
        found[f"{name}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
    for file in sorted(folder.rglob("*.so")):
        found[f"{name}/{file.relative_to(folder).as_posix()}"] = str(file.stat().st_size).encode()


def _collect_beside(name: str, folder: Path, found: dict[str, bytes]) -> None:
    """Follow an import only to files that lie beside the importing module."""
    if name not in found and ((folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()):
        _collect(name, [str(folder)], found)


def _imports(source: bytes) -> set[str]:
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names
