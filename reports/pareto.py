"""The Pareto front of cost against a value, for any metric direction."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.contracts import Direction


def pareto_front(costs: Sequence[float], values: Sequence[float], direction: Direction) -> list[int]:
    """Indices of the points that no other point beats, cheapest first.

    A point is beaten by one that is at least as good on both axes and strictly better on one, so exact ties both stay.
    Lower cost is better; ``direction`` says which value is. Raises ValueError on unequal lengths or a NaN.
    """
    if len(costs) != len(values):
        raise ValueError(f"expected as many values as costs; got {len(values)} and {len(costs)}")
    if any(math.isnan(number) for number in (*costs, *values)):
        raise ValueError("a NaN has no place on a Pareto front; leave failed methods out")
    losses = [-value if direction == "higher" else value for value in values]
    points = list(zip(costs, losses, strict=True))
    front = [i for i, point in enumerate(points) if not any(_beats(other, point) for other in points)]
    return sorted(front, key=lambda i: (points[i], i))


def _beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a != b
