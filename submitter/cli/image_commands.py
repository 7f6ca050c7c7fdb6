"""What the commands do that make images."""

from __future__ import annotations

from jobspec.errors import ExitCode
from jobspec.settings import load_settings
from submitter.backends.docker.engine import connect
from submitter.cli.talk import answer, say, write
from submitter.images.build import ImageOptions, ImageReport, build_image


def make_image(options: ImageOptions, *, as_json: bool) -> int:
    """Build an image and say what it holds."""
    report = build_image(connect().client, options, load_settings(), say)
    if as_json:
        answer(report.to_json())
    else:
        print_image(report)
    return ExitCode.OK


def print_image(report: ImageReport) -> None:
    """Write what an image holds, one fact a line."""
    packages = ", ".join(f"{name} {number}" for name, number in report.packages.items())
    write(f"image      {report.image}  {report.image_id}")
    write(f"base       {report.base}  ({report.target}, {report.platform})")
    write(f"size       {report.size_bytes / 1e6:.0f} MB")
    write(f"computes   Python {report.python}, {packages}")
    write(f"added      {', '.join(f'{name} {number}' for name, number in report.added.items()) or 'no packages'}")
    for name, digest in report.modules.items():
        write(f"module     {name}  {digest}")
    write(f"lock       sha256:{report.lock}")
    write(f"engine     {report.engine_id}  (portable numerics)")
