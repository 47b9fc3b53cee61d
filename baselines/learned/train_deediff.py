"""Training of DeeDiff's heads on a frozen backbone, in the product's one training loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.learned.denoiser import Denoiser, Tree, one_branch
from baselines.learned.exit_heads import ExitHeads
from harness.models.families.base import Conditioning, State
from harness.sampling.sites import Run, Site
from harness.training.fit import TrainRecord, TrainSettings, fit
from harness.training.trajectories import Trajectories, own_trajectories

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class ExitSettings:
    """``batch``: single branches per training step; ``trajectories``: prompts in all, of which ``at_once`` are sampled at once.
    ``seed`` (below 1000): of their noise."""

    training: TrainSettings
    batch: int = 32
    trajectories: int = 96
    seed: int = 0
    at_once: int = 64


class _Blocks:
    """The blocks as they are, with what leaves each of them recorded (of the image's tokens); or skipped, with given states put
    behind the last."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.sites, self.tokens = pipeline.sites, pipeline.geometry.tokens
        self.outputs: list[torch.Tensor] = []
        self.played: torch.Tensor | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        with ExitStack() as stack:
            for site in self.sites:
                stack.enter_context(site.changed(partial(self._change, site)))
            yield

    def _change(self, site: Site, run: Run, state: State, conditioning: Conditioning) -> State:
        if self.played is not None:
            return site.segment.with_image(state, self.played) if site.number == len(self.sites) else state
        output = run(state, conditioning)
        self.outputs.append(site.segment.of_image(output, self.tokens))
        return output


class ExitLoss:
    """Error of what each exit leads to, and of each head's guess at that error (both of the paper's losses).

    The guess is held against tanh of the mean absolute error of the output; the exit's squared error is weighted by one
    minus the uncertainty, as in the paper, so that an exit that cannot be good is not made good at the cost of others.
    """

    def __init__(self, pipeline: Pipeline, heads: ExitHeads, data: Trajectories, batch: int) -> None:
        self.pipeline, self.heads, self.data, self.batch = pipeline, heads, data, batch
        self.denoise, self.blocks = Denoiser(pipeline), _Blocks(pipeline)
        self.t = data.timesteps[:-1].to(pipeline.device)

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        """The loss (scalar) of one batch drawn from ``generator``."""
        index = torch.randint(len(self.data.states), (self.batch,), generator=generator)
        branch = torch.randint(self.data.branches, (self.batch,), generator=generator)
        step = torch.randint(len(self.t), (self.batch,), generator=generator)
        x, t = self.data.states[index, step], self.t[step]
        conditioning = one_branch(self.data, index, branch, self.pipeline.guidance)
        with torch.no_grad():
            self.blocks.played, self.blocks.outputs = None, []
            target = self.denoise(x, t, conditioning)
        inside = [h.float() for h in self.blocks.outputs[:-1]]
        uncertainty = torch.stack([self.heads.uncertainty(i, h, t.float()) for i, h in enumerate(inside)])
        error = torch.stack([self._left(i, h, x, t, conditioning) for i, h in enumerate(inside)]) - target
        guess = (uncertainty - error.detach().abs().flatten(2).mean(dim=2).tanh()).square().mean()
        layerwise = ((1 - uncertainty.detach()) * error.square().flatten(2).mean(dim=2)).mean()
        loss: torch.Tensor = guess + layerwise
        return loss

    def _left(self, number: int, inside: torch.Tensor, x: torch.Tensor, t: torch.Tensor, conditioning: Tree) -> torch.Tensor:
        """The prediction [B, C, H, W] of rows that leave after block ``number``."""
        self.blocks.played = self.heads.leave(number, inside)
        return self.denoise(x, t, conditioning)


def train_heads(
    settings: ExitSettings, pipeline: Pipeline, prompts: Sequence[str], checkpoint: Path
) -> tuple[ExitHeads, TrainRecord]:
    """Train fresh heads; the pipeline is left as it was."""
    torch.manual_seed(settings.training.seed)
    geometry = pipeline.geometry
    heads: Any = ExitHeads(geometry.depth, geometry.width).to(pipeline.device)
    chosen = [prompts[i % len(prompts)] for i in range(settings.trajectories)]
    store = checkpoint.with_suffix(".runs.pt")
    data = own_trajectories(store, pipeline, chosen, settings.seed, settings.at_once).to(pipeline.device)
    loss = ExitLoss(pipeline, heads, data, settings.batch)
    with loss.blocks.attached():
        made = fit(heads, loss, settings.training, checkpoint, "deediff")
    return heads, replace(made, seconds=made.seconds + data.seconds)


def build_heads(settings: ExitSettings, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path) -> None:
    """Train, and save weights in half precision with ``training.json``."""
    heads, made = train_heads(settings, pipeline, prompts, checkpoint)
    heads.half().save_pretrained(folder)
    made.save(folder / "training.json")
