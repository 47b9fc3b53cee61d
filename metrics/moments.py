"""Means and covariances of reference features, as the statistics files of other tools hold them.

Read are ``VIRTUAL_imagenet256_labeled.npz`` and the like (``mu``, ``sigma`` of pool features, ``mu_s``, ``sigma_s`` of spatial
ones, ``arr_0`` of images), and the files of pytorch-fid, clean-fid and torch-fidelity (``mu``, ``sigma``). None of them names
the network that took the features: only the width can be checked, and the file's digest goes into the fingerprint.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.arrays import array_names, read_arrays
from metrics.base import FeatureExtractor

SYMMETRY = 1e-4  # files of float32 sums are that far from symmetric, relative to the largest variance
REMEDY = "name a statistics file with keys mu and sigma, or a folder of images"


@dataclass(frozen=True)
class Statistics:
    """``mean`` float64 [d] and ``covariance`` float64 [d, d], normalised by n - 1; ``data`` says where they are from.

    ``extractor`` is the digest of the network that took the features, empty where the file does not say.
    """

    mean: FloatArray
    covariance: FloatArray
    data: str
    extractor: str = ""

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 over mean and covariance."""
        total = hashlib.sha256(np.ascontiguousarray(self.mean, dtype=np.float64).tobytes())
        total.update(np.ascontiguousarray(self.covariance, dtype=np.float64).tobytes())
        return total.hexdigest()[:16]

    @cached_property
    def root(self) -> FloatArray:
        """The symmetric square root of the covariance [d, d], which every Fréchet distance to it needs."""
        return spectral_power(self.covariance, 0.5)

    @classmethod
    def of(cls, features: FloatArray, data: str, extractor: str = "") -> Statistics:
        """The statistics of features [N, d], N > 1."""
        x = features.astype(np.float64, copy=False)
        return cls(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)), data, extractor)


def spectral_power(matrix: FloatArray, power: float) -> FloatArray:
    """A symmetric non-negative matrix to a power; directions that are zero up to rounding stay zero (pseudo-inverse)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
    powers = np.where(kept, np.where(kept, values, 1) ** power, 0)
    result: FloatArray = (vectors * powers) @ vectors.T
    return result


def holds_statistics(path: Path) -> bool:
    """Whether a file is an archive with a mean in it; a damaged one is not."""
    try:
        return "mu" in array_names(path)
    except ValueError:
        return False


COVARIANCE_BYTES = 128 * 2**20  # float64 of 4,096 features; Inception has 2,048


def read_statistics(path: Path, *, spatial: bool = False) -> Statistics:
    """A statistics file; ``spatial`` takes ADM's ``mu_s`` and ``sigma_s`` (for sFID). Raises :class:`ArtifactError`."""
    names = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    try:
        texts = [name for name in ("extractor", "data") if name in array_names(path)]
        arrays = read_arrays(path, (*names, *texts), COVARIANCE_BYTES)
        mean, covariance = (np.asarray(arrays[name], dtype=np.float64) for name in names)
    except ValueError as error:
        raise ArtifactError(expected=f"statistics {names[0]} and {names[1]} in {path}", got=str(error), remedy=REMEDY) from error
    _check_numbers(mean, covariance, path)
    data, extractor = (str(arrays[name]) if name in texts else "" for name in ("data", "extractor"))
    return Statistics(mean, (covariance + covariance.T) / 2, data or f"{path.name} ({names[0]}, {names[1]})", extractor)


def _check_numbers(mean: FloatArray, covariance: FloatArray, path: Path) -> None:
    """Refuse what is no mean and no covariance of one width."""
    shapes = f"shapes {list(mean.shape)} and {list(covariance.shape)}"
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise ArtifactError(expected=f"a mean [d] and a covariance [d, d] in {path}", got=shapes, remedy=REMEDY)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ArtifactError(expected=f"finite statistics in {path}", got="NaN or infinity", remedy="download it again")
    scale = np.abs(covariance.diagonal()).max()
    if covariance.diagonal().min() < 0 or np.abs(covariance - covariance.T).max() > SYMMETRY * scale:
        raise ArtifactError(
            expected=f"a covariance in {path}", got="a matrix that is not symmetric with variances >= 0", remedy=REMEDY
        )


def check_statistics(statistics: Statistics, extractor: FeatureExtractor) -> None:
    """Raise :class:`ArtifactError` unless the width agrees, and the extractor where the file names one."""
    wanted = extractor.fingerprint()["extractor"]
    if statistics.mean.size != extractor.width:
        raise ArtifactError(
            expected=f"reference statistics of width {extractor.width}, the extractor's",
            got=f"width {statistics.mean.size} in {statistics.data}",
            remedy="name statistics that were taken with this extractor",
        )
    if statistics.extractor not in ("", wanted):
        raise ArtifactError(
            expected=f"statistics taken by extractor {wanted}",
            got=f"extractor {statistics.extractor} in {statistics.data}",
            remedy="name statistics that were taken with this extractor",
        )
