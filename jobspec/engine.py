"""What computes the scores: library versions, the user's own modules, and the CPU kernels in use."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

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

# Kernels of Haswell exist on every x86-64 CPU of the last ten years; other kernels change last bits. NumPy 2.4 renamed
# its groups (X86_V4); a version ignores names that are not its own, with an ImportWarning that is off by default.
_PORTABLE = {
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
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


class EngineParts(BaseModel):
    """What a machine or an image computes with, before a spec says which modules and numerics it uses.

    ``modules`` holds the digest of every allowed module, ``kernel`` one entry for each kind of numerics.
    """

    # Another version of foldfleet may say more of its image; only what is missing would be wrong.
    model_config = ConfigDict(extra="ignore", frozen=True)

    version: int
    foldfleet: str
    machine: str
    python: str
    packages: dict[str, str]
    modules: dict[str, str]
    kernel: dict[Numerics, str]

    def engine(self, numerics: Numerics, identity: object = None) -> Engine:
        """Return the engine of a spec there; equal to what ``current_engine`` says in that place.

        Args:
            numerics: the numerics that the run asks for.
            identity: the spec's identity, in which the user's own modules are named.
        """
        return self._engine(numerics, set(_named_modules(identity, self.modules)))

    def whole_engine(self, numerics: Numerics) -> Engine:
        """Return the engine of a spec that names every allowed module."""
        return self._engine(numerics, set(self.modules))

    def _engine(self, numerics: Numerics, modules: set[str]) -> Engine:
        return Engine(
            version=self.version,
            python=self.python,
            packages=self.packages,
            modules={name: self.modules[name] for name in sorted(modules)},
            numerics=numerics,
            kernel=self.kernel[numerics],
        )


def describe_engine() -> EngineParts:
    """Describe this machine with all allowed modules, without importing numpy or scikit-learn.

    Raises:
        SpecError: an allowed module cannot be found.
    """
    from jobspec.settings import allowed_modules

    return EngineParts(
        version=ENGINE_VERSION,
        foldfleet=version("foldfleet"),
        machine=platform.machine(),
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        modules=_digests(sorted(set(allowed_modules()))),
        kernel={"native": _kernel("native"), "portable": _kernel("portable")},
    )


def current_engine(numerics: Numerics, identity: object = None) -> Engine:
    """Describe this machine without importing numpy or scikit-learn.

    Args:
        numerics: the numerics that the run asks for.
        identity: the spec's identity; the user's own modules named in it are digested.
    """
    return Engine(
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        modules=_digests(named_modules(identity)),
        numerics=numerics,
        kernel=_kernel(numerics),
    )


def named_modules(identity: object) -> list[str]:
    """Return the modules, of those that this machine allows, from which the spec names anything; sorted."""
    from jobspec.settings import allowed_modules

    return sorted(set(_named_modules(identity, allowed_modules())))


def numeric_environment(numerics: Numerics) -> dict[str, str]:
    """Return the variables to set before numpy is imported: one thread, and pinned kernels if portable."""
    return _ONE_THREAD | (_PORTABLE if numerics == "portable" else {})


def _kernel(numerics: Numerics) -> str:
    machine = platform.machine()
    if numerics == "portable":
        return f"portable-2-{machine}-{_libc()}"
    pins = {name: os.environ[name] for name in _KERNEL_VARIABLES if name in os.environ}
    text = json.dumps([machine, _libc(), _cpu_features(), pins], sort_keys=True)
    return f"native-{machine}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@cache
def _libc() -> str:
    """Return the C library and its version: its exp and log are what estimators call."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "libc").replace(" ", "")
    except (ValueError, OSError):  # another C library
        return f"{platform.system()}{platform.release()}".lower()


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


def _digests(names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    from jobspec.modules import module_digest
    from jobspec.settings import load_settings

    module_path = load_settings().module_path
    return {name: module_digest(name, module_path) for name in names}


def _named_modules(identity: object, allowed: Collection[str]) -> Iterator[str]:
    """Yield the allowed modules from which the spec names anything (a prefix of any string in it)."""
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
