"""Fixtures of the S3 servers, for every test; a server starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.moto_server import running_moto
from tests.servers.s3server import S3Server
from tests.servers.seaweed import over_tls, running_seaweed


@pytest.fixture(scope="session")
def seaweed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of SeaweedFS: its data, its log, its certificate."""
    return tmp_path_factory.mktemp("seaweed")


@pytest.fixture(scope="session")
def seaweed(seaweed_folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS for the tests of this process."""
    with running_seaweed(seaweed_folder) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_tls(seaweed: S3Server, seaweed_folder: Path) -> S3Server:
    """Return SeaweedFS as it is reached over TLS."""
    return over_tls(seaweed, seaweed_folder)


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Run moto's S3 for the tests of this process."""
    with running_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def s3_url(seaweed: S3Server, user: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a store in SeaweedFS that does not exist yet; the environment leads there."""
    for name, value in seaweed.environment.items():
        monkeypatch.setenv(name, value)
    return seaweed.fresh_url()


@pytest.fixture
def moto_url(moto_s3: S3Server, user: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of a store in moto that does not exist yet; the environment leads there."""
    for name, value in moto_s3.environment.items():
        monkeypatch.setenv(name, value)
    return moto_s3.fresh_url()
