"""FID against its closed form, its influence function against finite differences, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm  # type: ignore[import-untyped]

from harness.contracts import Batch, Unmeasurable
from harness.errors import ArtifactError, UsageError
from harness.results import FloatArray
from harness.statistics import paired_difference
from metrics.context import MetricContext
from metrics.frechet import FrechetDistance, frechet_distance, influence
from metrics.reference import Reference, describe_reference, load_reference, write_reference

Draw = Callable[..., torch.Tensor]


class MeanColours:
    """A feature extractor without weights: the mean of each channel."""

    width = 3

    def __init__(self, digest: str = "mean-colours") -> None:
        self.digest = digest

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))

    def fingerprint(self) -> Mapping[str, str]:
        return {"extractor": self.digest, "preprocessing": "none"}


def gaussians(n: int, width: int, seed: int) -> FloatArray:
    """Correlated Gaussian features [n, width] with a mean away from 0."""
    random = np.random.default_rng(seed)
    samples: FloatArray = random.normal(size=(n, width)) @ random.normal(size=(width, width)) + random.normal(size=width)
    return samples


def closed_form(mean1: FloatArray, cov1: FloatArray, mean2: FloatArray, cov2: FloatArray) -> float:
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * np.real(sqrtm(cov1 @ cov2))))


def test_distance_is_the_closed_form_of_the_sample_moments() -> None:
    x, y = gaussians(400, 6, 0), gaussians(500, 6, 1)
    wanted = closed_form(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-9)


def test_distance_survives_a_large_common_offset() -> None:
    x, y = gaussians(400, 6, 0), gaussians(500, 6, 1)
    assert frechet_distance(x + 1e6, y + 1e6) == pytest.approx(frechet_distance(x, y), rel=1e-5)


def test_distance_of_a_set_to_itself_is_zero() -> None:
    x = gaussians(300, 5, 2)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)


def test_influence_is_the_derivative_of_the_distance_to_a_contaminated_distribution() -> None:
    x, y = gaussians(300, 5, 3), gaussians(400, 5, 4)
    mean, covariance = x.mean(0), np.cov(x.T)
    wanted_mean, wanted_covariance = y.mean(0), np.cov(y.T)

    def distance(step: float, point: FloatArray) -> float:
        offset = point - mean
        mixed = (1 - step) * covariance + step * (1 - step) * np.outer(offset, offset)
        return closed_form(mean + step * offset, mixed, wanted_mean, wanted_covariance)

    step = 1e-5
    numeric = np.array([(distance(step, p) - distance(-step, p)) / (2 * step) for p in x])
    analytic = influence(x, y)
    # the set's own influences average to 0 only for the covariance with 1/n; the definition centres them
    np.testing.assert_allclose(analytic, numeric - numeric.mean(), rtol=1e-5, atol=1e-5 * np.abs(numeric).max())


def test_influence_agrees_with_leaving_one_out() -> None:
    x, y = gaussians(800, 4, 5), gaussians(900, 4, 6)
    value = frechet_distance(x, y)
    left_out = np.array([frechet_distance(np.delete(x, i, axis=0), y) for i in range(100)])
    jackknife = (len(x) - 1) * (value - left_out)
    effect = influence(x, y)[:100]
    assert np.corrcoef(jackknife, effect)[0, 1] > 0.999
    assert np.abs(jackknife - effect).mean() < 0.05 * np.abs(effect).mean()


def test_influence_is_finite_where_the_covariance_is_singular() -> None:
    x, y = gaussians(300, 4, 7), gaussians(300, 4, 8)
    x[:, 3] = x[:, 2]
    assert np.isfinite(influence(x, y)).all()
    y[:, 1] = 2.0
    assert np.isfinite(influence(x, y)).all()


def reference_of(metric: FrechetDistance) -> Reference:
    assert isinstance(metric.reference, Reference)
    return metric.reference


@pytest.fixture
def metric(random_images: Draw) -> FrechetDistance:
    extractor = MeanColours()
    features = extractor(random_images(200, seed=1)).numpy()
    return FrechetDistance(extractor, Reference(features, describe_reference(extractor, "random")), tiny=True)


def test_summary_has_the_distance_as_its_mean(metric: FrechetDistance, random_images: Draw) -> None:
    measured = metric.measure(Batch(random_images(60), [""] * 60, range(60)))
    values = metric.summarise(measured)
    assert measured.shape == (60, 3) and measured.dtype == np.float32
    assert values.mean() == pytest.approx(frechet_distance(measured, reference_of(metric).features), rel=1e-9)
    assert values.std() > 0
    assert metric.title == "FID (tiny)" and metric.tiny and metric.direction == "lower"


def test_below_two_images_a_dimension_it_is_unmeasurable(metric: FrechetDistance) -> None:
    assert (metric.floor, metric.advised) == (6, 30)
    with pytest.raises(Unmeasurable, match="at least 6 images; got 5; remedy"):
        metric.summarise(np.ones((5, 3), np.float32))


def test_a_feature_that_is_not_finite_is_unmeasurable(metric: FrechetDistance) -> None:
    measured = np.ones((40, 3), np.float32)
    measured[7, 1] = np.nan
    with pytest.raises(Unmeasurable, match="1 of 40"):
        metric.summarise(measured)


def test_reference_round_trip_keeps_features_and_digest(tmp_path: Path, random_images: Draw) -> None:
    extractor = MeanColours()
    features = extractor(random_images(50)).numpy()
    write_reference(tmp_path / "deep" / "r.npz", features, describe_reference(extractor, "random"))
    loaded = load_reference(tmp_path / "deep" / "r.npz", extractor)
    np.testing.assert_array_equal(loaded.features, features)
    assert loaded.digest == Reference(features, describe_reference(extractor, "random")).digest
    assert loaded.digest != Reference(features, describe_reference(extractor, "other")).digest
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.npz"]


def test_a_reference_of_another_extractor_is_refused(tmp_path: Path, random_images: Draw) -> None:
    extractor = MeanColours()
    write_reference(tmp_path / "r.npz", extractor(random_images(50)).numpy(), describe_reference(extractor, "random"))
    with pytest.raises(ArtifactError, match="extractor other"):
        load_reference(tmp_path / "r.npz", MeanColours("other"))


@pytest.mark.parametrize("shape", [(50, 4), (3, 3)])
def test_a_reference_of_another_width_or_too_few_rows_is_refused(shape: tuple[int, int]) -> None:
    extractor = MeanColours()
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with pytest.raises(ArtifactError, match="width 3"):
        FrechetDistance(extractor, Reference(features, describe_reference(extractor, "random")))


def test_a_damaged_or_missing_reference_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.npz").write_bytes(b"not an archive")
    for path in (tmp_path / "r.npz", tmp_path / "absent.npz"):
        with pytest.raises(ArtifactError, match="remedy") as refused:
            load_reference(path, MeanColours())
        assert "pickle" not in str(refused.value)


def test_writing_refuses_features_without_provenance(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="extractor"):
        write_reference(tmp_path / "r.npz", np.ones((5, 3), np.float32), {"data": "random"})


def test_a_reference_of_other_weights_is_refused(
    context: MetricContext, tmp_path: Path, save_scorers: Callable[..., Path]
) -> None:
    other = MetricContext(save_scorers(tmp_path / "other", seed=1), "text", reference=context.reference)
    with pytest.raises(ArtifactError, match="taken by extractor"):
        other.reference_for(other.networks.frechet_features)


def test_without_a_reference_the_preset_is_at_fault(scorers: Path) -> None:
    context = MetricContext(scorers, "text")
    with pytest.raises(UsageError, match="--reference"):
        context.reference_for(context.networks.frechet_features)


def test_the_interval_of_a_difference_is_that_of_a_bootstrap_over_the_stored_features() -> None:
    reference, noise = gaussians(2000, 3, 20), np.random.default_rng(21)
    full = gaussians(500, 3, 22)
    fast = full + 0.3 * noise.normal(size=full.shape)
    one, two = (frechet_distance(x, reference) + influence(x, reference) for x in (fast, full))
    claimed = paired_difference(one, two)
    picks = [noise.integers(500, size=500) for _ in range(200)]
    drawn = [frechet_distance(fast[p], reference) - frechet_distance(full[p], reference) for p in picks]
    assert (claimed.high - claimed.low) / 2 == pytest.approx(1.96 * np.std(drawn), rel=0.25)
