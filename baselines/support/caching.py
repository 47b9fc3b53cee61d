"""What the caches share: ranges of blocks that a step skips, parts of blocks whose output it takes from an earlier step.

Step numbers are 0-based. The first step of every call must run everything, so that no state outlives a call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from harness.cost.macs import PARTS
from harness.errors import NotMeasured, UsageError
from harness.sampling.guidance import select_rows
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.transfer import to_device

Forward = Callable[..., torch.Tensor]
Chooser = Callable[[torch.Tensor, dict[str, Any]], "bool | torch.Tensor"]
Runs = Callable[[int, int, str], bool]  # (0-based step, 0-based block, part)


class RangeCache:
    """A range of blocks that runs, or is replaced by adding what it added to its input when it last ran.

    ``choose`` gets the hidden states [rows, tokens, width] that enter the range and the blocks' keyword arguments, once a
    step, and says whether the range runs: one bool for all, or a bool tensor [rows] that decides each row apart. With
    ``absolute`` the range's OUTPUT is kept instead of what it added.
    """

    def __init__(self, choose: Chooser, *, absolute: bool = False) -> None:
        self.choose, self.absolute = choose, absolute
        self._rows: torch.Tensor | None = None  # which rows run; None: all
        self._entered = self._kept = torch.empty(0)

    @contextmanager
    def attached(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Replace the ``forward`` of ``blocks`` (in order, neighbours) inside the context."""
        with ExitStack() as stack:
            for i, block in enumerate(blocks):
                wrapped = self._wrapped(block.forward, is_first=i == 0, is_last=i == len(blocks) - 1)
                stack.enter_context(patched(block, "forward", wrapped))
            yield

    def _wrapped(self, forward: Forward, *, is_first: bool, is_last: bool) -> Forward:
        def call(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
            if is_first:
                hidden_states = self._enter(hidden_states, kwargs)
            if self._rows is not None and len(self._rows):
                kwargs = select_rows(kwargs, len(self._entered), self._rows)
            if len(hidden_states):
                hidden_states = forward(hidden_states, **kwargs)
            return self._leave(hidden_states) if is_last else hidden_states

        return call

    def _enter(self, hidden_states: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        """The rows that will run."""
        chosen = self.choose(hidden_states, kwargs)
        known = (
            torch.tensor([chosen]) if isinstance(chosen, bool) else chosen.cpu()
        )  # on a GPU the host waits here, once per step
        self._entered = hidden_states
        if not known.any():
            self._rows = torch.empty(0, dtype=torch.long)
            return hidden_states[:0]
        self._rows = None if known.all() else to_device(known.nonzero()[:, 0], hidden_states.device)
        return hidden_states if self._rows is None else hidden_states[self._rows]

    def _leave(self, output: torch.Tensor) -> torch.Tensor:
        """All rows: the fresh ones as they are, the others from what was kept."""
        if self._rows is None:
            self._kept = output if self.absolute else output - self._entered
            return output
        merged = self._kept if self.absolute else self._entered + self._kept
        if len(self._rows):
            fresh = output if self.absolute else output - self._entered[self._rows]
            self._kept = self._kept.index_copy(0, self._rows, fresh)
            merged = merged.index_copy(0, self._rows, output)
        return merged


class Memory(Protocol):
    """What one part of one block remembers."""

    def keep(self, output: torch.Tensor, step: int) -> None:
        """The part ran at ``step``."""
        ...

    def recall(self, step: int) -> torch.Tensor:
        """What the part would return at ``step``."""
        ...


class Latest:
    """Remembers the last output as it was."""

    def keep(self, output: torch.Tensor, step: int) -> None:
        """Replace what was kept."""
        self.output = output

    def recall(self, step: int) -> torch.Tensor:
        """The output kept."""
        return self.output


@contextmanager
def parts_replaced(
    blocks: Sequence[nn.Module], parts: Collection[str], replacement: Callable[[Forward, int, str], Forward]
) -> Iterator[None]:
    """The ``forward`` of each of ``parts`` of every block becomes ``replacement(forward, block number, part)`` in the context.

    What a part returns is its output before the gate, so that one from an earlier step is added under the step's fresh gate.
    """
    with ExitStack() as stack:
        for number, block in enumerate(blocks):
            for name in parts_of(block, parts):
                part = getattr(block, name)
                stack.enter_context(patched(part, "forward", replacement(part.forward, number, name)))
        yield


def parts_cached(
    pipeline: Pipeline, runs: Runs, memory: Callable[[], Memory] = Latest, parts: Collection[str] = tuple(PARTS)
) -> AbstractContextManager[None]:
    """Each of ``parts`` of every block runs where ``runs(step, block number, part)`` says so, else its memory is recalled.

    Raises :class:`NotMeasured` where blocks run compiled or captured: each pattern of parts would be another compilation, until
    torch gives up, and a captured block does the same at every step.
    """
    if pipeline.blocks_run != "eager":
        raise NotMeasured(
            expected="eager blocks for a method that skips parts of blocks",
            got=f"{pipeline.blocks_run} ones",
            remedy="run it without compilation; methods that skip whole blocks can be compiled",
        )

    def caching(forward: Forward, block: int, part: str) -> Forward:
        remembered = memory()

        def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            step = pipeline.clock.step
            if pipeline.clock.is_second_pass:
                return forward(*args, **kwargs)
            if not runs(step, block, part):
                return remembered.recall(step)
            output = forward(*args, **kwargs)
            remembered.keep(output, step)
            return output

        return call

    return parts_replaced(pipeline.blocks, parts, caching)


def parts_of(block: nn.Module, parts: Collection[str] = tuple(PARTS)) -> tuple[str, ...]:
    """Those of ``parts`` that a block has; only PixArt's attend to a caption."""
    return tuple(name for name in parts if getattr(block, name, None) is not None)


def over_branches(values: torch.Tensor, pipeline: Pipeline) -> torch.Tensor:
    """The mean of ``values`` [rows] over the guidance branches of each image, given to each of its rows [rows].

    An image's two rows decide together, and no other image has a say.
    """
    branches = 2 if pipeline.guidance > 1 else 1
    return values.view(branches, -1).mean(0).repeat(branches)


def at_least(name: str, value: float, least: float) -> None:
    """Raise :class:`UsageError` where an option of a method is too small."""
    if not value >= least:
        raise UsageError(expected=f"{name} of at least {least:g}", got=f"{value:g}", remedy="edit the method")
