"""One fixture gives every place in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.places import Place
from tests.conftest import Submit

PLACES = [
    pytest.param(("local", "folder"), id="local-folder"),
    pytest.param(("local", "s3"), id="local-s3"),
    pytest.param(("docker", "folder"), id="docker-folder", marks=pytest.mark.docker),
    pytest.param(("docker", "s3"), id="docker-s3", marks=pytest.mark.docker),
]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, submit: Submit, tmp_path: Path) -> Place:
    """Return a place with an empty store."""
    backend, kind = request.param
    environment = {}
    if backend == "docker":
        environment["FOLDFLEET_IMAGE"] = request.getfixturevalue("image")
    store = request.getfixturevalue("s3_url") if kind == "s3" else str(tmp_path / "store")
    return Place(backend, store, submit, environment)
