"""What must be there before a run is sent: an image for the stack's processors in the registry, and its definitions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobspec.errors import UsageError
from submitter.cloud.clients import Clients
from submitter.cloud.registry import check_pushed

if TYPE_CHECKING:
    from submitter.cloud.record import ImageRecord
    from submitter.cloud.stack import Stack

_ABSENT = ("ImageNotFoundException", "RepositoryNotFoundException")
_ARM_FAMILY = re.compile(r"(a1|[a-z]+\d+g[a-z]*)(\.|$)")
"""Graviton: m6g, c7gn.xlarge, a1."""


def check_image(clients: Clients, stack: Stack, record: ImageRecord) -> None:
    """Refuse an image that hosts could not start: two requests.

    Raises:
        NotFoundError: it is no longer in the registry, or its job definitions are not active.
        UsageError: it is made for other processors than those of the stack's hosts.
    """
    check_platform(record.platform, stack.instance_types, record.tag)
    check_pushed(clients, stack, record)


def check_platform(platform: str, instance_types: tuple[str, ...], image: str) -> None:
    """Refuse an image that would end with "exec format error" on some host.

    Raises:
        UsageError: both architectures are told.
    """
    made_for = platform.partition("/")[2].partition("/")[0] or platform
    arm = [name for name in instance_types if _ARM_FAMILY.match(name.strip())]
    wrong = [name for name in instance_types if name not in arm] if made_for == "arm64" else arm
    if wrong:
        other = "amd64" if made_for == "arm64" else "arm64"
        raise UsageError(
            f"The image {image} is made for {platform}, and {', '.join(wrong)}, which the stack starts, are {other}. "
            f"Build one for them (`submit image build --platform linux/{other}`, `submit image push`), or choose other "
            "instances: `submit infra up --instance-types ...`."
        )
