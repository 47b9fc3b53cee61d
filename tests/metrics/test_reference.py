"""Reference statistics: the layouts of other tools, the distance to them, image folders, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from harness.contracts import Batch
from harness.errors import ArtifactError, UsageError
from harness.results import FloatArray
from metrics.context import MetricContext
from metrics.frechet import FrechetDistance, distance_to_statistics, frechet_distance, influence, influence_on
from metrics.image_folder import folder_images
from metrics.moments import Statistics, read_statistics
from metrics.reference import Reference, describe_reference
from metrics.table import METRICS


class MeanColours:
    """A feature extractor without weights: the mean of each channel. ``calls`` counts images."""

    width = 3

    def __init__(self, digest: str = "mean-colours") -> None:
        self.digest, self.calls = digest, 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += len(images)
        return images.float().mean(dim=(2, 3))

    def fingerprint(self) -> Mapping[str, str]:
        return {"extractor": self.digest, "preprocessing": "none"}


def draw(n: int, width: int, seed: int) -> FloatArray:
    """Correlated Gaussian features [n, width] with a mean away from 0."""
    random = np.random.default_rng(seed)
    samples: FloatArray = random.normal(size=(n, width)) @ random.normal(size=(width, width)) + random.normal(size=width)
    return samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images of 8 x 6 in two sub-folders."""
    random = np.random.default_rng(1)
    for i in range(40):
        path = tmp_path / "images" / f"part{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


@pytest.mark.parametrize(("n", "width"), [(200, 4), (400, 24), (20, 32)], ids=["narrow", "wide", "singular"])
def test_the_distance_to_statistics_is_the_distance_to_the_features(n: int, width: int) -> None:
    x, y = draw(n, width, 1), draw(500, width, 2)
    statistics = Statistics.of(y, "y")
    assert distance_to_statistics(x, statistics) == pytest.approx(frechet_distance(x, y), rel=1e-6)
    np.testing.assert_allclose(influence_on(x, statistics), influence(x, y), rtol=1e-9)
    assert distance_to_statistics(y, statistics) == pytest.approx(0, abs=1e-8)


def test_closed_form_of_gaussians_with_diagonal_covariance() -> None:
    x = draw(300, 3, 5)
    x = (x - x.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T * [1, 2, 3] + [1, 0, 0]
    wanted = 1 + (1 - 2) ** 2 + (2 - 2) ** 2 + (3 - 5) ** 2
    assert distance_to_statistics(x, Statistics(np.zeros(3), np.diag([4.0, 4.0, 25.0]), "")) == pytest.approx(wanted, rel=1e-9)


def test_the_metric_agrees_whichever_reference_it_gets() -> None:
    extractor, real = MeanColours(), draw(100, 3, 3).astype(np.float32)
    images = torch.randint(0, 256, (60, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    by_features = FrechetDistance(extractor, Reference(real, describe_reference(extractor, "real")))
    by_statistics = FrechetDistance(extractor, Statistics.of(real, "real"))
    measured = by_features.measure(Batch(images, [""] * 60, range(60)))
    np.testing.assert_allclose(by_statistics.summarise(measured), by_features.summarise(measured), rtol=1e-6)
    assert by_statistics.fingerprint()["reference"] == Statistics.of(real, "other name").digest
    assert by_statistics.fingerprint() != by_features.fingerprint()


def write(path: Path, layout: str, features: FloatArray) -> Path:
    """The keys and dtypes that each tool writes."""
    mean, covariance = features.mean(axis=0), np.cov(features, rowvar=False)
    contents: dict[str, dict[str, FloatArray]] = {
        "adm": {
            "mu": mean.astype(np.float32),
            "sigma": covariance.astype(np.float32),
            "mu_s": mean[:2],
            "sigma_s": covariance[:2, :2],
            "arr_0": np.zeros((2, 4, 4, 3), np.uint8),
        },  # type: ignore[dict-item]
        "pytorch-fid": {"mu": mean, "sigma": covariance},
        "clean-fid": {"mu": mean, "sigma": covariance},
        "torch-fidelity": {"mu": mean, "sigma": covariance},
    }
    np.savez(path, **contents[layout])  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("layout", ["adm", "pytorch-fid", "clean-fid", "torch-fidelity"])
def test_the_files_of_other_tools(tmp_path: Path, layout: str) -> None:
    features = draw(50, 3, 4)
    read = read_statistics(write(tmp_path / "VIRTUAL_imagenet256_labeled.npz", layout, features))
    assert read.mean.dtype == read.covariance.dtype == np.float64
    np.testing.assert_allclose(read.covariance, np.cov(features, rowvar=False), rtol=1e-5)
    assert "VIRTUAL_imagenet256_labeled" in read.data and len(read.digest) == 16
    if layout == "adm":
        assert read_statistics(tmp_path / "VIRTUAL_imagenet256_labeled.npz", spatial=True).mean.shape == (2,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"features": np.zeros((3, 3))}, "mu and sigma"),
        ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, r"shapes \[3\] and \[2, 2\]"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)}, "finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 5.0], [0.0, 1.0]])}, "not symmetric"),
        ({"mu": np.zeros(2), "sigma": -np.eye(2)}, "variances"),
        ({"mu": np.array([None]), "sigma": np.eye(1)}, "mu and sigma"),
    ],
    ids=["no-keys", "shapes", "nan", "asymmetric", "negative", "pickle"],
)
def test_what_is_no_statistics_file(tmp_path: Path, content: dict[str, FloatArray], words: str) -> None:
    np.savez(tmp_path / "x.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=words):
        read_statistics(tmp_path / "x.npz")


def test_a_damaged_or_missing_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npz", "adm", draw(50, 3, 4))
    path.write_bytes(path.read_bytes()[:-300])
    for broken in (path, tmp_path / "missing.npz"):
        with pytest.raises(ArtifactError, match="remedy"):
            read_statistics(broken)


def test_another_width_or_extractor_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"width 3.*width 4"):
        FrechetDistance(MeanColours(), Statistics.of(draw(50, 4, 1), "other"))
    with pytest.raises(ArtifactError, match="inception"):
        FrechetDistance(MeanColours(), Statistics.of(draw(50, 3, 1), "other", extractor="inception"))


