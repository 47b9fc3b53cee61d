"""The published networks as a set that metrics can ask; each is loaded on first use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from metrics.base import FeatureExtractor, ImageTextEncoder, LpipsBackbone, PairDistance, PreferenceModel, PreferenceName
from metrics.published.clip_iqa import PROMPT_PAIRS, PyiqaEncoder
from metrics.published.dinov2 import DinoFeatures
from metrics.published.image_reward import RewardModel
from metrics.published.inception import InceptionFeatures, SpatialFeatures, open_inception
from metrics.published.lpips import ALEXNET, VGG16, Lpips
from metrics.published.open_clip import OpenClipEncoder, OpenClipFeatures
from metrics.published.preference import AestheticScore, HpsV21, PickScore
from metrics.published.spec import Scorers
from metrics.remembered import RememberedFeatures


class PublishedNetworks:
    """A ``Networks`` of the packages of the papers. A network whose package or weights are missing raises ``NotMeasured``."""

    tiny = False
    iqa_prompts: Mapping[str, tuple[str, str]] = PROMPT_PAIRS

    def __init__(self, scorers: Scorers, device: str = "cpu") -> None:
        self.scorers, self.device = scorers, device
        self._preferences: dict[str, PreferenceModel] = {}
        self._lpips: dict[str, PairDistance] = {}

    @cached_property
    def _inception(self) -> Any:
        return open_inception(self.scorers.inception.weights, self.device)

    @cached_property
    def frechet_features(self) -> FeatureExtractor:
        """Inception's pooled features."""
        return RememberedFeatures(InceptionFeatures(self._inception, self.device, self.scorers.inception.precision))

    @cached_property
    def spatial_features(self) -> FeatureExtractor:
        """Inception's spatial features."""
        return SpatialFeatures(self._inception, self.device, self.scorers.inception.precision)

    @cached_property
    def dino_features(self) -> FeatureExtractor:
        """DINOv2's class token."""
        return RememberedFeatures(DinoFeatures(self.scorers.dinov2.model, self.device, self.scorers.dinov2.precision))

    @property
    def fidelity_features(self) -> FeatureExtractor:
        """DINOv2 as well: no accelerator here is trained on it."""
        return self.dino_features

    @cached_property
    def clip_features(self) -> FeatureExtractor:
        """CMMD's CLIP."""
        return OpenClipFeatures(OpenClipEncoder(self.scorers.cmmd, self.device))

    @cached_property
    def clip(self) -> ImageTextEncoder:
        """CLIP score's CLIP."""
        return OpenClipEncoder(self.scorers.clip, self.device)

    @cached_property
    def iqa(self) -> ImageTextEncoder:
        """CLIP-IQA's CLIP."""
        return PyiqaEncoder(self.scorers.clip_iqa.backbone, self.device)

    def preference(self, name: PreferenceName) -> PreferenceModel:
        """The network of a preference score."""
        if name not in self._preferences:
            self._preferences[name] = self._load_preference(name)
        return self._preferences[name]

    def _load_preference(self, name: PreferenceName) -> PreferenceModel:
        if name == "image_reward":
            return RewardModel(self.scorers.image_reward, self.device)
        if name == "pickscore":
            return PickScore(self.scorers.pickscore, self.device)
        if name == "hpsv2":
            return HpsV21(self.scorers.hpsv2, self.device)
        return AestheticScore(self.scorers.aesthetic, lambda: self.clip, self.device)

    def lpips(self, backbone: LpipsBackbone) -> PairDistance:
        """LPIPS with the named backbone."""
        if backbone not in self._lpips:
            network, weights = {"alex": (ALEXNET, self.scorers.lpips.alex), "vgg": (VGG16, self.scorers.lpips.vgg)}[backbone]
            self._lpips[backbone] = Lpips(network, weights, self.device)
        return self._lpips[backbone]
