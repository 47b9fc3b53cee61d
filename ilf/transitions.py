"""What a feedback module learns from: single steps of trajectories, its own (on-policy) or the teacher's, with their targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from harness.sampling.branches import captions_filled
from harness.sampling.patching import patched
from harness.sampling.process import Process
from harness.sampling.transfer import to_device
from harness.training.trajectories import Trajectories
from ilf.attach import attach_module
from ilf.loop import Passage
from ilf.losses import coefficients
from ilf.module import FeedbackModule, Transition

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class Transitions:
    """n steps. Times are int64 [n] (-1: clean, 1000: none before), latents float32 [n, C, H, W], ``row`` a trajectory's number.

    ``previous`` is the guided prediction of the step before and ``clean_before`` the clean image it stood for;
    ``target`` is where the teacher's run of the same noise is at ``t_next``. ``entered``, ``left`` and ``null`` bfloat16
    [n, tokens, width] are the frozen blocks' streams of the first pass, one behind the other, computed once, and ``null_eps`` the
    null branch's prediction (a guidance-distilled step has no null branch: zeros, and its own prediction).
    """

    row: torch.Tensor
    t: torch.Tensor
    t_next: torch.Tensor
    t_before: torch.Tensor
    distilled: torch.Tensor
    sample: torch.Tensor
    previous: torch.Tensor
    clean_before: torch.Tensor
    target: torch.Tensor
    entered: torch.Tensor
    left: torch.Tensor
    null: torch.Tensor
    null_eps: torch.Tensor
    guidance: torch.Tensor

    def __len__(self) -> int:
        return len(self.t)

    def take(self, index: torch.Tensor | slice) -> Transitions:
        """Some of them."""
        return Transitions(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def pinned(self, device: str) -> Transitions:
        """Ready to be copied to ``device`` without a wait."""
        if not device.startswith("cuda"):
            return self
        return Transitions(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})

    def to(self, device: str) -> Transitions:
        """On another device, but for ``row``: what it points at lies on the host."""
        moved = {field.name: to_device(getattr(self, field.name), device) for field in fields(self) if field.name != "row"}
        return Transitions(row=self.row, **moved)

    @classmethod
    def join(cls, parts: Sequence[Transitions]) -> Transitions:
        """All of them; streams that are shorter, as their captions were, end in zeros."""
        return cls(**{field.name: _joined([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    def told(self) -> Transition:
        """As the module is told them when it samples."""
        times = (self.t.float(), self.t_next.float(), self.t_before.float())
        return Transition(*times, self.sample, self.previous, self.distilled, self.guidance)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors [rows, ...] one behind the other, those of streams [rows, tokens, width] filled up to the longest."""
    if tensors[0].ndim == 3:
        longest = max(one.shape[1] for one in tensors)
        tensors = [F.pad(one, (0, 0, 0, longest - one.shape[1])) for one in tensors]
    return torch.cat(list(tensors))


class _Collector:
    """Turns one pipeline call into transitions."""

    def __init__(self, pipeline: Pipeline, data: Trajectories, rows: torch.Tensor) -> None:
        self.data, self.rows = data, rows
        self.process = Process.of(pipeline.pipe.scheduler)
        self.parts: list[Transitions] = []

    def see(self, transition: Transition, passage: Passage, null_eps: torch.Tensor) -> None:
        t, t_next, before = (x.round().long().cpu() for x in (transition.t, transition.t_next, transition.t_before))
        sample, previous = transition.sample.float().cpu(), transition.previous.float().cpu()
        clean = torch.zeros_like(sample)
        if self.parts:
            last = self.parts[-1].sample
            clean, _ = self.process.split(previous, last, *coefficients(self.process, before, last))
        entered, left, null = (None if x is None else x.bfloat16().cpu() for x in passage.pieces())
        assert entered is not None and left is not None
        null = torch.zeros_like(left) if null is None else null
        target = self.data.states[self.rows, self.data.column(t_next)]
        self.parts.append(
            Transitions(
                self.rows,
                t,
                t_next,
                before,
                transition.alone.cpu(),
                sample,
                previous,
                clean,
                target,
                entered,
                left,
                null,
                null_eps.float().cpu(),
                transition.guidance.cpu(),
            )
        )


@contextmanager
def _forced(scheduler: Any, collector: _Collector) -> Iterator[None]:
    """After each step the state is the teacher's, not where the step landed."""
    step = scheduler.step

    def forced(output: Any, t: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = step(output, t, sample, *args, **kwargs)
        state = collector.parts[-1].target.to(sample)
        state = torch.cat([state] * (len(sample) // len(state)))  # DiT's pipeline steps both guidance branches
        if isinstance(result, tuple):
            return (state, *result[1:])
        result.prev_sample = state
        return result

    with patched(scheduler, "step", forced):
        yield


def collect(
    pipeline: Pipeline,
    module: FeedbackModule,
    steps: int,
    data: Trajectories,
    prompts: Sequence[str],
    seed: int,
    rows: torch.Tensor,
    *,
    forced: bool = False,
    batch: int = 64,
) -> Transitions:
    """Sample ``steps`` steps with the module on trajectories ``rows`` (int64) and keep every step with feedback.

    ``batch`` of them are sampled at once. ``forced``: each step starts from the teacher's state (off-policy); else from where
    the step before landed.
    """
    schedule, found = module.schedule(steps), list[Transitions]()
    with pipeline.sampling(timesteps=schedule.timesteps, solver=module.settings.solver):
        for scale in sorted(set(data.guidance[rows].tolist())):
            for chunk in torch.split(rows[data.guidance[rows] == scale], batch):
                collector = _Collector(pipeline, data, chunk)
                numbers = chunk.tolist()
                with (
                    patched(pipeline, "guidance", pipeline.guidance.at(scale)),
                    attach_module(pipeline, module, schedule, collector.see),
                    _forced(pipeline.pipe.scheduler, collector) if forced else nullcontext(),
                    captions_filled(pipeline),
                ):
                    pipeline.generate([prompts[i % len(prompts)] for i in numbers], seed, numbers)
                found += [collector.parts[step] for step in sorted(schedule.feedback)]
    return Transitions.join(found)
