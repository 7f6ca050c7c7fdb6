"""A folder to keep folds in, where the host's is not to be written."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from jobspec.errors import AccessError
from jobspec.protocol import CACHE
from jobspec.settings import load_settings

log = logging.getLogger(__name__)


def settle_cache(environment: MutableMapping[str, str]) -> None:
    """Make sure that this container can write its cache: the host's folder, else one of its own.

    A Docker engine makes a missing host folder as root's: a run is slower then, since every container fetches its fold,
    but it is no failure.

    Raises:
        AccessError: neither can be written.
    """
    if environment.get("TMPDIR"):
        with contextlib.suppress(OSError):  # then the next best folder is taken
            Path(environment["TMPDIR"]).mkdir(parents=True, exist_ok=True)
    cache = load_settings().cache
    if (refusal := _refusal(cache)) is None:
        return
    try:
        own = tempfile.mkdtemp(prefix="foldfleet-cache-")
    except OSError as error:
        raise AccessError(
            f"This container can write neither its cache {cache} ({refusal}) nor a temporary folder "
            f"({error.strerror}). Mount a folder that uid {os.getuid()} may write at {cache}, or name another one with "
            f"{CACHE}."
        ) from None
    environment[CACHE] = own
    log.warning(
        "cache_not_shared folder=%s reason=%s instead=%s: every container of this host fetches its folds itself; let "
        "the host make that folder for uid %d",
        cache,
        refusal,
        own,
        os.getuid(),
    )


def _refusal(folder: Path) -> str | None:
    """Say why a folder cannot be written, or None if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
