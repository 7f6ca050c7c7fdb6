"""Putting one's own in the place of a part of moto."""

from __future__ import annotations

from typing import Any


def replace(owner: Any, **parts: Any) -> None:
    """Replace attributes of a class or a module. The process ends with the stand-in, so nothing is taken back."""
    for name, part in parts.items():
        setattr(owner, name, part)
