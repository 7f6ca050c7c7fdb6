from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobspec.errors import DataError, NotFoundError
from jobspec.settings import load_settings
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.cloud.record import ImageRecord, choose_record, find_record, list_records, save_record
from tests.unit.cloudy import DIGEST, REPOSITORY, definition_arn, make_parts, make_record

OTHER = "sha256:" + "cd" * 32
THIRD = "sha256:" + "ef" * 32
IDENTITY = {"candidates": [{"definition": {"$estimator": "mine.Model", "params": {}}}]}


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


def choose(store: Store, wanted: str | None = None, identity: object = None) -> ImageRecord:
    return choose_record(store, wanted, identity, load_settings(), "foldfleet")


def keys(store: Store) -> list[str]:
    return list(store.keys(Layout.images()))


def test_a_record_survives_the_store_and_lies_under_its_engine(store: Store) -> None:
    record = save_record(store, make_record())
    assert keys(store) == [f"images/{record.parts.whole_engine('portable').engine_id}.json"]
    assert list_records(store) == [record] == [make_record()]
    assert json.loads(store.get(keys(store)[0]))["format_version"] == 1


def test_the_same_push_again_is_no_second_record(store: Store) -> None:
    first = save_record(store, make_record())
    assert save_record(store, make_record(pushed_at=2000.0)) == first
    assert len(keys(store)) == 1


def test_another_build_of_an_engine_wins_for_new_runs_and_old_runs_find_theirs(store: Store) -> None:
    first = save_record(store, make_record())
    before = store.get(Layout.image(first.engine_id))
    second = save_record(store, make_record(OTHER, 2000.0))
    assert second.engine_id == first.engine_id and len(keys(store)) == 2
    assert store.get(Layout.image(first.engine_id)) == before
    assert choose(store) == second
    assert choose(store, first.image) == first


def test_an_older_image_pushed_again_wins_again(store: Store) -> None:
    save_record(store, make_record())
    save_record(store, make_record(OTHER, 2000.0))
    again = save_record(store, make_record(pushed_at=3000.0))
    assert choose(store).image_digest == DIGEST
    assert choose(store, f"{REPOSITORY}@{DIGEST}") == again
    assert len(keys(store)) == 3


def test_a_desk_whose_clock_is_late_wins_too(store: Store) -> None:
    save_record(store, make_record(pushed_at=9000.0))
    late = save_record(store, make_record(OTHER, 10.0))
    assert late.pushed_at > 9000.0
    assert choose(store) == late


def test_new_definitions_of_the_same_image_are_a_new_record(store: Store) -> None:
    save_record(store, make_record())
    definitions = {step: definition_arn(step, 2) for step in ("work", "reduce", "prepare")}
    save_record(store, make_record(definitions=definitions))
    assert choose(store).definitions["work"].endswith(":2")


def test_of_two_pushes_at_once_both_are_recorded(store: Store) -> None:
    class Late:
        """A store whose listing was taken before the other push."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def keys(self, prefix: str) -> list[str]:
            return []

    save_record(store, make_record())
    save_record(Late(), make_record(OTHER))  # type: ignore[arg-type]
    save_record(Late(), make_record(pushed_at=1000.5))  # type: ignore[arg-type]  # the same image: one record
    assert {record.image_digest for record in list_records(store)} == {DIGEST, OTHER}
    assert len(keys(store)) == 2


@pytest.mark.parametrize(
    "wanted", ["foldfleet:0.1.0", OTHER, "cdcdcdcdcdcd", "sha256:cdcdcdcdcdcdcd", f"{REPOSITORY}@{OTHER}"]
)
def test_a_record_is_found_by_whatever_names_it(wanted: str) -> None:
    known = [make_record(OTHER), make_record(DIGEST, tag="mine:1")]
    found = find_record(known, wanted)
    assert found is not None and found.image_digest == OTHER


@pytest.mark.parametrize("wanted", ["mine:2", "cdcd", "cdcdcdcdcdcf", f"elsewhere/foldfleet@{OTHER}", "feed"])
def test_and_by_nothing_else(wanted: str) -> None:
    assert find_record([make_record(OTHER)], wanted) is None


def test_records_of_another_stack_in_the_same_bucket_are_not_chosen(store: Store) -> None:
    mine = save_record(store, make_record())
    save_record(store, make_record(OTHER, 5000.0, stack="theirs"))
    assert choose(store) == mine
    assert len(list_records(store)) == 2


def test_the_newest_image_with_the_specs_own_modules_is_chosen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobspec.modules import module_digest

    (tmp_path / "mine.py").write_text("class Model: pass\n")
    monkeypatch.setenv("FOLDFLEET_ALLOWED_MODULES", "mine")
    monkeypatch.setenv("FOLDFLEET_MODULE_PATH", str(tmp_path))
    digest = module_digest("mine", (str(tmp_path),))
    older = save_record(store, make_record(parts=make_parts({"mine": digest})))
    newer = save_record(store, make_record(OTHER, 2000.0))
    assert choose(store, identity=IDENTITY) == older
    assert choose(store) == newer
    (tmp_path / "mine.py").write_text("class Model: x = 1\n")
    with pytest.raises(NotFoundError, match=r"names mine, .*`submit image build`.*`submit image push`"):
        choose(store, identity=IDENTITY)


def test_without_a_push_a_run_is_told_to_push(store: Store) -> None:
    with pytest.raises(NotFoundError, match=r"`submit image push` pushes one; `submit image build` makes it"):
        choose(store)


def test_images_of_another_version_are_not_chosen_and_both_are_told(store: Store) -> None:
    save_record(store, make_record(parts=make_parts(foldfleet="0.0.9")))
    with pytest.raises(NotFoundError, match=r"hold foldfleet 0\.0\.9, and this is .*`submit image push`"):
        choose(store)


def test_an_image_that_nobody_pushed_is_told_with_what_there_is(store: Store) -> None:
    save_record(store, make_record())
    with pytest.raises(NotFoundError, match=r"No image mine:1 .*there are foldfleet:0\.1\.0.*push --image mine:1"):
        choose(store, "mine:1")


def test_a_record_of_a_later_format_is_passed_over(store: Store) -> None:
    record = save_record(store, make_record())
    document = json.loads(store.get(Layout.image(record.engine_id))) | {"format_version": 2}
    store.create("images/e-later.json", json.dumps(document).encode())
    assert list_records(store) == [record]


def test_a_damaged_record_is_told_with_its_key(store: Store) -> None:
    record = save_record(store, make_record())
    key = Layout.image(record.engine_id)
    body = store.get(key).replace(b"3.11.2", b"3.11.3")
    store.delete(key)
    store.create(key, body)
    with pytest.raises(DataError, match=rf"'{key}' .* was damaged.*`submit image push`"):
        list_records(store)
