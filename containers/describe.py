"""The describe step: what an image computes with, so that a desk knows its engine without running a spec in it."""

from __future__ import annotations

import re
from importlib.metadata import distributions
from typing import Any

from jobspec.engine import describe_engine


def describe() -> dict[str, Any]:
    """Return the fields of ``EngineParts`` and, as ``distributions``, every installed package with its version.

    Raises:
        SpecError: an allowed module is not there.
    """
    installed = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in distributions()}
    return {**describe_engine().model_dump(mode="json"), "distributions": dict(sorted(installed.items()))}
