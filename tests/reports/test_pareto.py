"""The Pareto front on points whose front is known by hand."""

from __future__ import annotations

import math

import pytest

from reports.pareto import pareto_front


def test_known_points_higher_is_better() -> None:
    assert pareto_front([1, 2, 3, 4], [1.0, 3.0, 2.0, 4.0], "higher") == [0, 1, 3]


def test_known_points_lower_is_better() -> None:
    assert pareto_front([4, 1, 2, 3], [1.0, 9.0, 5.0, 6.0], "lower") == [1, 2, 0]


def test_exact_ties_both_stay() -> None:
    assert pareto_front([1, 1, 2], [5.0, 5.0, 5.0], "higher") == [0, 1]


def test_a_tie_on_one_axis_is_decided_by_the_other() -> None:
    assert pareto_front([1, 1], [4.0, 5.0], "higher") == [1]
    assert pareto_front([1, 2], [5.0, 5.0], "lower") == [0]


def test_every_point_off_the_front_is_beaten_and_none_on_it() -> None:
    points = [(1 + (i * 7) % 11, (i * 5) % 13) for i in range(40)]
    front = pareto_front([c for c, _ in points], [v for _, v in points], "higher")
    beaten = {i for i, (c, v) in enumerate(points) for d, w in points if d <= c and w >= v and (d, w) != (c, v)}
    assert set(front) == set(range(40)) - beaten


def test_nothing_gives_nothing() -> None:
    assert pareto_front([], [], "higher") == []


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([1.0, math.nan], [1.0, 2.0], "higher")
    with pytest.raises(ValueError, match="as many"):
        pareto_front([1.0], [], "higher")
