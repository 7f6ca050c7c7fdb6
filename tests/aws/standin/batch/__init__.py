"""The Batch half of the stand-in for AWS: moto's backend, as strict as the service and with real containers.

:func:`install` puts it in the place of moto's own and gives the :class:`Control` by which tests turn it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from moto.batch.responses import BatchResponse

from .api import explained, handlers
from .control import Control
from .environments import environment_handlers, resource_methods
from .fleet import Options
from .hooks import Hooks
from .runner import Runner, SimulatedRunner

__all__ = ["Control", "Hooks", "Options", "SimulatedRunner", "install"]


def install(
    hooks: Hooks,
    runner: Runner,
    *,
    options: Options | None = None,
    clock: Callable[[], float] = time.time,
    threaded: bool = True,
) -> Control:
    """Put the core in the place of moto's Batch; ``Control.close`` takes it back.

    Args:
        hooks: The edges.
        runner: A :class:`~.docker_runner.DockerRunner`, or a :class:`SimulatedRunner`.
        options: What tests may turn.
        clock: Seconds since 1970; a test's own clock goes with ``threaded=False``.
        threaded: Whether the engine turns by itself.
    """
    control = Control(hooks, runner, options=options, clock=clock, threaded=threaded)
    for name, handler in {**handlers(control), **environment_handlers(control)}.items():
        replace(control, BatchResponse, name, explained(handler))
    for owner, methods in resource_methods(control).items():
        for name, method in methods.items():
            replace(control, owner, name, method)
    return control


def replace(control: Control, owner: type, name: str, value: Any) -> None:
    """Set an attribute of a class, to be taken back when the control is closed."""
    had = name in vars(owner)
    before = vars(owner).get(name)
    setattr(owner, name, value)
    control.undo_later(lambda: setattr(owner, name, before) if had else delattr(owner, name))
