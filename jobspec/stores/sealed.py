"""JSON documents that carry a digest of themselves: one that was damaged must not be believed.

A digest stands among the other keys, so that people and other programs read the document as if it were not there. One
without a digest was written before there were any.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from jobspec.errors import DataError

M = TypeVar("M", bound=BaseModel)

DIGEST = "digest"


def seal(document: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a document as JSON with its digest."""
    return json.dumps({**document, DIGEST: _digest(document)}, indent=indent).encode()


def unseal_as(model: type[M], body: bytes, key: str) -> M:
    """Return a document as a model.

    The model is asked first: a document of another format is called that, not damaged.

    Raises:
        ValidationError: it is none of these documents.
        DataError: it was damaged.
    """
    document = _load(body, key)
    found = model.model_validate_json(json.dumps({name: document[name] for name in document if name != DIGEST}))
    unseal(body, key)
    return found


def unseal(body: bytes, key: str) -> dict[str, Any]:
    """Return a document without its digest.

    Args:
        body: what `seal` made.
        key: names the object in messages.

    Raises:
        DataError: it was damaged.
    """
    document = _load(body, key)
    told = document.pop(DIGEST, None)
    if told is not None and told != _digest(document):
        raise _damaged(key)
    return document


def _load(body: bytes, key: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        raise _damaged(key) from None
    if not isinstance(document, dict):
        raise _damaged(key)
    return document


def _digest(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:32]


def _damaged(key: str) -> DataError:
    return DataError(
        f"The object {key!r} in the store was damaged: its digest is not the one that was written. Delete it (a plan: "
        "its run's folder; a manifest: its dataset's folder) and run the spec again."
    )
