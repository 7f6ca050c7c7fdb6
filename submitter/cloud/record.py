"""What was pushed: one record for each push of an image, created once, found again by runs, new and old.

The first push of an engine lies under the engine's own key, each later one beside it under a digest of its content. So
nothing is ever overwritten, the newest record wins for new runs, and a run of last week still finds its own.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final, Literal

from pydantic import ValidationError

from jobspec.engine import EngineParts
from jobspec.errors import DataError, NotFoundError
from jobspec.search.inspection import Document
from jobspec.settings import Settings
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import seal, unseal_as
from submitter.images.parts import check_modules

Step = Literal["work", "reduce", "prepare", "plan"]
"""What containers on AWS do; a record names the definitions of the first three, the stack's newest image plans."""

RECORD_VERSION: Final = 1
"""Raise by one when a field changes its meaning; records of another number are passed over, and pushed again."""

TICK_SECONDS = 0.001
"""What a record is at least newer than those before it, whatever the clocks of the desks say."""

_PUSH = "`submit image push` pushes one"
_SHORTEST_DIGEST = 12


class ImageRecord(Document):
    """An image in the registry of a stack, what it computes with, and the job definitions that start it.

    ``image`` is ``repository@sha256:...``, ``tag`` the name under which a person pushed it, ``pushed_at`` is in seconds
    since 1970, and ``definitions`` holds the ARN, with its revision, of each step's job definition.
    """

    format_version: Literal[1] = RECORD_VERSION
    image: str
    tag: str
    image_digest: str
    platform: str
    pushed_at: float
    stack: str
    parts: EngineParts
    definitions: dict[Step, str]

    @property
    def engine_id(self) -> str:
        """Return the engine of portable numerics with every module of the image: what its label says."""
        return self.parts.whole_engine("portable").engine_id

    def is_same_push(self, other: ImageRecord | None) -> bool:
        """Say whether the other differs in nothing but when it was made."""
        return other is not None and self == other.model_copy(update={"pushed_at": self.pushed_at})


def save_record(store: Store, record: ImageRecord) -> ImageRecord:
    """Create the record that makes an image the one of new runs, and return it as it lies in the store.

    Idempotent: where the newest record of the stack says the same already, that one is returned. Costs a listing.
    """
    known = list_records(store, record.stack)
    if known and record.is_same_push(known[0]):
        return known[0]
    newest = known[0].pushed_at + TICK_SECONDS if known else record.pushed_at
    record = record.model_copy(update={"pushed_at": max(record.pushed_at, newest)})
    body = seal(record.model_dump(mode="json"), indent=1)
    first = Layout.image(record.engine_id)
    if store.create(first, body):
        return record
    there = _read(store, first)
    if there is not None and there not in known and record.is_same_push(there):  # another push of it, just now
        return there
    store.create(Layout.image(f"{record.engine_id}-{hashlib.sha256(body).hexdigest()[:12]}"), body)
    return record


def list_records(store: Store, stack: str | None = None) -> list[ImageRecord]:
    """Return what was pushed, the newest first; of one stack, if it is named. Costs a listing and a read for each.

    Raises:
        DataError: a record was damaged.
    """
    found = [record for key in store.keys(Layout.images()) if (record := _read(store, key)) is not None]
    chosen = [record for record in found if stack is None or record.stack == stack]
    return sorted(chosen, key=lambda record: record.pushed_at, reverse=True)


def choose_record(store: Store, wanted: str | None, identity: object, settings: Settings, stack: str) -> ImageRecord:
    """Return the image that a run uses: the one that is named, else the newest that has the spec's own modules.

    Args:
        store: the store of the stack.
        wanted: a tag, a digest, ``repository@digest`` (as a plan names it), or None.
        identity: the spec's identity, in which the user's own modules are named.
        settings: they tell where those modules lie here.
        stack: the stack's name.

    Raises:
        NotFoundError: there is none; it says whether to build or to push.
    """
    known = list_records(store, stack)
    if wanted is not None:
        return _named(known, wanted, store)
    current = [record for record in known if record.parts.foldfleet == version("foldfleet")]
    if not current:
        raise _none_current(known, store)
    refusals = []
    for record in current:
        try:
            check_modules(record.parts, identity, settings, record.tag)
        except NotFoundError as error:
            refusals.append(error.message)
        else:
            return record
    raise NotFoundError(f"{refusals[0]} `submit image push` then pushes it.")


def find_record(known: Sequence[ImageRecord], wanted: str) -> ImageRecord | None:
    """Return the newest record with this tag, digest (12 hex digits are enough) or ``repository@digest``."""
    short = wanted.removeprefix("sha256:")
    is_digest = re.fullmatch(f"[0-9a-f]{{{_SHORTEST_DIGEST},64}}", short) is not None
    for record in known:
        if wanted in (record.tag, record.image):
            return record
        if is_digest and record.image_digest.startswith(f"sha256:{short}"):
            return record
    return None


def _named(known: Sequence[ImageRecord], wanted: str, store: Store) -> ImageRecord:
    found = find_record(known, wanted)
    if found is not None:
        return found
    tags = sorted({record.tag for record in known})
    there = f"there are {', '.join(tags)}" if tags else "nothing was pushed yet"
    raise NotFoundError(
        f"No image {wanted} was pushed to {store.url}: {there}. `submit image push --image {wanted}` pushes it if the "
        "Docker engine has it; FOLDFLEET_IMAGE or `image` in the configuration file names another one."
    )


def _none_current(known: Sequence[ImageRecord], store: Store) -> NotFoundError:
    here = version("foldfleet")
    if not known:
        return NotFoundError(f"No image was pushed to {store.url} yet. {_PUSH}; `submit image build` makes it.")
    others = ", ".join(sorted({record.parts.foldfleet for record in known}))
    return NotFoundError(
        f"The images in {store.url} hold foldfleet {others}, and this is {here}. `submit image build` makes one of "
        "this version, and `submit image push` pushes it."
    )


def _read(store: Store, key: str) -> ImageRecord | None:
    """Return a record, None for one that is gone or of another format."""
    body = store.get_or_none(key)
    if body is None:
        return None
    try:
        return unseal_as(ImageRecord, body, key)
    except ValidationError:
        return None
    except DataError:
        raise DataError(
            f"The record {key!r} in {store.url} was damaged: its digest is not the one that was written. Delete it and "
            "type `submit image push`."
        ) from None
