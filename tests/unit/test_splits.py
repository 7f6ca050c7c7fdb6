"""Splits are scikit-learn's own, computed once, whatever way they are asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import model_selection
from sklearn.model_selection import BaseCrossValidator, check_cv

from containers.data.dataset import Dataset, ensure_dataset, open_dataset
from containers.data.splits import Splits, ensure_splits, load_splits
from containers.data.splitters import SPLITTERS
from jobspec.errors import DataError, FoldfleetError, LimitError, NotFoundError, SpecError
from jobspec.grammar.spec import CvSpec, DataSpec
from jobspec.stores.base import open_store
from jobspec.stores.layout import Layout

NUM_ROWS = 40


@pytest.fixture
def dataset(tmp_path: Path, store_url: str) -> Dataset:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "X": rng.standard_normal((NUM_ROWS, 2)),
        "y": np.repeat(["a", "b"], NUM_ROWS // 2)[rng.permutation(NUM_ROWS)],
        "g": rng.permutation(np.arange(NUM_ROWS) % 4),
        "fold": rng.integers(-1, 3, NUM_ROWS),
        "z": rng.standard_normal(NUM_ROWS),
    }
    np.savez(tmp_path / "t.npz", **arrays)
    return open_as(tmp_path, store_url, target="y")


def open_as(tmp_path: Path, store_url: str, **data: Any) -> Dataset:
    store = open_store(store_url)
    spec = DataSpec(**{"path": "t.npz", "groups": "g"} | data)
    return open_dataset(store, ensure_dataset(store, spec, tmp_path, ("fold",)))


def split(dataset: Dataset, cv: Any, is_classifier: bool | None = True, **options: Any) -> Splits:
    return ensure_splits(dataset.store, dataset.manifest, dataset, cv, is_classifier, **options)


def assert_equal(splits: Splits, dataset: Dataset, splitter: Any) -> None:
    groups = dataset.groups if "Group" in type(splitter).__name__ else None
    pairs = list(splitter.split(dataset.X, dataset.y, groups))
    assert splits.num_splits == len(pairs)
    for k, (train, test) in enumerate(pairs):
        for found, expected in ((splits.train(k), train), (splits.test(k), test)):
            assert found.dtype == np.int64 and np.array_equal(found, expected)
        assert (splits.train_rows(k), splits.test_rows(k)) == (len(train), len(test))


CASES: dict[str, list[dict[str, Any]]] = {
    "GroupKFold": [{"n_splits": 3}, {"n_splits": 2, "shuffle": True, "random_state": 1}],
    "GroupShuffleSplit": [{"n_splits": 3, "test_size": 0.5, "random_state": 1}],
    "KFold": [{}, {"n_splits": 7, "shuffle": True, "random_state": 3}],
    "LeaveOneGroupOut": [{}],
    "LeaveOneOut": [{}],
    "LeavePGroupsOut": [{"n_groups": 2}],
    "LeavePOut": [{"p": 2}],
    "PredefinedSplit": [{"test_fold": "fold"}],
    "RepeatedKFold": [{"n_splits": 3, "n_repeats": 2, "random_state": 0}],
    "RepeatedStratifiedKFold": [{"n_splits": 3, "n_repeats": 2, "random_state": 0}],
    "ShuffleSplit": [{"n_splits": 4, "random_state": 0}, {"train_size": 5, "test_size": 7, "random_state": 0}],
    "StratifiedGroupKFold": [{"n_splits": 2}, {"n_splits": 2, "shuffle": True, "random_state": 0}],
    "StratifiedKFold": [{"n_splits": 4}, {"n_splits": 4, "shuffle": True, "random_state": 0}],
    "StratifiedShuffleSplit": [{"n_splits": 2, "test_size": 0.3, "random_state": 0}],
    "TimeSeriesSplit": [{"n_splits": 4}, {"n_splits": 3, "gap": 1, "test_size": 2, "max_train_size": 9}],
}


def test_the_table_holds_every_splitter() -> None:
    public = {
        name
        for name in dir(model_selection)
        if "Halving" not in name
        and not name.startswith("Base")
        and name[0].isupper()
        and hasattr(getattr(model_selection, name), "split")
    }
    assert set(SPLITTERS) == public == set(CASES)
    assert issubclass(model_selection.KFold, BaseCrossValidator)


@pytest.mark.parametrize(("kind", "params"), [(kind, params) for kind, all_ in CASES.items() for params in all_])
def test_every_splitter_equals_scikit_learns(dataset: Dataset, kind: str, params: dict[str, Any]) -> None:
    splits = split(dataset, CvSpec(kind=kind, params=params))
    given = {"test_fold": dataset.extra["fold"]} if kind == "PredefinedSplit" else params
    assert_equal(splits, dataset, getattr(model_selection, kind)(**given))
    again = load_splits(dataset.store, dataset.manifest.dataset_id, splits.split_id)
    assert all(np.array_equal(again.test(k), splits.test(k)) for k in range(2))


@pytest.mark.parametrize(("target", "is_classifier"), [("y", True), ("y", False), ("z", True), ("z", False)])
def test_an_integer_means_what_check_cv_says(
    dataset: Dataset, tmp_path: Path, store_url: str, target: str, is_classifier: bool
) -> None:
    dataset = open_as(tmp_path, store_url, target=target)
    splitter = check_cv(4, dataset.y, classifier=is_classifier)
    splits = split(dataset, 4, is_classifier)
    assert_equal(splits, dataset, splitter)
    named = CvSpec(kind=type(splitter).__name__, params={"shuffle": False, "n_splits": 4})
    assert split(dataset, named).split_id == splits.split_id


def test_an_integer_for_a_mixed_search_is_refused(dataset: Dataset) -> None:
    with pytest.raises(SpecError, match=r"Name the splitter.*KFold"):
        split(dataset, 5, None)


UNSEEDED = CvSpec(kind="ShuffleSplit", params={"n_splits": 3})


def test_a_seed_is_drawn_once(dataset: Dataset) -> None:
    first, second = split(dataset, UNSEEDED), split(dataset, UNSEEDED)
    assert first.seed is not None and first.seed == second.seed and first.split_id == second.split_id
    assert_equal(first, dataset, model_selection.ShuffleSplit(3, random_state=first.seed))
    assert split(dataset, CvSpec(kind="KFold")).seed is None


def test_equal_rows_have_one_id_and_other_rows_another(dataset: Dataset, tmp_path: Path) -> None:
    drawn = split(dataset, UNSEEDED)
    named = split(dataset, CvSpec(kind="ShuffleSplit", params={"n_splits": 3, "random_state": drawn.seed}))
    assert named.split_id == drawn.split_id and "None" in drawn.text and str(drawn.seed) in named.text
    elsewhere = open_as(tmp_path, str(tmp_path / "elsewhere"), target="y")
    assert elsewhere.manifest.dataset_id == dataset.manifest.dataset_id
    assert split(elsewhere, UNSEEDED).split_id != drawn.split_id
    assert split(elsewhere, 4).split_id == split(dataset, 4).split_id
    # Order matters: it is the order in which estimators see the rows.
    forth = CvSpec(kind="TimeSeriesSplit", params={"n_splits": 3})
    assert split(dataset, forth).split_id != split(dataset, CvSpec(kind="KFold", params={"n_splits": 3})).split_id


@pytest.mark.parametrize("cv", [UNSEEDED, CvSpec(kind="KFold")])
def test_deleted_splits_come_back_as_they_were(dataset: Dataset, tmp_path: Path, store_url: str, cv: CvSpec) -> None:
    first = split(dataset, cv)
    shutil.rmtree(Path(store_url) / "datasets")
    again = split(open_as(tmp_path, store_url, target="y"), cv)
    assert (again.split_id, again.seed, again.text) == (first.split_id, first.seed, first.text)
    assert all(np.array_equal(again.train(k), first.train(k)) for k in range(3))


def test_deleted_splits_that_come_back_otherwise_have_another_id(dataset: Dataset, store_url: str) -> None:
    """As if scikit-learn split in another way under the same version: a development build, say."""
    first = split(dataset, UNSEEDED)
    (path,) = Path(store_url).glob("sources/split-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 1}))
    shutil.rmtree(Path(store_url) / "datasets" / dataset.manifest.dataset_id / "splits")
    again = split(dataset, UNSEEDED)
    assert again.split_id != first.split_id
    assert split(dataset, UNSEEDED).split_id == again.split_id


@pytest.mark.parametrize("library", ["sklearn", "np"])
def test_another_library_splits_anew(dataset: Dataset, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    first = split(dataset, UNSEEDED)
    monkeypatch.setattr(f"containers.data.splits.{library}.__version__", "99")
    assert split(dataset, UNSEEDED).seed != first.seed


def test_the_loser_of_a_race_reads_the_winners_splits(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    won = split(dataset, UNSEEDED)
    true_get, asked = dataset.store.get_or_none, []

    def get_or_none(key: str) -> bytes | None:
        asked.append(key)
        return None if len(asked) == 1 else true_get(key)

    monkeypatch.setattr(dataset.store, "get_or_none", get_or_none)
    lost = split(dataset, UNSEEDED)
    assert (lost.split_id, lost.seed) == (won.split_id, won.seed)


def test_a_map_never_names_what_is_absent(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[str] = []
    true_create = dataset.store.create

    def create(key: str, body: bytes) -> bool:
        created.append(key)
        return true_create(key, body)

    monkeypatch.setattr(dataset.store, "create", create)
    split(dataset, UNSEEDED)
    assert [key.partition("/")[0] for key in created] == ["datasets", "sources"]


def test_a_damaged_map(dataset: Dataset, store_url: str) -> None:
    split(dataset, UNSEEDED)
    (path,) = Path(store_url).glob("sources/split-*.json")
    path.write_text("{")
    with pytest.raises(DataError, match="Delete it and run"):
        split(dataset, UNSEEDED)


@pytest.mark.parametrize(
    ("cv", "kind", "words"),
    [
        (CvSpec(kind="KFolds"), SpecError, "Did you mean 'KFold'"),
        (CvSpec(kind="KFold", params={"n_split": 3}), SpecError, "Did you mean 'n_splits'"),
        (CvSpec(kind="LeavePOut"), SpecError, "lacks `p`"),
        (CvSpec(kind="LeavePOut", params={"p": "two"}), SpecError, "whole number"),
        (CvSpec(kind="KFold", params={"n_splits": 1}), SpecError, "at least one train/test split"),
        (CvSpec(kind="KFold", params={"random_state": 1}), SpecError, "shuffle"),
        (CvSpec(kind="ShuffleSplit", params={"test_size": 2.0}), SpecError, "test_size"),
        (CvSpec(kind="GroupKFold", params={"n_splits": 5}), SpecError, "there are 4"),
        (CvSpec(kind="PredefinedSplit", params={"test_fold": "none"}), SpecError, "'none'"),
        (1, SpecError, "from 2"),
        (21, SpecError, r"at least 21 rows of every class.*'[ab]': 20, '[ab]': 20"),
        (CvSpec(kind="KFold", params={"n_splits": 41}), DataError, "have 40 rows.*at least 41"),
        (CvSpec(kind="TimeSeriesSplit", params={"n_splits": 40}), DataError, "at least 41"),
        (CvSpec(kind="LeavePOut", params={"p": 3}), LimitError, "9880 splits.*allowed are 1000.*--max-folds 9880"),
    ],
)
def test_what_cannot_be_split(dataset: Dataset, cv: Any, kind: type[FoldfleetError], words: str) -> None:
    with pytest.raises(kind, match=words):
        split(dataset, cv)
    assert not list(Path(dataset.store.url).glob("datasets/*/splits/*"))


def test_groups_that_are_missing_or_ignored(dataset: Dataset, tmp_path: Path, store_url: str) -> None:
    assert any("groups" in text for text in split(dataset, CvSpec(kind="KFold")).warnings)
    without = open_as(tmp_path, store_url, target="y", groups=None)
    with pytest.raises(SpecError, match="groups: COLUMN"):
        split(without, CvSpec(kind="GroupKFold"))
    assert split(without, CvSpec(kind="KFold")).warnings == ()


def test_small_classes_need_a_flag(tmp_path: Path, store_url: str) -> None:
    y = np.array([0] * 10 + [1] * 10 + [2] * 3)
    np.savez(tmp_path / "t.npz", X=np.zeros((23, 2)) + y[:, None], y=y, g=y, fold=y, z=np.linspace(0, 1, 23))
    dataset = open_as(tmp_path, store_url, target="y")
    with pytest.raises(SpecError, match=r"at least 5 rows of every class; too few have 2: 3.*--allow-small-classes"):
        split(dataset, 5)
    splits = split(dataset, 5, allow_small_classes=True)
    assert splits.num_splits == 5 and any("least populated" in text for text in splits.warnings)
    with pytest.raises(SpecError, match=r"continuous.*Take KFold"):
        split(open_as(tmp_path, store_url, target="z"), CvSpec(kind="StratifiedKFold"))


def test_the_limit_on_folds_can_be_raised(dataset: Dataset) -> None:
    with pytest.raises(LimitError):
        split(dataset, CvSpec(kind="LeaveOneOut"), max_folds=39)
    assert split(dataset, CvSpec(kind="LeaveOneOut"), max_folds=40).num_splits == 40


def test_a_split_without_train_rows_is_refused(tmp_path: Path, store_url: str, dataset: Dataset) -> None:
    np.savez(tmp_path / "t.npz", X=np.zeros((4, 2)), y=np.arange(4), g=np.arange(4), fold=np.zeros(4))
    everything = open_as(tmp_path, store_url, target="y")
    with pytest.raises(SpecError, match="split 0 without train rows"):
        split(everything, CvSpec(kind="PredefinedSplit", params={"test_fold": "fold"}))
    np.savez(tmp_path / "t.npz", X=np.zeros((4, 2)), y=np.arange(4), g=np.arange(4), fold=np.linspace(0, 1, 4))
    with pytest.raises(DataError, match="number of the test fold"):
        split(open_as(tmp_path, store_url, target="y"), CvSpec(kind="PredefinedSplit", params={"test_fold": "fold"}))


def test_damaged_splits(dataset: Dataset) -> None:
    splits = split(dataset, 4)
    path = Path(dataset.store.url) / Layout.splits(dataset.manifest.dataset_id, splits.split_id)
    good = path.read_bytes()
    for body in (good[:-40], good[:700] + b"\xff\xff" + good[702:], b""):
        path.write_bytes(body)
        with pytest.raises(DataError, match="damaged"):
            split(dataset, 4)
    with pytest.raises(NotFoundError):
        load_splits(dataset.store, dataset.manifest.dataset_id, "s-none")
