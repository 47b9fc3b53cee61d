"""What one transformer block costs in multiply-accumulates, from its config: the common unit of blocks of unlike size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PARTS = {"attn1": "attention", "attn2": "cross", "ff": "mlp"}  # what diffusers' blocks call them
GRAIN = 1024  # shares are multiples of 1/1024, so that every sum of them is exact in floating point
CAPTION_TOKENS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # published limits


@dataclass(frozen=True)
class BlockMacs:
    """Multiply-accumulates of one block on one sample, by part. ``cross`` is 0 in a model without cross-attention.

    ``modulation`` is what a DiT block spends on its own time and class embedding, once a sample. ``caption_tokens`` is the
    caption length that was counted with.
    """

    attention: int
    cross: int
    mlp: int
    modulation: int
    caption_tokens: int

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


def block_macs(config: Mapping[str, Any], caption_tokens: int = 120, latent_size: int | None = None) -> BlockMacs:
    """From a DiT or PixArt transformer's config; ``latent_size`` where it differs from the config's ``sample_size``.

    The MLP is four times as wide as the model, as in every published one. Norms, activations and softmax are left out.
    """
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    tokens = (int(latent_size or config["sample_size"]) // int(config["patch_size"])) ** 2
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    mlp = 8 * tokens * width**2
    source = config.get("cross_attention_dim")
    cross = 0
    if source:
        cross = 2 * tokens * width**2 + 2 * caption_tokens * int(source) * width + 2 * tokens * caption_tokens * width
    own_embedding = config.get("norm_type") == "ada_norm_zero"
    modulation = 6 * width**2 + 256 * width + width**2 if own_embedding else 0
    return BlockMacs(attention, cross, mlp, modulation, caption_tokens)
