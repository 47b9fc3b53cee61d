"""Image reward (Xu et al., 2023): a learned preference score of an image for its prompt."""

from __future__ import annotations

from collections.abc import Mapping

from harness.contracts import Batch
from harness.results import FloatArray
from metrics.base import BaseMetric, PreferenceModel, to_column


class ImageReward(BaseMetric):
    """The model's standardised score: about mean 0 and deviation 1 over its training images, unbounded, higher is better."""

    name, title = "image_reward", "ImageReward"

    def __init__(self, model: PreferenceModel, tiny: bool = False) -> None:
        self.model = model
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """The model."""
        return self.model.fingerprint()

    def measure(self, batch: Batch) -> FloatArray:
        """Scores, float32 [B, 1]."""
        return to_column(self.model(batch.images, batch.prompts))
