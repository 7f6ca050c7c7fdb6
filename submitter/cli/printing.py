"""Answers for a person, on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from jobspec.search.inspection import Inspection
from jobspec.stores.base import Store
from submitter.cli.display import count, format_seconds
from submitter.cli.leaderboard import Entry, read_leaderboard
from submitter.cli.show import (
    dim,
    facts_table,
    format_bytes,
    format_time,
    is_narrow,
    leaderboard_table,
    short_path,
    show_all,
)
from submitter.cli.talk import write

if TYPE_CHECKING:
    from submitter.backends.base import Request
    from submitter.runner import Outcome

TOP = 8
"""Rows of the leaderboard after a run; `submit results --top N` shows more."""

_PLACES = 10
"""Of the hosts of a run, the last are shown; ``--json`` names all."""

_NAMED = 5
"""Of what could be removed, so many of each kind are named; ``--json`` names all."""

Fact = tuple[str, str]


def print_outcome(store: Store, outcome: Outcome, document: dict[str, Any]) -> None:
    """Print what a run found: its leaderboard, the winner, and where everything lies."""
    best = outcome.summary["best"]
    entries = read_leaderboard(store, outcome.plan.run_id, best and best["ranked_by"], TOP)
    facts = [
        ("run", _headline(document)),
        *_best_facts(best),
        *_problem_facts(document),
        *_file_facts(document["files"]),
    ]
    print_leaderboard(entries, best and best["ranked_by"], outcome.plan.num_candidates)
    show_all("", facts_table(facts))


def print_results(
    entries: Sequence[Entry], best: dict[str, Any] | None, num_candidates: int, files: dict[str, str | None]
) -> None:
    """Print a run's table as far as it was asked for, the winner, and where everything lies."""
    print_leaderboard(entries, best["ranked_by"] if best else None, num_candidates)
    show_all("", facts_table([*_best_facts(best), *_file_facts(files)]))


def print_leaderboard(entries: Sequence[Entry], ranked_by: str | None, num_candidates: int) -> None:
    """Print the best candidates, and how many more there are."""
    more = num_candidates - len(entries)
    table = leaderboard_table(entries, ranked_by, with_times=not is_narrow())
    show_all(table, *([dim(f"... and {more:,} more")] if more else []))


def print_waste(rows: Sequence[dict[str, Any]]) -> None:
    """Print what of a store is not needed, by kind."""
    for row in rows:
        names = row["names"]
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        write(f"{row['kind']}: {count(row['objects'], 'object')}, {format_bytes(row['bytes'])}")
        write(f"  {', '.join(names[:_NAMED])}{more}")


def print_plan(document: dict[str, Any], inspection: Inspection, request: Request | None) -> None:
    """Print what a run would compute, and the request that would be sent."""
    if request is not None:
        write(json.dumps(request.to_json(), indent=2))
        return
    show_all(facts_table(list(_plan_facts(document, inspection))))


def _plan_facts(document: dict[str, Any], inspection: Inspection) -> Iterator[Fact]:
    yield "run", document["run_id"]
    yield (
        "data",
        (
            f"{inspection.num_rows:,} rows x {inspection.num_features:,} features, {format_bytes(document['bytes'])}; "
            f"a fold takes {format_bytes(document['fold_bytes'])}, shared by all workers of a host"
        ),
    )
    yield "splits", f"{count(document['folds'], 'fold')}: {inspection.cv_text}"
    yield "candidates", f"{document['candidates']:,}"
    reused = f", {document['reused']:,} of them finished already" if document["reused"] else ""
    yield "cells", f"{document['cells']:,}{reused}"
    yield "fits", f"{document['fits']:,}"
    yield (
        "tasks",
        f"{document['tasks']:,} in {count(document['arrays'], 'array')}, for {count(document['workers'], 'worker')}",
    )


def _headline(document: dict[str, Any]) -> str:
    cells, seconds = document["cells"], document["seconds"]
    if document["fits"] == 0 and cells["reused"] >= max(cells["done"], 1):
        return f"{document['run_id']}: already finished, its {cells['done']:,} cells are reused"
    reused = f", {cells['reused']:,} cells reused" if cells["reused"] else ""
    times = f"{format_seconds(seconds['wall'])} ({format_seconds(seconds['fit'])} of fitting and scoring)"
    return f"{document['run_id']}: {document['fits']:,} fits in {times}{reused}"


