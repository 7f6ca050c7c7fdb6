"""Splits: computed once by scikit-learn, stored beside their dataset, read by everyone.

A split's id is a hash over its row indices, so that whatever is kept under it (cached folds, cells of a book) belongs
to these rows and no others. A map object (`Layout.source`) remembers which splitter gave which splits, and the seed
that was drawn for one without its own: splits that were deleted come back as they were.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import warnings
import zipfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import sklearn
from numpy.typing import NDArray
from pydantic import ValidationError

from containers.data.splitters import ResolvedSplitter, check_splitter, resolve_splitter
from jobspec.errors import DataError, NotFoundError, SpecError
from jobspec.grammar.spec import CvSpec
from jobspec.grammar.values import digest
from jobspec.search.inspection import Document, Manifest
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    from containers.data.dataset import Dataset

FORMAT_VERSION = 2
"""Raise when the arrays of a stored split file change their meaning, and keep reading the old number.

2: the id is over the indices; the splitter's call, seed and warnings lie in the map object.
"""

_READABLE = (1, 2)

MAX_FOLDS = 1000

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Train and test rows of every split of one dataset.

    Test rows lie one split behind the other in ``_test``, bounded by ``_test_offsets``; train rows likewise, but only
    for splits whose train rows are not the sorted complement of their test rows.
    ``text`` is the splitter's call; ``seed`` was drawn for a splitter that shuffles without one. These two and the
    warnings are known to `ensure_splits` alone: two splitters can give the same rows.
    """

    split_id: str
    dataset_id: str
    num_rows: int
    num_splits: int
    _test: NDArray[Any] = field(repr=False)
    _test_offsets: Indices = field(repr=False)
    _train: NDArray[Any] = field(repr=False)
    _train_offsets: Indices = field(repr=False)
    _complement: NDArray[np.bool_] = field(repr=False)
    text: str = ""
    seed: int | None = None
    warnings: tuple[str, ...] = ()

    def test(self, split: int) -> Indices:
        """Return the test rows in scikit-learn's order."""
        return self._test[self._test_offsets[split] : self._test_offsets[split + 1]].astype(np.int64)

    def train(self, split: int) -> Indices:
        """Return the train rows in scikit-learn's order."""
        if self._complement[split]:
            return np.flatnonzero(_complement_mask(self.num_rows, self.test(split))).astype(np.int64)
        return self._train[self._train_offsets[split] : self._train_offsets[split + 1]].astype(np.int64)

    def test_rows(self, split: int) -> int:
        """Return the number of test rows."""
        return int(self._test_offsets[split + 1] - self._test_offsets[split])

    def train_rows(self, split: int) -> int:
        """Return the number of train rows."""
        if self._complement[split]:
            return self.num_rows - self.test_rows(split)
        return int(self._train_offsets[split + 1] - self._train_offsets[split])


class _Origin(Document):
    """Which splits a splitter gave, and the seed that gives them again."""

    format_version: Literal[1] = 1
    split_id: str
    text: str
    seed: int | None
    warnings: tuple[str, ...]


def ensure_splits(
    store: Store,
    manifest: Manifest,
    dataset: Dataset,
    cv: int | CvSpec,
    is_classifier: bool | None,
    *,
    allow_small_classes: bool = False,
    max_folds: int = MAX_FOLDS,
) -> Splits:
    """Return the stored splits of a dataset, computing them if they are not there yet.

    Idempotent: equal splitters meet in one map object, so that ``cv: 5`` and the equal StratifiedKFold share splits. A
    splitter that shuffles without a seed gets one, which is stored in the map; who comes second adopts the first map's
    splits. Another store draws another seed, and so has splits with another id.

    Raises:
        SpecError: the splitter, its parameters or the classes do not allow it.
        DataError: fewer rows than splits, or stored splits that are damaged.
        LimitError: more than ``max_folds`` splits.
    """
    resolved = resolve_splitter(cv, dataset.y, is_classifier)
    test_fold = _test_fold(resolved, dataset)
    splitter = resolved.build(0 if resolved.needs_seed else None, test_fold)
    groups = dataset.groups
    check_splitter(resolved, splitter, dataset.y, groups, allow_small_classes=allow_small_classes, max_folds=max_folds)
    key = _origin_key(manifest.dataset_id, resolved)
    origin = _read_origin(store, key)
    if origin is None or not store.exists(Layout.splits(manifest.dataset_id, origin.split_id)):
        origin = _create(store, key, origin, resolved, test_fold, dataset)
    splits = load_splits(store, manifest.dataset_id, origin.split_id)
    return replace(splits, text=origin.text, seed=origin.seed, warnings=origin.warnings)


