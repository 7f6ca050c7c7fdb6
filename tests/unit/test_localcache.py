"""A cache that the host made for somebody else: one line of warning, and a folder of the container's own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from containers.localcache import settle_cache
from jobspec.errors import AccessError


def refuse_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder be as one of another user; tests may run as root, who can write everywhere."""
    real = tempfile.TemporaryFile

    def open_file(*, dir: Path) -> object:  # noqa: A002 - its name there
        if dir.is_relative_to(folder):
            raise PermissionError(13, "Permission denied")
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", open_file)


def test_a_cache_that_can_be_written_is_kept(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    environment = {"TMPDIR": str(tmp_path / "host" / "tmp")}
    settle_cache(environment)
    assert environment.keys() == {"TMPDIR"} and (tmp_path / "host" / "tmp").is_dir()
    assert cache.is_dir() and not list(cache.iterdir()) and not caplog.records


def test_another_folder_is_taken_with_one_line_of_warning(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_below(cache, monkeypatch)
    environment: dict[str, str] = {}
    settle_cache(environment)
    own = Path(environment["FOLDFLEET_CACHE"])
    assert own.is_dir() and not own.is_relative_to(cache)
    (record,) = caplog.records
    assert "cache_not_shared" in record.message and str(cache) in record.message and str(own) in record.message
    own.rmdir()


def test_no_folder_at_all_is_told_with_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    refuse_below(cache, monkeypatch)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(AccessError, match="FOLDFLEET_CACHE"):
        settle_cache({})
