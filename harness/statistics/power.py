"""How small a difference a paired comparison can find, and how many images or rounds it needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit

LEVEL, POWER, MOST = 0.05, 0.8, 10**9


@dataclass(frozen=True)
class Design:
    """A two-sided test at ``level`` over all ``tests`` of a family (Bonferroni), that shall succeed with chance ``power``.

    A one-sided test of non-inferiority at half the level has the same numbers.
    """

    level: float = LEVEL
    power: float = POWER
    tests: int = 1

    def detectable(self, deviation: float, n: int) -> float:
        """The smallest true mean difference that n units of standard deviation ``deviation`` find; infinite for one unit."""
        if n < 2:
            return math.inf
        quantiles = stdtrit(n - 1, 1 - self.level / self.tests / 2) + stdtrit(n - 1, self.power)
        return float(quantiles) * deviation / math.sqrt(n)

    def needed(self, deviation: float, effect: float) -> int | None:
        """The fewest units that find ``effect``; None where not even a thousand million do (an effect of 0, say)."""
        low, high = 2, 4
        while effect <= 0 or self.detectable(deviation, high) > effect:
            if effect <= 0 or high > MOST:
                return None
            low, high = high, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.detectable(deviation, middle) <= effect else (middle + 1, high)
        return low
