"""What a transformer block costs in multiply-accumulates, by part: the common unit of blocks of unlike size.

Every matrix product counts, norms, activations and softmax do not. A family's file says what its blocks cost
(:mod:`harness.models.families`); the two rules below are all that it needs for that.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

GRAIN = 1024  # shares are multiples of 1/1024, so that every sum of them is exact in floating point
Kind = Literal["attention", "cross", "mlp", "output"]
KINDS: tuple[Kind, ...] = ("attention", "cross", "mlp")  # what a method may ask for; "output" follows from them


def linear(tokens: int, inputs: int, outputs: int) -> int:
    """A linear layer on ``tokens`` tokens.

    >>> linear(256, 1152, 4 * 1152)  # the first layer of DiT-XL/2's MLP at 256 x 256 pixels
    1358954496
    """
    return tokens * inputs * outputs


def attention(queries: int, keys: int, width: int) -> int:
    """Both products of attention, scores and their sum of values, all heads together."""
    return 2 * queries * keys * width


@dataclass(frozen=True)
class Part:
    """One part of a block by the name of its module. Kind ``output`` is what joins attention and MLP of a parallel block, or is
    both at once: it can be left out only where both are."""

    name: str
    kind: Kind
    macs: int


@dataclass(frozen=True)
class BlockCost:
    """The multiply-accumulates of one block on one sample: its ``parts``, which a method may leave out, and the ``rest``.

    ``products`` are those of two activations (attention), which a backward pass has to do twice.
    """

    parts: tuple[Part, ...]
    rest: int = 0
    products: int = 0

    @property
    def block(self) -> int:
        """The whole block."""
        return sum(part.macs for part in self.parts) + self.rest

    def share(self, name: str) -> float:
        """The share 0..1 of a part in the whole, rounded so that all sum to 1; 0 where the block has no such part."""
        return self.shares(self.block).get(name, 0.0)

    def shares(self, unit: float) -> dict[str, float]:
        """The cost of each part in ``unit`` multiply-accumulates, rounded to the grain so that they sum to the whole."""
        found, before = {}, 0
        for part in self.parts:
            after = before + part.macs
            found[part.name] = (round(GRAIN * after / unit) - round(GRAIN * before / unit)) / GRAIN
            before = after
        return found

    @property
    def joined(self) -> set[Kind]:
        """The kinds that a part of kind ``output`` joins."""
        return {part.kind for part in self.parts} - {"output"} or {"attention", "mlp"}

    def skippable(self, kinds: Collection[str]) -> tuple[str, ...]:
        """The parts that need not run where attention, cross-attention or MLP of these ``kinds`` do not."""
        joined = self.joined <= set(kinds)
        return tuple(part.name for part in self.parts if part.kind in kinds or (part.kind == "output" and joined))

    def blocks_of(self, other: BlockCost) -> float:
        """How many blocks of this cost one of ``other`` is worth, to the same grain as :meth:`share`."""
        return round(GRAIN * other.block / self.block) / GRAIN
