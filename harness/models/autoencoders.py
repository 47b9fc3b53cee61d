"""Autoencoders of published pipelines, as names of classes, and configs."""

from __future__ import annotations

from typing import Any

TINY_KL = {
    "block_out_channels": (8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 16,
    "mid_block_add_attention": False,
}


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
