"""The full run's own trajectories, for methods that learn from them: no images, no data, only prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track

from harness.sampling.guidance import select_rows
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.precision import autocast

Tree = dict[str, Any]


def join(trees: Sequence[Tree]) -> Tree:
    """Trees of tensors concatenated along the batch; what is no tensor is taken from the first."""

    def cat(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return join(values)
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else values[0]

    return {key: cat([tree[key] for tree in trees]) for key in trees[0]}


@dataclass(frozen=True)
class Rollouts:
    """``states`` float32 [S, n, C, H, W] before each of S steps at ``timesteps``, high to low, for n prompts.

    ``branches`` holds the transformer's keyword arguments (tensors [n, ...]) of each guidance branch, in the pipeline's order.
    """

    timesteps: tuple[int, ...]
    states: torch.Tensor
    branches: tuple[Tree, ...]

    def conditioning(self, index: torch.Tensor) -> Tree:
        """The guidance batch [branches * B] of some prompts, int64 [B]."""
        return join([select_rows(branch, self.states.shape[1], index) for branch in self.branches])

    def mixed(self, index: torch.Tensor, branch: torch.Tensor) -> Tree:
        """One branch (int64 [B]) of each of some prompts."""
        everything = join(self.branches)
        return select_rows(everything, len(self.branches) * self.states.shape[1], index + branch * self.states.shape[1])  # type: ignore[no-any-return]


def roll_out(pipeline: Pipeline, prompts: Sequence[str], seed: int, batch: int = 32) -> Rollouts:
    """Sample prompt i from noise (seed, i) with the pipeline as it is, and keep what enters the transformer."""
    chunks = [range(i, min(i + batch, len(prompts))) for i in range(0, len(prompts), batch)]
    recorded = [_record(pipeline, [prompts[i] for i in chunk], seed, chunk) for chunk in track(chunks, description="rollouts")]
    states = torch.cat([states for states, _ in recorded], dim=1)
    branches = tuple(join([trees[b] for _, trees in recorded]) for b in range(len(recorded[0][1])))
    return Rollouts(tuple(int(t) for t in pipeline.clock.timesteps), states, branches)


def _record(pipeline: Pipeline, prompts: list[str], seed: int, indices: range) -> tuple[torch.Tensor, list[Tree]]:
    forward = pipeline.transformer.forward
    states: list[torch.Tensor] = []
    branches: list[Tree] = []

    def recorded(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
        rows, images = hidden_states.shape[0], len(prompts)
        if not branches:
            kept = {key: value for key, value in kwargs.items() if key not in ("timestep", "return_dict")}
            branches.extend(select_rows(kept, rows, slice(i, i + images)) for i in range(0, rows, images))
        states.append(hidden_states[:images].float())
        return forward(hidden_states, **kwargs)

    with patched(pipeline.transformer, "forward", recorded):
        pipeline.generate(prompts, seed, indices)
    return torch.stack(states).clone(), branches


class Denoiser:
    """The pipeline's transformer called outside the pipeline, with gradients where something asks for them."""

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
