"""Where the bundled scorers lie and what they are asked about: all that a metric's factory needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.errors import UsageError
from metrics.base import FeatureExtractor
from metrics.frechet import Reference, load_reference
from metrics.reference import Statistics, check_statistics, folder_statistics, holds_statistics, read_statistics
from metrics.tiny import ClassifierFeatures, ProjectedClipFeatures, TinyClip, TinyReward

Task = Literal["class", "text"]


@dataclass(frozen=True)
class MetricContext:
    """The folder of the bundled scorers, the task, the device, and the file of reference features (needed by FID and KID).

    Networks are loaded on first use and shared by the metrics built from one context.
    """

    scorers: Path
    task: Task
    device: str = "cpu"
    reference: Path | None = None

    @cached_property
    def clip(self) -> TinyClip:
        """The image-text encoder."""
        return TinyClip(self.scorers / "clip", self.device)

    @cached_property
    def reward(self) -> TinyReward:
        """The reward model with its text tower."""
        return TinyReward(self.scorers / "reward", self.clip)

    @cached_property
    def frechet_features(self) -> FeatureExtractor:
        """24 features for FID and KID: the digit classifier's for the class task, the projected encoder's for the text task."""
        if self.task == "class":
            return ClassifierFeatures(self.scorers / "digit-classifier", self.device)
        return ProjectedClipFeatures(self.clip)

    @cached_property
    def fidelity_features(self) -> FeatureExtractor:
        """Features for the distance to the full run; of a classifier, so never of a network that a training loss may use."""
        name = "digit-classifier" if self.task == "class" else "emoji-classifier"
        return ClassifierFeatures(self.scorers / name, self.device)

    @cached_property
    def frechet_reference(self) -> Reference | Statistics:
        """Features, a statistics file of another tool, or the statistics of an image folder; checked against the extractor."""
        if self.reference is None:
            raise UsageError(
                expected="a file of reference features for FID and KID",
                got="none in the preset",
                remedy="name the reference in the preset, or leave FID and KID out of its metrics",
            )
        if self.reference.is_dir():
            return folder_statistics(self.reference, self.frechet_features)
        if holds_statistics(self.reference):
            statistics = read_statistics(self.reference)
            check_statistics(statistics, self.frechet_features)
            return statistics
        return load_reference(self.reference, self.frechet_features)

    @property
    def feature_reference(self) -> Reference:
        """Reference features, for metrics that need more than their mean and covariance (KID)."""
        if isinstance(self.frechet_reference, Statistics):
            raise UsageError(
                expected="reference features for KID", got=f"only mean and covariance ({self.frechet_reference.data})",
                remedy="leave KID out, or name a file of features",
            )  # fmt: skip
        return self.frechet_reference
