"""What every row of the table must keep: the protocol, batch invariance, fingerprints, and honest summaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import Batch, Unmeasurable, range_of
from metrics.context import MetricContext
from metrics.converged import SUFFIX
from metrics.reference import describe_reference, write_reference
from metrics.table import METRICS

Draw = Callable[..., torch.Tensor]
WORDS = ("red apple", "good cat", "dog", "dull red dog")
TINY = {
    "fid",
    "kid",
    "precision",
    "recall",
    "clip_score",
    "clip_iqa",
    "clip_iqa_noisy",
    "clip_iqa_colourful",
    "image_reward",
    "feature_distance",
}
PREFERENCES = ("pickscore", "hpsv2", "aesthetic")
JUDGES = ("kd_efficientnet", "fd_efficientnet", "distance_efficientnet")
PUBLISHED = ("sfid", "cmmd", "fd_dinov2", "clip_iqa_natural", "lpips", "lpips_vgg", "ms_ssim", *JUDGES, *PREFERENCES)
TABLE = [name for name in METRICS if name not in PUBLISHED and not name.endswith(SUFFIX)]
PAIRED = {"psnr", "ssim", "feature_distance"}
SHARES = ("precision", "recall", "clip_iqa", "clip_iqa_noisy", "clip_iqa_colourful")
RANGES = {
    **dict.fromkeys(("fid", "psnr", "feature_distance"), (0, None)),
    **dict.fromkeys(SHARES, (0, 1)),
    "ssim": (-1, 1),
    "clip_score": (0, 100),
}


@pytest.fixture(scope="module")
def batch(random_images: Draw) -> Batch:
    """256 images, enough for FID."""
    return Batch(random_images(256), [WORDS[i % 4] for i in range(256)], range(256), random_images(256, seed=1))


def split(batch: Batch, size: int) -> list[Batch]:
    assert batch.full is not None
    slices = [slice(i, i + size) for i in range(0, len(batch.prompts), size)]
    return [Batch(batch.images[s], batch.prompts[s], batch.indices[s], batch.full[s]) for s in slices]


@pytest.mark.parametrize("name", TABLE)
def test_attributes(context: MetricContext, name: str) -> None:
    metric = METRICS[name](context)
    assert metric.name == name
    assert metric.direction in ("higher", "lower")
    assert metric.tiny == (name in TINY) == metric.title.endswith(" (tiny)")
    assert metric.paired == (name in PAIRED)
    floors = {"fid": 48, "kid": 2, "precision": 4, "recall": 4}
    assert metric.floor == floors.get(name, 1) and metric.advised == (240 if name == "fid" else metric.floor)
    assert metric.counted == (name in ("fid", "precision", "recall"))


def test_titles_are_unique(context: MetricContext) -> None:
    assert len({METRICS[name](context).title for name in TABLE}) == len(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_measure_does_not_depend_on_the_batch_split(context: MetricContext, batch: Batch, name: str) -> None:
    metric = METRICS[name](context)
    whole = metric.measure(batch)
    assert whole.dtype == np.float32 and whole.ndim == 2 and len(whole) == 256
    parts = np.concatenate([metric.measure(part) for part in split(batch, 37)])
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(metric.measure(split(batch, 1)[3]), whole[3:4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", TABLE)
def test_summary_is_one_finite_value_an_image_whatever_the_order(context: MetricContext, batch: Batch, name: str) -> None:
    metric = METRICS[name](context)
    measured = metric.measure(batch)
    values = metric.summarise(measured)
    assert values.shape == (256,) and np.isfinite(values).all()
    order = np.random.default_rng(0).permutation(256)
    np.testing.assert_allclose(metric.summarise(measured[order]), values[order], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", TABLE)
def test_values_lie_within_the_range_that_is_said(context: MetricContext, batch: Batch, name: str) -> None:
    metric = METRICS[name](context)
    low, high = range_of(metric)
    assert (low, high) == RANGES.get(name, (None, None))
    for seen in (batch, replace(batch, images=torch.zeros_like(batch.images)), replace(batch, images=255 - batch.images)):
        values = metric.per_image(metric.checked(metric.measure(seen)))
        values = metric.summarise(metric.measure(seen)).mean(keepdims=True) if values is None else values
        assert low is None or (values >= low - 1e-6).all()
        assert high is None or (values <= high + 1e-4).all()


OF_SETS = ("fid", "sfid", "kid", "cmmd", "fd_", "kd_", "recall")


@pytest.mark.parametrize("name", TABLE)
def test_values_of_an_image_are_its_own(context: MetricContext, batch: Batch, name: str) -> None:
    """What a metric says of an image does not depend on which other images there are; of sets it says nothing of one image."""
    metric = METRICS[name](context)
    measured = metric.checked(metric.measure(batch))
    whole, half = metric.per_image(measured), metric.per_image(measured[:128])
    if name.startswith(OF_SETS):
        assert whole is None
        return
    assert whole is not None and half is not None and whole.shape == (256,) and not np.isnan(whole).any()
    np.testing.assert_allclose(half, whole[:128], rtol=1e-12)
    if not name.startswith("psnr"):
        np.testing.assert_array_equal(whole, metric.values(measured))


@pytest.mark.parametrize("name", TABLE)
def test_a_broken_measurement_is_never_averaged_away(context: MetricContext, batch: Batch, name: str) -> None:
    metric = METRICS[name](context)
    measured = metric.measure(batch)
    measured[5] = np.inf
    with pytest.raises(Unmeasurable, match="1 of 256"):
        metric.summarise(measured)


@pytest.mark.parametrize("name", TABLE)
def test_no_images_are_unmeasurable(context: MetricContext, batch: Batch, name: str) -> None:
    metric = METRICS[name](context)
    with pytest.raises(Unmeasurable, match="expected at least"):
        metric.summarise(metric.measure(batch)[:0])


@pytest.mark.parametrize("name", TABLE)
def test_fingerprint_is_stable_and_changes_with_the_weights(
    context: MetricContext, tmp_path: Path, save_scorers: Callable[..., Path], random_images: Draw, name: str
) -> None:
    again = replace(context)
    first = METRICS[name](context).fingerprint()
    assert first == METRICS[name](again).fingerprint()
    assert first["metric"] == name and "floor" in first
    other = MetricContext(save_scorers(tmp_path / "scorers", seed=1), "text", reference=tmp_path / "reference.npz")
    extractor = other.networks.frechet_features
    assert other.reference is not None
    write_reference(other.reference, extractor(random_images(300)).numpy(), describe_reference(extractor, "random"))
    changed = METRICS[name](other).fingerprint() != first
    assert changed == (name in TINY)


def test_fingerprint_of_fid_changes_with_the_reference(context: MetricContext, tmp_path: Path, random_images: Draw) -> None:
    extractor = context.networks.frechet_features
    write_reference(tmp_path / "r.npz", extractor(random_images(300, seed=4)).numpy(), describe_reference(extractor, "others"))
    other = replace(context, reference=tmp_path / "r.npz")
    for name in ("fid", "kid"):
        assert METRICS[name](context).fingerprint()["reference"] != METRICS[name](other).fingerprint()["reference"]


def test_the_class_task_uses_the_digit_classifier(context: MetricContext, random_images: Draw) -> None:
    digits = replace(context, task="class", reference=None)
    assert digits.networks.frechet_features.width == 24
    assert (
        digits.networks.frechet_features.fingerprint()["extractor"]
        == digits.networks.fidelity_features.fingerprint()["extractor"]
    )
    assert (
        digits.networks.frechet_features.fingerprint()["extractor"]
        != context.networks.frechet_features.fingerprint()["extractor"]
    )
    assert context.networks.fidelity_features.width == 64
