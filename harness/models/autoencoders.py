"""Autoencoders of published pipelines, as names of classes, and configs."""

from __future__ import annotations

from typing import Any


def kl(
    latent_side: int,
    channels: tuple[int, ...] = (128, 256, 512, 512),
    norm_groups: int = 32,
    latent_channels: int = 4,
    layers: int = 2,
    **settings: Any,
) -> tuple[str, dict[str, Any]]:
    """Stable Diffusion's autoencoder for latents of ``latent_side``."""
    depth = len(channels)
    return "AutoencoderKL", {
        "down_block_types": ("DownEncoderBlock2D",) * depth,
        "up_block_types": ("UpDecoderBlock2D",) * depth,
        "block_out_channels": channels,
        "layers_per_block": layers,
        "latent_channels": latent_channels,
        "norm_num_groups": norm_groups,
        "sample_size": latent_side * 2 ** (depth - 1),
        **settings,
    }
