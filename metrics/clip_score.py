"""CLIP score (Hessel et al., 2021): how well an image fits its prompt, here without a reference caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F

from harness.contracts import Batch
from harness.results import FloatArray
from metrics.base import BaseMetric, ImageTextEncoder, to_column

SCALE = 100.0  # torchmetrics' and the literature's tables; the paper itself writes 2.5


class ClipScore(BaseMetric):
    """100 * max(cosine(image, prompt), 0): 0..100, higher is better. A black image does not score 0."""

    name, title = "clip_score", "CLIP score"
    reads_prompts = True
    range = (0.0, SCALE)

    def __init__(self, encoder: ImageTextEncoder, tiny: bool = False) -> None:
        self.encoder = encoder
        self.mark_tiny(tiny)

    def details(self) -> Mapping[str, str]:
        """Encoder and scale."""
        return {**self.encoder.fingerprint(), "scale": f"{SCALE:g}*max(cos,0)"}

    def note(self, prompts: Sequence[str]) -> str:
        """What the encoder does not read of them."""
        return self.encoder.cut(prompts)

    def measure(self, batch: Batch) -> FloatArray:
        """Scores, float32 [B, 1]."""
        image = F.normalize(self.encoder.embed_images(batch.images), dim=-1)
        text = F.normalize(self.encoder.embed_texts(batch.prompts), dim=-1)
        return to_column(SCALE * (image * text).sum(dim=-1).clamp(min=0))
