"""Equal cost: a method against the point of the fewer-steps curve that costs what it costs.

Between two rows the curve is the straight line: generating a share of the images with the more expensive row and the rest with
the cheaper one gives exactly that cost and that mean score. So no shape is assumed, and nothing is claimed beyond the ends. The
line lies below a concave curve: rows close to the method make the stronger rival, see :attr:`Rung.share`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.results import FloatArray
from harness.statistics.intervals import Estimate
from harness.statistics.means import accelerated
from harness.statistics.resampling import Units


@dataclass(frozen=True)
class Cost:
    """What a method costs: the estimate, bootstrap draws [B] of it, and their degrees of freedom (infinite where counted)."""

    value: float
    draws: FloatArray
    dof: float


@dataclass(frozen=True)
class Mixture:
    """Shares of the rows of a curve that together cost what a method costs: at the estimate [K], and in each draw [B, K]."""

    shares: FloatArray
    draws: FloatArray


def interpolation(at: FloatArray, knots: FloatArray) -> FloatArray:
    """Shares [B, K] that mix the two neighbours of ``at`` [B] among ``knots`` [B, K]; beyond the ends all is the end's.

    >>> interpolation(np.array([0.35]), np.array([[0.2, 0.4, 1.0]])).round(2)  # three step counts' costs
    array([[0.25, 0.75, 0.  ]])
    """
    order = np.argsort(knots, axis=1, kind="stable")
    sorted_knots = np.take_along_axis(knots, order, axis=1)
    last = knots.shape[1] - 1
    above = np.clip((sorted_knots <= at[:, None]).sum(axis=1), 0, last)
    below = np.clip(above - 1, 0, last)
    rows = np.arange(len(at))
    low, high = sorted_knots[rows, below], sorted_knots[rows, above]
    gap = high - low
    share = np.clip(np.divide(at - low, gap, out=np.ones_like(gap), where=gap > 0), 0, 1)
    shares = np.zeros_like(knots)
    np.add.at(shares, (rows, order[rows, below]), 1 - share)
    np.add.at(shares, (rows, order[rows, above]), share)
    return shares


def mix(method: Cost, rows: list[Cost]) -> Mixture:
    """The mixture of ``rows`` at the method's cost."""
    shares = interpolation(np.array([method.value]), np.array([[row.value for row in rows]]))[0]
    if math.isinf(method.dof) and all(math.isinf(row.dof) for row in rows):
        return Mixture(shares, shares[None, :])
    return Mixture(shares, interpolation(method.draws, np.column_stack([row.draws for row in rows])))


def advantage(
    units: Units, draws: FloatArray, method: int, rows: list[int], mixture: Mixture, cost_dof: float, sign: float
) -> Estimate:
    """Mean score of column ``method`` less that of the mixture of columns ``rows``, times ``sign`` (-1 where lower is better).

    ``draws`` [B, M] are those of ``units``. Draws of images and of rounds are independent; both enter the interval, with
    Welch and Satterthwaite's degrees of freedom.
    """
    shares, means = mixture.shares, units.means[rows]
    value = float(units.means[method] - means @ shares)
    influence = units.sums[:, method] - units.sums[:, rows] @ shares
    shift = (mixture.draws - shares) @ means
    centred = draws[:, method] - np.einsum("bk,bk->b", np.broadcast_to(mixture.draws, (len(draws), len(rows))), draws[:, rows])
    images = Units(np.zeros(1), influence[:, None], units.sizes)
    image_error = float(images.standard_errors[0])
    cost_error = float(np.std(shift)) * (math.sqrt((cost_dof + 1) / cost_dof) if 0 < cost_dof < math.inf else 1.0)
    error = math.hypot(image_error, cost_error)
    skew = float(images.accelerations[0]) * (image_error / error) ** 3 if 0 < error < math.inf else 0.0
    return accelerated(
        sign * (centred - shift), sign * value, error, sign * skew, _units(units.n, image_error, cost_error, cost_dof)
    )


def _units(n: int, image_error: float, cost_error: float, cost_dof: float) -> int:
    """As many units as have the degrees of freedom of both errors together; 1 where either error is unknown."""
    if n < 2 or cost_dof < 1:
        return 1
    both = image_error**2 + cost_error**2
    parts = image_error**4 / (n - 1) + cost_error**4 / cost_dof
    return max(2, math.floor(both**2 / parts) + 1) if parts > 0 else n
