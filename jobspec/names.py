"""What names of runs and templates may hold, and which name was probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MAX_NAME = 60
_PLAIN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")


def is_plain_name(text: str) -> bool:
    """Say whether a text can name a run or a template: it becomes a part of keys and of files' names."""
    return _PLAIN.fullmatch(text) is not None


def closest(name: str, allowed: Iterable[str]) -> str:
    """Return `` Did you mean 'X'?`` with the nearest allowed name, or an empty string."""
    candidates = list(allowed)
    lowered = {candidate.lower(): candidate for candidate in reversed(candidates)}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean {lowered[found[0]]!r}?" if found else ""
