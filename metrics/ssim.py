"""Structural similarity (Wang et al., 2004) to the full run's images from the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

import torch
import torch.nn.functional as F

from harness.contracts import Batch, Unmeasurable
from harness.results import FloatArray
from metrics.base import BaseMetric, images_and_full, to_column

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of Wang et al., 2003, full resolution first
LEAST_SIDE = 161  # pixels: below, the coarsest scale is smaller than the window
WINDOW = "11x11 Gaussian window 1.5, RGB 0..1, data range 1, reflected borders kept"


def similarities(images: torch.Tensor, full: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SSIM and its contrast-structure part, each [B], for two batches [B, 3, H, W] in 0..1."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds

    found = structural_similarity_index_measure(
        images,
        full,
        gaussian_kernel=True,
        sigma=1.5,
        kernel_size=11,
        reduction="none",
        data_range=1.0,
        return_contrast_sensitivity=True,
    )
    similarity, contrast = found
    return similarity, contrast


class Ssim(BaseMetric):
    """torchmetrics' SSIM with its 11x11 Gaussian window (deviation 1.5) on RGB in 0..1: at most 1, higher is better."""

    name, title, paired = "ssim", "SSIM to the full run", True
    range = (-1.0, 1.0)

    def details(self) -> Mapping[str, str]:
        """The definition and its implementation."""
        return {"definition": WINDOW, "torchmetrics": version("torchmetrics")}

    def measure(self, batch: Batch) -> FloatArray:
        """Similarities, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        return _exact(similarities(images.float() / 255, full.float() / 255)[0], images, full)


class MsSsim(BaseMetric):
    """Multi-scale SSIM (Wang et al., 2003): contrast and structure at five scales, luminance at the coarsest; at most 1, higher
    is better. Not measured below 161 pixels.
    """

    name, title, paired = "ms_ssim", "MS-SSIM to the full run", True
    range = (0.0, 1.0)

    def details(self) -> Mapping[str, str]:
        """The definition and its implementation."""
        scales = f"exponents {SCALES}, 2x2 means between scales, negative terms 0"
        return {"definition": f"{WINDOW}; {scales}", "torchmetrics": version("torchmetrics")}

    def measure(self, batch: Batch) -> FloatArray:
        """Similarities, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        if min(images.shape[2:]) < LEAST_SIDE:
            raise Unmeasurable(
                f"NOT-MEASURED: {self.title}: expected images of at least {LEAST_SIDE} x {LEAST_SIDE}; "
                f"got {images.shape[2]} x {images.shape[3]}; remedy: use ssim"
            )
        left, right = images.float() / 255, full.float() / 255
        product = torch.ones(len(images), device=left.device)
        for scale, exponent in enumerate(SCALES):
            similarity, contrast = similarities(left, right)
            term = similarity if scale == len(SCALES) - 1 else contrast
            product = product * term.clamp(min=0) ** exponent
            left, right = F.avg_pool2d(left, 2), F.avg_pool2d(right, 2)
        return _exact(product, images, full)


def _exact(values: torch.Tensor, images: torch.Tensor, full: torch.Tensor) -> FloatArray:
    """A column of similarities [B, 1] in which identical images have 1: float32 convolutions leave 0.99999."""
    return to_column(values.masked_fill((images == full).flatten(1).all(dim=1), 1.0))