def _origin_key(dataset_id: str, resolved: ResolvedSplitter) -> str:
    """Return the key of the map object: other versions of the libraries may split in another way."""
    versions = {"scikit-learn": sklearn.__version__, "numpy": np.__version__}
    content = {"format": FORMAT_VERSION, "dataset": dataset_id, "splitter": resolved.identity(), "versions": versions}
    return Layout.source("split-" + digest(content))


def _read_origin(store: Store, key: str) -> _Origin | None:
    body = store.get_or_none(key)
    try:
        return None if body is None else _Origin.model_validate_json(body)
    except ValidationError:
        raise DataError(
            f"The stored object {key!r} is damaged or of another foldfleet. Delete it and run the same command again."
        ) from None


def _create(
    store: Store,
    key: str,
    lost: _Origin | None,
    resolved: ResolvedSplitter,
    test_fold: NDArray[Any] | None,
    dataset: Dataset,
) -> _Origin:
    """Store splits, then their map object; return the map that counts.

    Args:
        store: where both go.
        key: of the map object.
        lost: the map of splits that have been deleted; its seed gives them again.
        resolved: the splitter.
        test_fold: the column of a PredefinedSplit.
        dataset: the rows to split.
    """
    drawn = secrets.randbelow(2**32) if resolved.needs_seed else None
    seed = drawn if lost is None else lost.seed
    pairs, notes = _compute(resolved, seed, test_fold, dataset)
    dataset_id = dataset.manifest.dataset_id
    arrays = _pack(pairs, len(dataset.y))
    split_id = make_split_id(dataset_id, arrays)
    # The map comes last, so that it never names what is absent.
    store.create(Layout.splits(dataset_id, split_id), _encode(dataset_id, len(dataset.y), arrays))
    made = _Origin(split_id=split_id, text=resolved.text(), seed=seed, warnings=notes)
    if lost is not None and lost.split_id != split_id:
        # Never without a condition: a bucket may refuse that for all keys but views.
        store.swap(key, made.model_dump_json().encode(), store.tag(key))
        return made
    store.create(key, made.model_dump_json().encode())
    return _read_origin(store, key) or made


def make_split_id(dataset_id: str, arrays: dict[str, NDArray[Any]]) -> str:
    """Return ``s-`` and 16 hex digits over dataset and row indices."""
    hasher = hashlib.sha256(f"{FORMAT_VERSION}\0{dataset_id}\0".encode())
    for name, values in sorted(arrays.items()):
        hasher.update(f"{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        hasher.update(np.ascontiguousarray(values).data)
    return "s-" + hasher.hexdigest()[:16]


def load_splits(store: Store, dataset_id: str, split_id: str) -> Splits:
    """Return stored splits.

    Raises:
        NotFoundError: there are none under these ids.
        DataError: they are damaged, or of another format version.
    """
    key = Layout.splits(dataset_id, split_id)
    body = store.get_or_none(key)
    if body is None:
        raise NotFoundError(f"The store {store.url} has no splits {split_id!r} of the dataset {dataset_id!r}.")
    try:
        # Reading a member checks its CRC-32.
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        facts = json.loads(arrays.pop("facts").tobytes())
        if facts["format_version"] not in _READABLE or facts["dataset_id"] != dataset_id:
            raise ValueError("another format version or dataset")
        indices = {f"_{name}": values for name, values in arrays.items()}
        return Splits(split_id, dataset_id, facts["num_rows"], facts["num_splits"], **indices)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError, RuntimeError) as error:
        raise DataError(
            f"The stored object {key!r} is damaged or of another foldfleet ({error}). Delete it and run the same "
            "command again."
        ) from None


