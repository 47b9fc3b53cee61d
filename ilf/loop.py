"""The inner loop, put around a backbone's blocks without copying its forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from harness.errors import NotMeasured
from harness.models.families.base import Conditioning, Family, ModelCall, State
from harness.sampling.clock import StepClock
from harness.sampling.sites import Run, Site, bare_sites, rows_of_call
from ilf.module import FeedbackModule, Transition


@dataclass(frozen=True)
class Passage:
    """What the looped blocks saw on the rows that loop: the streams [B, tokens, width] that entered and left, the null branch's
    that left (or None), and the conditioning of each looped block."""

    entered: State
    left: State
    null: State | None
    conditioning: tuple[Conditioning, ...]

    def pieces(self) -> list[torch.Tensor | None]:
        """Entered, left and null, all streams of each in one tensor [B, all tokens, width]; a stream that ended is left out."""
        return [None if streams is None else torch.cat(streams, dim=1) for streams in (self.entered, self.left, self.null)]

    def as_long_as(self, state: State) -> Passage:
        """The same on captions that are only as long as those of ``state``: what fills others up is cut off."""

        def cut(streams: State) -> State:
            return tuple(stream[:, : live.shape[1]] for stream, live in zip(streams, state, strict=False))

        return Passage(cut(self.entered), cut(self.left), None if self.null is None else cut(self.null), self.conditioning)


class InnerLoop:
    """Runs the looped blocks a second time, each input increased by the module's feedback:

        h = f_in;  u = module(f_out);  for block j of the loop: h = block(h + u[j])

    where h are all streams of the model. Set :attr:`transition` before a feedback step and to None for a plain one, and
    :attr:`call` to what the model is called with. ``rows`` are those that loop (None: all), ``null`` the null branch's. With
    :attr:`stored` set, the first pass is skipped and the loop starts from those streams: the backbone is frozen, so a training
    computes it once. :attr:`passage` keeps the latest first pass where ``keep`` is set.
    """

    def __init__(
        self, transformer: nn.Module, family: Family, module: FeedbackModule, keep: bool = False, clock: Any = None
    ) -> None:
        self.transformer: Any = transformer
        self.family, self.clock = family, clock or StepClock()
        self.module, self.keep = module, keep
        self.transition: Transition | None = None
        self.call: ModelCall | None = None
        self.rows: slice | None = None
        self.null: slice | None = None
        self.stored: Passage | None = None
        self.passage: Passage | None = None
        self._entered: State | None = None
        self._told: dict[int, Conditioning] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Change the blocks up to the last looped one inside the context."""
        (first, last), sites = self.module.settings.blocks, bare_sites(self.transformer, self.family)
        looped = sites[first - 1 : last]
        if len({(site.segment.inputs, site.segment.outputs) for site in looped}) > 1:
            raise NotMeasured(
                expected="a loop over blocks of the same streams",
                got=f"blocks {first} to {last}, of several lists",
                remedy="choose its first and last block in one list",
            )
        runs = [(site, _run(site)) for site in looped]
        with ExitStack() as stack:
            for site in sites[:last]:
                wrapped = self._skippable(site, site.number == first)
                if site.number == last:
                    wrapped = self._loop(site, wrapped, runs)
                stack.enter_context(site.changed(wrapped))
            yield

    def _skippable(self, site: Site, enters: bool) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            if enters:
                self._entered = state
            self._told[site.number] = conditioning
            return state if self.stored is not None else run(state, conditioning)

        return call

    def _loop(
        self, site: Site, plain: Callable[[Run, State, Conditioning], State], runs: list[tuple[Site, Run]]
    ) -> Callable[[Run, State, Conditioning], State]:
        def call(run: Run, state: State, conditioning: Conditioning) -> State:
            left = plain(run, state, conditioning)
            stored = None if self.stored is None else self.stored.as_long_as(state)
            if stored is not None:
                left = stored.left
            if self.transition is None and not self.keep:
                return left
            passage = self._passage(site, left, stored)
            self.passage = passage if self.keep else None
            if self.transition is None:
                return left
            looped = self._second_pass(site, passage, self.transition, runs)
            if self.rows is None:
                return looped
            first = self.rows.start in (None, 0)
            pairs = zip(looped, (stream[self.null] for stream in left), strict=True)
            return tuple(torch.cat([ours, null] if first else [null, ours]) for ours, null in pairs)

        return call

    def _passage(self, site: Site, left: State, stored: Passage | None) -> Passage:
        first, _ = self.module.settings.blocks
        told = tuple(self._told[number] for number in range(first, site.number + 1) if number in self._told)
        if stored is not None:
            return replace(stored, conditioning=told)
        if self._entered is None:
            raise NotMeasured(
                expected="looped blocks that all run or are all skipped",
                got="a first looped block that was skipped",
                remedy="cache all of the loop's blocks, or none",
            )
        rows = len(self.transition.sample) * (1 if self.rows is None else 2) if self.transition else len(left[0])
        if len(left[0]) != rows:
            raise NotMeasured(
                expected="a cache that skips the same blocks for all images of a step",
                got=f"one that runs {len(left[0])} of {rows} rows of the batch",
                remedy="use another cache with ilf, or batch: 1",
            )
        entered, self._entered = self._entered, None
        if self.rows is None or self.null is None:
            return Passage(entered, left, None, told)
        chosen = tuple(site.rows(one, len(left[0]), self.rows) for one in told)
        return Passage(rows_of(entered, self.rows), rows_of(left, self.rows), rows_of(left, self.null), chosen)

    def _second_pass(self, site: Site, passage: Passage, transition: Transition, runs: list[tuple[Site, Run]]) -> State:
        ended = passage.entered[len(passage.left) :]  # the caption's stream, where the last block ends it
        feedback = self.module((*passage.left, *ended), passage.null, transition, passage.conditioning[-1])
        if not self.module.settings.inner_pass:
            return added(passage.left, feedback[0])
        state, inner = passage.entered, self._at_inner_time(transition)
        self.clock.is_second_pass = True
        try:
            for fed, (at, run), told in zip(feedback, runs, passage.conditioning, strict=True):
                timed = at.segment.timed(self.transformer, inner, at.place) if inner else {}
                state = run(added(state, fed), told | {name: value for name, value in timed.items() if name in told})
        finally:
            self.clock.is_second_pass = False
        return state

    def _at_inner_time(self, transition: Transition) -> Conditioning:
        """What of the blocks' conditioning is another at the second pass's time."""
        if self.module.settings.inner_time == "same":
            return {}
        t = transition.t_next if self.module.settings.inner_time == "next" else (transition.t + transition.t_next) / 2
        assert self.call is not None
        call = self.call if self.rows is None else rows_of_call(self.call, self.rows, self.family.call.shared)
        return self.family.conditioning_at(self.transformer, call, t.clamp(min=0))


def _run(site: Site) -> Run:
    """The block as it is now."""
    forward = site.block.forward
    return lambda state, conditioning: site.segment.run(forward, state, conditioning)


def rows_of(state: State, rows: slice) -> State:
    """The same rows of all streams."""
    return tuple(stream[rows] for stream in state)


def added(state: State, fed: State) -> State:
    """Streams and what is added to them; to those without an addition, nothing."""
    return (*(stream + addition for stream, addition in zip(state, fed, strict=False)), *state[len(fed) :])
