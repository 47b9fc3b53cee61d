"""Peak signal-to-noise ratio against the full run's images from the same noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.contracts import Batch, Unmeasurable
from harness.results import FloatArray
from metrics.base import BaseMetric, images_and_full, to_column


class Psnr(BaseMetric):
    """10 log10(1 / mean MSE) in dB with pixels in 0..1, higher is better.

    The mean is over images BEFORE the logarithm: a mean of per-image ratios is infinite as soon as one image is identical.
    """

    name, title, unit, paired = "psnr", "PSNR to the full run", "dB", True
    range = (0.0, None)

    def details(self) -> Mapping[str, str]:
        """The definition."""
        return {"definition": "10 log10(1/mean over images of MSE), RGB 0..1"}

    def measure(self, batch: Batch) -> FloatArray:
        """Mean squared error of each image over pixels and channels, 0..1, float32 [B, 1]."""
        images, full = images_and_full(batch, self.title)
        return to_column(((images.double() - full.double()) / 255).square().mean(dim=(1, 2, 3)))

    def per_image(self, measured: FloatArray) -> FloatArray:
        """The PSNR of each image in dB, infinite for one that is identical to the full run's."""
        with np.errstate(divide="ignore"):
            found: FloatArray = -10 * np.log10(measured[:, 0])
        return found

    def values(self, measured: FloatArray) -> FloatArray:
        """Pseudo-values by the delta method: PSNR - 10 / ln 10 * (MSE_i - mean) / mean; their mean is the PSNR."""
        error = measured[:, 0]
        mean = error.mean()
        if mean == 0:
            raise Unmeasurable("identical to the full run: PSNR is infinite")
        values: FloatArray = -10 * np.log10(mean) - 10 / math.log(10) * (error / mean - 1)
        return values
