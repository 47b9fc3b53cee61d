"""What a metric makes of the null controls: images and prompts that are known to be wrong, or known to be the same.

``identical``: the full run's first images again; ``jpeg50``: their copies through JPEG of quality 50; ``shuffled``: each with the
prompt of another; ``constant``: each filled with its own mean colour; ``noise`` and ``black`` hold nothing of it. A metric that
cannot tell the compared methods from the last four measures nothing that matters in this run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.results import BASELINE, Failure, Score
from harness.statistics.intervals import Interval, mean_interval
from harness.statistics.means import score_difference

IDENTICAL, JPEG, SHUFFLED = "identical", "jpeg50", "shuffled"
NULLS = (SHUFFLED, "constant", "noise", "black")  # what a metric must find worse than every method
CONTROLS = (IDENTICAL, JPEG, *NULLS)

SeparationVerdict = Literal["the same", "distinguished", "confused", "not read", "not measured"]


@dataclass(frozen=True)
class Separation:
    """What one metric makes of one control.

    ``harm``: by how much the control scores worse than the same images of the full run, in the metric's unit (for a metric
    that measures the distance to the full run: its score, smaller is nearer, with its sign turned where higher is better).
    ``confused_with``: the methods whose own harm is not clearly below it. ``not read``: the control differs from the full run
    in nothing that this metric looks at (prompts, for FID). ``the same``: the identical run scores as it must.
    """

    control: str
    verdict: SeparationVerdict
    harm: Interval | None = None
    confused_with: tuple[str, ...] = ()
    reason: str = ""


def separations(
    metric: str, scores: Mapping[tuple[str, str], Score | Failure], controls: Mapping[tuple[str, str], Score | Failure]
) -> tuple[Separation, ...]:
    """How a metric sees each control beside the methods; ``scores`` and ``controls`` are keyed by (label, metric).

    A method and the control are held against the full run on equal terms: each on its own images, of equal number.
    """
    full, same = scores.get((BASELINE, metric)), controls.get((IDENTICAL, metric))
    methods = {label: harm_of(s, full) for (label, name), s in scores.items() if name == metric}
    measured = {label: harm for label, harm in methods.items() if harm is not None}
    if isinstance(full, Score) != isinstance(same, Score):
        measured = {}  # one side has nothing to be held against
    return tuple(_separation(control, controls.get((control, metric)), same, measured) for control in CONTROLS)


def harm_of(score: Score | Failure | None, full: Score | Failure | None) -> Interval | None:
    """How much worse than the full run's a score is, with its interval; None where it was not measured.

    Where the full run has no value (PSNR to itself is infinite), the score itself with the sign that makes larger worse.
    """
    if not isinstance(score, Score):
        return None
    found = score_difference(score, full) if isinstance(full, Score) else mean_interval(score.influence)
    return found if score.direction == "lower" else Interval(-found.value, -found.high, -found.low)


def _separation(
    control: str, score: Score | Failure | None, same: Score | Failure | None, methods: Mapping[str, Interval]
) -> Separation:
    if not isinstance(score, Score) or not methods:
        reason = score.reason if isinstance(score, Failure) else "no control was scored" if score is None else "no method was"
        return Separation(control, "not measured", reason=reason)
    harm = harm_of(score, same)
    assert harm is not None
    if isinstance(same, Score) and np.array_equal(score.influence, same.influence):
        return Separation(control, "the same" if control == IDENTICAL else "not read", harm)
    if control in NULLS:
        confused = tuple(label for label, own in methods.items() if not harm.low > own.high)
        return Separation(control, "confused" if confused else "distinguished", harm, confused)
    seen = harm.excludes_zero if isinstance(same, Score) else True
    return Separation(control, "distinguished" if seen else "confused", harm, () if seen else (BASELINE,))


def is_insensitive(found: Iterable[Separation]) -> bool:
    """Whether a metric confuses any method with shuffled prompts, constant colours, noise or black.

    JPEG copies are a yardstick, not a null: many methods do more harm than they, and some metrics need not see them.
    """
    return any(s.control in NULLS and s.verdict == "confused" for s in found)
