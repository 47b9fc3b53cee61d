"""Learned preference scores of an image for its prompt, or of the image alone: they differ only in the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.contracts import Batch
from harness.results import FloatArray
from metrics.base import BaseMetric, PreferenceModel, to_column


@dataclass(frozen=True)
class Kind:
    """One of the preference scores."""

    name: str
    title: str


IMAGE_REWARD = Kind("image_reward", "ImageReward")  # Xu et al., 2023: about mean 0 and deviation 1 over its training images
PICKSCORE = Kind("pickscore", "PickScore")  # Kirstain et al., 2023: the cosine times CLIP's scale of 100; about 18 to 23
HPSV2 = Kind("hpsv2", "HPSv2.1")  # Wu et al., 2023: a cosine; tables show 100 times as much
AESTHETIC = Kind("aesthetic", "LAION aesthetic score")  # Schuhmann, 2022: 1 to 10; does not read the prompt


class Preference(BaseMetric):
    """The network's score as it is; unbounded unless its kind says otherwise, higher is better."""

    def __init__(self, model: PreferenceModel, kind: Kind = IMAGE_REWARD, tiny: bool = False) -> None:
        self.model, self.name, self.title = model, kind.name, kind.title
        self.reads_prompts = kind is not AESTHETIC
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """The model."""
        return self.model.fingerprint()

    def note(self, prompts: Sequence[str]) -> str:
        """What the model does not read of them."""
        return self.model.cut(prompts)

    def measure(self, batch: Batch) -> FloatArray:
        """Scores, float32 [B, 1]."""
        return to_column(self.model(batch.images, batch.prompts))
