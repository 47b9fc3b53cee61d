"""Distances to the full run: identities, closed forms and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.contracts import Batch, Metric, Unmeasurable
from harness.errors import UsageError
from metrics.bundled.degradations import NOISE_STD
from metrics.context import MetricContext
from metrics.feature_distance import FeatureDistance
from metrics.psnr import Psnr
from metrics.ssim import Ssim

Draw = Callable[..., torch.Tensor]


def pair(images: torch.Tensor, full: torch.Tensor) -> Batch:
    return Batch(images, [""] * len(images), range(len(images)), full)


def test_psnr_of_a_constant_offset_is_its_closed_form(random_images: Draw) -> None:
    full = random_images(6) // 2
    values = Psnr().summarise(Psnr().measure(pair(full + 51, full)))
    assert values.mean() == pytest.approx(20 * math.log10(5), rel=1e-6)
    np.testing.assert_allclose(values, values[0], rtol=1e-6)


def test_psnr_averages_errors_before_the_logarithm(random_images: Draw) -> None:
    full = random_images(4) // 2
    images = full.clone()
    images[0] += 51
    values = Psnr().summarise(Psnr().measure(pair(images, full)))
    assert values.mean() == pytest.approx(10 * math.log10(25 * 4), rel=1e-6)
    assert np.isfinite(values).all() and values[0] < values[1]


def test_psnr_of_each_image_is_its_own(random_images: Draw) -> None:
    """Influence values are none: where one image is far worse than the others, theirs are below 0 dB or above what they have."""
    full = random_images(4) // 2
    images = full.clone()
    images[0] += 51
    images[1] += 1
    measured = Psnr().measure(pair(images, full))
    own = Psnr().per_image(measured)
    assert own[:2] == pytest.approx([20 * math.log10(5), 20 * math.log10(255)], rel=1e-6) and np.isposinf(own[2:]).all()
    assert abs(Psnr().summarise(measured)[1] - own[1]) > 10


def test_psnr_pseudo_values_agree_with_leaving_one_out() -> None:
    error = np.random.default_rng(0).uniform(0.01, 0.05, size=(400, 1)).astype(np.float32)
    values = Psnr().summarise(error)
    left_out = np.array([-10 * np.log10(np.delete(error[:, 0], i).mean()) for i in range(400)])
    jackknife = 400 * values.mean() - 399 * left_out
    np.testing.assert_allclose(values, jackknife, atol=0.05)


def test_psnr_of_the_identical_run_is_unmeasurable(random_images: Draw) -> None:
    measured = Psnr().measure(pair(random_images(3), random_images(3)))
    with pytest.raises(Unmeasurable, match="identical to the full run: PSNR is infinite"):
        Psnr().summarise(measured)


def test_ssim_of_identical_images_is_one_and_falls_with_noise(random_images: Draw) -> None:
    full = random_images(3)
    np.testing.assert_allclose(Ssim().measure(pair(full, full)), 1, atol=1e-5)
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(0))
    means = [
        Ssim().measure(pair((full + s * NOISE_STD * noise).clamp(0, 255).to(torch.uint8), full)).mean() for s in (0.1, 0.4, 1.0)
    ]
    assert 1 > means[0] > means[1] > means[2]


def test_ssim_of_two_flat_images_is_its_closed_form() -> None:
    images, full = torch.full((1, 3, 32, 32), 51, dtype=torch.uint8), torch.full((1, 3, 32, 32), 102, dtype=torch.uint8)
    small = 0.01**2
    wanted = (2 * 0.2 * 0.4 + small) / (0.2**2 + 0.4**2 + small)
    measured = Ssim().measure(pair(images, full))
    assert measured.shape == (1, 1)
    assert measured[0, 0] == pytest.approx(wanted, abs=1e-3)


def test_feature_distance_is_the_norm_of_the_difference(context: MetricContext, random_images: Draw) -> None:
    metric = FeatureDistance(context.networks.fidelity_features, tiny=True)
    images, full = random_images(4), random_images(4, seed=3)
    a, b = context.networks.fidelity_features(images).numpy(), context.networks.fidelity_features(full).numpy()
    np.testing.assert_allclose(metric.measure(pair(images, full))[:, 0], np.sqrt(((a - b) ** 2).sum(1)), rtol=1e-4)
    assert (metric.measure(pair(full, full)) == 0).all()


@pytest.mark.parametrize("name", ["psnr", "ssim", "feature_distance"])
def test_without_the_full_run_it_is_refused(context: MetricContext, random_images: Draw, name: str) -> None:
    metrics: dict[str, Metric] = {
        "psnr": Psnr(),
        "ssim": Ssim(),
        "feature_distance": FeatureDistance(context.networks.fidelity_features),
    }
    with pytest.raises(UsageError, match="add the plain pipeline"):
        metrics[name].measure(Batch(random_images(2), ["", ""], range(2)))
    with pytest.raises(UsageError, match="beside"):
        metrics[name].measure(pair(random_images(2), random_images(3)))
