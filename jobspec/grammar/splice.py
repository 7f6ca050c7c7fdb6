"""Put another value into a spec's text, at its own place: comments, order and quotes of all the rest stay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jobspec.errors import SpecError
from jobspec.grammar.yamlfile import read_events, read_yaml

_BOM = "\ufeff"


def replace_data_path(content: bytes, name: str, url: str) -> bytes:
    """Return a spec's text with another ``data.path``; every other byte is as it was.

    Args:
        content: the YAML.
        name: how messages call it.
        url: what is written instead, quoted, so that it is read again letter by letter.

    Raises:
        SpecError: the text is no spec, or has no `path` of its own under `data`.
    """
    read_yaml(content, name)  # its limits, before anything else looks at it
    original = content.decode("utf-8")
    offset = len(_BOM) if original.startswith(_BOM) else 0
    body = original[offset:]
    text = body.replace("\r\n", "\n")
    event = _find(text, name)
    start, stop = event.start_mark.index, event.end_mark.index
    anchor = getattr(event, "anchor", None) if type(event).__name__ == "ScalarEvent" else None
    new = (f"&{anchor} " if anchor else "") + quote(url)
    if text[start:stop].endswith("\n"):  # a literal or folded text takes the end of its line, too
        stop = start + len(text[start:stop].rstrip("\n"))
    low, high = (_place_before_folding(body, index) for index in (start, stop))
    return (original[:offset] + body[:low] + new + body[high:]).encode()


def quote(value: str) -> str:
    """Return a text as YAML reads it on one line whatever is in it."""
    return '"' + "".join(map(_escape, value)) + '"'


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _find(text: str, name: str) -> Any:
    """Return the event of the value of ``data.path``."""
    events = read_events(text, name)
    next(event for event in events if type(event).__name__ == "DocumentStartEvent")
    data = _value(events, next(events), "data")
    found: Any = None if data is None else _value(events, data, "path")
    # A key without a value has none that could be taken the place of.
    if type(found).__name__ in ("ScalarEvent", "AliasEvent") and found.start_mark.index < found.end_mark.index:
        return found
    raise SpecError(
        f"{name}: the spec has no `path` of its own under `data`, whose place uploaded data could take. Write `data: "
        "{path: s3://BUCKET/FOLDER/TABLE.csv, ...}` out, without an alias for `data`."
    )


def _value(events: Iterator[Any], begun: Any, wanted: str) -> Any:
    """Return the first event of a mapping's value, None where what has begun is no mapping, or has no such key."""
    if type(begun).__name__ != "MappingStartEvent":
        return None
    return next((value for key, value in _entries(events) if key == wanted), None)


def _entries(events: Iterator[Any]) -> Iterator[tuple[str | None, Any]]:
    """Yield key and first event of each value of a mapping that has begun; its rest is skipped."""
    while True:
        key = next(events)
        if type(key).__name__ == "MappingEndEvent":
            return
        value = next(events)
        yield (key.value if type(key).__name__ == "ScalarEvent" else None), value
        _skip(events, value)


def _skip(events: Iterator[Any], value: Any) -> None:
    """Read to the end of a value."""
    depth = _step(value)
    while depth:
        depth += _step(next(events))


def _step(event: Any) -> int:
    kind = type(event).__name__
    return kind.endswith("StartEvent") - kind.endswith("EndEvent")


def _place_before_folding(body: str, index: int) -> int:
    """Return where an index of the text without carriage returns lies in the text that has them."""
    for number, match in enumerate(re.finditer("\r\n", body)):
        if match.start() - number >= index:
            return index + number
    return index + body.count("\r\n")
