"""Training of the routers of :mod:`baselines.learned.routers`, in the product's one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from baselines.learned.denoiser import Denoiser, one_branch
from baselines.learned.routers import HarmoniCa, LearningToCache, MixedParts, Router
from baselines.support.parts import part_names
from harness.timing.stages import StageTimer
from harness.training.fit import TrainRecord, TrainSettings, fit
from harness.training.trajectories import Trajectories, own_trajectories

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline


@dataclass(frozen=True)
class RouterSettings:
    """``price``: what a full block evaluation may cost in error, relative to the error of re-using everything.

    ``batch``: prompts (HarmoniCa) or single branches (Learning-to-Cache) per training step. ``trajectories``: prompts in all,
    of which ``at_once`` are sampled at once. ``seed`` (below 1000): of their noise.
    """

    training: TrainSettings
    price: float
    batch: int
    trajectories: int = 96
    seed: int = 0
    at_once: int = 64


class _Trainer:
    """What both losses need: the frozen model, its trajectories, the mixed parts, and the price of what runs."""

    interval = 1  # every how many steps one is routed
    measured_s = 0.0  # what it took to measure something before the first training step

    def __init__(self, pipeline: Pipeline, data: Trajectories, settings: RouterSettings) -> None:
        self.pipeline, self.data, self.settings = pipeline, data, settings
        self.t = data.timesteps[:-1].to(pipeline.device)
        steps, parts = len(self.t), part_names(pipeline)
        self.router = Router(steps, len(pipeline.blocks), parts, range(1, steps, self.interval)).to(pipeline.device)
        self.denoise = Denoiser(pipeline)
        self.mixed = MixedParts(pipeline, self.router.parts)
        shares = torch.tensor([[own.get(name, 0.0) for name in parts] for own in pipeline.geometry.shares])
        self.share = (shares / shares.sum()).to(pipeline.device)

    def cost(self, keep: torch.Tensor) -> torch.Tensor:
        """The mean share (0..1, scalar) of a step's work that ``keep`` [..., blocks, parts] lets run."""
        return (keep * self.share).sum(dim=(-2, -1)).mean()

    @torch.no_grad()
    def plain(self, states: torch.Tensor, t: torch.Tensor, conditioning: dict[str, object]) -> torch.Tensor:
        """The full model's prediction; every part's output is recorded."""
        self.mixed.keep = None
        return self.denoise(states, t, conditioning)


