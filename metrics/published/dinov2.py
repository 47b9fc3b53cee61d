"""DINOv2 features for the Fréchet distance of Stein et al. (2023); the package is transformers, of the light core."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from PIL import Image

from metrics.published.packages import Precision, arithmetic, digest, frozen, in_chunks, weights_of

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = f"uint8 RGB, bicubic to {SIDE} x {SIDE} (Pillow, antialiased), ImageNet mean and deviation"


class DinoFeatures:
    """The normalised class token; a ``FeatureExtractor``."""

    def __init__(self, model: str, device: str = "cpu", precision: Precision = "fp32") -> None:
        from transformers import Dinov2Model

        with weights_of(f"DINOv2 ({model})", "name a local folder as dinov2.model in the scorers' YAML file"):
            loaded: Any = Dinov2Model.from_pretrained(model, dtype=torch.float32)
        self.model: Any = frozen(loaded, device)
        self.precision = precision
        self.device, self.width = device, int(loaded.config.hidden_size)
        self._digest = digest(self.model)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        return in_chunks(self._features, images, device=self.device, precision=self.precision, prepare=_resized)

    def _features(self, resized: torch.Tensor) -> torch.Tensor:
        pixels = resized.permute(0, 3, 1, 2).to(self.device).float() / 255
        mean, deviation = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (MEAN, DEVIATION))
        found: torch.Tensor = self.model(pixel_values=(pixels - mean) / deviation).last_hidden_state[:, 0]
        return found

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, package."""
        known = {"extractor": f"dinov2-{self._digest}", "preprocessing": PREPROCESSING, "transformers": version("transformers")}
        return {**known, **arithmetic(self.precision)}


def _resized(image: Image.Image) -> torch.Tensor:
    """uint8 [224, 224, 3]."""
    return torch.from_numpy(np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