def test_a_folder_is_measured_once_for_its_content_and_extractor(folder: Path, tmp_path: Path) -> None:
    extractor, cache = MeanColours(), tmp_path / "cache"
    first = folder_images(folder).features(extractor, cache)
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
    np.testing.assert_allclose(first.moments.covariance, np.cov(images.mean(axis=(1, 2)), rowvar=False), rtol=1e-4)
    assert extractor.calls == 40 and folder_images(folder).features(extractor, cache).digest == first.digest
    assert extractor.calls == 40
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for i, path in enumerate(sorted(folder.rglob("*.png"), reverse=True)):
        shutil.copy(path, moved / f"renamed-{i}.png")
    assert folder_images(moved).features(extractor, cache).digest == first.digest and extractor.calls == 40
    folder_images(folder).features(MeanColours("another"), cache)
    next(folder.rglob("*.png")).write_bytes(next(moved.glob("renamed-9.png")).read_bytes())
    assert folder_images(folder).features(extractor, cache).digest != first.digest and extractor.calls == 80
    assert len(list(cache.glob("*.npz"))) == 3


def test_folders_that_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="at least 2 images"):
        folder_images(tmp_path / "empty").features(MeanColours(), tmp_path)
    Image.new("L", (1, 1)).save(folder / "tiny.png")
    with pytest.raises(ArtifactError, match="one size"):
        folder_images(folder).features(MeanColours(), tmp_path)
    (folder / "tiny.png").write_bytes(b"no image")
    with pytest.raises(ArtifactError, match=r"tiny\.png"):
        folder_images(folder).features(MeanColours(), tmp_path)


def test_the_context_takes_a_file_or_a_folder(
    context: MetricContext, tmp_path: Path, random_images: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i, image in enumerate(random_images(40)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{i}.png")
    by_folder = MetricContext(context.scorers, "text", reference=tmp_path / "images")
    found = by_folder.reference_for(by_folder.networks.frechet_features)
    assert isinstance(found, Reference) and list((tmp_path / "cache" / "ilf-bench" / "references").glob("*.npz"))
    assert METRICS["kid"](by_folder).fingerprint()["reference"] == METRICS["fid"](by_folder).fingerprint()["reference"]
    moments = found.moments
    named = {"mu": moments.mean, "sigma": moments.covariance, "data": moments.data, "extractor": moments.extractor}
    np.savez(tmp_path / "stats.npz", **{name: np.array(value) for name, value in named.items()})
    by_file = MetricContext(context.scorers, "text", reference=tmp_path / "stats.npz")
    assert METRICS["fid"](by_file).fingerprint()["reference"] == found.moments.digest
    with pytest.raises(UsageError, match="leave this metric out"):
        METRICS["kid"](by_file)
    np.savez(tmp_path / "wide.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(ArtifactError, match=r"width 24.*width 2048"):
        METRICS["fid"](MetricContext(context.scorers, "text", reference=tmp_path / "wide.npz"))
