"""Blocks and transformers where they stand: their calls changed inside a context, whatever the family's way to call them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from harness.cost.macs import BlockCost, Part
from harness.models.families.base import Conditioning, Family, ModelCall, Segment, State
from harness.sampling.patching import patched
from harness.sampling.rows import select_rows

Run = Callable[[State, Conditioning], State]
Predict = Callable[[ModelCall], torch.Tensor]


@dataclass(frozen=True)
class Site:
    """A block in its place. ``number`` is 1-based over all lists of blocks, ``place`` 0-based in its own, ``cost`` what it
    costs and ``weight`` its worth in mean blocks."""

    block: nn.Module
    segment: Segment
    number: int
    place: int
    cost: BlockCost
    weight: float
    shares: dict[str, float]

    @contextmanager
    def changed(self, change: Callable[[Run, State, Conditioning], State]) -> Iterator[None]:
        """Inside the context every call of the block is ``change(run, streams, conditioning)``, where ``run`` is what it was."""
        segment, block, forward = self.segment, self.block, self.block.forward

        def run(state: State, conditioning: Conditioning) -> State:
            return segment.run(forward, state, conditioning)

        def call(*args: Any, **kwargs: Any) -> Any:
            return segment.give(change(run, *segment.read(block, args, kwargs)))

        call.__wrapped__ = forward  # type: ignore[attr-defined]  # who asks for the block's signature gets its own
        with patched(block, "forward", call):
            yield

    def rows(self, conditioning: Conditioning, rows: int, chosen: slice | torch.Tensor) -> Conditioning:
        """The ``chosen`` ones of ``rows`` rows of the block's conditioning."""
        return select_rows(conditioning, rows, chosen, self.segment.shared)  # type: ignore[no-any-return]

    def parts(self) -> Sequence[tuple[Part, nn.Module]]:
        """The block's parts that a method may leave out, and their modules."""
        return [(part, getattr(self.block, part.name)) for part in self.cost.parts]


def bare_sites(transformer: Any, family: Family) -> list[Site]:
    """Every block of ``transformer`` in the order in which they run, without its cost."""
    lists = ((segment, getattr(transformer, segment.blocks)) for segment in family.segments)
    blocks = [(segment, place, block) for segment, blocks in lists for place, block in enumerate(blocks)]
    return [Site(block, segment, i, place, BlockCost(()), 1.0, {}) for i, (segment, place, block) in enumerate(blocks, start=1)]


def list_sites(
    transformer: Any,
    family: Family,
    blocks: Sequence[BlockCost],
    weights: Sequence[float],
    shares: Sequence[dict[str, float]],
) -> list[Site]:
    """The same with what each costs, see :class:`harness.cost.flops.Geometry`."""
    facts = zip(bare_sites(transformer, family), blocks, weights, shares, strict=True)
    return [replace(site, cost=cost, weight=weight, shares=share) for site, cost, weight, share in facts]


@contextmanager
def model_changed(transformer: Any, family: Family, change: Callable[[Predict, ModelCall], torch.Tensor]) -> Iterator[None]:
    """Inside the context every call of the transformer is ``change(predict, call)``: the prediction [rows, ...] as the scheduler
    reads it, where ``predict`` is what the transformer was."""
    io, forward = family.call, transformer.forward

    def predict(call: ModelCall) -> torch.Tensor:
        return io.run(forward, call)

    def called(*args: Any, **kwargs: Any) -> Any:
        call, as_object = io.read(transformer, args, kwargs)
        return io.give(change(predict, call), as_object)

    with patched(transformer, "forward", called):
        yield


def rows_of_call(call: ModelCall, chosen: slice | torch.Tensor, shared: Collection[str]) -> ModelCall:
    """Some rows of a call."""
    rows = len(call.sample)
    told = select_rows(call.conditioning, rows, chosen, shared)
    return ModelCall(call.sample[chosen], select_rows(call.time, rows, chosen), told)
