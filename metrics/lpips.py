"""LPIPS (Zhang et al., 2018) to the full run's images from the same noise."""

from __future__ import annotations

from collections.abc import Mapping

from harness.contracts import Batch
from harness.results import Direction, FloatArray
from metrics.base import BaseMetric, PairDistance, images_and_full, to_column


class LpipsDistance(BaseMetric):
    """0 for identical images, about 0.7 for unrelated ones; lower is better. Tables rarely say which backbone: AlexNet mostly."""

    paired = True
    direction: Direction = "lower"
    range = (0.0, None)

    def __init__(self, network: PairDistance, name: str = "lpips", title: str = "LPIPS (AlexNet) to the full run") -> None:
        self.network, self.name, self.title = network, name, title

    def details(self) -> Mapping[str, str]:
        """The network."""
        return self.network.fingerprint()

    def measure(self, batch: Batch) -> FloatArray:
        """Distances, float32 [B, 1]."""
        return to_column(self.network(*images_and_full(batch, self.title)))
