"""Is one method better than another? Paired differences over the same images, judged by their 95% intervals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness.results import Failure, Score
from harness.statistics import Estimate, paired_difference
from harness.statistics.resampling import Groups
from reports.analysis.evidence import Evidence
from reports.analysis.select import score_of


class Verdict(Enum):
    """What a 95% interval of a difference says about the first method."""

    BETTER = "better"
    WORSE = "worse"
    INDISTINGUISHABLE = "indistinguishable"
    NOT_COMPARABLE = "not comparable"


@dataclass(frozen=True)
class Difference:
    """First method less second, in the metric's unit; ``interval`` is None and ``reason`` says why where there is none."""

    verdict: Verdict
    interval: Estimate | None = None
    reason: str = ""


def compare(score: Score | Failure, other: Score | Failure, groups: Groups | None = None) -> Difference:
    """Paired difference of two scores of one metric over the same images; :func:`refusal` says when there is none.

    ``groups`` [N] says which images share a prompt; see :func:`harness.statistics.group_by`.
    """
    reason = refusal(score, other)
    if reason or isinstance(score, Failure) or isinstance(other, Failure):
        return Difference(Verdict.NOT_COMPARABLE, reason=reason)
    return judged(score, paired_difference(score.influence, other.influence, groups))


def compare_within(evidence: Evidence, label: str, other: str, metric: str) -> Difference:
    """:func:`compare` for two methods of one run, from bootstrap draws that all its comparisons share."""
    score, second = score_of(evidence.run, label, metric), score_of(evidence.run, other, metric)
    reason = refusal(score, second)
    if reason or isinstance(score, Failure):
        return Difference(Verdict.NOT_COMPARABLE, reason=reason)
    return judged(score, evidence.panel(score).contrast({label: 1.0, other: -1.0}))


def refusal(score: Score | Failure, other: Score | Failure) -> str:
    """Why two scores cannot be subtracted, or nothing.

    Where either failed, where fingerprints or image counts differ, and where the metric measures the distance to the second
    method itself (a constant that no method can beat).
    """
    for one in (score, other):
        if isinstance(one, Failure):
            return f"{one.method}: {one.reason}"
    assert isinstance(score, Score) and isinstance(other, Score)
    if dict(score.fingerprint) != dict(other.fingerprint):
        return "the two scores have different fingerprints"
    if score.n != other.n:
        return f"scored on {score.n} and {other.n} images, which cannot be paired"
    if is_constant(other) and not is_constant(score):
        return f"every image of {other.method} has the same value: it is what this metric compares with"
    return ""


def is_constant(score: Score) -> bool:
    """Whether several images all have the same value."""
    return score.n > 1 and float(np.ptp(score.influence)) == 0


def judged(score: Score, estimate: Estimate) -> Difference:
    """A difference in the score's own unit and what its interval says, by the score's direction."""
    if not estimate.excludes_zero:
        return Difference(Verdict.INDISTINGUISHABLE, estimate)
    gained = (estimate.value > 0) == (score.direction == "higher")
    return Difference(Verdict.BETTER if gained else Verdict.WORSE, estimate)