def _best_facts(best: dict[str, Any] | None) -> Iterator[Fact]:
    if best is None:
        yield "best", "none: no candidate has a score in every fold that counts"
        return
    std = f" ± {best['std_test_score']:.4f}" if best.get("std_test_score") is not None else ""
    text = f"{best['estimator']}: {best['ranked_by']} {best['mean_test_score']:.4f}{std}"
    yield "best", f"{text} over {count(best['folds_used'], 'fold')}"


def _problem_facts(document: dict[str, Any]) -> Iterator[Fact]:
    cells = document["cells"]
    if cells["failed"]:
        yield "failed", f"{cells['failed']:,} cells; the first: {document['first_error']}"
    if cells["lost"]:
        yield "lost", f"{cells['lost']:,} cells; `submit resume {document['run_id']}` tries them again"
    if cells.get("missing"):
        yield "missing", f"{cells['missing']:,} cells: {_missing_text(document['missing'])}"
        yield "because", str(document["missing_because"] or "their tasks ended early")
        yield "next", f"submit resume {document['run_id']}"
    if document["warnings"]:
        yield "warnings", f"{document['warnings']:,} while fitting; `warning` in cv_results has each candidate's first"
    if document["no_model_because"]:
        yield "no model", document["no_model_because"]


def _missing_text(missing: Sequence[dict[str, Any]]) -> str:
    """Name the candidates without a row, fold by fold, as far as a person reads that."""
    told = []
    for entry in missing[:_NAMED]:
        ranges = [f"{first}" if last == first + 1 else f"{first}-{last - 1}" for first, last in entry["candidates"]]
        more = ", ..." if len(ranges) > _NAMED else ""
        told.append(f"fold {entry['split']}: candidates {', '.join(ranges[:_NAMED])}{more}")
    return "; ".join(told) + (f"; and {len(missing) - _NAMED} more folds" if len(missing) > _NAMED else "")


def _file_facts(files: dict[str, str | None]) -> Iterator[Fact]:
    yield "table", f"{short_path(files['cv_results'])} (and .csv)"
    if files["model"] is not None:
        yield "model", short_path(files["model"])


def print_status(document: dict[str, Any]) -> None:
    """Print where a run stands."""
    cells, best = document["cells"], document["best"]
    facts: list[Fact] = [("run", document["run_id"]), ("state", document["state"])]
    counts = f"{cells['done']:,} of {cells['total']:,} done"
    more = [f"{cells[name]:,} {name}" for name in ("failed", "lost") if cells[name]]
    if document["in_flight"]:
        more.append(f"{document['in_flight']:,} in flight")
    facts.append(("cells", ", ".join([counts, *more])))
    if best is not None:
        folds = count(best["folds_used"], "fold")
        facts.append(("best", f"{best['estimator']}: {best['mean_test_score']:.4f} over {folds}"))
    facts.extend(_sent_facts(document.get("sent")))
    running = document["state"] == "running"
    places = document["where"][-_PLACES:]
    facts.extend(
        ("on" if running else "was on", f"{place['host']}, process {place['pid']}, log {place['log']}")
        for place in places
    )
    if len(places) < len(document["where"]):
        facts.append(("", f"and {len(document['where']) - len(places):,} more places (--json names all)"))
    if document["files"]["cv_results"]:
        facts.append(("table", short_path(document["files"]["cv_results"])))
    tableless = document["state"] == "finished" and not document["files"]["cv_results"]  # whoever reduces was killed
    if tableless or document["state"] in ("interrupted", "cancelled", "planned"):
        facts.append(("next", f"submit resume {document['run_id']}{' makes its table' if tableless else ''}"))
    show_all(facts_table(facts))


def _sent_facts(sent: dict[str, Any] | None) -> Iterator[Fact]:
    """Yield how what was sent stands, and what is stuck."""
    for request in (sent or {}).get("requests", ()):
        counts = ", ".join(f"{number:,} {state}" for state, number in request["tasks"].items())
        alone = sum(request["tasks"].values()) <= 1
        yield "sent", f"{request['name']}: {request['state'] if alone else counts}"
    for note in (sent or {}).get("notes", ()):
        yield "note", note


def print_runs(rows: Sequence[dict[str, Any]]) -> None:
    """Print the runs of a store."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("run", "state", "cells", "best", "when"):
        table.add_column(name, no_wrap=name != "best", overflow="fold")
    for row in rows:
        best, cells, when = row["best"], row["cells"], row["committed_at"]
        shown = "-" if best is None else f"{best['mean_test_score']:.4f}  {best['estimator']}"
        counts = "-" if cells is None else f"{cells['done']:,}/{cells['total']:,}"
        table.add_row(
            row["run_id"], row["state"], counts, row["reason"] or shown, "-" if when is None else format_time(when)
        )
    show_all(table)
