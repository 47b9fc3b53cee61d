"""Preference scores on CLIP: PickScore and HPSv2.1 read the prompt, LAION's aesthetic predictor does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from harness.errors import NotMeasured
from harness.models.reading import load_tensors
from harness.text import cut_note
from metrics.base import ImageTextEncoder, token_counts
from metrics.published.packages import digest, existing, frozen, in_chunks, weights_of
from metrics.published.spec import Aesthetic, HpsV2, OpenClip, PickScoreWeights
from metrics.remembered import RememberedTexts

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
AESTHETIC_FILE = "sac+logos+ava1-l14-linearMSE.pth"
AESTHETIC_LAYERS = {0: (768, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}  # dropouts between them


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels [B, 3, H, W] in 0..1 with CLIP's mean and deviation."""
    mean, deviation = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


class PickScore:
    """CLIP ViT-H/14 of transformers: 100 (its learned scale) times the cosine of image and prompt; a ``PreferenceModel``."""

    def __init__(self, spec: PickScoreWeights, device: str = "cpu") -> None:
        from transformers import CLIPModel, CLIPTokenizer

        remedy = "name local folders as pickscore.model and pickscore.tokenizer in the scorers' YAML file"
        with weights_of(f"PickScore ({spec.model})", remedy):
            loaded: Any = CLIPModel.from_pretrained(spec.model, dtype=torch.float32)
            self.tokenizer: Any = CLIPTokenizer.from_pretrained(spec.tokenizer)
        self.model: Any = frozen(loaded, device)
        self.device, self.side = device, int(loaded.config.vision_config.image_size)
        self.most = int(loaded.config.text_config.max_position_embeddings)
        self.scale = float(loaded.logit_scale.exp())
        self.embed_texts = RememberedTexts(self._embed_texts)
        self._digest = digest(self.model)

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B] for uint8 [B, 3, H, W] and B prompts."""
        image, text = in_chunks(self._embed_images, images, prepare=self._cropped), self.embed_texts(prompts)
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        return self.scale * (image * text).sum(dim=-1)

    def _cropped(self, image: Image.Image) -> torch.Tensor:
        """uint8 [side, side, 3]."""
        return torch.from_numpy(np.array(cropped_to(self.side, image)))

    def _embed_images(self, cropped: torch.Tensor) -> torch.Tensor:
        pixels = normalised(cropped.permute(0, 3, 1, 2).to(self.device).float() / 255)
        embedded: torch.Tensor = self.model.visual_projection(self.model.vision_model(pixels).pooler_output)
        return embedded

    @torch.no_grad()
    def _embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        given = self.tokenizer(list(texts), padding="max_length", truncation=True, max_length=self.most, return_tensors="pt")
        pooled = self.model.text_model(**given.to(self.device)).pooler_output
        embedded: torch.Tensor = self.model.text_projection(pooled)
        return embedded.float()

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        return cut_note(token_counts(self.tokenizer, texts), self.most, "PickScore's CLIP")

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, package."""
        seen = f"uint8 RGB, Pillow bicubic (antialiased) to {self.side}, centre crop, CLIP mean"
        return {"reward": f"pickscore-{self._digest}", "preprocessing": seen, "transformers": version("transformers")}


def cropped_to(side: int, image: Image.Image) -> Image.Image:
    """The shorter side resized to ``side``, the middle of the longer one kept."""
    scale = side / min(image.size)
    width, height = (max(side, int(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


class HpsV21:
    """CLIP ViT-H/14 of open_clip: the cosine of image and prompt; a ``PreferenceModel``.

    Images as the package hpsv2 sees them: the longer side is resized, the rest padded with black.
    """

    def __init__(self, spec: HpsV2, device: str = "cpu") -> None:
        from metrics.published.open_clip import OpenClipEncoder

        if spec.weights is None:
            raise NotMeasured(
                expected="the weights of HPSv2.1",
                got="no file",
                remedy="name HPS_v2.1_compressed.pt as hpsv2.weights in the scorers' YAML file",
            )
        weights = existing(spec.weights, "HPS_v2.1_compressed.pt")
        self.encoder = OpenClipEncoder(OpenClip(model=spec.model, pretrained=str(weights)), device)
        size = self.encoder.model.visual.image_size
        self.device, self.side = device, int(size[0] if isinstance(size, tuple) else size)

    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B] for uint8 [B, 3, H, W] and B prompts."""
        image = F.normalize(in_chunks(self._embed_images, images), dim=-1)
        return (image * F.normalize(self.encoder.embed_texts(prompts), dim=-1)).sum(dim=-1)

    def _embed_images(self, images: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.encoder.model.encode_image(normalised(padded_to(self.side, images.to(self.device))))
        return embedded

    def cut(self, texts: Sequence[str]) -> str:
        """How many texts are cut, in words."""
        return self.encoder.cut(texts)

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, package."""
        known = dict(self.encoder.fingerprint())
        seen = f"uint8 RGB, longer side to {self.side} (bicubic, antialiased, float), black padding, CLIP mean"
        return {"reward": f"hpsv2-{known['encoder']}", "preprocessing": seen, "open_clip": known["open_clip"]}


def padded_to(side: int, images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, 3, H, W] as float32 [B, 3, side, side] in about 0..1: the longer side resized, the shorter one padded with 0."""
    pixels, longest = images.float() / 255, max(images.shape[2:])
    if longest == side:
        height, width = images.shape[2:]
    else:
        height, width = (round(length * side / longest) for length in images.shape[2:])
        pixels = F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)
    right, below = side - width, side - height
    return F.pad(pixels, (right // 2, right - right // 2, below // 2, below - below // 2))


class AestheticScore:
    """LAION's predictor: five linear layers on the unit-length embedding of OpenAI's CLIP ViT-L/14; a ``PreferenceModel``.

    ``encoder`` loads that CLIP, after the predictor's own weights were found.
    """

    def __init__(self, spec: Aesthetic, encoder: Callable[[], ImageTextEncoder], device: str = "cpu") -> None:
        self.device = device
        self.layers = nn.Sequential(*(nn.Linear(*size) for size in AESTHETIC_LAYERS.values()))
        remedy = f"name {AESTHETIC_FILE} as aesthetic.weights in the scorers' YAML file"
        if spec.weights is None:
            raise NotMeasured(expected="the weights of LAION's aesthetic predictor", got="no file", remedy=remedy)
        with weights_of("LAION's aesthetic predictor", remedy):
            stored = load_tensors(existing(spec.weights, AESTHETIC_FILE), map_location="cpu")
            for layer, number in zip(self.layers, AESTHETIC_LAYERS, strict=True):
                layer.load_state_dict({kind: stored[f"layers.{number}.{kind}"] for kind in ("weight", "bias")})
        frozen(self.layers, device)
        self._digest = digest(self.layers)
        self.encoder = encoder()

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """float32 [B] for uint8 [B, 3, H, W]; the prompts are not read."""
        scores: torch.Tensor = self.layers(F.normalize(self.encoder.embed_images(images), dim=-1))[:, 0]
        return scores

    def cut(self, texts: Sequence[str]) -> str:
        """It reads none."""
        return ""

    def fingerprint(self) -> Mapping[str, str]:
        """Both networks' weights, preprocessing, package."""
        return {**self.encoder.fingerprint(), "reward": f"laion-aesthetic-{self._digest}"}
