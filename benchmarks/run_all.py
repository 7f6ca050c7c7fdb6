"""Run every benchmark, one after the other, and print their tables below each other."""

from __future__ import annotations

import subprocess
import sys

from common import HERE

SCRIPTS = (
    "bench_wall",
    "bench_memory",
    "bench_cheap_fit",
    "bench_plan",
    "bench_reduce",
    "bench_ingest",
    "bench_image",
    "bench_containers",
    "bench_batch",
)


def main() -> int:
    """Return 0 if all ran and every score was equal; a slow figure is no failure."""
    failed = [name for name in SCRIPTS if subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
