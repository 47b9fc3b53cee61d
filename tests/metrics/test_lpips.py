"""LPIPS against torchmetrics on the same random backbone, and MS-SSIM against torchmetrics and the paper's formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import correlate
from torch import nn
from torchmetrics.functional.image import lpips as package
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as torchmetrics_ms_ssim

from harness.contracts import Batch, Unmeasurable
from harness.errors import ArtifactError, NotMeasured
from metrics.context import MetricContext
from metrics.published.lpips import ALEXNET, VGG16, Backbone, Lpips
from metrics.ssim import SCALES, MsSsim
from metrics.table import METRICS
from tests.published import FULL_STACK, draw_images, spread

BACKBONES = pytest.mark.parametrize("backbone", [ALEXNET, VGG16], ids=lambda backbone: backbone.name)


def save_backbone(backbone: Backbone, path: Path, seed: int = 0) -> Path:
    """Random weights under torchvision's names, with some of its classifier, which LPIPS does not read."""
    torch.manual_seed(seed)
    stack = backbone.build()
    spread(stack, seed)
    state = {f"features.{name}": tensor for name, tensor in stack.state_dict().items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, path)
    return path


def theirs(backbone: Backbone, weights: Path, monkeypatch: pytest.MonkeyPatch, features: nn.Sequential) -> Any:
    """torchmetrics' network on ``features`` with those weights and its own heads."""
    stored = torch.load(weights, weights_only=True)
    features.load_state_dict({name[9:]: t for name, t in stored.items() if name.startswith("features.")}, strict=False)
    monkeypatch.setattr(package, "_get_tv_model_features", lambda net, pretrained: features)
    return package._NoTrainLpips(net=backbone.name)


@BACKBONES
def test_distances_are_torchmetrics(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = save_backbone(backbone, tmp_path / backbone.file)
    reference = theirs(backbone, weights, monkeypatch, backbone.build())
    images, others = draw_images(3, side=64), draw_images(3, 1, side=64)
    found = Lpips(backbone, weights)(images, others)
    wanted = reference(images / 255, others / 255, normalize=True).reshape(-1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert (found > 0).all() and torch.equal(Lpips(backbone, weights)(images, images), torch.zeros(3))


@BACKBONES
def test_the_stack_is_torchvisions(backbone: Backbone, tmp_path: Path) -> None:
    torchvision: Any = pytest.importorskip("torchvision", reason=FULL_STACK)
    name = {"alex": "alexnet", "vgg": "vgg16"}[backbone.name]
    model = getattr(torchvision.models, name)(weights=None).eval()
    spread(model.features, 0)
    torch.save(model.state_dict(), tmp_path / backbone.file)
    lpips = Lpips(backbone, tmp_path / backbone.file)
    x = torch.randn(2, 3, 64, 64)
    for tap in backbone.taps:
        torch.testing.assert_close(lpips.stack[: tap + 1](x), model.features[: tap + 1](x))


def test_large_images_go_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lpips = Lpips(ALEXNET, save_backbone(ALEXNET, tmp_path / ALEXNET.file))
    images, others = draw_images(5), draw_images(5, 1)
    whole = lpips(images, others)
    monkeypatch.setattr("metrics.published.packages.PIXELS", 4 * 64 * 64)
    torch.testing.assert_close(lpips(images, others), whole)


def context(folder: Path, **lpips: str) -> MetricContext:
    path = folder / "scorers.yaml"
    path.write_text(yaml.safe_dump({"lpips": lpips}))
    return MetricContext(path, "text")


def test_weights_come_from_the_scorers_file_or_torchvisions_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(NotMeasured, match=r"name a local alexnet-owt-7be5be79.pth .* as lpips.alex"):
        METRICS["lpips"](context(tmp_path))
    named = METRICS["lpips"](context(tmp_path, alex=str(save_backbone(ALEXNET, tmp_path / "mine.pth"))))
    kept = tmp_path / "torch" / "hub" / "checkpoints"
    kept.mkdir(parents=True)
    save_backbone(ALEXNET, kept / ALEXNET.file)
    assert METRICS["lpips"](context(tmp_path)).fingerprint() == named.fingerprint()
    assert named.paired and named.direction == "lower" and not named.tiny
    with pytest.raises(NotMeasured, match=r"no vgg16-397923af\.pth"):
        METRICS["lpips_vgg"](context(tmp_path, alex="mine.pth"))


def test_another_network_in_the_file_is_not_measured(tmp_path: Path) -> None:
    path = save_backbone(ALEXNET, tmp_path / "alex.pth")
    with pytest.raises(NotMeasured, match="the weights of LPIPS"):
        METRICS["lpips_vgg"](context(tmp_path, vgg=str(path)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ArtifactError, match=r"expected tensors in .*alex\.pth"):
        METRICS["lpips"](context(tmp_path, alex=str(path)))


def ms_ssim(images: torch.Tensor, full: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return MsSsim().measure(Batch(images, [""] * len(images), range(len(images)), full))[:, 0]


def test_ms_ssim_is_torchmetrics() -> None:
    images, full = draw_images(3, side=192), draw_images(3, seed=5, side=192)
    wanted = torchmetrics_ms_ssim(images / 255, full / 255, data_range=1.0, reduction="none")
    np.testing.assert_allclose(ms_ssim(images, full), wanted, atol=1e-5)


def by_the_paper(x: Any, y: Any) -> float:
    """Wang et al., 2003, equation 7, in float64 on [3, H, W] in 0..1, with torchmetrics' borders."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line)[None] / line.sum() ** 2
    product = 1.0
    for scale, exponent in enumerate(SCALES):
        mx, my, xx, yy, xy = (correlate(v, window, mode="mirror") for v in (x, y, x * x, y * y, x * y))
        contrast = (2 * (xy - mx * my) + 0.03**2) / (xx - mx**2 + yy - my**2 + 0.03**2)
        luminance = (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        last = scale == len(SCALES) - 1
        product *= max((luminance * contrast).mean() if last else contrast[:, 5:-5, 5:-5].mean(), 0) ** exponent
        x, y = (v.reshape(3, v.shape[1] // 2, 2, v.shape[2] // 2, 2).mean(axis=(2, 4)) for v in (x, y))
    return float(product)


def test_ms_ssim_is_the_papers_formula() -> None:
    full = draw_images(2, seed=5, side=192)
    images = (full.int() + torch.randint(-30, 31, full.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    wanted = [by_the_paper(a.double().numpy() / 255, b.double().numpy() / 255) for a, b in zip(images, full, strict=True)]
    np.testing.assert_allclose(ms_ssim(images.to(torch.uint8), full), wanted, atol=1e-5)
    assert (ms_ssim(full, full) == 1).all()


def test_ms_ssim_needs_161_pixels() -> None:
    assert ms_ssim(draw_images(1, side=161), draw_images(1, seed=5, side=161))[0] < 1
    with pytest.raises(Unmeasurable, match=r"NOT-MEASURED.*at least 161 x 161; got 160 x 160"):
        ms_ssim(draw_images(1, side=160), draw_images(1, side=160))
