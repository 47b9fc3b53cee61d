"""Intervals against closed forms and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics import mean_interval, paired_difference, ratio_of_medians


def test_mean_interval_is_the_textbook_one() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    interval = mean_interval(values)
    half = 1.959963985 * np.std(values, ddof=1) / 2
    assert (interval.value, interval.low, interval.high) == pytest.approx((2.5, 2.5 - half, 2.5 + half))


def test_one_value_has_no_interval() -> None:
    interval = mean_interval(np.array([3.0]))
    assert interval.value == 3 and interval.low == -np.inf and interval.high == np.inf and not interval.excludes_zero


def test_coverage_of_95_percent_intervals() -> None:
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(2000, 300))
    hits = [i.low <= 1 <= i.high for i in map(mean_interval, draws)]
    assert 0.93 <= np.mean(hits) <= 0.97


def test_pairing_removes_what_both_share() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 200)
    a, b = shared + rng.normal(0.3, 0.5, 200), shared
    assert paired_difference(a, b).excludes_zero
    unpaired = np.sqrt(np.var(a) / 200 + np.var(b) / 200)
    assert unpaired > 5 * (paired_difference(a, b).high - paired_difference(a, b).value) / 1.96


def test_ratio_of_medians_cancels_drift_between_rounds() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1, 2, 12)
    full, fast = drift * rng.normal(2, 0.01, 12), drift * rng.normal(1, 0.005, 12)
    interval = ratio_of_medians(full, fast)
    assert interval.low <= 2 <= interval.high and interval.high - interval.low < 0.3
