"""What training a feedback module will cost, predicted before it begins: FLOPs and bytes counted, hours at a stated speed.

Counted from shapes alone (:mod:`harness.cost.flops`), so the hours are as good as the speed they are divided by: measured by a
short probe of the device (:func:`harness.cost.device_speed.measured_speed`), or :data:`ASSUMED`, and the text says which.
Loading, text encoding, decoding and the optimiser are left out; gradient checkpointing would add about one more forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.cost.flops import FLOPS_PER_MAC, Geometry

STATE_BYTES = 4  # states are stored as float32
HIDDEN_BYTES = 2  # hidden states are stored as bfloat16
ROW_BYTES = 4  # a caption's embedding too, at most
OPTIMISER_COPIES = 4  # parameters, their moving average, and AdamW's two moments, float32 each


@dataclass(frozen=True)
class Speed:
    """Sustained FLOP/s of a device, and where the number comes from."""

    flops_per_s: float
    source: str


ASSUMED = Speed(400e12, "an assumed 400 TFLOP/s, about 40% of an H100's published dense bf16 peak")


@dataclass(frozen=True)
class TrainingPlan:
    """A recipe in numbers: ``looped`` blocks run twice, ``after`` blocks follow the loop, ``parameters`` are trained.

    ``trajectories`` of ``teacher_steps`` steps are recorded from the unchanged model on ``branches`` guidance branches. The
    module's own runs are ``collected`` steps on those branches, whose hidden states (three a step) are kept on disk, and
    ``steps`` optimiser steps of ``batch`` of them are made on the conditional branch. With ``collected`` = 0 nothing is
    stored: each optimiser step runs the whole model, and its teacher. ``whole`` steps of whole runs follow, with gradients
    through the whole model on those branches. Their images may be held against ``fine`` more trajectories, of ``fine_steps``.
    """

    looped: int
    after: int
    parameters: int
    steps: int
    batch: int
    trajectories: int
    teacher_steps: int
    branches: int
    collected: int = 0
    remembered: int = 0
    whole: int = 0
    fine: int = 0
    fine_steps: int = 0


@dataclass(frozen=True)
class TrainingCost:
    """FLOPs of the teacher's trajectories and of the training itself, and bytes on disk at the end."""

    teacher_flops: float
    training_flops: float
    disk_bytes: int

    def hours(self, speed: Speed) -> float:
        """Device hours at a sustained speed."""
        return (self.teacher_flops + self.training_flops) / speed.flops_per_s / 3600

    def text(self, speed: Speed) -> str:
        """For example ``predicted: 3.1 device hours at ..., 12 GB of disk``."""
        return f"predicted: {self.hours(speed):.2g} device hours at {speed.source}, {self.disk_bytes / 1e9:.2g} GB of disk"


def predict_training(geometry: Geometry, plan: TrainingPlan) -> TrainingCost:
    """FLOPs and bytes of a plan on a model. Every number follows from shapes; see :func:`step_macs` for the training step."""
    recorded = plan.trajectories * plan.teacher_steps + plan.fine * plan.fine_steps
    teacher = recorded * plan.branches * geometry.forward_macs
    training = plan.steps * plan.batch * step_macs(geometry, plan.looped, plan.after, stored=plan.collected > 0)
    training += plan.collected * (plan.branches * geometry.forward_macs + (plan.looped + 1) * geometry.block_macs)
    training += plan.whole * whole_run_step_macs(geometry, plan.looped, plan.branches)
    channels, height, width = geometry.latent
    state = channels * height * width * STATE_BYTES
    caption = geometry.caption_tokens * geometry.caption_width * ROW_BYTES
    hidden = max(plan.collected, plan.remembered) * 3 * geometry.tokens * geometry.width * HIDDEN_BYTES
    checkpoint = OPTIMISER_COPIES * STATE_BYTES * plan.parameters
    recordings = plan.trajectories * ((plan.teacher_steps + 1) * state + caption) + plan.fine * (2 * state + caption)
    disk = recordings + hidden + checkpoint
    return TrainingCost(float(FLOPS_PER_MAC * teacher), float(FLOPS_PER_MAC * training), disk)


def whole_run_step_macs(geometry: Geometry, looped: int, branches: int) -> int:
    """Multiply-accumulates of one step of a whole run, forward and backward: all frozen blocks pass the gradient on."""
    attention = 2 * geometry.tokens**2 * geometry.width
    frozen = branches * (2 * geometry.forward_macs + geometry.depth * attention)
    return frozen + looped * (2 * geometry.block_macs + attention) + 3 * geometry.block_macs


def step_macs(geometry: Geometry, looped: int, after: int, *, stored: bool) -> int:
    """Multiply-accumulates of one jump: forward with the inner loop, backward through what the gradient must cross.

    Frozen blocks pass the gradient on (as many products as forward, and self-attention twice as many, since both factors of
    its products depend on the input) but need none for their weights; the module needs both. The first pass and the blocks
    before the loop see no gradient at all; with ``stored`` hidden states they do not run either, else the teacher does too.
    """
    block = geometry.block_macs
    attention = 2 * geometry.tokens**2 * geometry.width
    head = geometry.tokens * geometry.width * geometry.patch**2 * geometry.out_channels
    forward = (looped + after + 1) * block + head if stored else 2 * geometry.forward_macs + (looped + 1) * block
    crossed = (looped + after) * (block + attention) + 2 * block
    return forward + crossed + head
