"""What the user's environment and configuration file say; never the working folder, never a spec."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobspec.errors import UsageError
from jobspec.names import closest

DEFAULT_STORE = "./foldfleet"
DEFAULT_STACK = "foldfleet"
_KEYS: Mapping[str, type[Any]] = {
    "store": str,
    "cache": str,
    "workers": int,
    "image": str,
    "stack": str,
    "modules": dict,
}
_MODULE_KEYS: Mapping[str, type[Any]] = {"allowed": list, "path": list}


@dataclass(frozen=True)
class Settings:
    """One resolved set of settings: environment before configuration file before default.

    ``module_path`` lists the folders in which allowed modules are searched before ``sys.path``. ``image`` is what
    containers are made from, None for the default one; ``stack`` names the CloudFormation stack of ``--on aws``.
    """

    store: str
    cache: Path
    workers: int | None
    allowed_modules: tuple[str, ...]
    module_path: tuple[str, ...]
    image: str | None = None
    stack: str = DEFAULT_STACK


def config_path() -> Path:
    """Return where the user's configuration file lies, whether or not it exists."""
    given = os.environ.get("FOLDFLEET_CONFIG")
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(given) if given else base / "foldfleet" / "config.toml"


def load_settings() -> Settings:
    """Read the environment and the user's configuration file.

    Raises:
        UsageError: the file is not TOML, or has a key that does not exist.
    """
    config = _read_config(config_path())
    modules = config.get("modules", {})
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Settings(
        store=os.environ.get("FOLDFLEET_STORE") or config.get("store") or DEFAULT_STORE,
        cache=Path(os.environ.get("FOLDFLEET_CACHE") or config.get("cache") or base / "foldfleet")
        .expanduser()
        .absolute(),
        workers=_workers(os.environ.get("FOLDFLEET_WORKERS"), config.get("workers")),
        allowed_modules=_listed("FOLDFLEET_ALLOWED_MODULES", ",", modules.get("allowed", [])),
        module_path=tuple(
            str(_beside(config_path(), entry))
            for entry in _listed("FOLDFLEET_MODULE_PATH", os.pathsep, modules.get("path", []))
        ),
        image=os.environ.get("FOLDFLEET_IMAGE") or config.get("image"),
        stack=os.environ.get("FOLDFLEET_STACK") or config.get("stack") or DEFAULT_STACK,
    )


def allowed_modules() -> tuple[str, ...]:
    """Return the modules, beside scikit-learn's own, from which a spec may name estimators."""
    return load_settings().allowed_modules


def _beside(config: Path, entry: str) -> Path:
    """Resolve a folder of the configuration file against the file's own folder."""
    return (config.parent / Path(entry).expanduser()).absolute()


def _listed(variable: str, separator: str, configured: list[str]) -> tuple[str, ...]:
    given = os.environ.get(variable)
    return tuple(part.strip() for part in given.split(separator) if part.strip()) if given else tuple(configured)


def _workers(given: str | None, configured: int | None) -> int | None:
    if not given:
        return configured
    if not given.isdigit() or int(given) < 1:
        raise UsageError(f"FOLDFLEET_WORKERS is {given!r}; it must be a whole number from 1, such as 4.")
    return int(given)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if os.environ.get("FOLDFLEET_CONFIG"):
            raise UsageError(
                f"FOLDFLEET_CONFIG names {path}, which does not exist. Unset it or write that file."
            ) from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}. Mend that line or remove the file.") from None
    _check_keys(path, "", document, _KEYS)
    _check_keys(path, "modules.", document.get("modules", {}), _MODULE_KEYS)
    return document


def _check_keys(path: Path, prefix: str, table: dict[str, Any], allowed: Mapping[str, type[Any]]) -> None:
    for key, value in table.items():
        if key not in allowed:
            names = ", ".join(prefix + name for name in allowed)
            raise UsageError(f"{path}: unknown key {prefix + key!r}; allowed are {names}.{closest(key, allowed)}")
        if not isinstance(value, allowed[key]) or isinstance(value, bool):
            raise UsageError(f"{path}: {prefix + key} is {value!r}; it must be a {allowed[key].__name__}.")
        if isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
            raise UsageError(f"{path}: {prefix + key} must be a list of strings.")
