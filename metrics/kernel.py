"""Kernel distances: KID (Binkowski et al., 2018), a cubic kernel, and CMMD (Jayasumana et al., 2024), a Gaussian one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.results import Direction, FloatArray
from metrics.base import FeatureExtractor, FeatureMetric
from metrics.reference import Reference, check_reference

Kernel = Callable[[FloatArray, FloatArray], FloatArray]
BLOCK = 1024  # rows of a kernel matrix held at once
SIGMA = 10.0  # CMMD's, for features of unit length


def polynomial_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """(x . y / d + 1)^3 for rows x [N, d] and y [M, d]: [N, M]."""
    table: FloatArray = (x @ y.T / x.shape[1] + 1) ** 3
    return table


def gaussian_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """exp(-|x - y|^2 / (2 sigma^2)) with sigma 10 for rows x [N, d] and y [M, d]: [N, M]."""
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
    table: FloatArray = np.exp(-squares / (2 * SIGMA**2))
    return table


def row_sums(kernel: Kernel, x: FloatArray, y: FloatArray) -> FloatArray:
    """Sums over the rows of the kernel matrix of x [N, d] and y [M, d], [N], a block of rows at a time."""
    return np.concatenate([kernel(x[i : i + BLOCK], y).sum(axis=1) for i in range(0, len(x), BLOCK)])


def diagonal(kernel: Kernel, x: FloatArray) -> FloatArray:
    """k(x_i, x_i), [N]."""
    return np.array([kernel(row[None], row[None])[0, 0] for row in x])


def within(kernel: Kernel, x: FloatArray, unbiased: bool) -> FloatArray:
    """The mean kernel of each row with the others (``unbiased``), or with all rows and itself, [N]."""
    sums = row_sums(kernel, x, x)
    return (sums - diagonal(kernel, x)) / (len(x) - 1) if unbiased else sums / len(x)


def pseudo_values(
    features: FloatArray,
    reference: FloatArray,
    kernel: Kernel = polynomial_kernel,
    *,
    unbiased: bool = True,
    reference_mean: float | None = None,
) -> FloatArray:
    """The squared MMD of features [N, d] against [M, d] plus each row's influence on it, float64 [N].

    MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j), over ALL pairs, those with i = j left out where
    ``unbiased``: averaging over random subsets, as other tools do, adds noise and removes nothing. The influence is twice
    the Hoeffding projection: of row i, its mean with the other rows less its mean with the reference, centred.
    ``reference_mean`` is the second term, where it is known already.
    """
    x, y = features.astype(np.float64), reference.astype(np.float64, copy=False)
    own, other = within(kernel, x, unbiased), row_sums(kernel, x, y) / len(y)
    among = float(within(kernel, y, unbiased).mean()) if reference_mean is None else reference_mean
    effect = 2 * (own - other)
    values: FloatArray = own.mean() + among - 2 * other.mean() + effect - effect.mean()
    return values


@dataclass(frozen=True)
class Kind:
    """One of the kernel distances."""

    name: str
    title: str
    kernel: Kernel
    text: str
    factor: float
    unbiased: bool


KID = Kind("kid", "KID", polynomial_kernel, "(x.y/d+1)^3, all pairs, unbiased", 1.0, True)
KD_EFFICIENTNET = Kind("kd_efficientnet", "KD-EfficientNet", KID.kernel, KID.text, KID.factor, KID.unbiased)
CMMD = Kind("cmmd", "CMMD", gaussian_kernel, "Gaussian, sigma 10, all pairs with the diagonal, x 1000", 1000.0, False)


class KernelDistance(FeatureMetric):
    """KID, of whichever features, has expectation 0 for equal distributions at any N (so it may be negative), not times 1000.

    CMMD is that of its authors: multiplied by 1000, and with the diagonal, so that it depends a little on N. Lower is better.
    """

    floor = advised = 2
    direction: Direction = "lower"

    def __init__(self, features: FeatureExtractor, reference: Reference, tiny: bool = False, kind: Kind = KID) -> None:
        check_reference(reference, features)
        super().__init__(features)
        self.reference, self.kind = reference, kind
        self.name, self.title, self.counted = kind.name, kind.title, not kind.unbiased
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Extractor, reference, kernel."""
        shown = {"reference": self.reference.digest, "data": self.reference.data}
        return {**self.features.fingerprint(), **shown, "kernel": self.kind.text}

    @cached_property
    def reference_mean(self) -> float:
        """The mean kernel among the reference's own rows."""
        return float(within(self.kind.kernel, self.reference.exact, self.kind.unbiased).mean())

    def values(self, measured: FloatArray) -> FloatArray:
        """Pseudo-values whose mean is the distance."""
        found = pseudo_values(
            measured, self.reference.exact, self.kind.kernel, unbiased=self.kind.unbiased, reference_mean=self.reference_mean
        )
        return self.kind.factor * found
