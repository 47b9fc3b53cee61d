"""What the caches share: ranges of blocks that a step skips, parts of blocks whose output it takes from an earlier step.

Step numbers are 0-based. The first step of every call must run everything, so that no state outlives a call. What is kept is kept
for each guidance branch that the pipeline runs on its own (:attr:`harness.sampling.clock.StepClock.call`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch

from harness.cost.macs import KINDS, Part
from harness.errors import NotMeasured, UsageError
from harness.models.families.base import Conditioning, State
from harness.sampling.patching import patched
from harness.sampling.sites import Run, Site
from harness.sampling.transfer import to_device

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

Forward = Callable[..., Any]
Chooser = Callable[[State, Conditioning], "bool | torch.Tensor"]


class RangeCache:
    """A range of blocks that runs, or is replaced by adding what it added to its input when it last ran.

    ``choose`` gets the streams [rows, tokens, width] that enter the range and the first block's conditioning, once a call of the
    model, and says whether the range runs: one bool for all, or a bool tensor [rows] that decides each row apart. With
    ``absolute`` the range's OUTPUT is kept instead of what it added.
    """

    def __init__(self, pipeline: Pipeline, choose: Chooser, *, absolute: bool = False) -> None:
        self.pipeline, self.choose, self.absolute = pipeline, choose, absolute
        self._rows: torch.Tensor | None = None  # which rows run; None: all
        self._entered: State = ()
        self._kept: dict[int, State] = {}

    @contextmanager
    def attached(self, sites: Sequence[Site]) -> Iterator[None]:
        """Change the blocks at ``sites`` (in order, neighbours) inside the context."""
        with ExitStack() as stack:
            for i, site in enumerate(sites):
                joins = i > 0 and site.segment is not sites[i - 1].segment
                wrapped = self._wrapped(site, is_first=i == 0, is_last=i == len(sites) - 1, joins=joins)
                stack.enter_context(site.changed(wrapped))
            yield

    def _wrapped(self, site: Site, *, is_first: bool, is_last: bool, joins: bool) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if is_first:
                state = self._enter(state, conditioning)
            elif joins:
                self._entered = site.segment.enter(self._entered)
            if self._rows is not None and len(self._rows):
                conditioning = site.rows(conditioning, len(self._entered[0]), self._rows)
            if len(state[0]):
                state = run(state, conditioning)
            elif is_last:
                state = state[: len(self._kept[self.pipeline.clock.call])]  # a stream that ends in the last block
            return self._leave(state) if is_last else state

        return call

    def _enter(self, state: State, conditioning: Conditioning) -> State:
        """The rows that will run."""
        chosen = self.choose(state, conditioning)
        known = torch.tensor([chosen]) if isinstance(chosen, bool) else chosen.cpu()  # on a GPU the host waits here
        self._entered = state
        if not known.any():
            self._rows = torch.empty(0, dtype=torch.long)
            return tuple(stream[:0] for stream in state)
        self._rows = None if known.all() else to_device(known.nonzero()[:, 0], state[0].device)
        return state if self._rows is None else tuple(stream[self._rows] for stream in state)

    def _leave(self, output: State) -> State:
        """All rows: the fresh ones as they are, the others from what was kept."""
        branch = self.pipeline.clock.call
        if self._rows is None:
            self._kept[branch] = output if self.absolute else tuple(map(_difference, output, self._entered))
            return output
        merged = self._kept[branch] if self.absolute else tuple(map(_sum, self._entered, self._kept[branch]))
        if len(self._rows):
            entered = [stream[self._rows] for stream in self._entered]
            fresh = output if self.absolute else tuple(map(_difference, output, entered))
            self._kept[branch] = tuple(k.index_copy(0, self._rows, f) for k, f in zip(self._kept[branch], fresh, strict=True))
            merged = tuple(m.index_copy(0, self._rows, out) for m, out in zip(merged, output, strict=True))
        return merged


def _sum(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a + b


def _difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a - b


class Memory(Protocol):
    """What one part of one block remembers: the tensors that it returned."""

    def keep(self, output: tuple[torch.Tensor, ...], step: int) -> None:
        """The part ran at ``step``."""
        ...

    def recall(self, step: int) -> tuple[torch.Tensor, ...]:
        """What the part would return at ``step``."""
        ...


class Latest:
    """Remembers the last output as it was."""

    def keep(self, output: tuple[torch.Tensor, ...], step: int) -> None:
        """Replace what was kept."""
        self.output = output

    def recall(self, step: int) -> tuple[torch.Tensor, ...]:
        """The output kept."""
        return self.output


Runs = Callable[[int, int, Part], bool]  # of the step, the block (both from 0) and the part


@contextmanager
def parts_replaced(
    sites: Sequence[Site], kinds: Collection[str], replacement: Callable[[Forward, int, Part], Forward]
) -> Iterator[None]:
    """The ``forward`` of each part of these ``kinds`` of every block becomes ``replacement(forward, block, part)`` in the
    context; blocks count from 0.

    What a part returns is its output before the gate, so that one from an earlier step is added under the step's fresh gate.
    """
    with ExitStack() as stack:
        for number, site in enumerate(sites):
            names = site.cost.skippable(kinds)
            for part, module in site.parts():
                if part.name in names:
                    stack.enter_context(patched(module, "forward", replacement(module.forward, number, part)))
        yield


def parts_cached(
    pipeline: Pipeline, runs: Runs, memory: Callable[[], Memory] = Latest, kinds: Collection[str] = KINDS
) -> AbstractContextManager[None]:
    """Each part of these ``kinds`` of every block runs where ``runs(step, block, part)`` says so, else its memory is recalled.

    Raises :class:`NotMeasured` where blocks run compiled or captured: each pattern of parts would be another compilation, until
    torch gives up, and a captured block does the same at every step.
    """
    if pipeline.blocks_run != "eager":
        raise NotMeasured(
            expected="eager blocks for a method that skips parts of blocks",
            got=f"{pipeline.blocks_run} ones",
            remedy="run it without compilation; methods that skip whole blocks can be compiled",
        )

    def caching(forward: Forward, block: int, part: Part) -> Forward:
        remembered: defaultdict[int, Memory] = defaultdict(memory)
        several = False

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal several
            clock = pipeline.clock
            if clock.is_second_pass:
                return forward(*args, **kwargs)
            if not runs(clock.step, block, part):
                kept = remembered[clock.call].recall(clock.step)
                return kept if several else kept[0]
            output = forward(*args, **kwargs)
            several = isinstance(output, tuple)
            remembered[clock.call].keep(output if several else (output,), clock.step)
            return output

        return call

    return parts_replaced(pipeline.sites, kinds, caching)


def by_kind(pipeline: Pipeline, runs: Callable[[int, str], bool]) -> Runs:
    """A part runs where ``runs(step, kind)`` says so of its kind; what joins attention and MLP, where it does of either."""
    joined = [site.cost.joined for site in pipeline.sites]

    def chosen(step: int, block: int, part: Part) -> bool:
        return any(runs(step, kind) for kind in (joined[block] if part.kind == "output" else {part.kind}))

    return chosen


def over_branches(values: torch.Tensor, pipeline: Pipeline) -> torch.Tensor:
    """The mean of ``values`` [rows] over the guidance branches of each image in this call, given to each of its rows [rows].

    An image's two rows decide together, and no other image has a say. Where the branches are calls of their own, each decides
    for itself.
    """
    branches = pipeline.guidance.rows
    return values.view(branches, -1).mean(0).repeat(branches)


def at_least(name: str, value: float, least: float) -> None:
    """Raise :class:`UsageError` where an option of a method is too small."""
    if not value >= least:
        raise UsageError(expected=f"{name} of at least {least:g}", got=f"{value:g}", remedy="edit the method")
