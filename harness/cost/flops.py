"""How much arithmetic a transformer needs, counted from its configuration: no weight is loaded and nothing is run.

Multiply-accumulates (MACs) of every matrix product, as the DiT paper (arXiv 2212.09748) counts its "Gflops": 118.7 G for
DiT-XL/2 at 256 and 524.6 G at 512. A device does two FLOPs for each. Element-wise work (norms, activations, softmax) is left
out: it is below 1% of the arithmetic, though not of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.cost.macs import BlockMacs, block_macs

FLOPS_PER_MAC = 2
TIME_CHANNELS = 256  # the sinusoidal embedding of the timestep, in diffusers' DiT and PixArt alike


@dataclass(frozen=True)
class Geometry:
    """The shapes that decide a denoiser's cost. ``tokens`` is of one image, ``caption_width`` is 0 for class labels."""

    depth: int
    width: int
    tokens: int
    block: BlockMacs
    caption_width: int
    latent: tuple[int, int, int]
    patch: int
    out_channels: int

    @classmethod
    def of(cls, config: Mapping[str, Any], caption_tokens: int) -> Geometry:
        """From the ``config.json`` of diffusers' DiT or PixArt transformer. Raises :class:`KeyError` on a foreign one."""
        patch, side = int(config["patch_size"]), int(config["sample_size"])
        caption_width = int(config.get("caption_channels") or 0)
        return cls(
            depth=int(config["num_layers"]),
            width=int(config["num_attention_heads"]) * int(config["attention_head_dim"]),
            tokens=(side // patch) ** 2,
            block=block_macs(config, caption_tokens),
            caption_width=caption_width,
            latent=(int(config["in_channels"]), side, side),
            patch=patch,
            out_channels=int(config["out_channels"] or config["in_channels"]),
        )

    @property
    def caption_tokens(self) -> int:
        """The longest caption, in tokens; 0 for class labels."""
        return self.block.caption_tokens if self.caption_width else 0

    @property
    def block_macs(self) -> int:
        """One transformer block on one image and one guidance branch."""
        return self.block.block

    @property
    def rest_macs(self) -> int:
        """Everything but the blocks: patches, time, caption projection, head."""
        n, d = self.tokens, self.width
        patches = n * d * self.patch**2 * (self.latent[0] + self.out_channels)
        if self.caption_tokens:
            modulation = TIME_CHANNELS * d + 7 * d * d  # once a model; in DiT every block has its own
            return patches + modulation + self.caption_tokens * d * (self.caption_width + d)
        return patches + TIME_CHANNELS * d + d * d + 2 * d * d

    @property
    def forward_macs(self) -> int:
        """One call of the transformer on one image and one guidance branch."""
        return self.depth * self.block_macs + self.rest_macs

    def denoising_flops(self, block_evaluations: float, calls: float) -> float:
        """FLOPs of one image: blocks as counted (both branches), and the rest as often as the transformer was ``calls``-ed."""
        return FLOPS_PER_MAC * (block_evaluations * self.block_macs + calls * self.rest_macs)