def _test_fold(resolved: ResolvedSplitter, dataset: Dataset) -> NDArray[Any] | None:
    """Return the column of a PredefinedSplit as integers."""
    if resolved.kind != "PredefinedSplit":
        return None
    name = str(resolved.params["test_fold"])
    values = dataset.extra.get(name)
    if values is None:
        raise SpecError(f"`cv.test_fold` names the column {name!r}, which was not read. Name a column of the data.")
    whole = values.astype(np.int64) if values.dtype.kind in "biuf" else None
    if whole is None or not np.array_equal(whole, values):
        raise DataError(
            f"`cv.test_fold`: the column {name!r} must hold the number of the test fold of each row (-1: never in a "
            f"test set), but it holds values such as {values[0].item()!r}."
        )
    return whole


def _compute(
    resolved: ResolvedSplitter, seed: int | None, test_fold: NDArray[Any] | None, dataset: Dataset
) -> tuple[list[tuple[Indices, Indices]], tuple[str, ...]]:
    """Return (train, test) of every split, and what scikit-learn warns of."""
    splitter = resolved.build(seed, test_fold)
    num_rows = len(dataset.y)
    # Splitters look at the number of rows of X only; X itself need not be read.
    rows = np.empty((num_rows, 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pairs = list(splitter.split(rows, dataset.y, dataset.groups if resolved.needs_groups else None))
        except (ValueError, TypeError) as error:
            raise SpecError(f"`cv`: {resolved.text()} cannot split these data: {error}") from None
    if not pairs:
        raise SpecError(f"`cv`: {resolved.text()} makes no split at all of these data.")
    _refuse_empty(resolved, pairs)
    notes = [str(warning.message) for warning in caught]
    if dataset.groups is not None and not resolved.needs_groups:
        notes.append(f"`data.groups` is given, but {resolved.kind} does not split by groups")
    return pairs, tuple(dict.fromkeys(notes))


def _refuse_empty(resolved: ResolvedSplitter, pairs: list[tuple[Indices, Indices]]) -> None:
    for split, (train, test) in enumerate(pairs):
        if not len(train) or not len(test):
            side = "test" if len(train) else "train"
            raise SpecError(
                f"`cv`: {resolved.text()} leaves split {split} without {side} rows. Take fewer or other splits."
            )


def _pack(pairs: list[tuple[Indices, Indices]], num_rows: int) -> dict[str, NDArray[Any]]:
    """Return the arrays to store, in 32 bits where the rows allow it."""
    kind = np.dtype("<i4" if num_rows < 2**31 else "<i8")
    complement = [np.array_equal(train, np.flatnonzero(_complement_mask(num_rows, test))) for train, test in pairs]
    trains = [train[:0] if whole else train for (train, _), whole in zip(pairs, complement, strict=True)]
    tests = [test for _, test in pairs]
    return {
        "test": np.concatenate(tests).astype(kind),
        "test_offsets": _offsets(tests),
        "train": np.concatenate(trains).astype(kind),
        "train_offsets": _offsets(trains),
        "complement": np.array(complement),
    }


def _encode(dataset_id: str, num_rows: int, arrays: dict[str, NDArray[Any]]) -> bytes:
    """Encode as an uncompressed npz."""
    facts = {
        "format_version": FORMAT_VERSION,
        "dataset_id": dataset_id,
        "num_rows": num_rows,
        "num_splits": len(arrays["complement"]),
    }
    members: dict[str, Any] = {"facts": np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def _offsets(parts: list[Indices]) -> Indices:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)


def _complement_mask(num_rows: int, rows: Indices) -> NDArray[np.bool_]:
    mask = np.ones(num_rows, np.bool_)
    mask[rows] = False
    return mask
