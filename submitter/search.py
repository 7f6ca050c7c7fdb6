"""A search that is ready to be planned: where it came from no longer matters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from jobspec.errors import DataError, FoldfleetError, NotFoundError
from jobspec.grammar.load import LoadedSpec, parse
from jobspec.grammar.spec import Spec
from jobspec.runs import results, rounds
from jobspec.runs.rounds import Draft, RoundPlan
from jobspec.runs.rows import table_to_parquet
from jobspec.search.candidates import CandidateSpace, FrozenSpace
from jobspec.search.identity import make_book_id, make_run_id
from jobspec.search.inspection import Inspection
from jobspec.search.planning import plan_tasks
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

if TYPE_CHECKING:
    from jobspec.engine import Engine


class Fleet(Protocol):
    """What planning asks of a backend: who starts tasks, in what, and how many at once."""

    @property
    def name(self) -> str:
        """Return the backend's name."""

    @property
    def image(self) -> str | None:
        """Return what tasks run in."""

    @property
    def workers(self) -> int:
        """Return how many processes fit at once, all tasks together."""

    def tasks_per_fold(self, num_splits: int) -> int:
        """Return into how many tasks a fold is cut at most."""

    def engine(self, identity: object) -> Engine:
        """Return what a spec of this identity is computed with."""


@dataclass(frozen=True)
class Search:
    """The constant part of a run.

    ``fields`` are those of `RoundPlan` that are the same in every round.
    """

    run_id: str
    spec: Spec
    text: bytes
    space: CandidateSpace
    fields: dict[str, Any]

    @property
    def num_candidates(self) -> int:
        """Return the number of candidates."""
        return self.space.num_candidates

    @property
    def num_splits(self) -> int:
        """Return the number of rows of the split table."""
        return int(self.fields["num_splits"])

    @property
    def num_cells(self) -> int:
        """Return the number of rows of the complete table."""
        return self.num_candidates * self.num_splits


def make_search(loaded: LoadedSpec, inspection: Inspection) -> Search:
    """Return the search of a spec on prepared data."""
    spec = loaded.spec
    space = CandidateSpace(FrozenSpace.from_json(inspection.space))
    fields = {
        "run_id": make_run_id(spec, inspection),
        "book_id": make_book_id(spec, inspection),
        "engine": inspection.engine,
        "dataset_id": inspection.dataset_id,
        "split_id": inspection.split_id,
        "num_candidates": space.num_candidates,
        "num_splits": inspection.num_splits,
        "limits": spec.limits,
        "unseeded_entries": inspection.unseeded_entries,
        "scorers": inspection.scorers,
        "score_kind": inspection.score_kind,
        "train_score": spec.train_score,
    }
    return Search(str(fields["run_id"]), spec, loaded.text, space, fields)


def stored_search(store: Store, plan: RoundPlan) -> Search:
    """Return the search of a run as the store keeps it: no spec file, no data file is read, nor need be there."""
    text = rounds.planned_spec(store, plan)
    space = CandidateSpace(rounds.planned_space(store, plan))
    return Search(
        plan.run_id,
        parse(text, f"spec.yaml of {plan.run_id}", allowed=plan.engine.modules).spec,
        text,
        space,
        _constant_fields(plan),
    )


def _constant_fields(plan: RoundPlan) -> dict[str, Any]:
    names = (
        "run_id book_id engine dataset_id split_id num_candidates num_splits limits unseeded_entries scorers "
        "score_kind train_score"
    )
    return {name: getattr(plan, name) for name in names.split()}


def check_data(store: Store, search: Search) -> None:
    """Refuse to compute more of a run whose data are gone; looking at it needs none.

    Raises:
        NotFoundError: the data are no longer in the store.
    """
    if not store.exists(Layout.manifest(search.fields["dataset_id"])):
        raise NotFoundError(
            f"The data of {search.run_id} ({search.fields['dataset_id']}) are no longer in {store.url}. "
            "Run the spec again: `submit run SPEC` stores them anew and computes only what is missing."
        )


def check_engine(search: Search, backend: Fleet) -> None:
    """Refuse to go on with a run that the backend would compute otherwise.

    Raises:
        NotFoundError: the libraries, the user's modules or the CPU's kernels differ; both are told.
    """
    planned = search.fields["engine"]
    here = backend.engine(search.spec.identity())
    if here != planned:
        where = "This machine" if backend.image is None else f"The image {backend.image}"
        raise NotFoundError(
            f"{where} does not compute what {search.run_id} was planned with ({here.difference(planned)}). "
            "Type `submit run SPEC` for a run of its own here, or resume it where the planned versions are installed."
        )


def keep(store: Store, search: Search) -> Search:
    """Store the spec and the candidates, and return the search with those that were stored first.

    Raises:
        DataError: the spec that was stored first is not this search's: it was damaged.
    """
    text = rounds.keep_spec(store, search.run_id, search.text)
    if text != search.text and not _is_same_search(text, search):
        raise DataError(
            f"The object {Layout.spec(search.run_id)!r} in {store.url} was damaged: it is not the spec of that run. "
            "Delete that run's folder and run the spec again; cells that other runs have are reused."
        )
    space = rounds.keep_space(store, search.run_id, search.space.frozen)
    rounds.register(store, search.fields["book_id"], search.run_id)
    same = space.digest() == search.space.frozen.digest()
    kept = replace(search, text=text)
    return kept if same else replace(kept, space=CandidateSpace(space))  # a space remembers its keys


def _is_same_search(text: bytes, search: Search) -> bool:
    try:
        stored = parse(text, "spec.yaml", allowed=search.fields["engine"].modules).spec
    except FoldfleetError:
        return False
    return stored.identity() == search.spec.identity()


def draft_next(store: Store, search: Search, previous: RoundPlan | None, backend: Fleet, *, reuse: bool) -> Draft:
    """Plan everything that is not final yet; without ``reuse``, everything.

    A round without reuse (``--fresh``) belongs to the same run: its rows count because it is the newest round,
    each cell of it still has exactly one result, and the views change only once it is as complete as they are.
    """
    if previous is not None:
        rounds.planned_space(store, previous)  # the candidates are still those that the finished cells belong to
    fields = search.fields
    known = None
    if reuse:
        known = results.reusable_rows(store, search.run_id, fields["book_id"], search.space, fields["unseeded_entries"])
    tasks = plan_tasks(
        search.num_candidates,
        search.num_splits,
        backend.tasks_per_fold(search.num_splits),
        duplicates=search.space.duplicates(),
        known=results.known_candidates(known),
    )
    plan = fields | {
        "round": 0 if previous is None else previous.round + 1,
        "num_known": 0 if known is None else known.num_rows,
        "space_digest": search.space.frozen.digest(),
        "spec_digest": rounds.digest_text(search.text),
        "workers": backend.workers,
        "backend": backend.name,
        "image": backend.image,
    }
    return rounds.draft_round(plan, tasks, None if known is None else table_to_parquet(known))
