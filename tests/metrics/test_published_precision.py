"""bfloat16 is another measurement: near float32, under another fingerprint, and float32's own fingerprint does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

from metrics.context import MetricContext
from metrics.published.dinov2 import DinoFeatures
from metrics.published.inception import InceptionFeatures, open_inception
from metrics.published.open_clip import OpenClipEncoder
from metrics.published.spec import OpenClip
from tests.published import CLIP_NAME, FULL_STACK, draw_images, save_dino, save_inception, save_open_clip

NEAR = 0.1  # of the deviation of the features, root mean square


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.dtype == torch.float32
    return float((found - wanted).square().mean().sqrt() / wanted.std())


def test_dinov2(tmp_path: Path) -> None:
    folder, images = str(save_dino(tmp_path)), draw_images(4)
    full, half = DinoFeatures(folder), DinoFeatures(folder, precision="bf16")
    assert 0 < distance(half(images), full(images)) < NEAR
    assert "precision" not in full.fingerprint() and half.fingerprint() == {**full.fingerprint(), "precision": "bf16"}
    path = tmp_path / "scorers.yaml"
    path.write_text(yaml.safe_dump({"dinov2": {"model": folder, "precision": "bf16"}}))
    assert MetricContext(path, "text").networks.dino_features.fingerprint()["precision"] == "bf16"


def test_inception(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity", reason=FULL_STACK)
    weights, images = save_inception(tmp_path / "inception.pth"), draw_images(2)
    full, half = (InceptionFeatures(open_inception(weights, "cpu"), "cpu", precision) for precision in ("fp32", "bf16"))
    assert 0 < distance(half(images), full(images)) < NEAR
    assert half.fingerprint() == {**full.fingerprint(), "precision": "bf16"}
    assert [channels_last(features, images) for features in (full, half)] == [False, True], "the layout that makes it fast"


def channels_last(features: InceptionFeatures, images: torch.Tensor) -> bool:
    """How Inception's activations lie in memory half way through it."""
    seen: list[bool] = []

    def look(module: Any, given: Any, found: torch.Tensor) -> None:
        seen.append(found.is_contiguous(memory_format=torch.channels_last))

    with features.model.Mixed_6a.register_forward_hook(look):
        features(images)
    return seen.pop()


def test_open_clip(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason=FULL_STACK)
    weights, images = str(save_open_clip(tmp_path)), draw_images(4)
    full, half = (OpenClipEncoder(OpenClip(model=CLIP_NAME, pretrained=weights, precision=p)) for p in ("fp32", "bf16"))
    assert 0 < distance(half.embed_images(images), full.embed_images(images)) < NEAR
    assert half.fingerprint() == {**full.fingerprint(), "precision": "bf16"}
    assert not half.embed_images(draw_images(2, seed=1)).requires_grad


class Products(TorchDispatchMode):
    """Counts batched products in which a weight is repeated for each position."""

    repeated = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.repeated += function is torch.ops.aten.bmm.default and given[1].stride(0) == 0
        return function(*given, **(named or {}))


def test_open_clip_in_bf16_multiplies_by_each_weight_once(tmp_path: Path) -> None:
    """With frozen weights CLIP ViT-L/14 took 200 times as long on a CPU."""
    pytest.importorskip("open_clip", reason=FULL_STACK)
    encoder = OpenClipEncoder(OpenClip(model=CLIP_NAME, pretrained=str(save_open_clip(tmp_path)), precision="bf16"))
    with Products() as products:
        encoder.embed_images(draw_images(2))
    assert products.repeated == 0
    encoder.model.requires_grad_(False)
    with Products() as products:
        encoder.embed_images(draw_images(2, seed=1))
    assert products.repeated > 0, "so that the count above means something"
