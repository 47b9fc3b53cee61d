"""Distance to the full run's images from the same noise in a feature space that no method is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.contracts import Batch
from harness.results import Direction, FloatArray
from metrics.base import BaseMetric, FeatureExtractor, images_and_full, to_column


@dataclass(frozen=True)
class Kind:
    """One of the distances: they differ only in the extractor."""

    name: str
    title: str


FIDELITY = Kind("feature_distance", "Feature distance to the full run")
EFFICIENTNET = Kind("distance_efficientnet", "EfficientNet distance to the full run")


class FeatureDistance(BaseMetric):
    """Euclidean distance between the features of an image and of the full run's: 0 for identical images, lower is better."""

    paired = True
    direction: Direction = "lower"
    range = (0.0, None)

    def __init__(self, features: FeatureExtractor, tiny: bool = False, kind: Kind = FIDELITY) -> None:
        self.features, self.name, self.title = features, kind.name, kind.title
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """The extractor."""
        return {**self.features.fingerprint(), "distance": "L2"}

    def measure(self, batch: Batch) -> FloatArray:
        """Distances, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        return to_column((self.features(images) - self.features(full)).norm(dim=-1))
