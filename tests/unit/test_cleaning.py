"""`submit gc`: what may go, what must stay."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from jobspec.runs.results import read_rows
from jobspec.runs.rounds import RoundPlan, commit_round, latest_round
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.cleaning import Kind, Waste, find_waste, remove
from submitter.cli.guard import guarded
from submitter.search import draft_next, keep
from tests.unit.pretend import PretendBackend, make_pretended_search

LATER = time.time() + 3600


@pytest.fixture
def store(store_url: str) -> Store:
    """Return a store with a finished run of two folded tasks, on a dataset."""
    store = open_store(store_url)
    search = keep(store, make_pretended_search("[1]"))
    backend = PretendBackend(store)
    plan = commit_round(store, draft_next(store, search, None, backend, reuse=True))
    for array in backend.build_request(plan).arrays:
        backend.submit(array)
    backend.wait(0)
    backend.step(["reduce", "--run", plan.run_id])
    for name in ("X.npy", "manifest.json", "splits/s-1.npz"):
        store.create(f"datasets/d-1/{name}", b"12345678")
    return store


def plan_of(store: Store) -> RoundPlan:
    plan = latest_round(store, make_pretended_search("[1]").run_id)
    assert plan is not None
    return plan


def fold(store: Store, task: int) -> None:
    from jobspec.runs.results import read_log_table
    from jobspec.runs.rows import table_to_parquet

    plan = plan_of(store)
    store.create(Layout.done(plan.run_id, plan.round, task), table_to_parquet(read_log_table(store, plan, task)))


def kinds(found: list[Waste]) -> dict[Kind, int]:
    return {kind: sum(waste.kind is kind for waste in found) for kind in {waste.kind for waste in found}}


def test_a_store_in_use_has_no_waste(store: Store) -> None:
    assert find_waste(store, LATER) == []


def test_logs_go_once_their_folds_can_be_read_and_the_rows_stay(store: Store) -> None:
    before = read_rows(store, plan_of(store)).table
    for task in range(2):
        fold(store, task)
    plan = plan_of(store)
    body = bytearray(store.get(Layout.done(plan.run_id, 0, 1)))
    body[len(body) // 2] ^= 1
    store.put(Layout.done(plan.run_id, 0, 1), bytes(body))  # damaged: its log is the only whole copy
    found = find_waste(store, LATER)
    assert [(waste.kind, waste.name) for waste in found] == [(Kind.LOG, f"{plan.run_id} round 0 task 0")]
    remove(store, found[0])
    assert not store.exists(Layout.part(plan.run_id, 0, 0, 0)) and store.exists(Layout.part(plan.run_id, 0, 1, 0))
    assert read_rows(store, plan).table.equals(before)
    assert find_waste(store, LATER) == []


def test_logs_stay_while_they_alone_tell_how_far_a_run_is(store: Store) -> None:
    fold(store, 0)
    store.delete(Layout.view(plan_of(store).run_id, "best.json"))
    assert find_waste(store, LATER) == []


def test_drafts_go_unless_they_were_committed(store: Store) -> None:
    plan = plan_of(store)
    store.create(Layout.draft(plan.run_id, 0, "loser", "tasks-000000.json"), b"12")
    store.create(Layout.draft(plan.run_id, 1, "killed", "tasks-000000.json"), b"345")
    found = find_waste(store, LATER)
    assert kinds(found) == {Kind.DRAFT: 2} and sum(waste.num_bytes for waste in found) == 5
    for waste in found:
        remove(store, waste)
    assert find_waste(store, LATER) == [] and len(read_rows(store, plan).table) == 2


def test_datasets_of_no_run_go_manifest_first(store: Store) -> None:
    for name in ("X.npy", "manifest.json"):
        store.create(f"datasets/d-2/{name}", b"1")
    (found,) = find_waste(store, LATER)
    assert [entry.key for entry in found.entries] == ["datasets/d-2/manifest.json", "datasets/d-2/X.npy"]


def test_no_dataset_goes_while_a_plan_cannot_be_read(store: Store) -> None:
    store.create("datasets/d-2/X.npy", b"1")
    store.put("runs/other-0123456789ab/rounds/000/plan.json", b"{}")
    assert find_waste(store, LATER) == []


def test_uploads_of_killed_writers_go(store: Store, store_url: str) -> None:
    (Path(store_url) / ".tmp").mkdir(exist_ok=True)
    (Path(store_url) / ".tmp" / "left").write_bytes(b"1234")
    (found,) = find_waste(store, LATER)
    assert (found.kind, found.num_bytes) == (Kind.UPLOAD, 4)
    remove(store, found)
    assert find_waste(store, LATER) == []


def test_what_is_young_is_left_alone(store: Store) -> None:
    store.create("datasets/d-2/X.npy", b"1")
    assert find_waste(store, time.time() - 3600) == []


def test_the_command_shows_first_and_removes_when_told(
    store: Store, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from submitter.cli.gc_commands import collect_garbage
    from submitter.cli.spec_commands import open_desk

    store.create("datasets/d-2/X.npy", b"1" * 2000)

    def call(*, yes: bool, as_json: bool = False) -> str:
        desk = open_desk(store_url)
        assert guarded(lambda: collect_garbage(desk, older_than_h=-1, yes=yes, as_json=as_json), []) == 0
        out, err = capsys.readouterr()
        return out + err

    assert "d-2" in (shown := call(yes=False)) and "Nothing was removed" in shown
    assert store.exists("datasets/d-2/X.npy")
    document = json.loads(call(yes=True, as_json=True))
    assert (document["bytes"], document["found"][0]["names"]) == (2000, ["d-2"])
    assert not store.exists("datasets/d-2/X.npy")
    assert "Nothing in" in call(yes=True)


def test_answers_and_handed_over_specs_go_by_their_age(store: Store) -> None:
    store.create(Layout.answer("t"), b"123")
    store.create(Layout.upload("0" * 64, "spec.yaml"), b"12345")
    store.create(Layout.template("letters"), b"a template is waited for by data to come")
    store.create(Layout.outcome("2031-05-17", "120000-finished"), b"an outcome is a person's to delete")
    assert find_waste(store, time.time() - 3600) == []
    found = find_waste(store, LATER)
    assert {(waste.kind, waste.name, waste.num_bytes) for waste in found} == {
        (Kind.ANSWER, "answers/t.json", 3),
        (Kind.HANDOVER, f"uploads/{'0' * 64}/spec.yaml", 5),
    }
    for waste in found:
        remove(store, waste)
    assert find_waste(store, LATER) == []
