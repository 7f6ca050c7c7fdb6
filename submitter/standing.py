"""Where a run stands, read from the store and the locks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobspec.runs.progress import Progress, ProgressReader
from jobspec.runs.rounds import RoundPlan
from jobspec.runs.views import read_best
from jobspec.stores.base import Store
from jobspec.stores.layout import Layout
from submitter.claims import all_claims


class RunState(StrEnum):
    """The states of a run; every one but the first two can be resumed or is final."""

    PLANNED = "planned"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Cells:
    """Cells of a run: ``done`` have a final row (``failed`` of them because the fit or a scorer raised)."""

    total: int
    done: int
    failed: int
    lost: int

    @property
    def over(self) -> bool:
        """Say whether every cell has a row, final or lost."""
        return self.done + self.lost >= self.total


@dataclass(frozen=True)
class Standing:
    """A run at this moment.

    ``view`` is the newest ``best.json``, which an older round may have written. ``progress`` is None where the
    view says everything already.
    """

    plan: RoundPlan
    state: RunState
    cells: Cells
    view: dict[str, Any] | None
    progress: Progress | None
    starts: tuple[dict[str, Any], ...]


def read_view(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return the summary beside a run's tables, or None where there is none or the tables it describes are gone."""
    document = read_best(store, run_id)
    if document is None:
        return None
    if "model" in document and not store.exists(Layout.view(run_id, document["model"])):
        del document["model"]
    return document


def is_current(view: dict[str, Any] | None, plan: RoundPlan) -> bool:
    """Say whether the views were made from this round with a row for every cell."""
    return view is not None and view["round"] == plan.round and view["cells"]["missing"] == 0


def is_concluded(store: Store, plan: RoundPlan, refit_scorer: str | None) -> bool:
    """Say whether the views say everything of this round and no model is missing: nothing is left to do."""
    view = read_view(store, plan.run_id)
    if view is None or not is_current(view, plan):
        return False
    return not lacks_model(view, refit_scorer)


def lacks_model(view: dict[str, Any], refit_scorer: str | None) -> bool:
    """Say whether the best candidate is known, is to be refitted, and was not."""
    return bool(refit_scorer is not None and view["complete"] and view["best"] is not None and "model" not in view)


def read_standing(store: Store, plan: RoundPlan, refit_scorer: str | None, *, alive: bool) -> Standing:
    """Look at the newest round of a run."""
    view = read_view(store, plan.run_id)
    if not alive and view is not None and is_current(view, plan):
        return Standing(plan, RunState.FINISHED, _cells_of_view(view), view, None, ())
    reader = ProgressReader(store, plan, refit_scorer)
    progress = poll_to_end(reader)
    cells = cells_of_progress(progress)
    state = _state(store, plan, cells, alive=alive)
    return Standing(plan, state, cells, view, progress, tuple(dict(start) for start in reader.starts()))


def poll_to_end(reader: ProgressReader) -> Progress:
    """Read all that a round's tasks have written; one poll looks ahead a few tasks only."""
    return reader.poll_to_end()


def was_sent(store: Store, plan: RoundPlan) -> bool:
    """Say whether any array of a round was ever handed to a backend.

    A claim can stay without a handle: its sender was killed in between, and whoever came next sent under the next
    claim. If it was killed after sending, what the tasks wrote tells. Two listings, where nothing was sent.
    """
    run_id, index = plan.run_id, plan.round
    claimed = (claim for array in range(len(plan.arrays)) for claim in all_claims(store, run_id, index, array))
    if any(handle is not None for _, handle in claimed):
        return True
    written = (Layout.logs(run_id, index), Layout.all_done(run_id, index))
    return any(next(iter(store.keys(prefix)), None) is not None for prefix in written)


def is_cancelled(store: Store, plan: RoundPlan) -> bool:
    """Say whether somebody asked the round to stop."""
    return store.exists(Layout.stop(plan.run_id, plan.round))


def tells_of(view: dict[str, Any] | None, plan: RoundPlan, num_done: int) -> bool:
    """Say whether the views, partial or not, hold what a round has finished."""
    return view is not None and view["round"] == plan.round and int(view["cells"]["done"]) >= num_done


def cells_of_progress(progress: Progress) -> Cells:
    """Count final rows apart from lost ones."""
    return Cells(progress.total, progress.done - progress.lost, progress.failed, progress.lost)


def _cells_of_view(view: dict[str, Any]) -> Cells:
    cells = view["cells"]
    return Cells(cells["total"], cells["done"], cells["failed"], cells["lost"])


def _state(store: Store, plan: RoundPlan, cells: Cells, *, alive: bool) -> RunState:
    if alive:
        return RunState.RUNNING
    if cells.over:
        return RunState.FINISHED
    if is_cancelled(store, plan):
        return RunState.CANCELLED
    return RunState.INTERRUPTED if was_sent(store, plan) else RunState.PLANNED