class _LearningToCacheLoss(_Trainer):
    """One routed step after one full step on the full run's trajectory: error of the prediction, and the price of what runs.

    The error is relative to that of re-using everything, so that one price serves every model and step. (The paper's
    weight is absolute.)
    """

    interval = 2

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        size, count, states = self.settings.batch, len(self.t), self.data.states
        index = torch.randint(len(states), (size,), generator=generator)
        branch = torch.randint(self.data.branches, (size,), generator=generator)
        step = 1 + 2 * torch.randint(count // 2, (size,), generator=generator)
        conditioning = one_branch(self.data, index, branch, self.pipeline.guidance)
        x, t = states[index, step], self.t[step]
        target = self.plain(x, t, conditioning)
        self.plain(states[index, step - 1], self.t[step - 1], conditioning)
        kept = [list(row) for row in self.mixed.kept]
        keep = self.router.keep[step]
        with torch.no_grad():
            self.mixed.keep = torch.zeros_like(keep)
            worst = (self.denoise(x, t, conditioning) - target).square().flatten(1).mean(dim=1)
        self.mixed.kept, self.mixed.keep = kept, keep
        error = (self.denoise(x, t, conditioning) - target).square().flatten(1).mean(dim=1)
        return (error / worst.clamp_min(1e-12)).mean() + self.settings.price * self.cost(keep)


class _HarmoniCaLoss(_Trainer):
    """A full trajectory with the router (the paper's step-wise denoising training): its error at every step, and the price.

    The error of a step is weighted by what re-using everything on that step alone does to the final latent (the paper's
    image error proxy, measured here once, before training).
    """

    def __init__(self, pipeline: Pipeline, data: Trajectories, settings: RouterSettings) -> None:
        super().__init__(pipeline, data, settings)
        timer = StageTimer(pipeline.device)
        start = timer.now()
        with self.mixed.attached():
            self.proxy, self.worst = self._measure_proxy(torch.arange(min(8, len(data.states))))
        self.measured_s = timer.now() - start

    def __call__(self, generator: torch.Generator) -> torch.Tensor:
        index = torch.randint(len(self.data.states), (self.settings.batch,), generator=generator)
        keep = self.router.keep
        errors, _ = self._run(index, keep)
        weighted = sum(w * e / b for w, e, b in zip(self.proxy, errors, self.worst, strict=True))
        return weighted / sum(self.proxy) + self.settings.price * self.cost(keep[1:])

    def _run(self, index: torch.Tensor, keep: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The error at every step but the first, and the final latent, of a run with ``keep`` [steps, blocks, parts]."""
        scheduler = self.pipeline.stepper()
        conditioning = self.data.guidance_batch(index, self.pipeline.guidance)
        x, branches = self.data.states[index, 0], self.data.branches
        errors = []
        for step, t in enumerate(scheduler.timesteps):
            states, times = torch.cat([x] * branches), self.t[step].expand(len(index) * branches)
            kept = [list(row) for row in self.mixed.kept]
            target = eps = self.plain(states, times, conditioning)
            if step:
                self.mixed.kept, self.mixed.keep = kept, keep[step]
                eps = self.denoise(states, times, conditioning)
                errors.append((eps - target).square().mean())
            x = scheduler.step(self.denoise.guided(eps.detach()), t, x).prev_sample
        return errors, x

    @torch.no_grad()
    def _measure_proxy(self, index: torch.Tensor) -> tuple[list[float], list[float]]:
        """For every step but the first: squared error of the final latent, and of the prediction, where only it re-uses."""
        full = torch.ones_like(self.router.logits)
        _, clean = self._run(index, full)
        proxy, worst = [], []
        for step in range(1, len(full)):
            keep = full.clone()
            keep[step] = 0
            errors, latent = self._run(index, keep)
            proxy.append(float((latent - clean).square().mean()))
            worst.append(max(float(errors[step - 1]), 1e-12))
        return proxy, worst


LOSSES: dict[str, type[_LearningToCacheLoss] | type[_HarmoniCaLoss]] = {
    LearningToCache.name: _LearningToCacheLoss,
    HarmoniCa.name: _HarmoniCaLoss,
}


def train_router(
    name: str, settings: RouterSettings, pipeline: Pipeline, prompts: Sequence[str], checkpoint: Path
) -> tuple[Router, TrainRecord]:
    """Train the router of ``learning-to-cache`` or ``harmonica`` on a pipeline, which is left as it was."""
    chosen = [prompts[i % len(prompts)] for i in range(settings.trajectories)]
    store = checkpoint.with_suffix(".runs.pt")
    data = own_trajectories(store, pipeline, chosen, settings.seed, settings.at_once).to(pipeline.device)
    loss = LOSSES[name](pipeline, data, settings)
    with loss.mixed.attached():
        made = fit(loss.router, loss, settings.training, checkpoint, name)
    return loss.router, replace(made, seconds=made.seconds + data.seconds + loss.measured_s)


def build_router_files(
    name: str, settings: RouterSettings, pipeline: Pipeline, prompts: Sequence[str], folder: Path, checkpoint: Path
) -> None:
    """Train, and write ``router.json`` and ``training.json``."""
    router, made = train_router(name, settings, pipeline, prompts, checkpoint)
    router.save(folder / "router.json", pipeline.solver, pipeline.guidance.scale)
    made.save(folder / "training.json")
