"""CLIP-IQA (Wang et al., 2023, equation 2): the probability of the first of two opposite prompts."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F

from harness.contracts import Batch
from harness.errors import UsageError
from harness.results import FloatArray
from metrics.base import BaseMetric, ImageTextEncoder, to_column

NAMES = {
    "good": "clip_iqa",
    "clean": "clip_iqa_noisy",
    "colourful": "clip_iqa_colourful",
    "natural": "clip_iqa_natural",
}
TITLES = {
    "good": "CLIP-IQA",
    "clean": "CLIP-IQA clean, not noisy",
    "colourful": "CLIP-IQA colourful, not dull",
    "natural": "CLIP-IQA natural, not synthetic",
}


class ClipIqa(BaseMetric):
    """exp(s a) / (exp(s a) + exp(s b)) of the cosines a, b with the pair's prompts and the encoder's scale s.

    A probability, 0..1, higher is better for each pair; ``clean`` is 1 for an image free of noise.
    """

    unit = "probability"
    range = (0.0, 1.0)

    def __init__(
        self, encoder: ImageTextEncoder, prompts: Mapping[str, tuple[str, str]], pair: str = "good", tiny: bool = False
    ) -> None:
        if pair not in prompts:
            raise UsageError(
                expected=f"an attribute out of {', '.join(prompts)} for these scorers",
                got=pair,
                remedy="leave it out, or name the published scorers",
            )
        self.encoder, self.prompts = encoder, prompts[pair]
        self.name, self.title = NAMES[pair], TITLES[pair]
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Encoder and prompts."""
        return {**self.encoder.fingerprint(), "prompts": " / ".join(self.prompts)}

    def measure(self, batch: Batch) -> FloatArray:
        """Probabilities, float32 [B, 1]."""
        image = F.normalize(self.encoder.embed_images(batch.images), dim=-1)
        pair = F.normalize(self.encoder.embed_texts(self.prompts), dim=-1)
        return to_column((self.encoder.scale * image @ pair.T).softmax(dim=-1)[:, 0])
