"""An estimate with its interval and p-value, and Student's interval of a mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from harness.errors import ArtifactError
from harness.results import FloatArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval; infinite bounds where the data give none."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Estimate(Interval):
    """An interval with what tests need: two-sided ``p_value`` of "it is 0", standard error, and independent units ``n``.

    ``n`` counts prompts where a prompt occurs more than once, else images, or rounds.
    """

    p_value: float
    standard_error: float
    n: int

    def __neg__(self) -> Estimate:
        """The same for the difference taken the other way round."""
        return Estimate(-self.value, -self.high, -self.low, self.p_value, self.standard_error, self.n)

    @property
    def p_below_zero(self) -> float:
        """One-sided p-value of "it is not below 0": small where the estimate is clearly negative."""
        return self.p_value / 2 if self.value < 0 else 1 - self.p_value / 2


def finite(values: FloatArray, what: str) -> FloatArray:
    """``values`` as float64, or an :class:`ArtifactError` that counts what is infinite or NaN; refuses no values at all."""
    array = np.asarray(values, dtype=np.float64)
    broken = int((~np.isfinite(array)).sum())
    if broken or not array.size:
        got = f"{broken} of {array.size} infinite or NaN" if broken else "none"
        raise ArtifactError(expected=f"finite {what}", got=got, remedy="measure that method again; it may have diverged")
    return array


def student_quantile(dof: float, confidence: float = CONFIDENCE) -> float:
    """The half-width of a two-sided interval in standard errors; infinite without a degree of freedom."""
    return float(stdtrit(dof, 0.5 + confidence / 2)) if dof > 0 else math.inf


def student_p(value: float, standard_error: float, dof: float) -> float:
    """Two-sided p-value of "the mean is 0"; 1 where nothing can be said."""
    if dof <= 0 or not math.isfinite(standard_error):
        return 1.0
    if standard_error == 0:
        return 0.0 if value else 1.0
    return float(2 * stdtr(dof, -abs(value) / standard_error))


def least_p(n: int) -> float:
    """The smallest p-value that n differences can give when their signs are flipped: no test here claims less."""
    return min(1.0, 2.0 ** (1 - n)) if n < 1024 else 0.0


def expanded_level(n: int, confidence: float = CONFIDENCE) -> float:
    """The tail to cut from a bootstrap distribution of ``n`` units for an interval as wide as Student's.

    A bootstrap distribution is too narrow by (n - 1)/n and knows no estimated variance. Hesterberg, "What teachers should
    know about the bootstrap" (2015), section 3.3: cut at the normal tail beyond sqrt(n/(n-1)) Student quantiles.
    """
    return float(ndtr(-math.sqrt(n / (n - 1)) * student_quantile(n - 1, confidence)))


def mean_interval(values: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    """Mean of per-image (pseudo-)values [N] with Student's interval; infinitely wide for one value.

    >>> found = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (2.5, 0.446, 4.554)
    """
    values = finite(values, "values")
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    half = student_quantile(n - 1, confidence) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def bias_corrected(value: float, draws: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    """Efron's bias-corrected percentile interval from draws [B] of a statistic whose estimate is ``value``."""
    below = float(np.mean(draws < value) + np.mean(draws <= value)) / 2
    bias = ndtri(min(max(below, 0.5 / len(draws)), 1 - 0.5 / len(draws)))
    reach = ndtri(0.5 + confidence / 2)
    low, high = np.quantile(draws, [ndtr(2 * bias - reach), ndtr(2 * bias + reach)])
    return Interval(value, min(value, float(low)), max(value, float(high)))


def normal_quantile(probability: FloatArray | float) -> FloatArray:
    """The standard normal's quantile, elementwise."""
    result: FloatArray = np.asarray(ndtri(probability))
    return result
