"""The pipeline's transformer called outside the pipeline, on recorded trajectories, for methods that learn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from harness.cost.guidance import Guidance
from harness.sampling.rows import select_rows
from harness.training.trajectories import Trajectories

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

Tree = dict[str, Any]


def one_branch(data: Trajectories, index: torch.Tensor, branch: torch.Tensor, guidance: Guidance) -> Tree:
    """The conditioning of one guidance branch (int64 [B]) of each of some trajectories (int64 [B])."""
    rows = branch * len(index) + torch.arange(len(index))
    told = data.guidance_batch(index, guidance)
    return {**select_rows(told, data.branches * len(index), rows, data.common.keys()), **data.common}


class Denoiser:
    """The prediction of a pipeline's transformer, with gradients where something asks for them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        pipeline.transformer.requires_grad_(False)

    def __call__(self, states: torch.Tensor, t: torch.Tensor, conditioning: Tree) -> torch.Tensor:
        """The prediction float32 [B, ...] of one branch each, for timesteps [B]."""
        return self.pipeline.predict(states, t, conditioning)

    def guided(self, eps: torch.Tensor) -> torch.Tensor:
        """The guided prediction [B, ...] from both branches [2 * B, ...]; a single branch is returned as it is."""
        guidance = self.pipeline.guidance
        return guidance.combined(*guidance.split(eps)) if guidance.on else eps
