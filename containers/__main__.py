"""Entry point of ``python -P -m containers STEP``."""

from __future__ import annotations

import os
import sys

from containers.commands import main
from jobspec.engine import numeric_environment

if __name__ == "__main__":
    # Before numpy is imported. A backend that pins kernels has put its pins into the environment already.
    os.environ.update(numeric_environment("native"))
    sys.exit(main(sys.argv[1:]))
