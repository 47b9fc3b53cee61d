"""Means and covariances of reference features: the statistics files that other tools write, or those of an image folder.

Read are ``VIRTUAL_imagenet256_labeled.npz`` and its kin (``mu``, ``sigma`` of pool features, ``mu_s``, ``sigma_s`` of spatial
ones, ``arr_0`` of images), and the files of pytorch-fid, clean-fid and torch-fidelity (``mu``, ``sigma``). None of them names
the network that took the features: only the width can be checked, and the file's digest goes into the fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from harness.contracts import FloatArray
from harness.errors import ArtifactError
from harness.samples import decode_image
from metrics.base import FeatureExtractor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
BATCH = 64
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

    @classmethod
    def of(cls, features: FloatArray, data: str, extractor: str = "") -> Statistics:
        """The statistics of features [N, d], N > 1."""
        x = features.astype(np.float64)
        return cls(x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False)), data, extractor)


def holds_statistics(path: Path) -> bool:
    """Whether a file is an archive with a mean in it; a damaged one is not."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return "mu" in archive
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return False


def read_statistics(path: Path, *, spatial: bool = False) -> Statistics:
    """A statistics file; ``spatial`` takes ADM's ``mu_s`` and ``sigma_s`` (for sFID). Raises :class:`ArtifactError`."""
    names = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
    try:
        with np.load(path, allow_pickle=False) as archive:
            mean, covariance = (np.asarray(archive[name], dtype=np.float64) for name in names)
            extractor = str(archive["extractor"]) if "extractor" in archive else ""
            data = str(archive["data"]) if "data" in archive else f"{path.name} ({names[0]}, {names[1]})"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(expected=f"statistics {names[0]} and {names[1]} in {path}", got=str(error), remedy=REMEDY) from error
    _check_numbers(mean, covariance, path)
    return Statistics(mean, (covariance + covariance.T) / 2, data, extractor)


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
            expected=f"statistics taken by extractor {wanted}", got=f"extractor {statistics.extractor} in {statistics.data}",
            remedy="name statistics that were taken with this extractor",
        )  # fmt: skip


def cache_folder() -> Path:
    """Where statistics of image folders are kept: ``$XDG_CACHE_HOME/ilf-bench/references``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ilf-bench" / "references"


def folder_statistics(folder: Path, extractor: FeatureExtractor, cache: Path | None = None) -> Statistics:
    """The statistics of a folder's images, taken once for each content and extractor.

    The key is a digest of the files' contents (not of their names or order) and of the extractor's fingerprint. Raises
    :class:`ArtifactError` on a damaged image, on images of several sizes, and on no more images than the extractor's width.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if len(files) <= extractor.width:
        raise ArtifactError(
            expected=f"more than {extractor.width} images in {folder}, the width of the features", got=str(len(files)),
            remedy="add images, or name a statistics file",
        )  # fmt: skip
    contents = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    files.sort(key=lambda path: (contents[path], path.name))
    content = "".join(sorted(contents.values())) + json.dumps(dict(extractor.fingerprint()), sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    kept = (cache or cache_folder()) / f"{key}.npz"
    if kept.exists():
        return read_statistics(kept)
    features = _features(files, extractor)
    statistics = Statistics.of(features, f"{len(files)} images, content {key}", extractor.fingerprint()["extractor"])
    write_statistics(kept, statistics)
    return statistics


def _features(files: Sequence[Path], extractor: FeatureExtractor) -> FloatArray:
    """float32 [N, d], streaming over files of one size."""
    rows = []
    size = tuple(decode_image(files[0]).shape)
    for start in range(0, len(files), BATCH):
        images = [decode_image(path) for path in files[start : start + BATCH]]
        for path, image in zip(files[start:], images, strict=False):
            if tuple(image.shape) != size:
                raise ArtifactError(
                    expected=f"images of one size, {size[2]} x {size[1]}", got=f"{image.shape[2]} x {image.shape[1]}: {path}",
                    remedy="resize the references as their benchmark prescribes",
                )  # fmt: skip
        rows.append(extractor(torch.stack(images)).float().cpu().numpy())
    return np.concatenate(rows)


def write_statistics(path: Path, statistics: Statistics) -> None:
    """An ``.npz`` that pytorch-fid, clean-fid and torch-fidelity can read too; under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(
            file, mu=statistics.mean, sigma=statistics.covariance, data=np.array(statistics.data),
            extractor=np.array(statistics.extractor),
        )  # fmt: skip
    os.replace(temporary, path)
