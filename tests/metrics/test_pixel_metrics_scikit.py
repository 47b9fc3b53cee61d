"""PSNR and SSIM against scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.contracts import Batch
from metrics.psnr import Psnr
from metrics.ssim import Ssim
from tests.published import FULL_STACK, draw_images

skimage: Any = pytest.importorskip("skimage.metrics", reason=FULL_STACK)


def test_psnr_of_one_image_is_scikit_images() -> None:
    images, full = draw_images(3, side=40), draw_images(3, seed=1, side=40)
    for i in range(3):
        measured = Psnr().measure(Batch(images[i : i + 1], [""], [i], full[i : i + 1]))
        wanted = skimage.peak_signal_noise_ratio(full[i].numpy(), images[i].numpy(), data_range=255)
        assert Psnr().summarise(measured)[0] == pytest.approx(wanted, abs=1e-5)


def test_ssim_is_scikit_images_with_the_papers_window_and_reflected_borders() -> None:
    """scikit-image leaves the borders out of its mean; padding them first makes it keep exactly the original pixels."""
    images, full = draw_images(4, side=48), draw_images(4, seed=2, side=48)
    found = Ssim().measure(Batch(images, [""] * 4, range(4), full))[:, 0]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0, "data_range": 255}
    padded = [[np.pad(x[i].numpy(), ((0, 0), (5, 5), (5, 5)), mode="reflect") for x in (full, images)] for i in range(4)]
    wanted = [skimage.structural_similarity(*pair, **options) for pair in padded]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
