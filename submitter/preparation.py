"""From a spec file to a search: load, then recall what an earlier prepare told, else run that step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from jobspec.errors import InterruptedRun
from jobspec.grammar.load import LoadedSpec, load
from jobspec.grammar.spec import Spec
from jobspec.protocol import prepare_arguments
from jobspec.search.counting import count_cells
from jobspec.search.inspection import Inspection
from jobspec.search.memo import PrepareOptions, recall, source_path
from jobspec.search.planning import check_cells
from jobspec.settings import Settings
from jobspec.stores.base import Store
from submitter.backends.base import Backend, BackendContext, check_backend, make_backend
from submitter.search import Search, make_search
from submitter.showing import Say, say_nothing


@dataclass(frozen=True)
class Desk:
    """What a command works with: the user's settings and the store they lead to."""

    settings: Settings
    store: Store


class NotSeenHereError(Exception):
    """Only the cloud can read the data, nothing may be started there, and no earlier prepare is remembered."""


@dataclass(frozen=True)
class Preparation:
    """A spec that was checked against its data, and the backend that did or would do it."""

    loaded: LoadedSpec
    inspection: Inspection
    search: Search
    backend: Backend


def prepare(
    desk: Desk,
    path: Path,
    options: PrepareOptions,
    *,
    on: str,
    workers: int | None,
    say: Say = say_nothing,
    elsewhere: bool = True,
    max_cells: int | None = None,
) -> Preparation:
    """Check everything that can be checked without running a cell.

    The caller closes the backend. Costs no process where the same spec and data were prepared before.

    Args:
        desk: the user's settings and store.
        path: the spec.
        options: what the command line adds to it.
        on: the backend.
        workers: processes at once; None leaves it to the backend.
        say: tells what takes a while.
        elsewhere: whether anything may be started where only the cloud can read the data.
        max_cells: a spec that tells of more by itself is refused before any data are read; None counts nothing.

    Raises:
        LimitError: more than ``max_cells`` cells.
        NotSeenHereError: this machine cannot prepare, and ``elsewhere`` does not allow to start anything there.
    """
    check_backend(on)
    loaded = load(path)
    spec = loaded.spec
    if max_cells is not None:
        check_cells(count_cells(spec), max_cells)
    backend = open_backend(desk, spec, on=on, workers=workers, label=spec.name)
    try:
        told = options.model_copy(update={"numerics": backend.default_numerics})
        inspection = _inspect(desk, loaded, told, backend, say, elsewhere=elsewhere)
    except KeyboardInterrupt:
        backend.stop()
        backend.close()
        raise InterruptedRun("Interrupted while preparing; no cell was started. Type the same command again.") from None
    except BaseException:
        backend.stop()
        backend.close()
        raise
    search = make_search(loaded, inspection)
    return Preparation(loaded, inspection, search, backend)


def open_backend(
    desk: Desk,
    spec: Spec,
    *,
    on: str,
    workers: int | None,
    label: str,
    image: str | None = None,
    patience_s: float = math.inf,
) -> Backend:
    """Return the backend for a spec; it starts nothing yet."""
    return make_backend(on, BackendContext(desk.settings, desk.store, spec, workers, label, image, patience_s))


def _inspect(
    desk: Desk, loaded: LoadedSpec, options: PrepareOptions, backend: Backend, say: Say, *, elsewhere: bool
) -> Inspection:
    known = recall(loaded, desk.store, backend.engine(loaded.spec.identity()), options)
    if known is not None:
        return known
    if not backend.prepares_here() and not elsewhere:
        raise NotSeenHereError
    backend.warm()
    say("Reading the data, computing the splits and checking the candidates ...")
    assert loaded.path is not None
    arguments = prepare_arguments(
        desk.store.url,
        loaded.path.absolute(),
        max_folds=options.max_folds,
        allow_small_classes=options.allow_small_classes,
        numerics=options.numerics,
    )
    data = source_path(loaded.spec.data, loaded.folder)
    reads = [loaded.path.absolute(), *([] if data is None else [data])]
    return Inspection.model_validate(backend.step(arguments, reads))
