"""Which networks score, and the reference they compare with: all that a metric's factory needs."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from harness.errors import ArtifactError, UsageError
from harness.paths import locate
from metrics.base import FeatureExtractor, Networks
from metrics.bundled.networks import BundledNetworks, Task
from metrics.image_folder import ImageSet, folder_images, image_files, stored_reference
from metrics.moments import Statistics, check_statistics, holds_statistics, read_statistics
from metrics.published.efficientnet import EfficientNetFeatures
from metrics.published.networks import PublishedNetworks
from metrics.published.spec import read_scorers
from metrics.reference import Reference, load_reference
from metrics.remembered import RememberedFeatures

Fingerprint = tuple[tuple[str, str], ...]


def check_reference_path(path: Path) -> None:
    """Raise :class:`ArtifactError` on a path that can be no reference at all, before anything is sampled for it."""
    if path.is_dir():
        image_files(path)
    elif not path.is_file() or not zipfile.is_zipfile(path):
        raise ArtifactError(
            expected=f"a reference at {path}: features or statistics (.npz), or a folder of images",
            got="no such file" if not path.exists() else "no .npz archive",
            remedy="name another with --reference",
        )


@dataclass(frozen=True)
class MetricContext:
    """``scorers`` is the folder of the bundled networks, or a YAML file that names published ones (metrics/published/spec.py).

    ``reference``, for distribution metrics like FID, is a file of features (with the images themselves, for other extractors), a
    statistics file, or a folder of images. Networks and the reference's features are loaded on first use, once for all metrics
    that are built from one context.
    """

    scorers: Path
    task: Task
    device: str = "cpu"
    reference: Path | None = None
    reference_steps: int | None = None
    _references: dict[tuple[bool, Fingerprint], Reference | Statistics] = field(default_factory=dict, init=False, compare=False)

    @cached_property
    def networks(self) -> Networks:
        """The set of networks."""
        if self.scorers.is_dir():
            return BundledNetworks(self.scorers, self.task, self.device)
        scorers = read_scorers(self.scorers)
        if scorers.bundled is not None:
            return BundledNetworks(locate(str(scorers.bundled)), self.task, self.device)
        return PublishedNetworks(scorers, self.device)

    @cached_property
    def judge(self) -> FeatureExtractor:
        """EfficientNet-Lite0, the same beside either set of networks."""
        return RememberedFeatures(EfficientNetFeatures(self.device))

    @property
    def tiny(self) -> bool:
        """Whether the networks are the bundled tiny ones."""
        return self.networks.tiny

    def reference_for(self, extractor: FeatureExtractor, *, spatial: bool = False) -> Reference | Statistics:
        """The reference in this extractor's features; one that another extractor took is refused.

        ``spatial`` reads the spatial half of a statistics file of ADM.
        """
        key = spatial, tuple(sorted(extractor.fingerprint().items()))
        if key not in self._references:
            self._references[key] = self._read_reference(extractor, spatial)
        return self._references[key]

    @cached_property
    def _folder(self) -> ImageSet:
        assert self.reference is not None
        return folder_images(self.reference)

    def _read_reference(self, extractor: FeatureExtractor, spatial: bool) -> Reference | Statistics:
        if self.reference is None:
            raise UsageError(
                expected="a reference for distribution metrics such as FID",
                got="none",
                remedy="--reference FILE or FOLDER, or leave these metrics out",
            )
        if self.reference.is_dir():
            return self._folder.features(extractor)
        if holds_statistics(self.reference):
            statistics = read_statistics(self.reference, spatial=spatial)
            check_statistics(statistics, extractor)
            return statistics
        return stored_reference(self.reference, extractor) or load_reference(self.reference, extractor)

    def features_for(self, extractor: FeatureExtractor) -> Reference:
        """Reference features, for metrics that need more than their mean and covariance."""
        found = self.reference_for(extractor)
        if isinstance(found, Statistics):
            raise UsageError(
                expected="reference features",
                got=f"only mean and covariance ({found.data})",
                remedy="leave this metric out, or name a file of features or a folder of images",
            )
        return found
