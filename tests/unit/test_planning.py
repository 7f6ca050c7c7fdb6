from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobspec.errors import LimitError
from jobspec.search.counting import CellCount
from jobspec.search.planning import Task, check_cells, plan_arrays, plan_tasks


@st.composite
def searches(draw: st.DrawFn) -> tuple[int, int, int, dict[int, list[int]], dict[int, list[int]]]:
    candidates = draw(st.integers(1, 40))
    splits = draw(st.integers(1, 4))
    firsts = draw(st.lists(st.integers(0, candidates - 1), unique=True, max_size=3))
    others = [index for index in range(candidates) if index not in firsts]
    duplicates: dict[int, list[int]] = {}
    for first in firsts:
        twins = [index for index in others if index > first and draw(st.booleans())]
        if twins:
            duplicates[first] = twins
            others = [index for index in others if index not in twins]
    known = {
        split: sorted(draw(st.sets(st.integers(0, candidates - 1), max_size=candidates))) for split in range(splits)
    }
    return candidates, splits, draw(st.integers(1, 3)), duplicates, known


@given(searches())
def test_every_unknown_cell_is_in_exactly_one_task(
    search: tuple[int, int, int, dict[int, list[int]], dict[int, list[int]]],
) -> None:
    candidates, splits, workers, duplicates, known = search
    tasks = plan_tasks(candidates, splits, workers, duplicates, known)
    cells = Counter((task.split, c) for task in tasks for family in task.families() for c in family)
    wanted = {(split, c) for split in range(splits) for c in range(candidates) if c not in known[split]}
    assert set(cells) == wanted and set(cells.values()) <= {1}
    assert [task.split for task in tasks] == sorted(task.split for task in tasks), "fold after fold"
    assert all(task.num_fits > 0 for task in tasks)
    for split, number in Counter(task.split for task in tasks).items():
        sizes = [task.num_fits for task in tasks if task.split == split]
        assert number <= 4 * workers and max(sizes) - min(sizes) <= 1
    for first, twins in duplicates.items():
        for task in tasks:
            unknown = [c for c in (first, *twins) if c not in known[task.split]]
            held = [family for family in task.families() if set(family) & set(unknown)]
            assert len(held) <= 1, "equal candidates share one fit"
    assert tasks == [Task.from_json(task.to_json()) for task in tasks]


def test_a_grid_of_ten_million_cells_is_packed_by_ranges() -> None:
    tasks = plan_tasks(2_000_000, 5, 16)
    assert len(tasks) == 80 and sum(task.num_cells for task in tasks) == 10_000_000
    assert tasks[0].ranges == ((0, 125_000),)


@pytest.mark.parametrize(
    ("num_tasks", "sizes"),
    [(0, []), (1, [1]), (10_000, [10_000]), (10_001, [5000, 5001]), (25_000, [8333, 8333, 8334])],
)
def test_arrays_keep_the_limit_of_ten_thousand(num_tasks: int, sizes: list[int]) -> None:
    arrays = plan_arrays(num_tasks)
    assert [array.size for array in arrays] == sizes
    assert [array.first_task for array in arrays] == [sum(sizes[:i]) for i in range(len(sizes))]


def test_too_many_cells_are_refused_with_the_flag_to_use() -> None:
    check_cells(CellCount(1_000_000), 1_000_000)
    with pytest.raises(LimitError, match=r"1,000,001 cells .* --max-cells 1000001") as caught:
        check_cells(CellCount(1_000_001), 1_000_000)
    assert caught.value.exit_code == 7
