"""Intervals over per-image values and timing rounds. numpy only, so that a report needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from harness.contracts import FloatArray, Score
from harness.errors import ArtifactError

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(values: FloatArray, confidence: float = 0.95) -> Interval:
    """Mean of per-image (pseudo-)values [N] with a normal interval; the half-width is infinite for one value."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, -np.inf, np.inf)
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * float(np.std(values, ddof=1)) / np.sqrt(n)
    return Interval(mean, mean - half, mean + half)


def paired_difference(a: FloatArray, b: FloatArray, confidence: float = 0.95) -> Interval:
    """Mean of a - b over the same images, with its interval."""
    return mean_interval(a - b, confidence)


def score_difference(score: Score, other: Score, confidence: float = 0.95) -> Interval:
    """``score`` less ``other`` over the same images. Scores of different fingerprints, metrics or N are never subtracted:
    :class:`ArtifactError`.
    """
    if score.metric != other.metric or dict(score.fingerprint) != dict(other.fingerprint) or score.n != other.n:
        keys = sorted({*score.fingerprint, *other.fingerprint})
        differing = [key for key in keys if score.fingerprint.get(key) != other.fingerprint.get(key)]
        differing += ["number of images"] if score.n != other.n else []
        raise ArtifactError(
            expected=f"two scores of one {score.metric}", got=f"another {', '.join(differing) or 'metric'}",
            remedy="score both with the same weights, packages, reference and images",
        )  # fmt: skip
    return paired_difference(np.asarray(score.per_image, np.float64), np.asarray(other.per_image, np.float64), confidence)


def ratio_of_medians(numerator: FloatArray, denominator: FloatArray, confidence: float = 0.95, seed: int = 0) -> Interval:
    """median(numerator) / median(denominator) over interleaved rounds [R], bootstrapping whole rounds."""
    rng = np.random.default_rng(seed)
    rounds = len(numerator)
    value = float(np.median(numerator) / np.median(denominator))
    picks = rng.integers(rounds, size=(RESAMPLES, rounds))
    ratios = np.median(numerator[picks], axis=1) / np.median(denominator[picks], axis=1)
    tail = (1 - confidence) / 2
    return Interval(value, float(np.quantile(ratios, tail)), float(np.quantile(ratios, 1 - tail)))
