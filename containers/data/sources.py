"""What every reader offers, and the limits that all of them keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.data.columns import Offer, Selection
from jobspec.errors import DataError

CHUNK_BYTES = 8 * 2**20
"""Rows pass through memory in chunks of about this size."""

MAX_RATIO = 250
MAX_UNPACKED_BYTES = 64 * 2**30
SMALL_UNPACKED_BYTES = 256 * 2**20
"""Compressed sources may unpack to ``SMALL``, then to ``MAX_RATIO`` times their size, never beyond ``MAX``."""


@dataclass(frozen=True)
class Chunk:
    """Some rows: ``matrix`` (rows x features, C order) and the columns beside it as Arrow arrays."""

    matrix: NDArray[Any]
    sides: Mapping[str, pa.Array]


class Source(Protocol):
    """An opened source. A reader knows its format; what the columns mean is the spec's matter."""

    untyped: bool
    """Whether the columns beside X come as text whose type is yet to be found."""

    def offer(self) -> Offer:
        """Return the columns."""

    def feature_dtype(self, features: tuple[str, ...]) -> np.dtype[Any]:
        """Return float32 if all features are stored as float32, else float64."""

    def chunks(self, selection: Selection, dtype: np.dtype[Any], rows: int | None) -> Iterator[Chunk]:
        """Yield the first ``rows`` rows (or all) in order; a chunk's arrays may be overwritten by the next."""


def refuse_bomb(path: Path, unpacked: int, packed: int) -> None:
    """Refuse a compressed source that unpacks beyond reason.

    Raises:
        DataError: both sizes and the caps.
    """
    if unpacked <= SMALL_UNPACKED_BYTES or (unpacked <= MAX_UNPACKED_BYTES and unpacked <= MAX_RATIO * packed):
        return
    raise DataError(
        f"{path} unpacks from {packed} bytes to {unpacked} bytes or more; allowed are {MAX_RATIO} times the packed "
        f"size and {MAX_UNPACKED_BYTES} bytes in all. If the data are sound, store them without compression and name "
        "that file."
    )
