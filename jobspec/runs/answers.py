"""What a step answered that was started where nobody hears its standard output: a sealed document in the store."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from jobspec.errors import DataError, ExitCode, UsageError
from jobspec.protocol import NO_ANSWER
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from jobspec.stores.sealed import seal, unseal

FORMAT_VERSION = 1
"""Raise when a field changes its meaning, and keep reading the old number."""

_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Answer:
    """How a step ended: its exit code, and what it told or why it refused, each as JSON."""

    exit_code: int
    answer: dict[str, Any] | None
    error: dict[str, Any] | None


def check_token(token: str) -> str | None:
    """Return the token under which a step is to answer, or None if no answer is wanted.

    Raises:
        UsageError: it could not be part of a key.
    """
    if token == NO_ANSWER:
        return None
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"--answer {token!r} is no token: allowed are 1 to 128 letters, digits, `_`, `.` and `-`, beginning with a "
            f"letter or digit, such as `--answer 3f9a0c`; `--answer {NO_ANSWER}` asks for no answer."
        )
    return token


def write_answer(store: Store, token: str, answer: Answer) -> None:
    """Leave an answer; idempotent.

    The first answer stays, since its reader may have acted on it. Only one that said "try again later" gives way to
    that of the next attempt, which is started because of it.
    """
    document = {"exit": answer.exit_code, "answer": answer.answer, "error": answer.error}
    body = seal({"format_version": FORMAT_VERSION, **json.loads(json.dumps(document))})  # as it will be read
    key = Layout.answer(token)
    while True:
        found = store.tagged(key)
        if found is not None and _stays(found[0], key):
            return
        if store.swap(key, body, None if found is None else found[1]):
            return


def read_answer(store: Store, token: str) -> Answer | None:
    """Return what a step answered, or None if it has not (yet): a step that crashed leaves nothing.

    Raises:
        DataError: the document was damaged, or another version of foldfleet wrote it.
    """
    key = Layout.answer(token)
    body = store.get_or_none(key)
    return None if body is None else _decode(body, key)


def _decode(body: bytes, key: str) -> Answer:
    document = unseal(body, key)
    if document.get("format_version") != FORMAT_VERSION:
        raise DataError(
            f"The answer {key!r} in the store has format {document.get('format_version')!r}, this foldfleet reads "
            f"{FORMAT_VERSION}. Install the foldfleet that the image holds, or push an image of this one: `submit "
            "image push`."
        )
    return Answer(int(document["exit"]), document["answer"], document["error"])


def _stays(body: bytes, key: str) -> bool:
    try:
        return _decode(body, key).exit_code != ExitCode.TRY_LATER
    except DataError:
        return False
