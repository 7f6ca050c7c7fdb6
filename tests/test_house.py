"""The repository keeps its own promises: arrows between packages, sizes, imports, and nothing private in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("jobspec", "containers", "submitter")

ALLOWED_SIBLINGS = {"jobspec": set(), "containers": {"jobspec"}, "submitter": {"jobspec"}}
"""The arrows of the picture in docs/architecture.md."""

NUMERIC = {"numpy", "scipy", "sklearn", "joblib", "threadpoolctl", "h2o", "pandas"}
FORBIDDEN = {
    "jobspec": NUMERIC | {"typer", "rich", "click", "docker"},
    "containers": {"typer", "rich", "click", "docker", "boto3", "botocore"},
    "submitter": NUMERIC,
}
"""Never imported, not even inside a function."""

LAZY = {
    "jobspec": {"pyarrow", "boto3", "botocore"},
    "containers": {"h2o"},
    "submitter": {"pyarrow", "boto3", "botocore", "docker"},
}
"""Imported inside functions alone, since they are slow and most commands do without."""

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 400

# Spelled in pieces, so that this file does not contain what it looks for.
PRIVATE = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(?:work|root|home|Users)/\w",
            r"(?:file" + r"s\.)?python" + r"hosted\.org",
            "pypi" + r"\.org/simple",
            "registry" + r"\.npmjs",
            "/opt/" + "pypi",
        ]
    )
)


@dataclass(frozen=True)
class Import:
    """One imported top-level name; ``lazy`` inside functions and for type checkers only."""

    name: str
    line: int
    lazy: bool


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


def imports_of(path: Path) -> Iterator[Import]:
    yield from walk_imports(tree_of(path), lazy=False)


def walk_imports(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name.partition(".")[0], child.lineno, lazy) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            name = (child.module or "").partition(".")[0]
            yield Import(name if child.level == 0 else "." * child.level, child.lineno, lazy)
        else:
            deferred = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or for_type_checkers(child)
            yield from walk_imports(child, lazy=lazy or deferred)


def for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=name_of)
def test_imports_follow_the_arrows(path: Path) -> None:
    package = path.relative_to(REPOSITORY).parts[0]
    siblings = set(PACKAGES) - {package} - ALLOWED_SIBLINGS[package]
    outside = {"tests", "benchmarks", "examples"}
    for found in imports_of(path):
        place = f"{name_of(path)}:{found.line}"
        assert not found.name.startswith("."), f"{place} imports relatively; write the whole path"
        assert found.name not in siblings | outside, f"{place} imports {found.name}: no such arrow in the picture"
        if only_for_types(path, found):
            continue
        assert found.name not in FORBIDDEN[package], f"{place}: {package} must not import {found.name}"
        assert found.lazy or found.name not in LAZY[package], f"{place}: import {found.name} inside the function"


def only_for_types(path: Path, found: Import) -> bool:
    blocks = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.If) and for_type_checkers(node)]
    return any(block.lineno <= found.line <= (block.end_lineno or 0) for block in blocks)


@pytest.mark.parametrize("path", modules(*PACKAGES, "benchmarks"), ids=name_of)
def test_modules_and_functions_are_small(path: Path) -> None:
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_MODULE_LINES, f"{name_of(path)} has {num_lines} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name_of(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=name_of)
def test_packages_neither_print_nor_assert(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        place = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{place}: answers go through the CLI, talk through logging"
        if isinstance(node, ast.Assert):
            assert only_narrows(node.test), f"{place}: `python -O` drops it, and users' input deserves a sentence"


def only_narrows(test: ast.expr) -> bool:
    """Say whether an assert merely tells the type checker what the code before it made sure of."""
    text = ast.unparse(test)
    return text.endswith(" is not None") or text.startswith("isinstance(")


def test_modules_are_documented() -> None:
    bare = [name_of(path) for path in modules(*PACKAGES, "benchmarks") if not ast.get_docstring(tree_of(path))]
    assert not bare, f"without a docstring: {bare}"


def test_help_imports_nothing_slow(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['submit', '--help']\n"
        "from submitter.__main__ import main\n"
        "try:\n    main()\n"
        "finally:\n    sys.stderr.write(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "Usage" in done.stdout, done.stderr
    slow = NUMERIC | {"boto3", "botocore", "docker", "pyarrow", "requests", "containers"}
    assert not loaded & slow


def tracked_files() -> list[Path]:
    """Return what a commit of all files would hold, or everything where git is absent."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in files if path.is_file() and not path.is_symlink()]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in tracked_files()
        if b"\0" not in (body := path.read_bytes())
        for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found, "\n".join(found)


def test_no_file_is_large() -> None:
    large = [name_of(path) for path in tracked_files() if path.stat().st_size > 1_000_000]
    assert not large


def test_locks_pin_every_package_by_hash() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (REPOSITORY / lock).read_text(encoding="utf-8")
        entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n| {4}# .*\n", "", text, flags=re.MULTILINE).strip())
        assert len(entries) > 20
        for entry in entries:
            assert re.match(r"^[a-z0-9.-]+==\S+", entry), f"{lock}: {entry.splitlines()[0]}"
            assert "--hash=sha256:" in entry, f"{lock}: {entry.splitlines()[0]}"


def test_locks_hold_every_direct_dependency() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9.-]+)==", text, flags=re.MULTILINE))
    named = {re.split(r"[<>=~!\[ ;]", item)[0] for item in project["dependencies"]}
    assert {name.replace(".", "-") for name in named} <= {name.replace(".", "-") for name in locked}


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{name_of(page)} -> {link}"
        for page in tracked_files()
        if page.suffix == ".md"
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith("mailto:") and not (page.parent / link).exists()
    ]
    assert not dead, "\n".join(dead)
