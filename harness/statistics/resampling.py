"""Bootstrap draws of many means at once: one matrix of multiplicities, shared by all columns, so that draws are paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from harness.results import FloatArray

RESAMPLES = 2000
CHUNK = 2**23  # multiplicities held at once: 64 MiB
Groups = npt.NDArray[np.intp]


def group_by(keys: Sequence[str]) -> Groups | None:
    """The number of each image's prompt [N], counted from 0; None where no prompt comes twice, so that images are units.

    >>> group_by(["a cat", "a dog", "a cat"])
    array([0, 1, 0])
    >>> group_by(["a cat", "a dog"]) is None
    True
    """
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return None if len(numbers) == len(keys) else np.array([numbers[key] for key in keys], dtype=np.intp)


@dataclass(frozen=True)
class Units:
    """Columns [N, K] added up within the units that are resampled: prompts [G] where prompts repeat, else images.

    ``sums`` [G, K] holds each unit's sum of deviations from the column's mean; ``sizes`` [G] its number of images.
    """

    means: FloatArray
    sums: FloatArray
    sizes: FloatArray

    @property
    def n(self) -> int:
        """Independent units."""
        return len(self.sizes)

    @property
    def images(self) -> float:
        """Images in all units."""
        return float(self.sizes.sum())

    @property
    def standard_errors(self) -> FloatArray:
        """Of each mean [K], robust to what images of one prompt share; infinite for one unit, 0 for equal values."""
        if self.n < 2:
            return np.full(len(self.means), np.inf)
        errors: FloatArray = np.sqrt(self.n / (self.n - 1) * (self.sums**2).sum(axis=0)) / self.images
        return errors

    @property
    def accelerations(self) -> FloatArray:
        """Efron's acceleration of each mean [K]: a sixth of the skewness of the units' influence on it; 0 for equal values."""
        spread = (self.sums**2).sum(axis=0) ** 1.5
        cubes = (self.sums**3).sum(axis=0)
        result: FloatArray = np.divide(cubes, 6 * spread, out=np.zeros_like(cubes), where=spread > 0)
        return result

    def draws(self, resamples: int = RESAMPLES, seed: int = 0) -> FloatArray:
        """Bootstrap draws of the means, less the means themselves [B, K]. The same seed gives the same units in each column."""
        parts = [(weights @ self.sums) / (weights @ self.sizes)[:, None] for weights in _weights(self.n, resamples, seed)]
        result: FloatArray = np.concatenate(parts)
        return result


def units_of(columns: FloatArray, groups: Groups | None = None) -> Units:
    """Columns float64 [N, K] as units; deviations that are rounding errors of their column count as 0."""
    means = columns.mean(axis=0)
    offset = columns - means
    offset[:, np.abs(offset).max(axis=0) <= 1e-12 * np.abs(columns).max(axis=0)] = 0
    if groups is None:
        return Units(means, offset, np.ones(len(columns)))
    sums = np.zeros((int(groups.max()) + 1, columns.shape[1]))
    np.add.at(sums, groups, offset)
    return Units(means, sums, np.bincount(groups).astype(np.float64))


def _weights(n: int, resamples: int, seed: int) -> Iterable[FloatArray]:
    """The same multiplicities [B, n] for every mean of n units, in parts of at most ``CHUNK`` numbers."""
    if n * resamples <= CHUNK // 4:
        return (_all_weights(n, resamples, seed),)
    rng, rows = np.random.default_rng(seed), max(1, CHUNK // n)
    return (multiplicities(rng, min(rows, resamples - start), n) for start in range(0, resamples, rows))


@lru_cache(maxsize=4)
def _all_weights(n: int, resamples: int, seed: int) -> FloatArray:
    """Kept, because a report asks for hundreds of means over the same images, and drawing takes longer than all the rest."""
    weights = multiplicities(np.random.default_rng(seed), resamples, n)
    weights.flags.writeable = False
    return weights


def multiplicities(rng: np.random.Generator, resamples: int, n: int) -> FloatArray:
    """How often each of n units is in each resample, float64 [B, n]; every row adds up to n."""
    picks = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    counts: FloatArray = np.bincount(picks.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)
    return counts
