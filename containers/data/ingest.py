"""From a source to the store: hashed, read once, written aside, moved in; the manifest last."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from containers.data.columns import Selection, finish_side, select_columns
from containers.data.dataset import load_manifest
from containers.data.fetch import other_length
from containers.data.matrix import MatrixWriter
from containers.data.npyfile import write_array
from containers.data.origins import MEMO_VERSION, Origin, find_origin
from containers.data.origins import digest as make_digest
from containers.data.readers import READER_VERSION, open_file
from containers.data.readers_builtin import BuiltinSource
from containers.data.sources import Source
from jobspec.errors import DataError, FoldfleetError, TryLaterError
from jobspec.grammar.spec import DataSpec
from jobspec.search.inspection import Block, Manifest
from jobspec.stores.base import Store
from jobspec.stores.folder import explain_os_error
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import seal

_STAGINGS = 2
"""How often a dataset is stored whose blocks vanish meanwhile."""


def ingest(store: Store, data: DataSpec, folder: Path, extra_columns: tuple[str, ...]) -> str:
    """Read and store a source if the store has it not yet; return its dataset id (see `dataset.ensure_dataset`)."""
    origin = find_origin(data, folder, extra_columns)
    key = origin.memo_key()
    memo = store.get_or_none(key)
    if memo is not None:
        dataset_id = str(json.loads(memo)["dataset_id"])
        if store.exists(Layout.manifest(dataset_id)):
            return dataset_id
    started = time.time()
    dataset_id = _ensure(store, data, origin, extra_columns)
    origin.refuse_changed()
    if origin.is_settled(started):
        store.create(key, json.dumps({"format_version": MEMO_VERSION, "dataset_id": dataset_id}).encode())
    return dataset_id


def _ensure(store: Store, data: DataSpec, origin: Origin, extra_columns: tuple[str, ...]) -> str:
    if origin.kind == "builtin":
        builtin = BuiltinSource(str(data.builtin))
        return _stage(store, builtin, data, extra_columns, origin, lambda: _hash_arrays(builtin.X, builtin.y))
    with origin.file() as path:
        return _ensure_file(store, data, origin, path, extra_columns)


def _ensure_file(store: Store, data: DataSpec, origin: Origin, path: Path, extra_columns: tuple[str, ...]) -> str:
    if next(iter(store.folders("datasets/")), None) is not None:  # perhaps these very bytes, under another path
        digest = _hash_file(path)
        dataset_id = _make_id(digest, origin)
        if store.exists(Layout.manifest(dataset_id)) and _is_whole(store, load_manifest(store, dataset_id)):
            return dataset_id
        return _stage(store, open_file(path, origin.kind), data, extra_columns, origin, lambda: digest)
    # Hashing and copying are a second each for a gigabyte, and each leaves one core idle.
    with ThreadPoolExecutor(1) as pool:
        hashing = pool.submit(_hash_file, path)
        return _stage(store, open_file(path, origin.kind), data, extra_columns, origin, hashing.result)


def _make_id(digest: str, origin: Origin) -> str:
    return "d-" + make_digest([READER_VERSION, digest, origin.options])[:24]


def _refuse_text_features(data: DataSpec, selection: Selection) -> None:
    texts = [name for name in selection.features if data.types.get(name) == "string"]
    if texts:
        raise DataError(
            f"The column {texts[0]!r} is declared `string`, but features must be numbers (categories and text are not "
            f"read yet). Leave it out: `drop: [{texts[0]}]`."
        )


def _stage(
    store: Store,
    source: Source,
    data: DataSpec,
    extra_columns: tuple[str, ...],
    origin: Origin,
    find_digest: Callable[[], str],
) -> str:
    """Store a dataset and return its id.

    Blocks that lay there without a manifest may be removed as unused (`submit gc`) while this call relies on them. The
    manifest protects them from then on; what is missing beneath it is stored again.

    Raises:
        TryLaterError: blocks keep vanishing.
    """
    for _ in range(_STAGINGS):
        manifest = _stage_once(store, source, data, extra_columns, origin, find_digest)
        if _is_whole(store, manifest):
            return manifest.dataset_id
    raise TryLaterError(
        f"Arrays of {origin.name} vanished from {store.url} while they were being stored, {_STAGINGS} times. Let "
        "`submit gc` or whatever else deletes there come to its end, then run the same command again."
    )


def _is_whole(store: Store, manifest: Manifest) -> bool:
    """Say whether all arrays of a dataset are there.

    Raises:
        DataError: one has another length; nothing that is stored is ever replaced.
    """
    sides = (manifest.y, manifest.weights, manifest.groups, *manifest.extra.values())
    blocks = [block for block in (*manifest.blocks, *sides) if block is not None]
    return all(_is_stored(store, manifest.dataset_id, block) for block in blocks)


def _is_stored(store: Store, dataset_id: str, block: Block) -> bool:
    key = Layout.block(dataset_id, block.file)
    size = store.size(key)
    if size not in (block.nbytes, None):
        raise other_length(key, block, size)
    return size is not None


def _stage_once(
    store: Store,
    source: Source,
    data: DataSpec,
    extra_columns: tuple[str, ...],
    origin: Origin,
    find_digest: Callable[[], str],
) -> Manifest:
    """Read the source, write its arrays aside, move them into the store, the manifest last."""
    selection = select_columns(source.offer(), data, extra_columns, origin.name)
    _refuse_text_features(data, selection)
    dtype = np.dtype(data.dtype) if data.dtype else source.feature_dtype(selection.features)
    with store.staging() as folder:
        try:
            x_block, pieces, warnings, num_missing = _write_matrix(
                folder / "X.npy", source, selection, dtype, data.rows
            )
            _refuse_few_rows(x_block, origin.name)
            arrays = {
                name: finish_side(name, pieces[name], data.types.get(name), source.untyped) for name in selection.sides
            }
            sides = _write_sides(folder, selection, arrays)
        except OSError as error:
            raise _explained(error, folder) from None
        digest = find_digest()
        dataset_id = _make_id(digest, origin)
        origin.refuse_changed()
        manifest = Manifest(
            dataset_id=dataset_id,
            num_rows=x_block.shape[0],
            blocks=(x_block,),
            y=sides["y"],
            weights=sides.get("weights"),
            groups=sides.get("groups"),
            extra={name: sides[f"extra-{i}"] for i, name in enumerate(selection.extra)},
            num_missing=num_missing,
            target=selection.target,
            source_digest=digest,
            reading_options=origin.options,
            warnings=(*selection.warnings, *warnings),
        )
        for block in (x_block, *sides.values()):
            # Another process may have put the same bytes there before.
            if not store.create_file(Layout.block(dataset_id, block.file), folder / block.file):
                _is_stored(store, dataset_id, block)
        store.create(Layout.manifest(dataset_id), seal(manifest.model_dump(mode="json")))
        return manifest


def _write_matrix(
    path: Path, source: Source, selection: Selection, dtype: np.dtype[Any], rows: int | None
) -> tuple[Block, dict[str, list[Any]], tuple[str, ...], int]:
    """Return X's description, the pieces of the columns beside it, warnings, and the number of missing values."""
    writer = MatrixWriter(path, dtype, selection.features)
    pieces: dict[str, list[Any]] = {name: [] for name in selection.sides}
    try:
        for chunk in source.chunks(selection, dtype, rows):
            writer.append(chunk.matrix)
            for name, values in chunk.sides.items():
                pieces[name].append(values)
        block, warnings = writer.close()
    finally:
        writer.abort()
    return block, pieces, warnings, writer.num_missing


