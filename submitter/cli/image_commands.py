"""What the commands do that make images and push them."""

from __future__ import annotations

from jobspec.errors import ExitCode
from jobspec.settings import load_settings
from jobspec.stores.base import open_store
from submitter.backends.docker.engine import connect
from submitter.cli.talk import answer, say, write
from submitter.cloud.clients import make_clients
from submitter.cloud.push import PushReport, check_local, push_image
from submitter.cloud.stack import find_stack
from submitter.images.build import ImageOptions, ImageReport, build_image, default_tag


def make_image(options: ImageOptions, *, as_json: bool) -> int:
    """Build an image and say what it holds."""
    report = build_image(connect().client, options, load_settings(), say)
    if as_json:
        answer(report.to_json())
    else:
        print_image(report)
    return ExitCode.OK


def send_image(tag: str | None, stack_name: str | None, *, as_json: bool) -> int:
    """Push an image to a stack and say where it is."""
    settings = load_settings()
    client, clients = connect().client, make_clients()
    stack = find_stack(clients, stack_name or settings.stack)
    local = check_local(client, tag or settings.image or default_tag(), settings.cache)
    report = push_image(client, clients, local, stack, open_store(stack.store_url), say)
    if as_json:
        answer(report.to_json())
    else:
        print_push(report)
    return ExitCode.OK


def print_push(report: PushReport) -> None:
    """Write where an image lies and what starts it, one fact a line."""
    record = report.record
    if not report.sent and not report.recorded:
        say(f"Nothing to do: {record.tag} is the newest image of the stack {record.stack}.")
    write(f"image      {record.tag}")
    write(f"pushed as  {record.image}  ({record.platform})")
    write(f"engine     {record.engine_id}  (portable numerics)")
    for step, arn in report.definitions.items():
        write(f"{step:<9}  {arn.rpartition('/')[2]}")


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
