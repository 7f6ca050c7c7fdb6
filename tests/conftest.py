"""What all tests share: one thread, no one's home folder, hypothesis, and a real `submit`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from jobspec.engine import numeric_environment

# Before numpy is imported anywhere: equality is tested with one thread, as workers run.
os.environ.update(numeric_environment("native"))

# Commands under test inherit what is ignored here, as SIGHUP is below `nohup` and SIGINT in a script's background.
for _number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL if _number == signal.SIGHUP else signal.default_int_handler)

pytest_plugins = ["tests.docker.fixtures", "tests.servers.fixtures", "tests.aws.fixtures"]

REPOSITORY = Path(__file__).resolve().parent.parent

# No deadline: a busy machine is no failure. In CI the examples are the same in every run.
_SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW_MACHINE)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW_MACHINE, derandomize=True)
settings.register_profile("thorough", deadline=None, suppress_health_check=_SLOW_MACHINE, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a user of its own: no settings, an empty home, a cache below it; return the home."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("FOLDFLEET_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("FOLDFLEET_CACHE", str(home / ".cache" / "foldfleet"))
    return home


@pytest.fixture
def cache(user: Path) -> Path:
    """Return the folder of the fold cache and the locks."""
    return user / ".cache" / "foldfleet"


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """Return the URL of a store that does not exist yet."""
    return str(tmp_path / "store")


@pytest.fixture
def examples() -> Path:
    """Return the folder of the examples."""
    return REPOSITORY / "examples"


@pytest.fixture
def submit(tmp_path: Path) -> Submit:
    """Return a function that runs the real command line in the test's folder and waits for it.

    ``submit("run", spec, "--json")`` returns the finished process; nothing is raised for an exit code.
    """

    def run(
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "submitter", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            timeout=timeout,
        )

    return run
