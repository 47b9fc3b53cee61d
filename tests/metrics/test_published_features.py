"""The published feature extractors with random weights, and FID, KID, precision and recall against torch-fidelity."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.contracts import Batch
from harness.errors import ArtifactError, NotMeasured, UsageError
from harness.results import FloatArray
from metrics.frechet import frechet_distance
from metrics.kernel import pseudo_values
from metrics.manifold import precision_values, recall_values, squared_radii
from tests.published import FULL_STACK, draw_images, save_dino, save_images, save_inception

fidelity: Any = pytest.importorskip("torch_fidelity", reason=FULL_STACK)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inception(tmp_path_factory.mktemp("inception") / "weights-inception-2015-12-05-6726825d.pth")


@pytest.fixture(scope="module")
def inception(weights: Path) -> Any:
    from metrics.published.inception import open_inception

    return open_inception(weights, "cpu")


def features(n: int, seed: int, shift: float = 0.0, width: int = 24) -> FloatArray:
    drawn: FloatArray = (np.random.default_rng(seed).normal(size=(n, width)) + shift).astype(np.float32)
    return drawn


def test_the_whole_way_from_files_agrees_with_torch_fidelity(inception: Any, weights: Path, tmp_path: Path) -> None:
    from metrics.published.inception import InceptionFeatures

    images, real = draw_images(12, seed=1), draw_images(12, seed=2)
    extractor = InceptionFeatures(inception, "cpu")
    x, y = extractor(images).numpy(), extractor(real).numpy()
    found = fidelity.calculate_metrics(
        input1=str(save_images(images, tmp_path / "images")),
        input2=str(save_images(real, tmp_path / "real")),
        cuda=False,
        fid=True,
        kid=True,
        prc=True,
        kid_subsets=1,
        kid_subset_size=12,
        batch_size=5,
        verbose=False,
        cache=False,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
    )
    assert x.shape == (12, 2048) and x.std(axis=0).mean() > 1e-3
    assert frechet_distance(x, y) == pytest.approx(found["frechet_inception_distance"], rel=1e-4)
    assert pseudo_values(x, y).mean() == pytest.approx(found["kernel_inception_distance_mean"], abs=1e-6)
    real64 = y.astype(np.float64)
    assert precision_values(x.astype(np.float64), real64, squared_radii(real64)).mean() == pytest.approx(found["precision"])
    assert recall_values(x.astype(np.float64), real64).mean() == pytest.approx(found["recall"])


def test_frechet_distance_is_torch_fidelitys_and_the_closed_form_of_gaussians() -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = features(400, 1), features(500, 2, shift=0.3)
    theirs = [fid_features_to_statistics(torch.from_numpy(z.astype(np.float64))) for z in (x, y)]
    wanted = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)
    z = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    whitened = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    assert frechet_distance(3 * whitened + 1, whitened) == pytest.approx(24 * (1 + 2**2), rel=1e-9)


def test_kid_is_torch_fidelitys_on_one_subset_of_everything() -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(90, 3), features(90, 4, shift=0.2)
    theirs = kid_features_to_metric(*map(torch.from_numpy, (x, y)), kid_subsets=1, kid_subset_size=90, verbose=False)
    assert pseudo_values(x, y).mean() == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5, abs=1e-6)


def test_precision_and_recall_are_torch_fidelitys() -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = features(300, 5, width=3), features(280, 6, shift=0.7, width=3)
    theirs = prc_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), prc_neighborhood=3, prc_batch_size=100, verbose=False
    )
    assert precision_values(x, y, squared_radii(y)).mean() == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall_values(x, y).mean() == pytest.approx(theirs["recall"], abs=1e-6)
    assert 0 < theirs["precision"] < 1 and 0 < theirs["recall"] < 1


def test_spatial_features_are_seven_channels_of_a_branch(inception: Any) -> None:
    from metrics.published.inception import InceptionFeatures, SpatialFeatures

    images = draw_images(2, seed=3)
    found = SpatialFeatures(inception, "cpu")(images)
    seen: list[torch.Tensor] = []
    hook = inception.Mixed_6d.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    InceptionFeatures(inception, "cpu")(images)
    hook.remove()
    branch = inception.Mixed_6d.branch1x1
    wanted = torch.relu(branch.bn(branch.conv(seen[0])))[:, :7].permute(0, 2, 3, 1).reshape(2, 2023)
    torch.testing.assert_close(found, wanted)


def test_features_do_not_depend_on_the_batch(inception: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from metrics.published import packages
    from metrics.published.inception import InceptionFeatures

    images, extractor = draw_images(3, seed=4), InceptionFeatures(inception, "cpu")
    whole = extractor(images)
    monkeypatch.setattr(packages, "PIXELS", 64 * 64)
    torch.testing.assert_close(extractor(images), whole, rtol=1e-4, atol=1e-5)


class Touch:
    """A pickle that runs code when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_weights_that_are_missing_cut_or_code_are_refused(weights: Path, tmp_path: Path) -> None:
    from metrics.published.inception import open_inception

    cut, code = tmp_path / "cut.pth", tmp_path / "code.pth"
    cut.write_bytes(weights.read_bytes()[:100_000])
    code.write_bytes(pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(NotMeasured, match="scorers' YAML file"):
        open_inception(tmp_path / "none.pth", "cpu")
    for path in (cut, code):
        with pytest.raises(ArtifactError, match=f"tensors in .*{path.name}"):
            open_inception(path, "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 1, 64, 64), (1, 3, 31, 64)])
def test_images_too_small_or_without_colour_are_refused(inception: Any, shape: tuple[int, ...]) -> None:
    from metrics.published.inception import InceptionFeatures

    with pytest.raises(UsageError, match="at least 32 x 32"):
        InceptionFeatures(inception, "cpu")(torch.zeros(shape, dtype=torch.uint8))


def test_dinov2_is_transformers_class_token(tmp_path: Path) -> None:
    from transformers import BitImageProcessor, Dinov2Model

    from metrics.published.dinov2 import DinoFeatures

    folder = save_dino(tmp_path / "dino")
    images, extractor = draw_images(3, seed=5), DinoFeatures(str(folder))
    processor: Any = BitImageProcessor(
        size={"height": 224, "width": 224},
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    pixels = processor([image.permute(1, 2, 0).numpy() for image in images], return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = Dinov2Model.from_pretrained(folder).eval()(pixel_values=pixels).pooler_output
    found = extractor(images)
    assert found.shape == (3, extractor.width)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-2)


def test_the_metrics_of_one_extractor_share_their_measurement(inception: Any) -> None:
    from metrics.frechet import FrechetDistance
    from metrics.kernel import KernelDistance
    from metrics.published.inception import InceptionFeatures
    from metrics.reference import Reference, describe_reference

    extractor = InceptionFeatures(inception, "cpu")
    reference = Reference(
        np.random.default_rng(0).normal(size=(2100, 2048)).astype(np.float32), describe_reference(extractor, "x")
    )
    fid, kid = FrechetDistance(extractor, reference), KernelDistance(extractor, reference)
    assert fid.measurement == kid.measurement != "fid" and not fid.tiny and fid.title == "FID"
    assert (fid.floor, fid.advised) == (4096, 20480)
    shown = fid.fingerprint()
    assert {"extractor", "preprocessing", "torch-fidelity", "reference", "data"} <= set(shown)
    assert fid.measure(Batch(draw_images(1), ["x"], [0])).shape == (1, 2048)