def _refuse_few_rows(block: Block, name: str) -> None:
    if block.shape[0] < 2:
        rows = "1 row" if block.shape[0] else "0 rows"
        raise DataError(
            f"{name} has {rows} of data. Cross-validation needs at least two: check `data.path` and `data.rows`."
        )


def _write_sides(folder: Path, selection: Selection, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Block]:
    blocks = {"y": write_array(folder, "y", arrays[selection.target])}
    if selection.weights is not None:
        blocks["weights"] = write_array(folder, "weights", _check_weights(selection.weights, arrays[selection.weights]))
    if selection.groups is not None:
        blocks["groups"] = write_array(folder, "groups", arrays[selection.groups])
    for i, name in enumerate(selection.extra):
        blocks[f"extra-{i}"] = write_array(folder, f"extra-{i}", arrays[name])
    return blocks


def _check_weights(name: str, weights: NDArray[Any]) -> NDArray[Any]:
    if weights.dtype.kind not in "biuf":
        raise DataError(f"The weights column {name!r} holds text such as {str(weights[0])!r}; weights must be numbers.")
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        raise DataError(
            f"The weights column {name!r} holds {weights[row]} in row {row + 1}; weights cannot be negative."
        )
    return weights.astype(np.float64)


def _hash_file(path: Path) -> str:
    buffer = bytearray(2**20)
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                digest.update(memoryview(buffer)[:count])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Check the file and its disk.") from None
    return digest.hexdigest()


def _hash_arrays(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _explained(error: OSError, folder: Path) -> FoldfleetError | OSError:
    written = sum(entry.stat().st_size for entry in os.scandir(folder))
    return explain_os_error(error, folder, written)
