"""The bundled tiny networks, one folder each, as a set that metrics can ask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.errors import NotMeasured
from metrics.base import FeatureExtractor, LpipsBackbone, PairDistance, PreferenceModel, PreferenceName
from metrics.bundled.tiny import ClassifierFeatures, ProjectedClipFeatures, TinyClip, TinyReward
from metrics.remembered import RememberedFeatures

Task = Literal["class", "text"]
PROMPT_PAIRS = {  # British, as the tiny encoder has learned them
    "good": ("good picture", "bad picture"),
    "clean": ("clean picture", "noisy picture"),
    "colourful": ("colourful picture", "dull picture"),
}


class BundledNetworks:
    """A ``Networks`` of the folder of tiny scorers; features for FID depend on the task."""

    tiny = True
    iqa_prompts: Mapping[str, tuple[str, str]] = PROMPT_PAIRS

    def __init__(self, folder: Path, task: Task, device: str = "cpu") -> None:
        self.folder, self.task, self.device = folder, task, device

    @cached_property
    def clip(self) -> TinyClip:
        """The image-text encoder."""
        return TinyClip(self.folder / "clip", self.device)

    @property
    def iqa(self) -> TinyClip:
        """The same encoder."""
        return self.clip

    @cached_property
    def reward(self) -> TinyReward:
        """The reward model with its text tower."""
        return TinyReward(self.folder / "reward", self.clip)

    @cached_property
    def frechet_features(self) -> FeatureExtractor:
        """24 features: the digit classifier's for the class task, the projected encoder's for the text task."""
        if self.task == "class":
            return ClassifierFeatures(self.folder / "digit-classifier", self.device)
        return ProjectedClipFeatures(self.clip)

    @cached_property
    def fidelity_features(self) -> FeatureExtractor:
        """Of a classifier, so never of a network that a training loss may use."""
        name = "digit-classifier" if self.task == "class" else "emoji-classifier"
        return RememberedFeatures(ClassifierFeatures(self.folder / name, self.device))

    @property
    def spatial_features(self) -> FeatureExtractor:
        """None."""
        raise _lacking("sFID")

    @property
    def dino_features(self) -> FeatureExtractor:
        """None."""
        raise _lacking("FD-DINOv2")

    @property
    def clip_features(self) -> FeatureExtractor:
        """None."""
        raise _lacking("CMMD")

    def preference(self, name: PreferenceName) -> PreferenceModel:
        """ImageReward's tiny stand-in only."""
        if name != "image_reward":
            raise _lacking(name)
        return self.reward

    def lpips(self, backbone: LpipsBackbone) -> PairDistance:
        """None."""
        raise _lacking("LPIPS")


def _lacking(title: str) -> NotMeasured:
    return NotMeasured(
        expected=f"published networks for {title}",
        got="the bundled tiny scorers",
        remedy="--scorers metrics/published/scorers.yaml; see docs/metrics.md",
    )
