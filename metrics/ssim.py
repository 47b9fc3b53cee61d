"""Structural similarity (Wang et al., 2004) to the full run's images from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from torchmetrics.functional.image import structural_similarity_index_measure

from harness.contracts import Batch
from harness.results import FloatArray
from metrics.base import BaseMetric, images_and_full, to_column


class Ssim(BaseMetric):
    """torchmetrics' SSIM with its 11x11 Gaussian window (deviation 1.5) on RGB in 0..1: at most 1, higher is better."""

    name, title, paired = "ssim", "SSIM to the full run", True

    def details(self) -> Mapping[str, str]:
        """The definition and its implementation."""
        definition = "11x11 Gaussian window 1.5, RGB 0..1, data range 1, reflected borders kept"
        return {"definition": definition, "torchmetrics": version("torchmetrics")}

    def measure(self, batch: Batch) -> FloatArray:
        """Similarities, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        found = structural_similarity_index_measure(
            images.float() / 255,
            full.float() / 255,
            gaussian_kernel=True,
            sigma=1.5,
            kernel_size=11,
            reduction="none",
            data_range=1.0,
        )
        values = found[0] if isinstance(found, tuple) else found
        identical = (images == full).flatten(1).all(dim=1)
        return to_column(values.masked_fill(identical, 1.0))  # float32 convolutions leave 0.99999
