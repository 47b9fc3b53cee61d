"""Intervals of means against closed forms, scipy's bootstrap, and each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.errors import ArtifactError
from harness.statistics import estimate_mean, estimate_means, group_by, mean_interval, paired_difference
from harness.statistics.intervals import expanded_level, student_quantile
from harness.statistics.means import accelerated
from harness.statistics.resampling import units_of


def test_mean_interval_is_students() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    interval = mean_interval(values)
    expected = stats.t.interval(0.95, 3, loc=2.5, scale=stats.sem(values))
    assert (interval.low, interval.value, interval.high) == pytest.approx((expected[0], 2.5, expected[1]))


def test_one_value_has_no_interval() -> None:
    for interval in (mean_interval(np.array([3.0])), estimate_mean(np.array([3.0]))):
        assert (interval.value, interval.low, interval.high) == (3, -np.inf, np.inf)
        assert not interval.excludes_zero
    assert estimate_mean(np.array([3.0])).p_value == 1


def test_equal_values_have_no_width_and_a_p_value_that_flipping_signs_allows() -> None:
    estimate = estimate_mean(np.full(6, 0.1))
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.1, 0.1, 0.1))
    assert estimate.p_value == 2**-5
    assert estimate_mean(np.zeros(6)).p_value == 1


@pytest.mark.parametrize("bad", [np.array([1.0, np.inf]), np.array([np.nan, 1.0]), np.array([])])
def test_what_is_not_finite_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ArtifactError, match="finite per-image values"):
        estimate_mean(bad)


def test_bca_agrees_with_scipy() -> None:
    """The same level, asked of scipy's own BCa over the same skewed data; the bounds agree up to the draws' own error."""
    values = np.random.default_rng(3).exponential(size=60)
    level = expanded_level(60)
    theirs = stats.bootstrap((values,), np.mean, confidence_level=1 - 2 * level, n_resamples=20_000, rng=1).confidence_interval
    units = units_of(values[:, None])
    draws = units.draws(20_000)[:, 0]
    ours = accelerated(draws, float(units.means[0]), 1e-12, float(units.accelerations[0]), 60)  # no error: Student's is narrower
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_an_interval_is_never_narrower_than_students() -> None:
    rng = np.random.default_rng(4)
    for values in (rng.exponential(size=40), rng.standard_t(3, size=40), rng.normal(size=9)):
        ours, student = estimate_mean(values), mean_interval(values)
        assert ours.low <= student.low and ours.high >= student.high


def test_the_p_value_and_the_interval_agree() -> None:
    """Shifting the data so that an end of the interval stands at zero makes the p-value 5%."""
    for seed in range(6):
        values = np.random.default_rng(seed).gamma(2, size=80)
        estimate = estimate_mean(values)
        for end in (estimate.low, estimate.high):
            assert estimate_mean(values - end).p_value == pytest.approx(0.05, abs=0.004)


def test_columns_are_estimated_as_if_alone() -> None:
    columns = np.random.default_rng(5).normal(size=(50, 3))
    together, alone = estimate_means(columns)[1], estimate_mean(columns[:, 1])
    assert (together.low, together.high, together.p_value) == pytest.approx((alone.low, alone.high, alone.p_value))


def test_prompts_that_repeat_are_resampled_whole() -> None:
    """Four images of each prompt that share their value carry no more than one each."""
    per_prompt = np.random.default_rng(6).normal(1, 1, 40)
    groups = group_by([f"prompt {i // 4}" for i in range(160)])
    assert groups is not None
    clustered, alone = estimate_mean(np.repeat(per_prompt, 4), groups), estimate_mean(per_prompt)
    assert clustered.n == 40
    assert (clustered.value, clustered.standard_error) == pytest.approx((alone.value, alone.standard_error))
    assert estimate_mean(np.repeat(per_prompt, 4)).standard_error < 0.6 * clustered.standard_error


def test_unequal_prompts_give_the_standard_error_of_a_ratio() -> None:
    groups = np.array([0, 0, 0, 1, 1, 2])
    values = np.array([1.0, 2.0, 3.0, 5.0, 7.0, 4.0])
    residuals = np.array([6 - 3 * 22 / 6, 12 - 2 * 22 / 6, 4 - 22 / 6])
    expected = np.sqrt(3 / 2 * np.sum(residuals**2)) / 6
    assert estimate_mean(values, groups).standard_error == pytest.approx(expected)


def test_no_groups_where_no_prompt_repeats() -> None:
    assert group_by(["a", "b", "c"]) is None
    assert group_by(["a", "b", "a"]).tolist() == [0, 1, 0]  # type: ignore[union-attr]


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 200)
    a, b = shared + rng.normal(0.3, 0.5, 200), shared
    assert paired_difference(a, b).excludes_zero
    unpaired = student_quantile(398) * np.sqrt(np.var(a) / 200 + np.var(b) / 200)
    assert unpaired > 5 * (paired_difference(a, b).high - paired_difference(a, b).value)
