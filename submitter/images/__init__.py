"""Images: what tasks run in, how they are built, and what they compute with."""

from __future__ import annotations

from submitter.images.parts import check_modules, image_parts

__all__ = ["check_modules", "image_parts"]
