"""Remember what `prepare` found, so that the second call on the same spec and data reads neither.

Nothing here imports numpy or scikit-learn: a submitter asks `recall` before it starts any process.
"""

from __future__ import annotations

import hashlib
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jobspec.engine import Engine, Numerics
from jobspec.errors import DataError, FoldfleetError
from jobspec.grammar.values import canonical_json
from jobspec.search.inspection import Inspection
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.objects import is_object_url, open_object
from jobspec.stores.sealed import seal, unseal_as

if TYPE_CHECKING:
    from jobspec.grammar.load import LoadedSpec
    from jobspec.grammar.spec import DataSpec

MEMO_VERSION = 2
"""Raise when `prepare` would tell something else about the same spec and data, as when a reader's version rises."""

SETTLED_SECONDS = 2.0
"""A file written this recently may be written again without a visible change of its times."""


class PrepareOptions(BaseModel):
    """What the command line adds to a spec: an accepted risk, and a limit.

    ``numerics`` is the backend's default, for a spec that names none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow_small_classes: bool = False
    max_folds: int = 1000
    numerics: Numerics = "native"


def recall(loaded: LoadedSpec, store: Store, engine: Engine, options: PrepareOptions) -> Inspection | None:
    """Return what an earlier `prepare` told, if spec, data file, engine and options are the same.

    A memo whose dataset or splits have been deleted from the store counts as none. Costs one read and two looks.
    """
    key = memo_key(loaded, engine, options)
    body = None if key is None else store.get_or_none(key)
    inspection = None if body is None else _decode(body)
    if inspection is None or not store.exists(Layout.manifest(inspection.dataset_id)):
        return None
    return inspection if store.exists(Layout.splits(inspection.dataset_id, inspection.split_id)) else None


def remember(key: str, store: Store, inspection: Inspection) -> None:
    """Store what `prepare` found under a key that `memo_key` gave BEFORE the data were read."""
    store.create(key, seal(inspection.model_dump(mode="json")))


def memo_key(loaded: LoadedSpec, engine: Engine, options: PrepareOptions) -> str | None:
    """Return the store's key of the memo, or None where the data cannot be recognised without being read."""
    data = loaded.spec.data
    source = _fingerprint_source(data, loaded.folder)
    if data.path is not None and source is None:
        return None
    content = {
        "memo": MEMO_VERSION,
        "foldfleet": _own_version(),
        "spec": loaded.spec.identity(),
        "data": data.reading_options(),
        "source": source,
        "engine": engine.engine_id,
        "options": options.model_dump(mode="json"),
    }
    return Layout.source("prepare-" + hashlib.sha256(canonical_json(content)).hexdigest()[:32])


def source_path(data: DataSpec, folder: Path) -> Path | None:
    """Return the file of a spec's data, relative paths taken from the spec's folder.

    None for a built-in set, and for an object of a store, which is no file of this machine.
    """
    if data.path is None or is_object_url(data.path):
        return None
    return (folder / Path(data.path).expanduser()).absolute()


def fingerprint(path: Path) -> dict[str, Any] | None:
    """Return what changes when a file's bytes change, without reading them; None if there is no such file.

    The times alone are not enough: `cp -p` and archives set a modification time back, ctime and inode tell.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return {
        "path": str(path.absolute()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
        "device": status.st_dev,
    }


def fingerprint_object(url: str) -> dict[str, Any] | None:
    """Return what changes when an object's bytes change, by one look at it; None if that shows nothing.

    Times tell nothing here: an object is replaced as a whole, and each version has its own tag.
    """
    try:
        store, key = open_object(url)
        tag = store.tag(key)
    except FoldfleetError:  # whoever reads the data says what is wrong with them
        return None
    return None if tag is None else {"url": url, "tag": tag}


def _fingerprint_source(data: DataSpec, folder: Path) -> dict[str, Any] | None:
    path = source_path(data, folder)
    if path is not None:
        return fingerprint(path)
    return None if data.path is None else fingerprint_object(data.path)


def is_settled(path: Path, now: float | None = None) -> bool:
    """Say whether a fingerprint of this file can be trusted later: it has not just been written."""
    status = path.stat()
    return (time.time() if now is None else now) - max(status.st_mtime, status.st_ctime) > SETTLED_SECONDS


def _decode(body: bytes) -> Inspection | None:
    try:
        return unseal_as(Inspection, body, "memo")
    except (ValueError, ValidationError, DataError):
        return None


def _own_version() -> str:
    try:
        return version("foldfleet")
    except PackageNotFoundError:
        return "unknown"
