"""Null controls: does a metric tell a method's images from black ones, from noise, from other prompts' images?

A control is a score whose method is called ``control: NAME``. Its images may be fewer than a method's, and other ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.special import stdtr, stdtrit

from harness.contracts import BASELINE, CONTROL, FloatArray, Score
from harness.records import Run
from harness.statistics import Interval, holm
from reports.select import metric_order, score_of

LEVEL = 0.05
CLEAR = 0.05  # overlap above which single images of the two cannot be told apart reliably


class Separation(Enum):
    """How well a metric tells a method from a control."""

    CLEAR = "tells them apart"
    OVERLAPPING = "only on average"
    NONE = "does not tell them apart"
    REVERSED = "prefers the control"


@dataclass(frozen=True)
class ControlReading:
    """One control on one metric beside one method (the full run, unless asked otherwise).

    ``gap`` is the method's mean less the control's, positive where the method is better. ``overlap`` is the chance that an
    image of the control scores better than one of the method (ties count half): 0 apart, 0.5 alike.
    """

    metric: str
    control: str
    separation: Separation
    gap: Interval
    overlap: float

    @property
    def trustworthy(self) -> bool:
        """Whether the metric may be believed about single images, as far as this control goes."""
        return self.separation is Separation.CLEAR


def control_names(run: Run) -> list[str]:
    """The controls that were scored, by the method name of their scores."""
    return list(dict.fromkeys(method for method, _ in run.scores if method.startswith(CONTROL)))


def read_controls(run: Run, method: str = BASELINE) -> list[ControlReading]:
    """Every control that was scored with the method's own fingerprint, metric by metric; corrected (Holm) for their number."""
    pairs = {}
    for metric in metric_order(run):
        mine = score_of(run, method, metric)
        for name in control_names(run):
            control = run.scores.get((name, metric))
            if isinstance(mine, Score) and isinstance(control, Score) and dict(mine.fingerprint) == dict(control.fingerprint):
                pairs[metric, name] = (mine, control)
    gaps = {key: _welch(*_oriented(*pair)) for key, pair in pairs.items()}
    adjusted = holm({key: p for key, (_, p) in gaps.items()})
    return [_reading(*key, gaps[key][0], adjusted[key], _overlap(*_oriented(*pair))) for key, pair in pairs.items()]


def _reading(metric: str, control: str, gap: Interval, p: float, overlap: float) -> ControlReading:
    if p >= LEVEL:
        separation = Separation.NONE
    elif gap.value < 0:
        separation = Separation.REVERSED
    else:
        separation = Separation.CLEAR if overlap <= CLEAR else Separation.OVERLAPPING
    return ControlReading(metric, control, separation, gap, overlap)


def _oriented(method: Score, control: Score) -> tuple[FloatArray, FloatArray]:
    """Per-image values of both, turned so that more is better."""
    sign = 1.0 if method.direction == "higher" else -1.0
    return sign * np.asarray(method.per_image, np.float64), sign * np.asarray(control.per_image, np.float64)


def _welch(mine: FloatArray, control: FloatArray) -> tuple[Interval, float]:
    """Difference of two means with Welch's interval and two-sided p-value; nothing is known from a single image."""
    gap = float(mine.mean() - control.mean())
    if min(len(mine), len(control)) < 2:
        return Interval(gap, -math.inf, math.inf), 1.0
    parts = [float(np.var(values, ddof=1)) / len(values) for values in (mine, control)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Interval(gap, gap, gap), 0.0 if gap else 1.0
    dof = error**4 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (mine, control), strict=True))
    half = float(stdtrit(dof, 1 - LEVEL / 2)) * error
    return Interval(gap, gap - half, gap + half), float(2 * stdtr(dof, -abs(gap) / error))


def _overlap(mine: FloatArray, control: FloatArray) -> float:
    """The chance that a control's image beats a method's: the Mann-Whitney statistic over all pairs."""
    ordered = np.sort(mine)
    below, upto = np.searchsorted(ordered, control, "left"), np.searchsorted(ordered, control, "right")
    return float((below + upto).mean() / 2 / len(mine))
