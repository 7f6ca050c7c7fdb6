from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobspec.errors import NotFoundError, UsageError
from jobspec.runs.rounds import commit_round
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.runs import find_run, newest_first
from submitter.search import draft_next, keep
from tests.unit.pretend import PretendBackend, make_pretended_search


@pytest.fixture
def store(store_url: str) -> Store:
    store = open_store(store_url)
    for run_id in ("letters-0123456789ab", "letters-forest-01ff456789ab", "digits-fedcba987654"):
        store.create(Layout.spec(run_id), b"")
    return store


@pytest.mark.parametrize(
    ("reference", "run_id"),
    [
        ("digits-fedcba987654", "digits-fedcba987654"),
        ("dig", "digits-fedcba987654"),
        ("letters-f", "letters-forest-01ff456789ab"),
        ("fed", "digits-fedcba987654"),
        ("0123456789ab", "letters-0123456789ab"),
    ],
)
def test_a_run_is_found_by_what_is_unique(store: Store, reference: str, run_id: str) -> None:
    assert find_run(store, reference) == run_id


@pytest.mark.parametrize("reference", ["letters", "01"])
def test_what_is_not_unique_is_listed(store: Store, reference: str) -> None:
    with pytest.raises(UsageError, match=r"letters-0123456789ab, letters-forest-01ff456789ab"):
        find_run(store, reference)


def test_a_mistyped_run_is_corrected(store: Store) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'digits-fedcba987654'"):
        find_run(store, "digitz-fedcba98")


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="submit run SPEC"):
        find_run(open_store(str(tmp_path / "nothing")), "latest")


def test_latest_is_the_newest_round(store_url: str) -> None:
    store = open_store(store_url)
    for moment, grid in ((200, "[1]"), (300, "[2]"), (100, "[3]")):
        search = keep(store, make_pretended_search(grid))
        draft = draft_next(store, search, None, PretendBackend(store), reuse=True)
        commit_round(store, replace(draft, plan=draft.plan.model_copy(update={"created": moment})))
    assert find_run(store, "latest") == make_pretended_search("[2]").run_id
    assert [plan.created for _, plan in newest_first(store)] == [300, 200, 100]
