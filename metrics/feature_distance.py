"""Distance to the full run's images from the same noise in a feature space that no method is trained on."""

from __future__ import annotations

from collections.abc import Mapping

from harness.contracts import Batch
from harness.results import Direction, FloatArray
from metrics.base import BaseMetric, FeatureExtractor, images_and_full, to_column


class FeatureDistance(BaseMetric):
    """Euclidean distance between the features of an image and of the full run's: 0 for identical images, lower is better."""

    name, title, paired = "feature_distance", "Feature distance to the full run", True
    direction: Direction = "lower"

    def __init__(self, features: FeatureExtractor, tiny: bool = False) -> None:
        self.features = features
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """The extractor."""
        return {**self.features.fingerprint(), "distance": "L2"}

    def measure(self, batch: Batch) -> FloatArray:
        """Distances, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        return to_column((self.features(images) - self.features(full)).norm(dim=-1))
