"""Fronts and volumes of many draws at once, against one draw at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.statistics.fronts import hypervolume, on_front

points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12)


@given(points)
def test_exactly_the_points_that_none_beats_are_on_the_front(found: list[tuple[int, int]]) -> None:
    costs, losses = (np.array([[point[axis] for point in found]], dtype=float) for axis in (0, 1))
    expected = [not any(a <= c and b <= v and (a, b) != (c, v) for a, b in found) for c, v in found]
    assert on_front(costs, losses)[0].tolist() == expected


@given(points)
def test_the_volume_is_the_number_of_dominated_cells(found: list[tuple[int, int]]) -> None:
    costs, losses = (np.array([[point[axis] for point in found]], dtype=float) for axis in (0, 1))
    cells = sum(any(c <= i and v <= j for c, v in found) for i in range(6) for j in range(6))
    assert hypervolume(costs, losses, 6.0, 6.0)[0] == pytest.approx(cells)


def test_draws_do_not_see_each_other() -> None:
    costs, losses = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[1.0, 2.0], [2.0, 1.0]])
    assert on_front(costs, losses).tolist() == [[True, False], [True, True]]
    assert hypervolume(costs, losses, 3.0, 3.0).tolist() == [4.0, 3.0]


def test_points_outside_the_corner_add_nothing() -> None:
    assert hypervolume(np.array([[1.0, 9.0]]), np.array([[9.0, 1.0]]), 3.0, 3.0).tolist() == [0.0]
