"""What one transformer block costs in multiply-accumulates, from its config: the common unit of blocks of unlike size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

PARTS = {"attn1": "attention", "attn2": "cross", "ff": "mlp"}  # what diffusers' blocks call them
GRAIN = 1024  # shares are multiples of 1/1024, so that every sum of them is exact in floating point
CAPTION_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # published limits


@dataclass(frozen=True)
class BlockMacs:
    """The shapes that decide what one block costs on one sample, and its multiply-accumulates by part.

    ``caption_width`` is 0 in a model without cross-attention. The MLP is four times as wide as the model, as in every published
    one. Norms, activations and softmax are left out.
    """

    width: int
    tokens: int
    caption_tokens: int
    caption_width: int
    own_embedding: bool

    @property
    def attention(self) -> int:
        """Self-attention with its projections."""
        return 4 * self.tokens * self.width**2 + 2 * self.tokens**2 * self.width

    @property
    def cross(self) -> int:
        """Attention to the caption with its projections; 0 where there is none."""
        queries = 2 * self.tokens * self.width**2 if self.caption_width else 0
        return queries + 2 * self.caption_tokens * self.width * (self.caption_width + self.tokens if self.caption_width else 0)

    @property
    def mlp(self) -> int:
        """Both layers of the MLP."""
        return 8 * self.tokens * self.width**2

    @property
    def modulation(self) -> int:
        """What a DiT block spends on its own time and class embedding, once a sample."""
        return 6 * self.width**2 + 256 * self.width + self.width**2 if self.own_embedding else 0

    def at_half_resolution(self) -> BlockMacs:
        """The same block at half the height and width of the image."""
        return replace(self, tokens=self.tokens // 4)

    @property
    def block(self) -> int:
        """The whole block."""
        return self.attention + self.cross + self.mlp + self.modulation

    def share(self, part: str) -> float:
        """The share 0..1 of a part of a block (``attn1``, ``attn2`` or ``ff``) in the whole, rounded so that all sum to 1."""
        before: int = sum(getattr(self, name) for name in list(PARTS.values())[: list(PARTS).index(part)])
        after: int = before + getattr(self, PARTS[part])
        return (round(GRAIN * after / self.block) - round(GRAIN * before / self.block)) / GRAIN

    @property
    def skippable(self) -> float:
        """The share of all three parts together, which leaves norms, modulation and gates."""
        return sum(self.share(part) for part in PARTS)

    def blocks_of(self, other: BlockMacs) -> float:
        """How many blocks of this cost one of ``other`` is worth, to the same grain as :meth:`share`."""
        return round(GRAIN * other.block / self.block) / GRAIN


def block_macs(config: Mapping[str, Any], caption_tokens: int = 120, latent_size: int | None = None) -> BlockMacs:
    """From a DiT or PixArt transformer's config; ``latent_size`` where it differs from the config's ``sample_size``."""
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    tokens = (int(latent_size or config["sample_size"]) // int(config["patch_size"])) ** 2
    source = int(config.get("cross_attention_dim") or 0)
    return BlockMacs(width, tokens, caption_tokens, source, config.get("norm_type") == "ada_norm_zero")
