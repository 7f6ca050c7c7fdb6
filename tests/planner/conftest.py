"""Fixtures of the planner's tests."""

from tests.planner.desk import stack

__all__ = ["stack"]
