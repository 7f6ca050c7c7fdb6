"""Digests of the user's own modules, so that an edited estimator never returns stale scores; imports none of them.

What counts: for a package everything that is code below its top folder, for a single file that file, and
transitively every file or package of the user's own that any of these imports. A package that was installed
(``site-packages``) counts as a whole but is not followed: its neighbours are other people's. Code that is found by
other means than ``import`` (a computed module name, a data file) is not seen.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from jobspec.errors import SpecError

_INSTALLED = {"site-packages", "dist-packages"}
_CODE = (".py", ".so")

Files = dict[str, Path]
"""Path below its folder of the search path -> file."""


def module_digest(name: str, module_path: Iterable[str]) -> str:
    """Hash the top-level package or file of a module, and what it imports of the user's own.

    Raises:
        SpecError: there is no such module.
    """
    own, installed = _search_folders(module_path)
    top = name.partition(".")[0]
    found = _collect(top, own)
    digests = {label: _file_digest(path) for label, path in found.items()} or _installed_digests(top, installed)
    stem = name.replace(".", "/")
    if not any(label.startswith((f"{stem}.", f"{stem}/")) for label in digests):
        raise SpecError(
            f"The allowed module {name!r} cannot be found. Add its folder to modules.path in the configuration file."
        )
    text = "".join(f"{label}\0{digest}\n" for label, digest in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def own_files(name: str, module_path: Iterable[str]) -> Files:
    """Return the user's own code behind a module, as its digest counts it; nothing for one that was installed."""
    own, _ = _search_folders(module_path)
    return _collect(name.partition(".")[0], own)


def _search_folders(module_path: Iterable[str]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the folders in which the user's own modules and installed ones are searched, in order.

    Python puts the working folder or the script's in front of its path; a step is started without them (``-P``).
    """
    given = [Path(folder).resolve() for folder in module_path]
    rest = [Path(folder).resolve() for folder in sys.path]
    if rest and not sys.flags.safe_path and rest[0] in (Path.cwd(), Path(sys.argv[0]).resolve().parent):
        del rest[0]
    library = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    plain = [folder for folder in rest if not any(folder.is_relative_to(top) for top in library)]
    own = [folder for folder in plain if not _INSTALLED & set(folder.parts)]
    installed = [folder for folder in rest if _INSTALLED & set(folder.parts)]
    return tuple(dict.fromkeys([*given, *own])), tuple(dict.fromkeys(installed))


def _collect(top: str, folders: tuple[Path, ...]) -> Files:
    """Return the files of a module and, transitively, of what it imports from any of the folders."""
    found: Files = {}
    seen, waiting = set[str](), [top]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        files = _files_of(name, folders)
        found |= files
        for label, path in files.items():
            if path.suffix == ".py":
                waiting.extend(_imports(path.read_bytes(), is_package="/" in label))
    return found


def _files_of(top: str, folders: tuple[Path, ...]) -> Files:
    """Return the code of a top-level name as Python would find it: the first module, else every namespace folder."""
    for folder in folders:
        files = {
            path.name: path for suffix in (".py", *EXTENSION_SUFFIXES) if (path := folder / (top + suffix)).is_file()
        }
        if (folder / top / "__init__.py").is_file():
            files |= _code_below(folder, top)
        if files:
            return files
    return {label: path for folder in reversed(folders) for label, path in _code_below(folder, top).items()}


def _code_below(folder: Path, top: str) -> Files:
    """Return the code in a package's folder; linked folders are followed, once each."""
    files: Files = {}
    visited: set[str] = set()
    for place, names, entries in os.walk(folder / top, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:
            names.clear()
            continue
        visited.add(real)
        names[:] = sorted(name for name in names if name != "__pycache__")
        paths = [Path(place) / entry for entry in entries if entry.endswith(_CODE)]
        files |= {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return files


def _imports(source: bytes, *, is_package: bool) -> Iterator[str]:
    """Yield the top-level names that a file imports; relative ones only where they can mean a neighbour."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not (node.level and is_package):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (name.partition(".")[0] for name in names)


@cache
def _installed_digests(top: str, folders: tuple[Path, ...]) -> dict[str, str]:
    """Hash an installed package once for each process: nobody edits those between two steps of one."""
    return {label: _file_digest(path) for label, path in _files_of(top, folders).items()}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
