"""The fixed set that distribution metrics compare with: features of real images, and where they came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import ArtifactError
from harness.results import FloatArray
from harness.storage.arrays import read_arrays
from harness.storage.documents import parse_json
from harness.storage.files import replacing
from metrics.base import FeatureExtractor
from metrics.moments import Statistics

REMEDY = "write the reference again with this extractor"


@dataclass(frozen=True)
class Reference:
    """Features float32 [M, d] of real images; ``fingerprint`` holds at least ``extractor`` (digest) and ``data``."""

    features: FloatArray
    fingerprint: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 over fingerprint and features."""
        total = hashlib.sha256(json.dumps(dict(self.fingerprint), sort_keys=True).encode())
        total.update(np.ascontiguousarray(self.features, dtype=np.float32).tobytes())
        return total.hexdigest()[:16]

    @property
    def data(self) -> str:
        """What was measured: name, part, count."""
        return self.fingerprint["data"]

    @cached_property
    def exact(self) -> FloatArray:
        """The features as float64 [M, d], one copy for all metrics that compare with them."""
        return self.features.astype(np.float64)

    @cached_property
    def moments(self) -> Statistics:
        """Mean and covariance, for a Fréchet distance."""
        return Statistics.of(self.exact, self.data, self.fingerprint["extractor"])


def describe_reference(extractor: FeatureExtractor, data: str) -> dict[str, str]:
    """The fingerprint to write beside features that ``extractor`` took from ``data`` (name, part, count, augmentation)."""
    return {**extractor.fingerprint(), "data": data}


def write_reference(
    path: Path, features: FloatArray, fingerprint: Mapping[str, str], images: npt.NDArray[np.uint8] | None = None
) -> None:
    """Write features [M, d] and their fingerprint as one .npz, under a temporary name first.

    ``images`` uint8 [M, 3, H, W] go beside them, for extractors that are not known yet.
    """
    missing = {"extractor", "data"} - set(fingerprint)
    if features.ndim != 2 or not np.isfinite(features).all() or missing:
        raise ArtifactError(
            expected="finite features [M, d] and a fingerprint with extractor and data",
            got=f"shape {list(features.shape)}, fingerprint without {sorted(missing)}",
            remedy="take the features with the extractor of the metric",
        )
    content: dict[str, Any] = {
        "features": features.astype(np.float32),
        "fingerprint": np.array(json.dumps(dict(fingerprint), sort_keys=True)),
    }
    with replacing(path) as file:
        if images is None:
            np.savez(file, **content)
        else:
            np.savez_compressed(file, images=images, **content)


def load_reference(path: Path, extractor: FeatureExtractor) -> Reference:
    """The reference at ``path``, refused unless ``extractor`` took it."""
    try:
        reference = Reference(read_arrays(path, ("features",))["features"], read_fingerprint(path))
        _check_features(reference.features)
    except ValueError as error:
        raise ArtifactError(expected=f"a feature reference at {path}", got=str(error), remedy=REMEDY) from error
    check_reference(reference, extractor)
    return reference


def read_fingerprint(path: Path) -> dict[str, str]:
    """What took the features in a file, and of what. Raises :class:`ValueError` where the file does not say."""
    found = parse_json(str(read_arrays(path, ("fingerprint",))["fingerprint"]).encode())
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("a fingerprint that is no table of texts")
    if missing := {"extractor", "data"} - set(found):
        raise ValueError(f"a fingerprint without {', '.join(sorted(missing))}")
    return found


def _check_features(features: FloatArray) -> None:
    """Raise :class:`ValueError` on what is no features."""
    if features.ndim != 2 or features.dtype.kind != "f" or not np.isfinite(features).all():
        raise ValueError(f"{features.dtype} of shape {list(features.shape)} where finite features [M, d] are expected")


def check_reference(reference: Reference, extractor: FeatureExtractor, least: int = 2) -> None:
    """Raise :class:`ArtifactError` unless digest and width agree and the reference has at least ``least`` rows."""
    wanted, found = extractor.fingerprint()["extractor"], reference.fingerprint.get("extractor")
    if wanted != found:
        raise ArtifactError(expected=f"a reference taken by extractor {wanted}", got=f"extractor {found}", remedy=REMEDY)
    rows, width = reference.features.shape
    if width != extractor.width or rows < least:
        raise ArtifactError(
            expected=f"a reference of width {extractor.width} with at least {least} rows",
            got=f"{rows} rows of width {width}",
            remedy=REMEDY,
        )
