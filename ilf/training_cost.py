"""What training a feedback module will cost, predicted before it begins: FLOPs and bytes counted, time at a stated speed.

Counted from shapes alone (:mod:`harness.cost.flops`), so the time is as good as the speed that it is divided by, which a short
probe of the device measures (:func:`harness.cost.device_speed.training_speed`). Loading, text encoding, decoding and the
optimiser are left out; gradient checkpointing would add about one more forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from harness.cost.device_speed import Speed
from harness.cost.flops import FLOPS_PER_MAC, Geometry
from harness.training.learned_solver import CONVERGED_GRID
from ilf.settings import HIDDEN_STATE_BYTES, IlfSettings, chosen_steps
from ilf.teacher import teacher_grid

STATE_BYTES = 4  # latents are stored as float32
CAPTION_BYTES = 4  # per value of a caption's embedding, at most
OPTIMISER_COPIES = 4  # parameters, their moving average, and AdamW's two moments, float32 each


@dataclass(frozen=True)
class TrainingCost:
    """FLOPs of the teacher's trajectories and of the training itself, and bytes on disk at the end."""

    teacher_flops: float
    training_flops: float
    disk_bytes: int

    def seconds(self, speed: Speed) -> float:
        """Device seconds at a sustained speed."""
        return (self.teacher_flops + self.training_flops) / speed.flops_per_s

    def text(self, speed: Speed | None) -> str:
        """For example ``predicted: 3.1 h of device time at ..., 12 GB of disk``; without a speed the work instead of the time."""
        disk = self.disk_bytes / 1e9
        if speed is None:
            return f"predicted: {self.teacher_flops + self.training_flops:.2g} FLOP, {disk:.2g} GB of disk"
        seconds = self.seconds(speed)
        unit, length = next(
            (unit, length) for unit, length in (("h", 3600), ("min", 60), ("s", 1)) if seconds >= length or length == 1
        )
        amount = f"{seconds / length:.2g}" if seconds < 100 * length else f"{seconds / length:,.0f}"
        return f"predicted: {amount} {unit} of device time at {speed.source}, {disk:.2g} GB of disk"


def predict_training(geometry: Geometry, settings: IlfSettings, branches: int, parameters: int) -> TrainingCost:
    """FLOPs and bytes of resolved settings on a model with ``branches`` guidance branches, for a module of ``parameters``.

    Every number follows from shapes; :func:`step_macs` and :func:`end_to_end_step_macs` have those of the training steps. FAD
    needs no stored hidden states: each of its optimiser steps runs the whole model, and its teacher.
    """
    looped, after = settings.looped, geometry.depth - settings.blocks[1]
    teacher_steps = len(teacher_grid(settings))
    converged = settings.image_targets if settings.image_steps else 0
    teacher = (settings.trajectories * teacher_steps + converged * len(CONVERGED_GRID)) * branches * geometry.forward_macs
    on_policy = settings.target != "fad"
    round_steps = (settings.runs or 0) * sum(settings.grids) if settings.optimiser_steps else 0
    collected = settings.rounds * round_steps if on_policy else 0
    counts = settings.end_to_end_counts
    end_to_end = (settings.end_to_end_steps + settings.image_steps) * settings.end_to_end_batch * sum(counts) // len(counts)
    training: float = settings.optimiser_steps * settings.batch * step_macs(geometry, looped, after, stored=on_policy)
    training += collected * (branches * geometry.forward_macs + (looped + 1) * geometry.block_macs)
    training += end_to_end * mean_step_macs(geometry, settings, branches)
    stored = max(collected, min(settings.rounds, settings.remembered) * round_steps)
    hidden = stored * 3 * geometry.state_values * HIDDEN_STATE_BYTES
    latent = prod(geometry.latent) * STATE_BYTES
    caption = geometry.caption_tokens * geometry.caption_width * CAPTION_BYTES
    kept = teacher_steps + 1 if settings.optimiser_steps else 2
    recordings = settings.trajectories * (kept * latent + caption) + converged * (2 * latent + caption)
    checkpoint = OPTIMISER_COPIES * STATE_BYTES * parameters
    return TrainingCost(float(FLOPS_PER_MAC * teacher), float(FLOPS_PER_MAC * training), recordings + hidden + checkpoint)


def mean_step_macs(geometry: Geometry, settings: IlfSettings, branches: int) -> float:
    """Multiply-accumulates of a denoising step of end-to-end training, a mean over whole and cheaper ones."""
    cheaper, whole = settings.guidance_carried, float(end_to_end_step_macs(geometry, settings.looped, branches))
    part = float(end_to_end_step_macs(geometry, settings.looped, 1))
    if settings.partial:
        module = 3 * geometry.block_macs
        cheaper, whole = settings.feedback, end_to_end_step_macs(geometry, 0, branches) - module
        running = branches if settings.branches == "both" else 1
        part = running * (module + (geometry.depth - settings.blocks[0] + 1) / geometry.depth * whole / branches)
    counts = settings.end_to_end_counts
    share = sum(len(chosen_steps(cheaper, settings.timesteps(n))) for n in counts) / sum(counts)
    return (1 - share) * whole + share * part


def end_to_end_step_macs(geometry: Geometry, looped: int, branches: int) -> int:
    """Multiply-accumulates of one denoising step of end-to-end training; all frozen blocks pass the gradient on."""
    attention = geometry.product_macs
    frozen = branches * (2 * geometry.forward_macs + geometry.depth * attention)
    return frozen + looped * (2 * geometry.block_macs + attention) + 3 * geometry.block_macs


def step_macs(geometry: Geometry, looped: int, after: int, *, stored: bool) -> int:
    """Multiply-accumulates of one transition: forward with the inner loop, backward through what the gradient must cross.

    Frozen blocks pass the gradient on (as many products as forward, and self-attention twice as many, since both factors of
    its products depend on the input) but need none for their weights; the module needs both. The first pass and the blocks
    before the loop see no gradient at all; with ``stored`` hidden states they do not run either, else the teacher does too.
    """
    block = geometry.block_macs
    attention, head = geometry.product_macs, geometry.head_macs
    forward = (looped + after + 1) * block + head if stored else 2 * geometry.forward_macs + (looped + 1) * block
    crossed = (looped + after) * (block + attention) + 2 * block
    return forward + crossed + head
