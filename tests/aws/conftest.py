"""What `make test` runs of the stories on the stand-in; `make test-thorough` runs the rest."""

from __future__ import annotations

import pytest

STORIES = ("test_events.py", "test_infra.py", "test_push.py", "test_run.py", "test_stepfunctions.py")
"""Each of their tests takes from ten seconds to a minute, most of it containers that start."""

EVERY_TIME = (
    "test_an_uploaded_spec_ends_in_results_and_a_model_in_the_bucket",
    "test_up_twice_then_status_down_and_up_again",
    "test_a_detached_run_ends_without_its_desk_and_another_one_tells_its_answer",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-thorough` what takes a minute of processes and shows little more."""
    for item in items:
        if item.path.parent.name == "aws" and item.path.name in STORIES and item.name not in EVERY_TIME:
            item.add_marker(pytest.mark.thorough)
