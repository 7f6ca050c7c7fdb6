"""What a spec may read that no person started from a desk: the places that the stack lists, letter by letter."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jobspec.errors import AccessError
from jobspec.stores.layout import Layout
from jobspec.stores.s3client import S3Address
from submitter.machines.messages import Site

MOST_SHOWN = 300
"""Characters of a URL in a message; a key may have 1,024, of any kind."""


@dataclass(frozen=True)
class Places:
    """Patterns over ``bucket/key``, in which `*` and `?` stand for any characters as they do in a policy of AWS.

    ``own`` is the store: closed whatever the patterns say, but for ``open_folders``.
    """

    patterns: tuple[str, ...]
    own: S3Address
    open_folders: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Say whether an object may be read; nothing in its key is decoded or made shorter."""
        place = url.removeprefix("s3://")
        if ".." in place.split("/"):  # S3 would take it as it is; whatever lies between here and there may not
            return False
        own = f"{self.own.bucket}/{self.own.prefix}"
        if place.startswith(own):
            return place.startswith(tuple(own + folder for folder in self.open_folders))
        return any(_matches(pattern, place) for pattern in self.patterns)

    def check(self, url: str, what: str) -> None:
        """Refuse an object that may not be read.

        Raises:
            AccessError: it lies elsewhere.
        """
        if ".." in url.split("/"):
            raise AccessError(
                f"{what} is {shown(url)}. S3 knows no folder above another one, so `..` is a name like any other "
                "there, and none that is read: copy the object to a key without it."
            )
        if not self.allows(url):
            there = ", ".join(f"s3://{pattern}" for pattern in self.patterns) or "none"
            raise AccessError(
                f"{what} is {shown(url)}, and what is started without a desk may read these places alone: {there}. "
                "Put it there, or add its place to the stack: `submit infra up --data s3://BUCKET/PREFIX`."
            )


def places_to_read(store_url: str, arns: Iterable[str], watched: Iterable[str]) -> Places:
    """Return what data may be read.

    Args:
        store_url: the stack's store; what its bucket is told by, too.
        arns: the places that the stack lists.
        watched: the prefixes in its bucket that are watched, empty where they are not; data may lie beside specs.
    """
    own = S3Address.parse(store_url)
    listed = [arn.strip().split(":", 5)[-1] for arn in arns if arn.strip()]
    seen = [f"{own.bucket}/{prefix}*" for prefix in watched if prefix]
    return Places(tuple(dict.fromkeys([*listed, *seen])), own)


def data_places(site: Site) -> Places:
    """Return what data may be read by what is started without a desk."""
    return places_to_read(site.store, site.data_places.split(","), (site.spec_prefix, site.data_prefix))


def spec_places(site: Site) -> Places:
    """Return where specs may be read: where data may, and where the store keeps those of templates and schedules."""
    return replace(data_places(site), open_folders=(Layout.templates(),))


def shown(url: str) -> str:
    """Return a URL for a message, in one line, however long and odd it is."""
    text = url if url.isprintable() else ascii(url)[1:-1]
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _matches(pattern: str, place: str) -> bool:
    wild = {"*": ".*", "?": "."}
    text = "".join(wild.get(character) or re.escape(character) for character in pattern)
    return re.fullmatch(text, place, re.DOTALL) is not None
