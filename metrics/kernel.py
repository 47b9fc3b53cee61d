"""Kernel distance (KID, Binkowski et al., 2018): the unbiased squared MMD under a cubic polynomial kernel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.contracts import Batch, Direction, FloatArray
from metrics.base import BaseMetric, FeatureExtractor
from metrics.frechet import Reference, check_reference


def polynomial_kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    """(x . y / d + 1)^3 for rows x [N, d] and y [M, d]: [N, M]."""
    table: FloatArray = (x @ y.T / x.shape[1] + 1) ** 3
    return table


def pseudo_values(features: FloatArray, reference: FloatArray) -> FloatArray:
    """The unbiased MMD^2 of features [N, d] against [M, d] plus each row's influence on it, float64 [N].

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j), over ALL pairs: torchmetrics
    averages it over random subsets of the same estimator, which adds noise and removes nothing. The influence is twice the
    Hoeffding projection: of row i, its mean with the other rows less its mean with the reference, centred.
    """
    x, y = features.astype(np.float64), reference.astype(np.float64)
    n, m = len(x), len(y)
    xx, yy, xy = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    own = (xx.sum(axis=1) - xx.diagonal()) / (n - 1)
    other = xy.mean(axis=1)
    value = own.mean() + (yy.sum() - np.trace(yy)) / (m * (m - 1)) - 2 * other.mean()
    effect = 2 * (own - other)
    values: FloatArray = value + effect - effect.mean()
    return values


class KernelDistance(BaseMetric):
    """KID: expectation 0 for equal distributions at any N (so it may be negative), lower is better; not multiplied by 1000."""

    name, title, floor = "kid", "KID", 2
    direction: Direction = "lower"

    def __init__(self, features: FeatureExtractor, reference: Reference, tiny: bool = False) -> None:
        check_reference(reference, features)
        self.features, self.reference = features, reference
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Extractor, reference, kernel."""
        shown = {"reference": self.reference.digest, "data": self.reference.fingerprint["data"]}
        return {**self.features.fingerprint(), **shown, "kernel": "(x.y/d+1)^3, all pairs, unbiased"}

    def measure(self, batch: Batch) -> FloatArray:
        """Features, float32 [B, d]."""
        return self.features(batch.images).float().cpu().numpy()

    def summarise(self, measured: FloatArray) -> FloatArray:
        """Pseudo-values whose mean is the distance."""
        return pseudo_values(self.checked(measured), self.reference.features)
