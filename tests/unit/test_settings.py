"""What the user's environment and configuration file say, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobspec.errors import UsageError
from jobspec.settings import config_path, load_settings


def configure(text: str) -> Path:
    path = config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_stack_is_named_by_environment_then_file_then_default(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().stack == "foldfleet"
    configure('stack = "team-a"\n')
    assert load_settings().stack == "team-a"
    monkeypatch.setenv("FOLDFLEET_STACK", "team-b")
    assert load_settings().stack == "team-b"
    monkeypatch.setenv("FOLDFLEET_STACK", "")
    assert load_settings().stack == "team-a"


def test_a_misspelled_key_is_told_with_the_one_that_was_meant(user: Path) -> None:
    path = configure('stak = "a"\n')
    with pytest.raises(UsageError) as error:
        load_settings()
    assert str(path) in error.value.message and "stack" in error.value.message


def test_a_stack_that_is_no_text_is_refused(user: Path) -> None:
    configure("stack = 3\n")
    with pytest.raises(UsageError, match="stack is 3; it must be a str"):
        load_settings()
