"""Inception-v3 of 2015 in torch-fidelity's form, which agrees with the TensorFlow original to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from harness.models.reading import load_tensors
from metrics.published.packages import Precision, arithmetic, digest, existing, frozen, in_chunks, require, weights_of

FILE = "weights-inception-2015-12-05-6726825d.pth"
PREPROCESSING = "uint8 RGB, bilinear to 299 x 299 as TensorFlow 1 does (no antialias), (x - 128) / 128"
SPATIAL_CHANNELS = 7


def open_inception(weights: Path | None, device: str) -> Any:
    """torch-fidelity's extractor with pool features; ``weights`` None lets the package download them."""
    extractor = require("torch_fidelity.feature_extractor_inceptionv3", "torch-fidelity").FeatureExtractorInceptionV3
    with weights_of("Inception", f"give the file {FILE} as inception.weights in the scorers' YAML file"):
        if weights is not None:  # read as tensors first: the package itself would run a pickle's code
            load_tensors(existing(weights, FILE), map_location="cpu")
        path = None if weights is None else str(weights)
        return frozen(extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=path), device)


class InceptionFeatures:
    """The 2048 pooled features of FID; a ``FeatureExtractor``."""

    width, name = 2048, "pool"

    def __init__(self, model: Any, device: str, precision: Precision = "fp32") -> None:
        self.model, self.device, self.precision = model, device, precision
        self._digest = digest(model)
        if precision == "bf16":
            model.to(memory_format=torch.channels_last)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, width] for uint8 [B, 3, H, W]."""
        return in_chunks(lambda part: self.features(part.to(self.device)), images, device=self.device, precision=self.precision)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The same for images on the model's device."""
        pooled: torch.Tensor = self.model(images)[0]
        return pooled

    def fingerprint(self) -> Mapping[str, str]:
        """Weights and layer, preprocessing, package."""
        extractor = f"inception-{self.name}-{self._digest}"
        known = {"extractor": extractor, "preprocessing": PREPROCESSING, "torch-fidelity": version("torch-fidelity")}
        return {**known, **arithmetic(self.precision)}


class SpatialFeatures(InceptionFeatures):
    """The 2023 features of sFID (Nash et al., 2021) as ADM's evaluator takes them: 7 channels of 17 x 17, channels last.

    They come from the 1 x 1 branch of the block that TensorFlow names mixed_6, after its rectifier.
    """

    width, name = SPATIAL_CHANNELS * 17 * 17, "spatial"

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """float32 [B, 2023]."""
        seen: list[torch.Tensor] = []
        hook = self.model.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: seen.append(output))
        try:
            self.model(images)
        finally:
            hook.remove()
        return seen[0][:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
