"""Seed the global generators, so that unseeded estimators give the same scores on every attempt."""

from __future__ import annotations

import hashlib
import random

import numpy as np


def make_seed(key: str, part: str) -> int:
    """Return 32 bits, numpy's limit for a legacy seed, from a cell's key and its place in the run."""
    return int.from_bytes(hashlib.sha256(f"{key}\0{part}".encode()).digest()[:4], "big")


def seed_generators(seed: int) -> None:
    """Seed NumPy's and Python's global generators.

    scikit-learn's ``random_state=None`` draws from ``numpy.random.mtrand._rand``, which only the legacy call seeds.
    """
    np.random.seed(seed)  # noqa: NPY002  # no other call reaches that generator
    random.seed(seed)
