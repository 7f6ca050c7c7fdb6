"""What `submit gc` does: show what nothing needs, and remove it when told to."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from jobspec.errors import ExitCode
from submitter.cleaning import Kind, Waste, find_waste, remove
from submitter.cli.display import count
from submitter.cli.printing import print_waste
from submitter.cli.talk import answer, say
from submitter.preparation import Desk

SECONDS_PER_HOUR = 3600.0


def collect_garbage(desk: Desk, *, older_than_h: float, yes: bool, as_json: bool) -> int:
    """Show what could be removed, by kind, and with ``yes`` remove it."""
    found = find_waste(desk.store, time.time() - older_than_h * SECONDS_PER_HOUR)
    rows, num_bytes = _rows(found), sum(waste.num_bytes for waste in found)
    for waste in found if yes else ():
        remove(desk.store, waste)
    if as_json:
        answer({"store": desk.store.url, "removed": yes, "bytes": num_bytes, "found": rows})
    elif not found:
        say(f"Nothing in {desk.store.url} is older than {older_than_h:g} h and not needed.")
    else:
        print_waste(rows)
        objects = count(sum(row["objects"] for row in rows), "object")
        say(f"Removed {objects}." if yes else f"Nothing was removed. `submit gc --yes` removes these {objects}.")
    return ExitCode.OK


def _rows(found: list[Waste]) -> list[dict[str, Any]]:
    by_kind: defaultdict[Kind, list[Waste]] = defaultdict(list)
    for waste in found:
        by_kind[waste.kind].append(waste)
    return [
        {
            "kind": kind.value,
            "names": [waste.name for waste in wastes],
            "objects": sum(len(waste.entries) for waste in wastes),
            "bytes": sum(waste.num_bytes for waste in wastes),
        }
        for kind, wastes in by_kind.items()
    ]
