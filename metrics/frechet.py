"""Fréchet distance between the features of generated images and of a fixed reference (Heusel et al., 2017, equation 6)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from harness.contracts import Batch, Direction, FloatArray
from harness.errors import ArtifactError
from metrics.base import BaseMetric, FeatureExtractor
from metrics.reference import Statistics, check_statistics

ROWS_PER_DIMENSION = 10
REMEDY = "write the reference again with this extractor"


@dataclass(frozen=True)
class Reference:
    """Features float32 [M, d] of real images; ``fingerprint`` holds at least ``extractor`` (digest) and ``data``."""

    features: FloatArray
    fingerprint: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 over fingerprint and features."""
        total = hashlib.sha256(json.dumps(dict(self.fingerprint), sort_keys=True).encode())
        total.update(np.ascontiguousarray(self.features, dtype=np.float32).tobytes())
        return total.hexdigest()[:16]


def describe_reference(extractor: FeatureExtractor, data: str) -> dict[str, str]:
    """The fingerprint to write beside features that ``extractor`` took from ``data`` (name, part, count, augmentation)."""
    return {**extractor.fingerprint(), "data": data}


def write_reference(path: Path, features: FloatArray, fingerprint: Mapping[str, str]) -> None:
    """Write features [M, d] and their fingerprint as one .npz, under a temporary name first."""
    missing = {"extractor", "data"} - set(fingerprint)
    if features.ndim != 2 or not np.isfinite(features).all() or missing:
        raise ArtifactError(
            expected="finite features [M, d] and a fingerprint with extractor and data",
            got=f"shape {list(features.shape)}, fingerprint without {sorted(missing)}",
            remedy="take the features with the extractor of the metric",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, features=features.astype(np.float32), fingerprint=np.array(json.dumps(dict(fingerprint), sort_keys=True)))
    os.replace(temporary, path)


def load_reference(path: Path, extractor: FeatureExtractor) -> Reference:
    """The reference at ``path``, refused unless ``extractor`` took it."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            reference = Reference(archive["features"], json.loads(str(archive["fingerprint"])))
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(expected=f"a feature reference at {path}", got=f"{error}", remedy=REMEDY) from error
    check_reference(reference, extractor)
    return reference


def check_reference(reference: Reference, extractor: FeatureExtractor) -> None:
    """Raise :class:`ArtifactError` unless digest and width agree and the reference has more rows than dimensions."""
    wanted, found = extractor.fingerprint()["extractor"], reference.fingerprint.get("extractor")
    if wanted != found:
        raise ArtifactError(expected=f"a reference taken by extractor {wanted}", got=f"extractor {found}", remedy=REMEDY)
    rows, width = reference.features.shape
    if width != extractor.width or rows <= width:
        raise ArtifactError(
            expected=f"a reference of width {extractor.width} with more than {extractor.width} rows",
            got=f"{rows} rows of width {width}",
            remedy=REMEDY,
        )


class _Given(nn.Module):
    """Stands where torchmetrics expects a network: its input already is the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def frechet_distance(features: FloatArray, reference: FloatArray) -> float:
    """torchmetrics' FID, in double precision, between features [N, d] and [M, d].

    Both are shifted by the reference mean first: the distance does not change, its sums of squares lose no digits.
    """
    centre = reference.astype(np.float64).mean(axis=0)
    fid = FrechetInceptionDistance(feature=_Given(features.shape[1]))
    fid.update(torch.from_numpy(reference.astype(np.float64) - centre), real=True)
    fid.update(torch.from_numpy(features.astype(np.float64) - centre), real=False)
    return float(fid.compute())


def _spectral(matrix: FloatArray, power: float) -> FloatArray:
    """A symmetric non-negative matrix to a power; directions that are zero up to rounding stay zero (pseudo-inverse)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    powers = np.where(kept, np.where(kept, values, 1) ** power, 0)
    result: FloatArray = (vectors * powers) @ vectors.T
    return result


def distance_to_statistics(features: FloatArray, reference: Statistics) -> float:
    """The Fréchet distance between features [N, d] and a reference of which only mean and covariance are known.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C2^1/2 C1 C2^1/2)^1/2), in double precision; the root is that of a symmetric matrix, whose
    eigenvalues are real, where the usual C1 C2 has complex ones by rounding.
    """
    x = features.astype(np.float64)
    covariance, root = np.cov(x, rowvar=False), _spectral(reference.covariance, 0.5)
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
    covariance, root = np.cov(x, rowvar=False), _spectral(reference.covariance, 0.5)
    excess = np.eye(x.shape[1]) - root @ _spectral(root @ covariance @ root, -0.5) @ root
    values = 2 * offset @ (x.mean(axis=0) - reference.mean) + np.einsum("ni,ij,nj->n", offset, excess, offset)
    centred: FloatArray = values - values.mean()
    return centred


class FrechetDistance(BaseMetric):
    """FID: 0 for equal means and covariances, in squared feature units, lower is better.

    Biased upwards at finite N by an amount that depends on the model, hence ``floor`` = 10 images a feature dimension.
    """

    name, title = "fid", "FID"
    direction: Direction = "lower"

    def __init__(self, features: FeatureExtractor, reference: Reference | Statistics, tiny: bool = False) -> None:
        if isinstance(reference, Statistics):
            check_statistics(reference, features)
        else:
            check_reference(reference, features)
        self.features, self.reference = features, reference
        self.floor = ROWS_PER_DIMENSION * features.width
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Extractor, reference, implementation."""
        if isinstance(self.reference, Statistics):
            shown = {"reference": self.reference.digest, "data": self.reference.data, "root": "symmetric, numpy"}
            return {**self.features.fingerprint(), **shown}
        shown = {"reference": self.reference.digest, "data": self.reference.fingerprint["data"]}
        return {**self.features.fingerprint(), **shown, "torchmetrics": version("torchmetrics")}

    def measure(self, batch: Batch) -> FloatArray:
        """Features, float32 [B, d]."""
        return self.features(batch.images).float().cpu().numpy()

    def summarise(self, measured: FloatArray) -> FloatArray:
        """Pseudo-values: the distance plus each image's influence on it; their mean is the distance."""
        x = self.checked(measured)
        if isinstance(self.reference, Statistics):
            return distance_to_statistics(x, self.reference) + influence_on(x, self.reference)
        return frechet_distance(x, self.reference.features) + influence(x, self.reference.features)
