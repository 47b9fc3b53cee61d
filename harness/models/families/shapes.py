"""Shapes that several families share."""

from __future__ import annotations

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
