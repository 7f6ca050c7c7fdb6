"""What processes agree on: how many CPUs there are, and where locks lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobspec.errors import UsageError
from jobspec.protocol import array_lock, run_lock, usable_cpus
from jobspec.stores.base import open_store


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 8),
        ({"": "max 100000"}, 8),
        ({"": "250000 100000"}, 3),
        ({"": "10000 100000"}, 1),
        ({"": "9900000 100000"}, 8),
        ({"a/b": "max 100000", "a": "400000 100000"}, 4),
        ({"a/b": "200000 100000", "a": "400000 100000"}, 2),
    ],
)
def test_a_quota_of_the_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quotas: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text("0::/a/b\n")
    for group, text in quotas.items():
        (tmp_path / "cgroup" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / group / "cpu.max").write_text(text + "\n")
    assert usable_cpus(tmp_path / "cgroup", tmp_path / "own") == expected
    assert usable_cpus(tmp_path / "none", tmp_path / "none") == 8


def test_locks_lie_inside_a_store_that_is_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    assert array_lock(store, tmp_path / "cache", "r") == tmp_path / "store" / ".locks" / "r.array.lock"
    assert run_lock(store, tmp_path, "r", "driver") == tmp_path / "store" / ".locks" / "r.driver.lock"


def test_a_store_has_one_url_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    spellings = [".", "../a", "../link", str(tmp_path / "link"), f"file://{tmp_path}/a"]
    assert {open_store(spelling).url for spelling in spellings} == {str(tmp_path / "a")}
    assert open_store("~/store").url == str(user / "store")


def test_a_store_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="--store DIR"):
        open_store("~nobody-of-this-name/store")
