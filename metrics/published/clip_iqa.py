"""pyiqa's CLIP of CLIP-IQA (Wang et al., 2023): a ResNet-50 without position embedding, so that no image is resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from metrics.published.packages import digest, frozen, in_chunks, require, weights_of
from metrics.remembered import RememberedImages, RememberedTexts

PROMPT_PAIRS = {
    "good": ("Good photo.", "Bad photo."),
    "clean": ("Clean photo.", "Noisy photo."),
    "colourful": ("Colorful photo.", "Dull photo."),
    "natural": ("Natural photo.", "Synthetic photo."),
}
PREPROCESSING = "uint8 RGB, not resized, CLIP mean and deviation, no position embedding"


class PyiqaEncoder:
    """An ``ImageTextEncoder``. pyiqa's own score averages five pairs of prompts; here each pair is a metric, as in the paper."""

    def __init__(self, backbone: str, device: str = "cpu") -> None:
        architecture = require("pyiqa.archs.clipiqa_arch", "pyiqa")
        with weights_of(f"CLIP-IQA ({backbone})", "give OpenAI's RN50.pt as clip_iqa.backbone in the scorers' YAML file"):
            self.whole: Any = architecture.CLIPIQA(backbone=backbone)
        self.model: Any = frozen(self.whole.clip_model[0].float(), device)
        self.tokenize: Any = architecture.clip.tokenize
        self.device, self.scale = device, float(self.model.logit_scale.exp())
        self._digest = digest(self.model)
        self.embed_images = RememberedImages(lambda images: in_chunks(self._embed, images))
        self.embed_texts = RememberedTexts(self._embed_texts)

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(self.device).float() / 255
        mean, deviation = self.whole.default_mean.to(pixels), self.whole.default_std.to(pixels)
        embedded: torch.Tensor = self.model.encode_image((pixels - mean) / deviation, pos_embedding=False)
        return embedded

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [B, d], not normalised."""
        embedded: torch.Tensor = self.model.encode_text(self.tokenize(list(texts), truncate=True).to(self.device))
        return embedded.float()

    def cut(self, texts: Sequence[str]) -> str:
        """None: it reads its own two prompts alone."""
        return ""

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, package."""
        return {"encoder": self._digest, "preprocessing": PREPROCESSING, "pyiqa": version("pyiqa")}
