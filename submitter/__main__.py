"""Entry point of the console command ``submit`` and of ``python -m submitter``."""

from __future__ import annotations

import sys


def main() -> int:
    """Carry out the command line and return its exit code."""
    from submitter.cli.app import app
    from submitter.cli.guard import guarded

    arguments = sys.argv[1:]
    rest = [argument for argument in arguments if argument != "--debug"]  # so that it may stand anywhere
    return guarded(lambda: app(rest, prog_name="submit", standalone_mode=False), arguments)


if __name__ == "__main__":
    sys.exit(main())
