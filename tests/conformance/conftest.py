"""One fixture gives every place in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aws.fixtures import Deployed
from tests.conformance.places import Place
from tests.conftest import Submit

PLACES = [
    pytest.param(("local", "folder"), id="local-folder"),
    pytest.param(("local", "s3"), id="local-s3"),
    pytest.param(("docker", "folder"), id="docker-folder", marks=pytest.mark.docker),
    pytest.param(("docker", "s3"), id="docker-s3", marks=pytest.mark.docker),
    pytest.param(("aws", "s3"), id="aws-s3", marks=pytest.mark.docker),
    pytest.param(("stepfunctions", "s3"), id="stepfunctions-s3", marks=pytest.mark.docker),
]

EVERY_TIME = (
    "everywhere[local-folder-two_scores_and_train_scores]",
    "everywhere[docker-folder-two_scores_and_train_scores]",
    "everywhere[stepfunctions-s3-two_scores_and_train_scores]",
    "completes[local-folder]",
    "only[local-s3]",
)
"""What `make test` runs of this suite: all that differs once. `make test-thorough` runs every place."""

ON_AN_IDLE_MACHINE = (
    "everywhere[local-s3-weights_and_float32]",
    "everywhere[local-s3-a_random_search]",
    "everywhere[docker-folder-groups_in_a_table]",
    "everywhere[docker-folder-fits_that_fail]",
    "everywhere[docker-s3-weights_and_float32]",
    "everywhere[docker-s3-a_random_search]",
    "completes[local-s3]",
    "completes[docker-folder]",
    "only[local-folder]",
    "only[docker-s3]",
    "digest[local-s3]",
    "digest[docker-folder]",
)
"""Left to `make soak`: their backend and their store run the same beside another store and another backend."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-thorough` what takes a minute of processes and shows little more."""
    for item in items:
        if "tests/conformance" not in item.path.as_posix():
            continue
        if any(item.name.endswith(name) for name in ON_AN_IDLE_MACHINE):
            item.add_marker(pytest.mark.soak)
        elif not any(item.name.endswith(name) for name in EVERY_TIME):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, submit: Submit, tmp_path: Path) -> Place:
    """Return a place with an empty store."""
    backend, kind = request.param
    if backend in ("aws", "stepfunctions"):
        return on_stack(request, submit, backend)
    environment = {}
    if backend == "docker":
        environment["FOLDFLEET_IMAGE"] = request.getfixturevalue("image")
    store = request.getfixturevalue("s3_url") if kind == "s3" else str(tmp_path / "store")
    return Place(backend, store, submit, environment)


def on_stack(request: pytest.FixtureRequest, submit: Submit, backend: str) -> Place:
    """Return the stack's own store, emptied: roles reach no other."""
    pushed: Deployed = request.getfixturevalue("pushed")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    pushed.empty_store()
    for name, value in pushed.environment.items():
        monkeypatch.setenv(name, value)
    store, owner = pushed.outputs["StoreUrl"], pushed.cloud.admin
    return Place(backend, store, submit, pushed.environment, numerics="portable", owner=owner)
