"""Precision and recall (Kynkäänniemi et al., 2019): how many images look real, and how much of the real there is."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np

from harness.results import FloatArray
from metrics.base import FeatureExtractor, FeatureMetric
from metrics.reference import Reference, check_reference

NEIGHBOURS = 3
BLOCK = 1024  # rows of a distance matrix held at once
Side = Literal["precision", "recall"]


def squared_distances(x: FloatArray, y: FloatArray) -> FloatArray:
    """|x_i - y_j|^2 for rows x [N, d] and y [M, d]: [N, M], float64."""
    table: FloatArray = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2 * x @ y.T
    return table.clip(0)


def squared_radii(x: FloatArray) -> FloatArray:
    """The squared distance of each row [N, d] to its third nearest other row, [N]."""
    found = []
    for start in range(0, len(x), BLOCK):
        table = squared_distances(x[start : start + BLOCK], x)
        rows = np.arange(len(table))
        table[rows, start + rows] = 0.0  # exactly: rounding leaves a little
        found.append(np.partition(table, NEIGHBOURS, axis=1)[:, NEIGHBOURS])
    return np.concatenate(found)


def covered(points: FloatArray, centres: FloatArray, radii: FloatArray) -> tuple[FloatArray, FloatArray]:
    """For each point [N, d], in how many of the balls around the centres [M, d] it lies, and the last of these."""
    counts, last = [], []
    for start in range(0, len(points), BLOCK):
        inside = squared_distances(points[start : start + BLOCK], centres) <= radii
        counts.append(inside.sum(axis=1))
        last.append(inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1))
    return np.concatenate(counts), np.concatenate(last)


def precision_values(features: FloatArray, reference: FloatArray, radii: FloatArray) -> FloatArray:
    """1 for each image that lies within reach of a real one, else 0, float64 [N]."""
    return (covered(features, reference, radii)[0] > 0).astype(np.float64)


def recall_values(features: FloatArray, reference: FloatArray) -> FloatArray:
    """Recall plus each image's influence on it, float64 [N].

    Recall is the share of real images within reach of a generated one. Without image i it would lose those that only i
    reaches; by how much, times N - 1, is that image's influence (the jackknife with the balls of the others held fixed).
    """
    counts, only = covered(reference, features, squared_radii(features))
    alone = np.bincount(only[counts == 1].astype(np.int64), minlength=len(features)) / len(reference)
    effect = (len(features) - 1) * alone
    values: FloatArray = (counts > 0).mean() + effect - effect.mean()
    return values


class Manifold(FeatureMetric):
    """Precision or recall in 0..1, higher is better, with three neighbours in the features of FID. Both depend on N."""

    unit = "share"
    range = (0.0, 1.0)
    floor = advised = NEIGHBOURS + 1
    counted = True

    def __init__(self, features: FeatureExtractor, reference: Reference, side: Side, tiny: bool = False) -> None:
        check_reference(reference, features)
        super().__init__(features)
        self.reference, self.side = reference, side
        self.name, self.title = side, side.capitalize()
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Extractor, reference, neighbours."""
        shown = {"reference": self.reference.digest, "data": self.reference.data, "neighbours": str(NEIGHBOURS)}
        return {**self.features.fingerprint(), **shown}

    @cached_property
    def _radii(self) -> FloatArray:
        return squared_radii(self.reference.exact)

    def per_image(self, measured: FloatArray) -> FloatArray | None:
        """Precision: 1 for an image within reach of a real one, else 0. Recall counts real images, not these."""
        return self.values(measured) if self.side == "precision" else None

    def values(self, measured: FloatArray) -> FloatArray:
        """A value an image whose mean is the score."""
        if self.side == "precision":
            return precision_values(measured, self.reference.exact, self._radii)
        return recall_values(measured, self.reference.exact)
