"""Shapes that several families share."""

from __future__ import annotations

import numpy as np

from harness.models.families.base import Described

TIME_CHANNELS = 256  # the sinusoidal embedding of the timestep


def grid(model: Described) -> tuple[int, int, int]:
    """Channels, height and width of one image's latent, where the transformer takes it as a grid."""
    config = model.transformer
    side = int(config["sample_size"])
    height, width = (pixels // model.scale if pixels else side for pixels in (model.height, model.width))
    return int(config["in_channels"]), height, width


def grid_tokens(model: Described) -> int:
    """Image tokens of such a latent."""
    patch, (_, height, width) = int(model.transformer["patch_size"]), grid(model)
    return (height // patch) * (width // patch)


def packed(model: Described) -> tuple[int, int]:
    """Tokens and channels of one image's latent, where each token is a square of two by two; 128 latents wide where no size is
    asked for."""
    height, width = (pixels // model.scale // 2 if pixels else 64 for pixels in (model.height, model.width))
    return height * width, int(model.transformer["in_channels"])


def even_sigmas(steps: int) -> list[float]:
    """Evenly spaced from 1 to 1 / steps."""
    sigmas: list[float] = np.linspace(1.0, 1 / steps, steps).tolist()
    return sigmas
