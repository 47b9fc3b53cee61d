"""The difference of two scores, and when there is none."""

from __future__ import annotations

import numpy as np

from harness.contracts import Score
from harness.errors import ArtifactError
from harness.statistics.intervals import CONFIDENCE, Interval, mean_interval


def score_difference(score: Score, other: Score, confidence: float = CONFIDENCE) -> Interval:
    """``score`` less ``other`` over the same images, with Student's interval.

    Scores of different metrics, fingerprints or N are never subtracted: :class:`ArtifactError` names what differs.
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
    difference = np.asarray(score.per_image, np.float64) - np.asarray(other.per_image, np.float64)
    return mean_interval(difference, confidence)
