"""Fréchet distance between the features of generated images and of a fixed reference (Heusel et al., 2017, equation 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.results import Direction, FloatArray
from metrics.base import FeatureExtractor, FeatureMetric
from metrics.moments import Statistics, check_statistics, spectral_power
from metrics.reference import Reference, check_reference

REFUSED_BELOW, ADVISED = 2, 10  # images a feature dimension


def frechet_distance(features: FloatArray, reference: FloatArray) -> float:
    """The distance between features [N, d] and [M, d]."""
    return distance_to_statistics(features, Statistics.of(reference, "features"))


def distance_to_statistics(features: FloatArray, reference: Statistics) -> float:
    """The Fréchet distance between features [N, d] and a reference's mean and covariance.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C2^1/2 C1 C2^1/2)^1/2), in double precision; the root is that of a symmetric matrix, whose
    eigenvalues are real, where the usual C1 C2 has complex ones by rounding.
    """
    x = features.astype(np.float64)
    covariance, root = np.atleast_2d(np.cov(x, rowvar=False)), reference.root
    eigenvalues = np.linalg.eigvalsh(root @ covariance @ root)
    shift = x.mean(axis=0) - reference.mean
    spread = np.trace(covariance) + np.trace(reference.covariance) - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    return float(shift @ shift + spread)


def influence(features: FloatArray, reference: FloatArray) -> FloatArray:
    """:func:`influence_on` with the mean and covariance of reference features [M, d]."""
    return influence_on(features, Statistics.of(reference, "features"))


def influence_on(features: FloatArray, reference: Statistics) -> FloatArray:
    """The first-order effect of each image on the Fréchet distance, float64 [N] with mean 0.

    With mean m1 and covariance C1 of the images and m2, C2 of the reference, the distance is
    |m1 - m2|^2 + tr(C1 + C2 - 2 M^1/2), M = C2^1/2 C1 C2^1/2. From d tr(M^1/2) = 1/2 tr(M^-1/2 dM) its differential is
    2 (m1 - m2) . dm1 + tr((I - A) dC1) with A = C2^1/2 M^-1/2 C2^1/2, the optimal transport map from C1 to C2. A point
    mass at x moves the mean by x - m1 and the covariance by (x - m1)(x - m1)^T - C1, so that

        influence(x) = 2 (m1 - m2) . (x - m1) + (x - m1)^T (I - A) (x - m1) - tr((I - A) C1).
    """
    x = features.astype(np.float64)
    offset = x - x.mean(axis=0)
    covariance, root = np.atleast_2d(np.cov(x, rowvar=False)), reference.root
    excess = np.eye(x.shape[1]) - root @ spectral_power(root @ covariance @ root, -0.5) @ root
    values = 2 * offset @ (x.mean(axis=0) - reference.mean) + ((offset @ excess) * offset).sum(axis=1)
    centred: FloatArray = values - values.mean()
    return centred


@dataclass(frozen=True)
class Kind:
    """One of the Fréchet distances: they differ only in the extractor."""

    name: str
    title: str


FID, SFID, FD_DINOV2 = Kind("fid", "FID"), Kind("sfid", "sFID"), Kind("fd_dinov2", "FD-DINOv2")
FD_EFFICIENTNET = Kind("fd_efficientnet", "FD-EfficientNet")


class FrechetDistance(FeatureMetric):
    """FID and other Fréchet distances: 0 for equal means and covariances, in squared feature units, lower is better.

    Biased upwards at finite N by an amount that depends on the model, hence refused below 2 images a feature dimension and
    watermarked below 10.
    """

    direction: Direction = "lower"
    counted = True
    range = (0.0, None)

    def __init__(
        self, features: FeatureExtractor, reference: Reference | Statistics, tiny: bool = False, kind: Kind = FID
    ) -> None:
        if isinstance(reference, Statistics):
            check_statistics(reference, features)
        else:
            check_reference(reference, features, least=features.width + 1)
        super().__init__(features)
        self.reference, self.name, self.title = reference, kind.name, kind.title
        self.floor, self.advised = REFUSED_BELOW * features.width, ADVISED * features.width
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Extractor, reference, implementation."""
        shown = {"reference": self.reference.digest, "data": self.reference.data, "root": "symmetric, numpy float64"}
        return {**self.features.fingerprint(), **shown}

    def values(self, measured: FloatArray) -> FloatArray:
        """Pseudo-values: the distance plus each image's influence on it; their mean is the distance."""
        moments = self.reference if isinstance(self.reference, Statistics) else self.reference.moments
        return distance_to_statistics(measured, moments) + influence_on(measured, moments)
