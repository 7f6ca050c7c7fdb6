"""Find runs in a store by what a person types."""

from __future__ import annotations

from jobspec.errors import FoldfleetError, NotFoundError, UsageError
from jobspec.names import closest
from jobspec.runs.rounds import RoundPlan, latest_round
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout

LATEST = "latest"
_NAMED = 5


def find_run(store: Store, reference: str) -> str:
    """Return the id of the run that ``reference`` means: an id, a unique prefix of one or of its hash, ``latest``.

    Raises:
        NotFoundError: no run is meant.
        UsageError: several are.
    """
    runs = store.folders(Layout.runs())
    if not runs:
        raise NotFoundError(
            f"There are no runs in {store.url}. `submit run SPEC` makes one; --store names another store."
        )
    if reference in runs:
        return reference
    if not reference:
        raise UsageError(f"An empty name means no run. `{LATEST}` is the newest one; `submit list` shows all.")
    if reference == LATEST:
        return newest_first(store)[0][0]
    found = [run for run in runs if run.startswith(reference)] or [
        run for run in runs if run.rpartition("-")[2].startswith(reference)
    ]
    if not found:
        raise NotFoundError(
            f"No run in {store.url} is called {reference!r}.{closest(reference, runs)} `submit list` shows them."
        )
    if len(found) > 1:
        listed = ", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
        raise UsageError(f"{reference!r} could be any of {len(found)} runs: {listed}. Type more of it, or `{LATEST}`.")
    return found[0]


def newest_first(store: Store) -> list[tuple[str, RoundPlan]]:
    """Return the runs that were planned and can be read, each with its newest round, the newest first.

    Raises:
        NotFoundError: there is none.
    """
    plans, _ = survey(store)
    if not plans:
        raise NotFoundError(f"No run in {store.url} was ever planned to its end. `submit run SPEC` begins one.")
    return plans


def survey(store: Store) -> tuple[list[tuple[str, RoundPlan]], dict[str, FoldfleetError]]:
    """Return the runs that were planned, the newest first, and those whose plans cannot be read, with the reasons."""
    plans: list[tuple[str, RoundPlan]] = []
    unreadable: dict[str, FoldfleetError] = {}
    for run in store.folders(Layout.runs()):
        try:
            plan = latest_round(store, run)
        except FoldfleetError as error:
            unreadable[run] = error
        else:
            plans.extend([] if plan is None else [(run, plan)])
    return sorted(plans, key=lambda item: item[1].created, reverse=True), unreadable
