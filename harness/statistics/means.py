"""Means of per-image values and of their paired differences: bias-corrected and accelerated (BCa) bootstrap.

Efron, "Better bootstrap confidence intervals" (1987), with Hesterberg's expansion for few units. BCa alone covers skewed
scores better than Student's interval and heavy-tailed ones worse; so here an interval is never narrower than Student's on
either side. Simulated coverage of the 95% intervals: see tests/harness/statistics/test_coverage.py.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, stdtr

from harness.errors import ArtifactError
from harness.results import FloatArray, Score
from harness.statistics.intervals import (
    CONFIDENCE,
    Estimate,
    expanded_level,
    finite,
    least_p,
    normal_quantile,
    student_p,
    student_quantile,
)
from harness.statistics.resampling import Groups, units_of

FEW = 10  # draws beyond zero that a share of the bootstrap distribution needs; with fewer, its tail is taken as normal


def estimate_means(columns: FloatArray, groups: Groups | None = None, confidence: float = CONFIDENCE) -> tuple[Estimate, ...]:
    """An :class:`Estimate` for the mean of every column of ``columns`` [N, K]; all columns share their resamples.

    ``groups`` [N] says which prompt each image belongs to: whole prompts are resampled. One unit has an infinite interval;
    equal values have one of width 0. Raises :class:`ArtifactError` on values that are not finite.
    """
    units = units_of(finite(columns, "per-image values"), groups)
    errors, accelerations = units.standard_errors, units.accelerations
    draws = units.draws() if units.n > 1 else np.zeros((1, len(units.means)))
    return tuple(
        accelerated(draws[:, k], float(units.means[k]), float(errors[k]), float(accelerations[k]), units.n, confidence)
        for k in range(len(units.means))
    )


def estimate_mean(values: FloatArray, groups: Groups | None = None, confidence: float = CONFIDENCE) -> Estimate:
    """:func:`estimate_means` for one column [N]."""
    return estimate_means(np.asarray(values, np.float64)[:, None], groups, confidence)[0]


def paired_difference(a: FloatArray, b: FloatArray, groups: Groups | None = None, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of a - b over the same images [N], with its interval and p-value.

    >>> found = paired_difference(np.array([3.0, 5.0, 4.0, 6.0]), np.array([1.0, 2.0, 2.0, 3.0]))
    >>> found.value, round(found.low, 2), round(found.high, 2), found.p_value
    (2.5, 1.58, 3.42, 0.125)
    """
    return estimate_mean(np.asarray(a, np.float64) - np.asarray(b, np.float64), groups, confidence)


def accelerated(
    draws: FloatArray, value: float, error: float, acceleration: float, n: int, confidence: float = CONFIDENCE
) -> Estimate:
    """The estimate from centred bootstrap ``draws`` [B] of a statistic with standard error ``error`` over ``n`` units."""
    if n < 2:
        return Estimate(value, -math.inf, math.inf, 1.0, math.inf, n)
    if error == 0:
        return Estimate(value, value, value, least_p(n) if value else 1.0, 0.0, n)
    half = student_quantile(n - 1, confidence) * error
    bias = _position(draws, 0.0)
    reach = -float(normal_quantile(expanded_level(n, confidence)))
    low, high = np.quantile(draws, [_level(bias, acceleration, z) for z in (-reach, reach)])
    p = max(student_p(value, error, n - 1), _bootstrap_p(draws, value, bias, acceleration, n), least_p(n))
    return Estimate(value, value + min(float(low), -half), value + max(float(high), half), p, error, n)


def _position(draws: FloatArray, at: float) -> float:
    """Where ``at`` lies in the draws, in normal deviates; ties count half, and beyond the last few draws a normal tail does."""
    below = float(np.mean(draws < at) + np.mean(draws <= at)) / 2
    if min(below, 1 - below) * len(draws) < FEW:
        return float((at - draws.mean()) / draws.std())
    return float(normal_quantile(below))


def _level(bias: float, acceleration: float, z: float) -> float:
    """The quantile of the draws that stands at ``z`` deviates once bias and acceleration are accounted for."""
    shifted = bias + z
    room = 1 - acceleration * shifted
    return float(ndtr(bias + shifted / room)) if room > 0 else float(shifted > 0)


def _bootstrap_p(draws: FloatArray, value: float, bias: float, acceleration: float, n: int) -> float:
    """Two-sided p-value of zero: the level at which the expanded BCa interval would just touch it."""
    distance = _position(draws, -value) - bias
    room = 1 + acceleration * distance
    if room <= 0:  # zero lies beyond what this skewed distribution can ever reach
        return 0.0
    deviates = distance / room - bias
    return float(2 * stdtr(n - 1, -abs(deviates) / math.sqrt(n / (n - 1))))


def score_difference(score: Score, other: Score) -> Estimate:
    """``score`` less ``other`` over the same images. Scores of different fingerprints, metrics or N are never subtracted:
    :class:`ArtifactError`.
    """
    if score.metric != other.metric or dict(score.fingerprint) != dict(other.fingerprint) or score.n != other.n:
        keys = sorted({*score.fingerprint, *other.fingerprint})
        differing = [key for key in keys if score.fingerprint.get(key) != other.fingerprint.get(key)]
        differing += ["number of images"] if score.n != other.n else []
        raise ArtifactError(
            expected=f"two scores of one {score.metric}",
            got=f"another {', '.join(differing) or 'metric'}",
            remedy="score both with the same weights, packages, reference and images",
        )
    return paired_difference(np.asarray(score.influence, np.float64), np.asarray(other.influence, np.float64))
