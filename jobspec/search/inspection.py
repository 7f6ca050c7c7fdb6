"""What the prepare step tells about a spec's data and candidates, and how stored data are described."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from jobspec.engine import Engine

FORMAT_VERSION = 1
"""Raise by one, and keep a reader for the old number, whenever a field changes its meaning."""

BLOCK_BYTES = 8 * 2**20
"""Unit of the digests over a stored array's file, in bytes."""


class Document(BaseModel):
    """A stored document: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(Document):
    """One array of a dataset, stored as one ``.npy`` file.

    ``digests`` are xxh3_128 over each `BLOCK_BYTES` of the whole file, since ranged reads carry none.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()
    nbytes: int
    digests: tuple[str, ...]


class Manifest(Document):
    """A stored dataset: its row blocks, its target and the columns that describe rows.

    ``num_missing`` counts the NaN in X; None in manifests from before it was counted.
    """

    format_version: Literal[1] = 1
    dataset_id: str
    num_rows: int
    blocks: tuple[Block, ...]
    y: Block
    weights: Block | None = None
    groups: Block | None = None
    extra: dict[str, Block] = {}
    num_missing: int | None = None
    target: str
    source_digest: str
    reading_options: dict[str, Any]
    warnings: tuple[str, ...] = ()


class Inspection(Document):
    """The answer of `containers prepare`: all that planning needs to know about the data.

    ``space`` is a `FrozenSpace` in JSON. ``train_rows`` and ``test_rows`` have one entry per split,
    ``row_bytes`` is the size of one row over all arrays of a fold.
    """

    format_version: Literal[1] = 1
    dataset_id: str
    split_id: str
    engine: Engine
    num_rows: int
    num_features: int
    num_splits: int
    train_rows: tuple[int, ...]
    test_rows: tuple[int, ...]
    row_bytes: int
    cv_text: str
    is_classifier: bool
    classes: tuple[Any, ...] | None = None
    class_counts: tuple[int, ...] | None = None
    space: dict[str, Any]
    unseeded_entries: tuple[int, ...] = ()
    scorers: tuple[str, ...]
    score_kind: Literal["single", "multi"]
    warnings: tuple[str, ...] = ()
