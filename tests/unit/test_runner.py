"""The one flow of a run, with a backend that pretends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobspec.errors import InterruptedRun, TryLaterError
from jobspec.runs.rounds import latest_round
from jobspec.settings import load_settings
from jobspec.stores.base import Store, open_store
from jobspec.stores.layout import Layout
from submitter.liveness import Liveness
from submitter.runner import Outcome, Runner
from submitter.search import Search
from submitter.showing import NoDisplay
from submitter.standing import RunState, read_standing
from tests.unit.pretend import Judge, PretendBackend, make_pretended_search


class Scene:
    """A store, a run and as many calls of it as a test wants."""

    def __init__(self, store: Store, cache: Path) -> None:
        self.store = store
        self.search = make_pretended_search()
        self.settings = replace(load_settings(), cache=cache)
        self.backend = PretendBackend(store)
        self.sleeps: Iterator[Callable[[], None]] = iter(())

    @property
    def live(self) -> Liveness:
        return Liveness(self.settings, self.store, self.search.run_id)

    def runner(self, search: Search | None = None, *, fresh: bool = False) -> Runner:
        live = Liveness(self.settings, self.store, (search or self.search).run_id)
        return Runner(self.store, self.backend, live, fresh, self._sleep, NoDisplay)

    def run(self, search: Search | None = None, *, judge: Judge | None = None, fresh: bool = False) -> Outcome:
        self.backend = PretendBackend(self.store) if judge is None else PretendBackend(self.store, judge)
        return self.runner(search, fresh=fresh).run(search or self.search)

    def state(self) -> RunState:
        plan = latest_round(self.store, self.search.run_id)
        assert plan is not None
        return read_standing(self.store, plan, None, alive=self.live.is_alive()).state

    def _sleep(self, _seconds: float) -> None:
        next(self.sleeps)()


@pytest.fixture
def scene(store_url: str, cache: Path) -> Scene:
    return Scene(open_store(store_url), cache)


def first_only(candidate: int, _split: int) -> str | None:
    return "ok" if candidate == 0 else None


def last_is_lost(candidate: int, _split: int) -> str | None:
    return "lost" if candidate == 2 else "ok"


def test_a_run_is_planned_worked_on_reduced_and_refitted(scene: Scene) -> None:
    outcome = scene.run()
    assert scene.backend.calls == ["warm", "submit", "reduce", "refit"]
    assert (outcome.fits, outcome.reused, outcome.fit_s) == (6, 0, 4.5)
    assert outcome.summary["complete"]
    assert scene.state() is RunState.FINISHED


def test_the_second_call_starts_nothing(scene: Scene) -> None:
    scene.run()
    outcome = scene.run()
    assert scene.backend.calls == []
    assert (outcome.fits, outcome.reused, outcome.fit_s) == (0, 6, 0.0)


def test_what_a_step_elsewhere_told_in_short_is_whole_at_the_desk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PretendBackend.step

    def tell_in_short(self: PretendBackend, arguments: Sequence[str], reads: Sequence[Path] = ()) -> dict[str, Any]:
        told = step(self, arguments, reads)
        return told | {"best": told["best"] | {"params": None}} if arguments[0] == "reduce" else told

    monkeypatch.setattr(PretendBackend, "step", tell_in_short)
    assert scene.run().summary["best"]["params"] == {"C": 1}


def test_claims_and_handles_are_recorded(scene: Scene) -> None:
    scene.run()
    claim = json.loads(scene.store.get(Layout.claim(scene.search.run_id, 0, 0, 0)))
    handle = json.loads(scene.store.get(Layout.handle(scene.search.run_id, 0, 0, 0)))
    assert claim.keys() == {"format_version", "host", "pid", "time"}
    assert handle == {"format_version": 1, "name": "a0", "backend": "local"}


def test_a_stopped_run_is_resumed_with_what_is_missing(scene: Scene) -> None:
    with pytest.raises(InterruptedRun, match=f"submit resume {scene.search.run_id}"):
        scene.run(judge=first_only)
    assert scene.state() is RunState.INTERRUPTED
    outcome = scene.run()
    assert (outcome.plan.round, outcome.fits, outcome.reused) == (1, 4, 2)
    assert outcome.summary["complete"]


def test_lost_cells_are_tried_again_by_the_next_call_and_only_once_by_each(scene: Scene) -> None:
    outcome = scene.run(judge=last_is_lost)
    assert (outcome.fits, outcome.summary["cells"]["lost"]) == (4, 2)
    assert scene.backend.calls == ["warm", "submit", "reduce"]  # no refit of a partial table
    again = scene.run(judge=last_is_lost)
    assert (again.plan.round, again.reused, again.summary["cells"]["lost"]) == (1, 4, 2)
    assert scene.backend.calls.count("submit") == 1
    assert scene.run().summary["complete"]


def test_failed_cells_are_final(scene: Scene) -> None:
    outcome = scene.run(judge=lambda candidate, _split: "fit_error" if candidate == 1 else "ok")
    assert outcome.summary["cells"]["failed"] == 2
    scene.run()
    assert scene.backend.calls == []


def test_without_a_winner_nothing_is_refitted(scene: Scene) -> None:
    outcome = scene.run(judge=lambda _candidate, _split: "fit_error")
    assert outcome.summary["best"] is None
    assert "refit" not in scene.backend.calls


def test_a_committed_round_that_nobody_sent_is_adopted(scene: Scene) -> None:
    committed = scene.runner().commit(scene.search)
    assert committed is not None
    assert scene.state() is RunState.PLANNED
    assert scene.run().plan == committed


def test_a_round_whose_claim_has_no_handle_is_sent_under_the_next_claim(scene: Scene) -> None:
    scene.runner().commit(scene.search)
    scene.store.create(Layout.claim(scene.search.run_id, 0, 0, 0), b"{}")
    assert scene.run().plan.round == 0
    assert scene.store.exists(Layout.handle(scene.search.run_id, 0, 0, 1))


def test_a_round_sent_under_a_later_claim_is_never_adopted_again(scene: Scene) -> None:
    scene.runner().commit(scene.search)
    scene.store.create(Layout.claim(scene.search.run_id, 0, 0, 0), b"{}")  # its sender was killed
    assert scene.run(judge=last_is_lost).plan.round == 0
    assert scene.state() is RunState.FINISHED
    again = scene.run()
    assert (again.plan.round, again.fits, again.summary["complete"]) == (1, 2, True)


def test_a_round_whose_sender_was_killed_after_sending_was_sent(scene: Scene) -> None:
    with pytest.raises(InterruptedRun):
        scene.run(judge=first_only)
    scene.store.delete(Layout.handle(scene.search.run_id, 0, 0, 0))
    assert scene.state() is RunState.INTERRUPTED
    assert scene.run().plan.round == 1


@pytest.mark.parametrize("spelling", ["side/../store", "side/link"])
def test_other_spellings_and_caches_meet_at_the_same_lock(
    scene: Scene, spelling: str, tmp_path: Path, store_url: str
) -> None:
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / "link").symlink_to(store_url)
    store = open_store(str(tmp_path / spelling))
    other = Liveness(replace(load_settings(), cache=tmp_path / "another cache"), store, scene.search.run_id)
    assert not other.is_alive()
    assert not Path(store_url).exists()  # looking makes nothing
    lock = scene.live.driver()
    assert lock.acquire()
    assert other.is_driven()
    assert not other.driver().acquire()
    lock.release()


def test_failures_of_earlier_rounds_are_counted(scene: Scene) -> None:
    with pytest.raises(InterruptedRun):
        scene.run(judge=lambda candidate, _split: {0: "fit_error", 1: "ok"}.get(candidate))
    scene.runner().commit(scene.search)
    plan = latest_round(scene.store, scene.search.run_id)
    assert plan is not None and plan.round == 1
    standing = read_standing(scene.store, plan, None, alive=False)
    assert (standing.cells.done, standing.cells.failed) == (4, 2)
    assert standing.progress is not None
    assert (standing.progress.reused, standing.progress.done) == (2, 4)


def test_committing_a_finished_run_commits_nothing(scene: Scene) -> None:
    scene.run()
    assert scene.runner().commit(scene.search) is None


def test_fresh_computes_every_cell_again_in_a_round_of_its_own(scene: Scene) -> None:
    scene.run()
    outcome = scene.run(fresh=True)
    assert (outcome.plan.round, outcome.fits, outcome.reused) == (1, 6, 0)
    scene.run()
    assert scene.backend.calls == []


def test_fresh_does_not_push_a_working_process_aside(scene: Scene) -> None:
    lock = scene.live.driver()
    assert lock.acquire()
    with pytest.raises(TryLaterError, match="submit cancel"):
        scene.run(fresh=True)
    lock.release()


def test_a_widened_grid_computes_the_new_cells_only(scene: Scene) -> None:
    scene.run()
    outcome = scene.run(make_pretended_search("[1, 2, 3, 4]"))
    assert (outcome.fits, outcome.reused) == (2, 6)


def test_a_narrowed_grid_starts_no_work(scene: Scene) -> None:
    scene.run()
    outcome = scene.run(make_pretended_search("[3, 1]"))
    assert (outcome.fits, outcome.reused, outcome.plan.num_tasks) == (0, 4, 0)
    assert "submit" not in scene.backend.calls


def test_a_missing_table_or_model_is_made_without_work(scene: Scene) -> None:
    scene.run()
    scene.store.delete(Layout.view(scene.search.run_id, "best.json"))
    scene.run()
    assert scene.backend.calls == ["reduce", "refit"]


def test_an_interrupt_ends_the_work_gently_and_frees_the_run(scene: Scene) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.backend = PretendBackend(scene.store, during_work=interrupt)
    with pytest.raises(InterruptedRun, match="submit resume"):
        scene.runner().run(scene.search)
    assert scene.backend.calls[-1] == "stop"
    assert not scene.live.is_alive()


def test_a_second_call_watches_and_gives_the_same_answer(scene: Scene) -> None:
    lock = scene.live.driver()
    assert lock.acquire()

    def other_process_ends() -> None:
        lock.release()
        Scene(scene.store, scene.settings.cache).run(judge=last_is_lost)

    scene.sleeps = iter([lambda: None, other_process_ends])
    outcome = scene.run()
    assert (outcome.fits, outcome.reused, outcome.summary["cells"]["lost"]) == (0, 4, 2)
    assert scene.backend.calls == []  # a watcher takes lost cells as they are


def test_a_watcher_goes_on_where_the_other_died(scene: Scene) -> None:
    scene.runner().commit(scene.search)
    lock = scene.live.driver()
    assert lock.acquire()

    def other_process_dies() -> None:
        lock.release()
        with pytest.raises(InterruptedRun):
            Scene(scene.store, scene.settings.cache).run(judge=first_only)

    scene.sleeps = iter([other_process_dies])
    outcome = scene.run()
    assert (outcome.fits, outcome.reused) == (4, 2)


def test_a_watcher_does_not_revive_what_was_cancelled(scene: Scene) -> None:
    committed = scene.runner().commit(scene.search)
    assert committed is not None
    lock = scene.live.driver()
    assert lock.acquire()

    def other_process_is_cancelled() -> None:
        scene.store.create(Layout.stop(scene.search.run_id, 0), b"{}")
        lock.release()

    scene.sleeps = iter([other_process_is_cancelled])
    with pytest.raises(InterruptedRun, match="cancelled"):
        scene.run()
    assert scene.run().summary["complete"]  # a call of its own does


def test_ctrl_c_while_watching_leaves_the_run_alone(scene: Scene) -> None:
    lock = scene.live.driver()
    assert lock.acquire()

    def interrupt() -> None:
        raise KeyboardInterrupt

    scene.sleeps = iter([interrupt])
    with pytest.raises(InterruptedRun, match="goes on"):
        scene.run()
    assert scene.backend.calls == []
    assert scene.live.is_driven()
    lock.release()


def test_the_work_of_a_killed_driver_is_waited_for(scene: Scene) -> None:
    from jobspec.hostlock import HostLock
    from jobspec.protocol import array_lock

    orphan = HostLock(array_lock(scene.store, scene.settings.cache, scene.search.run_id))
    assert orphan.acquire()
    scene.sleeps = iter([lambda: None, orphan.release])
    assert scene.run().fits == 6


def test_a_round_with_refit_off_has_no_model(scene: Scene) -> None:
    search = replace(scene.search, spec=scene.search.spec.model_copy(update={"refit": False}))
    scene.run(search)
    assert scene.backend.calls == ["warm", "submit", "reduce"]
