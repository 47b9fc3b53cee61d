"""Image-text encoders of open_clip, with the package's own preprocessing and tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
import torch.nn.functional as F

from harness.text import cut_note
from metrics.base import token_counts
from metrics.published.packages import arithmetic, digest, frozen, in_chunks, require, weights_of
from metrics.published.spec import OpenClip
from metrics.remembered import RememberedImages, RememberedTexts

MARKS = 2  # of a text in tokens: where it begins, and where it ends


class OpenClipEncoder:
    """An ``ImageTextEncoder``; images pass Pillow's resize (bicubic, antialiased), as the package prescribes.

    Each image and each text is embedded once.
    """

    def __init__(self, spec: OpenClip, device: str = "cpu") -> None:
        package = require("open_clip", "open_clip_torch")
        remedy = "name a local state-dict file as `pretrained` in the scorers' YAML file"
        with weights_of(f"open_clip's {spec.model} ({spec.pretrained})", remedy):
            model, _, self.preprocess = package.create_model_and_transforms(spec.model, pretrained=spec.pretrained)
            self.tokenizer: Any = package.get_tokenizer(spec.model)
        self.model: Any = frozen(model, device)
        self.spec, self.device = spec, device
        self.scale = float(self.model.logit_scale.exp())
        self._digest = digest(self.model)
        # Under autocast attention sees a transposed batch. Torch multiplies that in one piece only by a weight that wants a
        # gradient; by a frozen one it multiplies each position for itself, which took 200 times as long on a CPU.
        self.model.requires_grad_(spec.precision == "bf16")
        self.embed_images = RememberedImages(
            lambda images: in_chunks(self._embed, images, device=device, precision=spec.precision, prepare=self.preprocess)
        )
        self.embed_texts = RememberedTexts(self._embed_texts)

    @torch.no_grad()
    def _embed(self, pixels: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.model.encode_image(pixels.to(self.device))
        return embedded

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """float32 [B, d], not normalised; a text is cut after the model's context length."""
        embedded: torch.Tensor = self.model.encode_text(self.tokenizer(list(texts)).to(self.device))
        return embedded.float()

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        inner = getattr(self.tokenizer, "tokenizer", None)  # of transformers, where the model has one
        counts = token_counts(inner, texts) if inner else [len(self.tokenizer.encode(text)) + MARKS for text in texts]
        return cut_note(counts, int(self.tokenizer.context_length), f"CLIP ({self.spec.model})")

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, model, preprocessing, package."""
        shown = " ".join(str(self.preprocess).split())
        return {
            "encoder": f"{self.spec.model}-{self._digest}",
            "preprocessing": shown,
            "open_clip": version("open_clip_torch"),
            **arithmetic(self.spec.precision),
        }


class OpenClipFeatures:
    """Image embeddings of unit length, for CMMD; a ``FeatureExtractor``."""

    def __init__(self, encoder: OpenClipEncoder) -> None:
        self.encoder = encoder
        self.width = int(encoder.model.visual.output_dim)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        return F.normalize(self.encoder.embed_images(images), dim=-1)

    def fingerprint(self) -> Mapping[str, str]:
        """The encoder's, with the normalisation."""
        known = dict(self.encoder.fingerprint())
        return {**known, "extractor": f"{known.pop('encoder')}-unit", "open_clip": version("open_clip_torch")}
