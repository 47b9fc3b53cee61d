"""Where a series of runs moved: the commit at which a number went to another level, distinguished from noise.

Circular binary segmentation (Olshen et al. 2004). Every stretch of a series of n values is compared with the rest by Student's
two-sample t with pooled variance; the largest makes its edges change points where its p-value, times the number of stretches
that were tried (Bonferroni), is below the level. The parts are then searched in the same way. The noise comes from the series
itself, so a noisy machine needs a larger change or more runs; a level needs three runs, so that an odd run or two are none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import stdtr

from harness.results import FloatArray

LEVEL = 0.001  # for one series: a page of 80 shows a false change less than once in ten times
LEAST = 3  # runs a level


@dataclass(frozen=True)
class ChangePoint:
    """``index``: the first value on the new level. ``before`` and ``after``: the means on both sides, up to the next one."""

    index: int
    before: float
    after: float
    p: float


def find_change_points(values: FloatArray, floor: float = 0.0) -> list[ChangePoint]:
    """Change points of ``values`` [n], finite and in time order, from the first to the last.

    ``floor`` is the least standard deviation to assume: values that repeat exactly are no proof that a tiny move is one.
    """
    found = dict(_search(np.asarray(values, np.float64), 0, floor))
    edges = [0, *sorted(found), len(values)]
    means = [float(np.mean(values[a:b])) for a, b in pairwise(edges) if b > a]
    return [ChangePoint(index, means[i], means[i + 1], found[index]) for i, index in enumerate(sorted(found))]


def _search(values: FloatArray, offset: int, floor: float) -> Iterator[tuple[int, float]]:
    """(index, p) of each change."""
    n = len(values)
    if n < 2 * LEAST:
        return
    start, end, p = _clearest_stretch(values, floor)
    if p >= LEVEL:
        return
    for edge in (start, end):
        if 0 < edge < n:
            yield offset + edge, p
    for first, last in pairwise(sorted({0, start, end, n})):
        yield from _search(values[first:last], offset + first, floor)


def _clearest_stretch(values: FloatArray, floor: float) -> tuple[int, int, float]:
    """Start, end and adjusted p-value of the stretch that differs most from the rest."""
    n, centred = len(values), values - values.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])
    start, end = np.triu_indices(n + 1, LEAST)
    allowed = (end - start <= n - LEAST) & ((start == 0) | (start >= LEAST)) & ((end == n) | (end <= n - LEAST))
    start, end = start[allowed], end[allowed]
    size = end - start
    inside = sums[end] - sums[start]
    between = inside**2 * (1 / size + 1 / (n - size))
    within = np.maximum(float(centred @ centred) - between, 0.0) / (n - 2)
    rounding = (1e-12 * float(np.max(np.abs(values), initial=0.0))) ** 2
    t = np.sqrt(between / np.maximum(within, max(floor**2, rounding, 1e-300)))
    best = int(np.argmax(t))
    return int(start[best]), int(end[best]), min(1.0, 2 * float(stdtr(n - 2, -t[best])) * len(t))
