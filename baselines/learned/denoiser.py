"""The pipeline's transformer called outside the pipeline, on recorded trajectories, for methods that learn from them."""

from __future__ import annotations

from typing import Any

import torch

from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import autocast
from harness.training.trajectories import Trajectories, map_tensors

Tree = dict[str, Any]


def one_branch(data: Trajectories, index: torch.Tensor, branch: torch.Tensor, conditional_first: bool) -> Tree:
    """The conditioning of one guidance branch (int64 [B]) of each of some trajectories (int64 [B])."""
    rows = branch * len(index) + torch.arange(len(index))
    return map_tensors(data.guidance_batch(index, conditional_first), lambda x: x[rows])


class Denoiser:
    """The noise prediction of a pipeline's transformer, with gradients where something asks for them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        pipeline.transformer.requires_grad_(False)

    def __call__(self, states: torch.Tensor, t: torch.Tensor, conditioning: Tree) -> torch.Tensor:
        """The noise prediction float32 [B, C, H, W] of one branch each, for timesteps int64 [B]."""
        with autocast(self.pipeline.precision, self.pipeline.device):
            output = self.pipeline.transformer(states, timestep=t, **conditioning).sample
        eps: torch.Tensor = output[:, : states.shape[1]].float()
        return eps

    def guided(self, eps: torch.Tensor) -> torch.Tensor:
        """The guided prediction [B, C, H, W] from both branches [2 * B, C, H, W]; a single branch is returned as it is."""
        if self.pipeline.guidance <= 1:
            return eps
        first, second = eps.chunk(2)
        conditional, null = (first, second) if self.pipeline.conditional_first else (second, first)
        return null + self.pipeline.guidance * (conditional - null)
