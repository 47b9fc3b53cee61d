"""Speed-ups over interleaved rounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from harness.errors import ArtifactError
from harness.statistics import time_ratio
from harness.statistics.rounds import log_ratio_estimate, relative_costs, trimmed_mean


def test_drift_between_rounds_cancels() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1, 2, 12)
    full, fast = drift * rng.normal(2, 0.01, 12), drift * rng.normal(1, 0.005, 12)
    interval = time_ratio(full, fast)
    assert interval.low <= 2 <= interval.high and interval.high - interval.low < 0.05


def test_one_disturbed_round_of_eight_moves_nothing() -> None:
    fast, full = 1 + 0.01 * np.arange(8), 2 + 0.02 * np.arange(8)
    full[3] *= 5
    assert time_ratio(full, fast).value == pytest.approx(2)


def test_the_trimmed_mean_is_scipys_and_its_error_tukeys() -> None:
    values = np.random.default_rng(0).normal(size=20)
    trimmed = trimmed_mean(values)
    assert trimmed.value == pytest.approx(stats.trim_mean(values, 0.2))
    winsorised = np.asarray(stats.mstats.winsorize(values, (0.2, 0.2)))
    assert trimmed.standard_error == pytest.approx(np.std(winsorised, ddof=1) / (0.6 * np.sqrt(20)))
    assert trimmed.dof == 11


def test_below_five_rounds_it_is_students_interval_of_the_log() -> None:
    a, b = np.array([2.0, 2.2, 1.9, 2.1]), np.array([1.0, 1.0, 1.0, 1.0])
    low, high = stats.t.interval(0.95, 3, loc=np.log(a).mean(), scale=stats.sem(np.log(a)))
    found = time_ratio(a, b)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_one_round_has_no_interval() -> None:
    found = time_ratio(np.array([3.0]), np.array([2.0]))
    assert (found.value, found.low, found.high) == (pytest.approx(1.5), 0, np.inf)
    assert log_ratio_estimate(np.array([3.0]), np.array([2.0])).p_value == 1


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, np.nan])
def test_impossible_times_are_refused(bad: float) -> None:
    with pytest.raises(ArtifactError, match="times"):
        time_ratio(np.array([1.0, bad]), np.array([1.0, 1.0]))


def test_draws_of_costs_reproduce_the_interval_and_share_their_rounds() -> None:
    rng = np.random.default_rng(1)
    full = dict(enumerate(rng.normal(1, 0.02, 10)))
    fast = {i: 0.5 * rng.normal(1, 0.02) for i in range(10)}
    costs = relative_costs({"full": full, "fast": fast, "twin": fast, "never": {99: 1.0}}, "full", resamples=20_000)
    interval = costs.ratios["fast"]
    assert np.quantile(costs.draws("fast", student=True), [0.025, 0.975]) == pytest.approx(
        [interval.low, interval.high], rel=0.003
    )
    assert (costs.draws("fast") == costs.draws("twin")).all()
    assert (costs.draws("full") == 1).all() and "never" not in costs.ratios
