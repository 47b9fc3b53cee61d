"""Speed-ups from interleaved rounds: trimmed means of log ratios within a round, so that a round's drift cancels.

A fifth of the rounds is trimmed at either end: one disturbed round of eight moves nothing. The interval is that of Tukey and
McLaughlin (1963): Student's, with the winsorised standard error. Draws for joint questions resample rounds by random
multipliers, the same for every method, and reproduce that interval. Resampling whole rounds with replacement was tried and
covers worse at eight rounds, or is up to four times as wide: docs/lab-log.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.statistics.intervals import CONFIDENCE, Estimate, Interval, finite, least_p, student_p, student_quantile
from harness.statistics.resampling import RESAMPLES

LARGEST = 700.0  # logarithm of a ratio that a float64 can still hold
TRIMMED = 5  # one round in so many at either end


@dataclass(frozen=True)
class Trimmed:
    """A trimmed mean over rounds: its value, each round's influence on it, and the degrees of freedom that are left."""

    value: float
    influence: FloatArray
    dof: int

    @property
    def standard_error(self) -> float:
        """Infinite for a single round."""
        n = len(self.influence)
        return math.sqrt(n / (n - 1) * float(self.influence @ self.influence)) if n > 1 else math.inf


def trimmed_mean(values: FloatArray) -> Trimmed:
    """The mean of ``values`` [R] without the lowest and highest fifth (none below five rounds)."""
    n = len(values)
    cut = n // TRIMMED
    order = np.sort(values)
    kept = order[cut : n - cut]
    winsorised = np.clip(values, kept[0], kept[-1])
    influence = (winsorised - winsorised.mean()) / (n - 2 * cut)
    return Trimmed(float(kept.mean()), influence, len(kept) - 1)


def log_ratio(numerator: FloatArray, denominator: FloatArray, label: str = "the method") -> Trimmed:
    """log(numerator / denominator) over rounds [R] that timed both. Refuses times of ``label`` not finite and above 0."""
    times = finite(np.array([numerator, denominator]), f"times of {label} and the full run")
    if times.min() <= 0:
        raise ArtifactError(expected=f"times of {label} above 0", got=f"{times.min():g} s", remedy="time that method again")
    return trimmed_mean(np.log(times[0]) - np.log(times[1]))


def log_ratio_estimate(numerator: FloatArray, denominator: FloatArray, confidence: float = CONFIDENCE) -> Estimate:
    """The log of the time ratio with interval, standard error and p-value of "equally fast"."""
    ratio = log_ratio(numerator, denominator)
    n = len(ratio.influence)
    error = ratio.standard_error
    half = student_quantile(ratio.dof, confidence) * error if error else 0.0
    p = max(student_p(ratio.value, error, ratio.dof), least_p(n))
    return Estimate(ratio.value, ratio.value - half, ratio.value + half, p, error, n)


def time_ratio(numerator: FloatArray, denominator: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    """How many times as long the numerator takes, over interleaved rounds [R]; infinitely wide for a single round.

    One disturbed round of five changes nothing:

    >>> found = time_ratio(np.array([2.0, 2.0, 9.0, 2.0, 2.0]), np.array([1.0, 1.0, 1.0, 1.0, 1.0]))
    >>> round(found.value, 6), round(found.low, 6), round(found.high, 6)
    (2.0, 2.0, 2.0)
    """
    log = log_ratio_estimate(numerator, denominator, confidence)
    low, value, high = (math.exp(min(bound, LARGEST)) for bound in (log.low, log.value, log.high))
    return Interval(value, low, high if math.isfinite(log.high) else math.inf)


@dataclass(frozen=True)
class RelativeCosts:
    """Time of each method as a share of the reference's, by label: estimates and centred draws of their logs [B]."""

    ratios: Mapping[str, Interval]
    logs: Mapping[str, Trimmed]
    deviations: Mapping[str, FloatArray]

    def draws(self, label: str, *, student: bool = False) -> FloatArray:
        """Draws of one ratio [B]: of the plain bootstrap's width, or with ``student`` as wide as the interval is."""
        log, deviations = self.logs[label], self.deviations[label]
        if student and log.dof > 0:
            n = len(log.influence)
            uniform = np.random.default_rng(2).random(len(deviations))
            deviations = deviations * math.sqrt(n / (n - 1)) * np.sqrt(log.dof / chdtri(log.dof, uniform))
        result: FloatArray = np.exp(np.minimum(log.value + deviations, LARGEST))
        return result


def relative_costs(
    times: Mapping[str, Mapping[int, float]], reference: str, resamples: int = RESAMPLES, seed: int = 1
) -> RelativeCosts:
    """From seconds by label and round. Methods that share no round with ``reference`` are left out.

    A round has the same random multiplier for every method, so that draws are paired by round.
    """
    base = times[reference]
    rounds = sorted(base)
    multipliers = np.random.default_rng(seed).standard_normal((resamples, len(rounds)))
    ratios, logs, deviations = {}, {}, {}
    for label, mine in times.items():
        shared = [i for i, number in enumerate(rounds) if number in mine]
        if shared:
            above = np.array([mine[rounds[i]] for i in shared])
            below = np.array([base[rounds[i]] for i in shared])
            logs[label], ratios[label] = log_ratio(above, below, label), time_ratio(above, below)
            deviations[label] = multipliers[:, shared] @ logs[label].influence
    return RelativeCosts(ratios, logs, deviations)
