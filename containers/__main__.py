"""Entry point of ``python -P -m containers STEP``."""

from __future__ import annotations

import os
import sys

from containers.firstprocess import run_in_child


def run() -> int:
    """Carry out the command line and return its exit code."""
    # Imported here, so that a container's first process is ready for signals at once.
    from containers.commands import main
    from jobspec.engine import numeric_environment

    # Before numpy is imported. A backend that pins kernels has put its pins into the environment already.
    os.environ.update(numeric_environment("native"))
    if "NPY_DISABLE_CPU_FEATURES" in os.environ:
        os.environ.pop("NPY_ENABLE_CPU_FEATURES", None)  # a pin goes before a wish: NumPy refuses to have both
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run_in_child(run) if os.getpid() == 1 else run())
