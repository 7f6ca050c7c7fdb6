"""Ids are hashes of content: the same search has the same id wherever it is submitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobspec.grammar.values import digest
from jobspec.search.inspection import Inspection

if TYPE_CHECKING:
    from jobspec.grammar.spec import Spec
    from jobspec.search.candidates import CandidateSpace

SHORT = 12
"""Hex digits of a run's hash: 48 bits, so that two of a million runs meet by chance once in 280."""


def make_run_id(spec: Spec, inspection: Inspection) -> str:
    """Return ``{name}-{hash}``; the hash is over what decides the scores, not over names, paths or resources."""
    content = {
        "spec": spec.identity(),
        "dataset": inspection.dataset_id,
        # An unseeded splitter splits otherwise in every store, and another scikit-learn may.
        "splits": inspection.split_id,
        "engine": inspection.engine.engine_id,
    }
    return f"{spec.name}-{digest(content)[:SHORT]}"


def make_book_id(spec: Spec, inspection: Inspection) -> str:
    """Return the id of the book: runs with one book can use each other's cells."""
    identity: dict[str, Any] = spec.identity()
    content = {
        "dataset": inspection.dataset_id,
        "splits": inspection.split_id,
        "scoring": identity["scoring"],
        "train_score": identity["train_score"],
        "engine": inspection.engine.engine_id,
    }
    return "b-" + digest(content)[:16]


def make_cell_key(space: CandidateSpace, candidate: int, salt: str | None) -> str:
    """Return a candidate's key inside its book.

    Args:
        space: the candidates.
        candidate: index of the candidate.
        salt: the run id for candidates with unseeded randomness, whose cells no other run may use; else None.
    """
    key = space.key(candidate)
    return key if salt is None else digest([key, salt])
