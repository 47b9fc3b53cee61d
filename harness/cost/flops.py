"""How much arithmetic a transformer needs, counted from its configuration: no weight is loaded and nothing is run.

Multiply-accumulates (MACs) of every matrix product, as the DiT paper (arXiv 2212.09748) counts its "Gflops": 118.7 G for
DiT-XL/2 at 256 and 524.6 G at 512. A device does two FLOPs for each. Element-wise work (norms, activations, softmax) is left
out: it is below 1% of the arithmetic, though not of the time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from harness.cost.macs import GRAIN, BlockCost

FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class Geometry:
    """The shapes that decide a denoiser's cost. ``tokens`` and ``latent`` are of one image, ``caption_tokens`` is 0 for class
    labels.

    ``stream_tokens``: all tokens that the blocks carry from one to the next, those of the caption too in a model of two streams.
    ``rest_macs``: everything but the blocks (patches, time, caption projection, refiners, head), ``head_macs`` the head alone.
    """

    blocks: tuple[BlockCost, ...]
    width: int
    tokens: int
    stream_tokens: int
    caption_tokens: int
    caption_width: int
    latent: tuple[int, ...]
    rest_macs: int
    head_macs: int

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return len(self.blocks)

    @cached_property
    def block_macs(self) -> int:
        """The mean transformer block on one image and one guidance branch, the unit of block evaluations, as a whole number."""
        return round(self.mean)

    @cached_property
    def product_macs(self) -> int:
        """Products of two activations in the mean block."""
        return round(sum(block.products for block in self.blocks) / self.depth)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """What each block is worth in mean blocks, rounded so that all sum to the depth."""
        total, before, found = sum(block.block for block in self.blocks), 0, []
        for block in self.blocks:
            after = before + block.block
            found.append((round(GRAIN * self.depth * after / total) - round(GRAIN * self.depth * before / total)) / GRAIN)
            before = after
        return tuple(found)

    @cached_property
    def mean(self) -> float:
        """Multiply-accumulates of the mean block."""
        return sum(block.block for block in self.blocks) / self.depth

    @cached_property
    def shares(self) -> tuple[dict[str, float], ...]:
        """For each block, what each part of it is worth in mean blocks."""
        return tuple(block.shares(self.mean) for block in self.blocks)

    def worth(self, block: BlockCost) -> float:
        """How many mean blocks of this model another block is worth."""
        return round(GRAIN * block.block / self.mean) / GRAIN

    def skipped(self, kinds: Collection[str]) -> float:
        """What all parts of these kinds are worth together, in mean blocks: what a step saves that leaves them out."""
        pairs = zip(self.blocks, self.shares, strict=True)
        return sum(shares[name] for block, shares in pairs for name in block.skippable(kinds))

    @property
    def state_values(self) -> int:
        """Numbers that the blocks carry from one to the next for one image."""
        return self.stream_tokens * self.width

    @property
    def forward_macs(self) -> int:
        """One call of the transformer on one image and one guidance branch."""
        return sum(block.block for block in self.blocks) + self.rest_macs

    def denoising_flops(self, block_evaluations: float, calls: float) -> float:
        """FLOPs of one image: blocks as counted (both branches), and the rest as often as the transformer was ``calls``-ed."""
        return FLOPS_PER_MAC * (block_evaluations * self.mean + calls * self.rest_macs)
