"""Steps in series: found where they are, at their place, and seldom where there are none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.analysis.change_points import LEVEL, find_change_points


def test_one_clear_step_is_found_at_its_place() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(10, 0.1, 12), rng.normal(10.5, 0.1, 9)])
    (step,) = find_change_points(values)
    assert (
        step.index == 12 and step.before == pytest.approx(values[:12].mean()) and step.after == pytest.approx(values[12:].mean())
    )


def test_up_and_down_again() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(m, 0.1, 10) for m in (1.0, 2.0, 1.0)])
    assert [step.index for step in find_change_points(values)] == [10, 20]


def test_odd_runs_are_no_step_and_three_are() -> None:
    level = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01]
    assert find_change_points(np.array([*level, 1.6])) == []
    assert find_change_points(np.array([*level, 1.6, *level])) == []
    assert [step.index for step in find_change_points(np.array([*level, 1.6, 1.61, 1.59]))] == [8]


def test_noise_decides_what_is_a_step() -> None:
    """The same move of 5% is one on a quiet machine and none on a noisy one."""
    rng = np.random.default_rng(2)
    for deviation, expected in ((0.005, [8]), (0.05, [])):
        values = np.concatenate([rng.normal(0, deviation, 8), rng.normal(0.05, deviation, 8)])
        assert [step.index for step in find_change_points(values)] == expected


@pytest.mark.parametrize("n", [6, 12, 60])
def test_false_steps_are_as_rare_as_promised(n: int) -> None:
    """Normal noise, and noise with tails much heavier than the test assumes."""
    rng = np.random.default_rng(n)
    assert sum(bool(find_change_points(rng.normal(0, 1, n))) for _ in range(1500)) <= 1500 * LEVEL + 3
    assert sum(bool(find_change_points(rng.standard_t(5, n))) for _ in range(1500)) <= 0.01 * 1500


def test_a_step_of_four_deviations_is_mostly_found_with_eight_runs_a_side() -> None:
    rng = np.random.default_rng(5)
    found = [find_change_points(np.concatenate([rng.normal(0, 1, 8), rng.normal(4, 1, 8)])) for _ in range(200)]
    near = [steps for steps in found if any(abs(step.index - 8) <= 1 for step in steps)]
    assert len(near) >= 160


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 5.0], [1.0, 1.0, 5.0], [1.0, 1.0, 1.0, 5.0], [3.0] * 30])
def test_too_few_or_equal_values_have_none(values: list[float]) -> None:
    assert find_change_points(np.array(values)) == []


def test_exact_values_move_only_above_the_floor() -> None:
    values = np.array([1.0] * 6 + [1.001] * 6)
    assert [step.index for step in find_change_points(values)] == [6]
    assert find_change_points(values, floor=0.01) == []


@given(
    st.lists(st.integers(-1000, 1000), min_size=4, max_size=30),
    st.sampled_from([0.25, 2.0, 1024.0]),
    st.sampled_from([0.0, 64.0, -512.0]),
)
def test_units_do_not_matter(values: list[int], scale: float, shift: float) -> None:
    numbers = np.array(values, float)
    moved = [step.index for step in find_change_points(numbers * scale + shift)]
    assert moved == [step.index for step in find_change_points(numbers)]
