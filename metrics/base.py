"""What every metric shares: the networks it may be given, the check of its measurements, and the plain-mean summary."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from harness.contracts import Batch, Unmeasurable
from harness.errors import UsageError
from harness.results import Direction, FloatArray

LpipsBackbone = Literal["alex", "vgg"]
PreferenceName = Literal["image_reward", "pickscore", "hpsv2", "aesthetic"]


class FeatureExtractor(Protocol):
    """A fixed network from images to features."""

    width: int

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""

    def fingerprint(self) -> Mapping[str, str]:
        """Must hold ``extractor``, a digest of the weights, and the preprocessing."""


class ImageTextEncoder(Protocol):
    """A network with images and texts in one space, such as CLIP; ``scale`` is its learned inverse temperature."""

    scale: float

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, d], not normalised, for uint8 [B, 3, H, W]."""

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [B, d], not normalised."""

    def cut(self, texts: Sequence[str]) -> str:
        """``12 of 50 prompts are cut at 77 tokens by CLIP``, or nothing."""

    def fingerprint(self) -> Mapping[str, str]:
        """Weights and preprocessing."""


class PreferenceModel(Protocol):
    """A network that scores an image for a prompt."""

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B], higher is better, for uint8 [B, 3, H, W]."""

    def cut(self, texts: Sequence[str]) -> str:
        """``12 of 50 prompts are cut at 77 tokens by CLIP``, or nothing."""

    def fingerprint(self) -> Mapping[str, str]:
        """Weights and preprocessing."""


class PairDistance(Protocol):
    """A network that compares an image with another."""

    def __call__(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """float32 [B], 0 for identical images, for two batches uint8 [B, 3, H, W]."""

    def fingerprint(self) -> Mapping[str, str]:
        """Weights and preprocessing."""


class Networks(Protocol):
    """Every network that a metric may ask for, loaded on first use. What a set lacks raises a :class:`HarnessError`."""

    @property
    def tiny(self) -> bool:
        """Whether these are the bundled tiny networks."""

    @property
    def frechet_features(self) -> FeatureExtractor:
        """For FID, KID, precision and recall."""

    @property
    def spatial_features(self) -> FeatureExtractor:
        """For sFID."""

    @property
    def dino_features(self) -> FeatureExtractor:
        """For the Fréchet distance of DINOv2."""

    @property
    def clip_features(self) -> FeatureExtractor:
        """For CMMD; of unit length."""

    @property
    def fidelity_features(self) -> FeatureExtractor:
        """For the distance to the full run; never of a network that a training loss uses."""

    @property
    def clip(self) -> ImageTextEncoder:
        """For CLIP score."""

    @property
    def iqa(self) -> ImageTextEncoder:
        """For CLIP-IQA."""

    @property
    def iqa_prompts(self) -> Mapping[str, tuple[str, str]]:
        """CLIP-IQA's attributes, each with a prompt for it and one against it."""

    def preference(self, name: PreferenceName) -> PreferenceModel:
        """For the preference scores."""

    def lpips(self, backbone: LpipsBackbone) -> PairDistance:
        """For LPIPS."""


class BaseMetric(ABC):
    """A :class:`harness.contracts.Metric` whose score is the mean of its single measured column, unless overridden."""

    name: str
    title: str
    unit: str = ""
    direction: Direction = "higher"
    tiny: bool = False
    paired: bool = False
    floor: int = 1
    advised: int = 1
    counted: bool = False
    reads_prompts: bool = False
    range: tuple[float | None, float | None] = (None, None)

    def mark_tiny(self, tiny: bool) -> None:
        """Say in the title that a bundled tiny network measures, so that no table passes it off as the published metric."""
        self.tiny = tiny
        if tiny:
            self.title = f"{self.title} (tiny)"

    @property
    def measurement(self) -> str:
        """Its own name: no other metric summarises what this one measures."""
        return self.name

    @abstractmethod
    def details(self) -> Mapping[str, str]:
        """What fixes this metric's numbers beyond its name and floor."""

    @abstractmethod
    def measure(self, batch: Batch) -> FloatArray:
        """float32 [B, d]."""

    def basis(self) -> Mapping[str, str]:
        """What fixes the measurement: all of the fingerprint, unless several metrics share it."""
        return self.fingerprint()

    def fingerprint(self) -> Mapping[str, str]:
        """Everything that must agree before two scores may be subtracted."""
        return {"metric": self.name, "floor": str(self.floor), **self.details()}

    def note(self, prompts: Sequence[str]) -> str:
        """How many of these prompts its network cuts, in words; nothing where it cuts none."""
        return ""

    def summarise(self, measured: FloatArray) -> FloatArray:
        """:meth:`values` of measurements [N, d], or :class:`Unmeasurable` where there are too few or one is not finite."""
        if len(measured) < self.floor:
            raise Unmeasurable(
                f"{self.title}: expected at least {self.floor} images; got {len(measured)}; remedy: raise the sample count"
            )
        return self.values(self.checked(measured))

    def values(self, measured: FloatArray) -> FloatArray:
        """The measured column float64 [N, 1] as [N]; its mean is the score. Below the floor for null controls only."""
        return measured[:, 0]

    def per_image(self, measured: FloatArray) -> FloatArray | None:
        """The measured column where the score is its mean; nothing for metrics with values of their own, unless they say more."""
        return measured[:, 0] if type(self).values is BaseMetric.values else None

    def checked(self, measured: FloatArray) -> FloatArray:
        """``measured`` as float64 [N, d], or :class:`Unmeasurable` where it is not finite."""
        broken = int((~np.isfinite(measured).all(axis=1)).sum())
        if broken:
            raise Unmeasurable(
                f"{self.title}: expected finite measurements; got {broken} of {len(measured)} images without; "
                "remedy: look at those images, the method may have diverged"
            )
        return measured.astype(np.float64)


class FeatureMetric(BaseMetric):
    """A metric of an extractor's features. All those of one extractor share one pass and one stored array, the feature bank."""

    def __init__(self, features: FeatureExtractor) -> None:
        self.features = features

    @property
    def measurement(self) -> str:
        """The bank's name, from the digest of everything that fixes its rows."""
        text = json.dumps(dict(self.basis()), sort_keys=True)
        return f"features-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def basis(self) -> Mapping[str, str]:
        """The extractor's fingerprint."""
        return self.features.fingerprint()

    def measure(self, batch: Batch) -> FloatArray:
        """Features, float32 [B, d]."""
        return self.features(batch.images).float().cpu().numpy()


def token_counts(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The length of each text in a tokenizer of transformers, special tokens included, before anything is cut."""
    return [len(tokens) for tokens in tokenizer(list(texts), truncation=False).input_ids]


def to_column(values: torch.Tensor) -> FloatArray:
    """A vector [B] on any device as float32 [B, 1]."""
    return values.detach().float().reshape(-1, 1).cpu().numpy()


def images_and_full(batch: Batch, metric: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The batch's images and the full run's images from the same noise, of one shape."""
    if batch.full is None or batch.full.shape != batch.images.shape:
        raise UsageError(
            expected=f"the full run's images beside every image for {metric}",
            got="none" if batch.full is None else f"{list(batch.full.shape)} beside {list(batch.images.shape)}",
            remedy="add the plain pipeline to the run; where it is in the run and has failed, mend that first",
        )
    return batch.images, batch.full
