"""Training a feedback module on a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from harness.pipeline import Pipeline
from harness.precision import autocast
from harness.training import TrainRecord, TrainSettings, fit
from ilf.loop import InnerLoop
from ilf.losses import coefficients, fad_error, jump_error
from ilf.module import FeedbackModule, block_settings
from ilf.trajectories import Trajectories, trailing_grid


@dataclass(frozen=True)
class IlfSettings:
    """What is trained. ``loop`` is 1-based and inclusive. ``target``: ``jump`` (ours) or ``fad`` (the paper's)."""

    loop: tuple[int, int]
    grids: tuple[int, ...]
    steps: int
    target: str = "jump"
    folded: bool = True
    jump_embedding: bool = True
    batch: int = 64


def build_module(pipeline: Pipeline, settings: IlfSettings) -> FeedbackModule:
    """A fresh module for this pipeline's backbone and guidance."""
    first, last = settings.loop
    module: FeedbackModule = FeedbackModule(
        block_settings(pipeline.transformer), first, last, settings.folded, pipeline.guidance, settings.jump_embedding,
        "dpm++1", list(settings.grids), settings.steps,
    )  # fmt: skip
    return module


@contextmanager
def explicit_attention(*models: nn.Module) -> Iterator[None]:
    """Attention spelt out, whose bf16 backward is faster than the fused one on short sequences on a CPU."""
    layers: list[Any] = [m for model in models for m in model.modules() if hasattr(m, "set_processor")]
    before = [layer.processor for layer in layers]
    try:
        for layer in layers:
            layer.set_processor(AttnProcessor())
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class Objective:
    """The loss of one random batch of jumps along the stored trajectories."""

    def __init__(self, pipeline: Pipeline, loop: InnerLoop, data: Trajectories, settings: IlfSettings) -> None:
        self.pipeline, self.loop, self.data, self.settings = pipeline, loop, data, settings
        self.alphas: torch.Tensor = pipeline.pipe.scheduler.alphas_cumprod.float()
        pairs = [list(zip(g, [*g[1:], -1], strict=True)) for g in map(trailing_grid, settings.grids)]
        # one row a (grid, step); grids are sampled evenly, and steps evenly within a grid
        self.pairs = torch.tensor([pair for grid in pairs for pair in grid])
        self.weights = torch.tensor([1 / len(grid) for grid in pairs for _ in grid])

    def predict(
        self, x: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor | None, conditioning: dict[str, Any]
    ) -> torch.Tensor:
        """The conditional branch's noise prediction [B, C, H, W]; with feedback where ``t_next`` is given."""
        self.loop.jump = None if t_next is None else (t.float(), t_next.float())
        try:
            with autocast(self.pipeline.precision, self.pipeline.device):
                output = self.pipeline.transformer(x, timestep=t, **conditioning).sample
        finally:
            self.loop.jump = None
        eps: torch.Tensor = output[:, : x.shape[1]].float()
        return eps

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        """The mean loss (scalar) of one batch drawn from ``generator``."""
        size = self.settings.batch
        row = torch.randint(len(self.data.states), (size,), generator=generator)
        pair = self.pairs[torch.multinomial(self.weights, size, replacement=True, generator=generator)]
        t, t_next = pair[:, 0], pair[:, 1]
        conditioning = self.data.rows(row)
        if self.settings.target == "fad":
            return self._fad(row, t, t_next, conditioning, generator)
        x_t, x_next = self.data.states[row, self.data.column(t)], self.data.states[row, self.data.column(t_next)]
        eps = self.predict(x_t, t, t_next, conditioning)
        return jump_error(eps, x_t, x_next, t, t_next, self.alphas).mean()

    def _fad(
        self, row: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor, conditioning: dict[str, Any], generator: torch.Generator
    ) -> torch.Tensor:
        clean = self.data.states[row, -1]
        noise = torch.randn(clean.shape, generator=generator)
        half = t // 2
        a_t, s_t = coefficients(self.alphas, t)
        a_half, s_half = coefficients(self.alphas, half)
        with torch.no_grad():
            teacher = self.predict(a_half * clean + s_half * noise, half, None, conditioning)
        eps = self.predict(a_t * clean + s_t * noise, t, t_next, conditioning)
        return fad_error(eps, teacher, noise).mean()


def train_module(
    pipeline: Pipeline, data: Trajectories, settings: IlfSettings, training: TrainSettings, checkpoint: Path
) -> tuple[FeedbackModule, TrainRecord]:
    """Train on recorded trajectories; the backbone stays frozen and is left as it was."""
    torch.manual_seed(training.seed)
    module = build_module(pipeline, settings).to(pipeline.device)
    pipeline.transformer.requires_grad_(False)
    loop = InnerLoop(pipeline.transformer, module)
    objective = Objective(pipeline, loop, data, settings)
    with explicit_attention(pipeline.transformer, module), loop.hooked():
        record = fit(module, objective, training, checkpoint, "ilf")
    return module, record
