"""Find what nothing in a store needs any more, and remove it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from jobspec.errors import FoldfleetError, NotFoundError
from jobspec.runs.results import is_folded
from jobspec.runs.rounds import RoundPlan, load_round
from jobspec.runs.views import read_best
from jobspec.stores.base import Entry, Store
from jobspec.stores.layout import Layout, RoundPart
from submitter.runs import survey


class Kind(StrEnum):
    """Why something is not needed."""

    DRAFT = "drafts of plans that were not committed"
    LOG = "logs of tasks whose folded results are there"
    DATASET = "datasets of no run"
    UPLOAD = "uploads that were never completed"
    ANSWER = "answers of steps that ran elsewhere"
    HANDOVER = "specs that were handed to steps elsewhere"


@dataclass(frozen=True)
class Waste:
    """Objects that go together; ``entries`` in the order in which they are to be removed."""

    kind: Kind
    name: str
    entries: tuple[Entry, ...]

    @property
    def num_bytes(self) -> int:
        """Return what is freed."""
        return sum(entry.size for entry in self.entries)


def find_waste(store: Store, before: float) -> list[Waste]:
    """Return what nothing needs and nobody has written to since ``before`` (seconds since 1970).

    Whoever is at work writes: what is young is left alone, however useless it looks. A dataset is kept while any plan
    cannot be read, since that one could name it.
    """
    plans, unreadable = survey(store)
    newest = dict(plans)
    found = [
        *_find_in_rounds(store, newest),
        *([] if unreadable else _find_datasets(store, {plan.dataset_id for plan in newest.values()})),
        *(Waste(Kind.UPLOAD, upload.key, (upload,)) for upload in store.unfinished(before)),
        # Read once, by who waits for them: their age alone tells.
        *(Waste(Kind.ANSWER, entry.key, (entry,)) for entry in store.entries(Layout.answers())),
        *(Waste(Kind.HANDOVER, entry.key, (entry,)) for entry in store.entries(Layout.uploads())),
    ]
    return [waste for waste in found if waste.entries and all(entry.written < before for entry in waste.entries)]


def remove(store: Store, waste: Waste) -> None:
    """Remove what `find_waste` found; a kill halfway leaves nothing that looks whole."""
    for entry in waste.entries:
        if waste.kind is Kind.UPLOAD:
            store.discard(entry)
        else:
            store.delete(entry.key)


def _find_in_rounds(store: Store, newest: dict[str, RoundPlan]) -> Iterator[Waste]:
    for part, entries in _grouped(store.entries(Layout.runs())).items():
        name = f"{part.run_id} round {part.round_index}"
        if part.kind == "drafts" and not _is_committed(store, part):
            yield Waste(Kind.DRAFT, name, tuple(entries))
        if part.kind == "log" and part.run_id in newest and _is_folded(store, newest[part.run_id], part):
            # The last part first: what is left of a log has no holes, so that it still can be read.
            yield Waste(Kind.LOG, f"{name} task {int(part.name)}", tuple(reversed(entries)))


def _grouped(entries: Iterable[Entry]) -> dict[RoundPart, list[Entry]]:
    """Return what lies in each draft and each log, in order of keys."""
    groups: defaultdict[RoundPart, list[Entry]] = defaultdict(list)
    for entry in entries:
        if (part := Layout.round_part(entry.key)) is not None:
            groups[part].append(entry)
    return groups


def _is_committed(store: Store, draft: RoundPart) -> bool:
    """Say whether a round was committed with this draft; a plan that cannot be read could be its."""
    try:
        return load_round(store, draft.run_id, draft.round_index).token == draft.name
    except NotFoundError:
        return False
    except FoldfleetError:
        return True


def _is_folded(store: Store, newest: RoundPlan, log: RoundPart) -> bool:
    return _is_read_elsewhere(store, newest, log.round_index) and is_folded(
        store, log.run_id, log.round_index, int(log.name)
    )


def _is_read_elsewhere(store: Store, newest: RoundPlan, index: int) -> bool:
    """Say whether a round's progress is told by other objects than its logs."""
    best = read_best(store, newest.run_id)
    return index < newest.round or (
        best is not None and best["round"] == newest.round and best["cells"]["missing"] == 0
    )


def _find_datasets(store: Store, used: set[str]) -> Iterator[Waste]:
    for dataset_id in store.folders(Layout.datasets()):
        if dataset_id not in used:
            entries = store.entries(Layout.dataset(dataset_id))
            manifest = Layout.manifest(dataset_id)  # goes first: without it there is no dataset
            yield Waste(Kind.DATASET, dataset_id, tuple(sorted(entries, key=lambda entry: entry.key != manifest)))
