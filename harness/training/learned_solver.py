"""Learning a :class:`SolverTable` by gradient through full trajectories of few steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from harness.errors import UsageError
from harness.sampling.clock import StepClock
from harness.sampling.precision import autocast
from harness.sampling.process import TRAINED, Process
from harness.sampling.rows import map_tensors
from harness.sampling.schedulers.solver_table import SolverTable
from harness.sampling.solvers import solver_table
from harness.training.trajectories import Trajectories, recorded

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

RATE = 10.0  # coefficients move this much faster than a network's weights under one learning rate
CONVERGED_GRID = tuple(range(999, -1, -10))  # 100 evenly spaced timesteps
Error = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of ends and targets, both latents [B, C, H, W]; a scalar
Predict = Callable[[int, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


class LearnedSolver(nn.Module):
    """Starts as second-order DPM-Solver++ for a ``process`` on whole ``timesteps``, 999 (noise) to 0.

    Parameters: the gaps between timesteps, and what is added to DPM-Solver++'s coefficients on them, so that a timestep that
    moves takes its coefficients along. Timesteps are whole numbers in the forward pass and free in the backward pass. The
    first stays the last training step: there the sample is noise. ``terms``: whether guidance terms are learned, too.
    ``table``: it starts as this solver on these timesteps instead.
    """

    log_snr: torch.Tensor
    start: torch.Tensor

    def __init__(self, process: Process, timesteps: Sequence[int], terms: bool = True, table: SolverTable | None = None) -> None:
        super().__init__()
        self.process, self.steps = process.to("cpu"), len(timesteps)
        times = torch.arange(TRAINED, dtype=torch.float64)
        if process.bars is None:
            signal, noise = 1 - times / TRAINED, times.clamp(min=0.5) / TRAINED  # the clean image, t = 0, has a finite ratio
        else:
            bar = process.bars.double().cpu()
            signal, noise = bar.sqrt(), (1 - bar).sqrt()
        self.register_buffer("log_snr", torch.log(signal / noise), persistent=False)
        grid = torch.tensor([*timesteps, -1], dtype=torch.float64)
        steps = self.steps
        self.register_buffer("start", torch.log((grid[:-1] - grid[1:] - 1).clamp(min=1e-3)), persistent=False)
        self.gaps = nn.Parameter(torch.zeros(steps))
        self.keep = nn.Parameter(torch.zeros(steps))
        self.clean = nn.Parameter(torch.zeros(steps, steps))
        self.guidance = nn.Parameter(torch.zeros(steps, steps), requires_grad=terms)
        if table is not None:
            self._start_as(table)

    @torch.no_grad()
    def _start_as(self, table: SolverTable) -> None:
        keep, clean = self.coefficients()
        self.keep.add_((torch.tensor(table.keep) - keep) / RATE)
        for i, (row, terms) in enumerate(zip(table.clean, table.guidance, strict=True)):
            self.clean[i, : i + 1].add_((torch.tensor(row) - clean[i, : i + 1]) / RATE)
            self.guidance[i, : i + 1].copy_(torch.tensor(terms) / RATE)

    def timesteps(self) -> torch.Tensor:
        """Float64 [steps], high to low, each at least one apart and whole."""
        total = len(self.log_snr)
        gaps = 1 + (total - self.steps) * torch.softmax(self.start + RATE * self.gaps, dim=0)
        free = total - 1 - torch.cat([gaps.new_zeros(1), gaps.cumsum(0)[:-1]])
        return free + (torch.floor(free + 0.5) - free).detach()

    def levels(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log signal-to-noise ratio, signal and noise at timesteps [steps], interpolated."""
        below = timesteps.detach().floor().long().clamp(max=len(self.log_snr) - 2)
        part = timesteps - below
        log = self.log_snr[below] * (1 - part) + self.log_snr[below + 1] * part
        if self.process.bars is None:
            return log, torch.sigmoid(log), torch.sigmoid(-log)
        bar = torch.sigmoid(2 * log)
        return log, bar.sqrt(), (1 - bar).sqrt()

    def coefficients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``keep`` [steps] and ``clean`` [steps, steps], lower triangular: those of DPM-Solver++ 2M and what was learned."""
        log, signal, noise = self.levels(self.timesteps())
        h = log[1:] - log[:-1]
        weight = -signal[1:] * torch.expm1(-h)
        back = torch.cat([h.new_zeros(1), h[1:] / (2 * h[:-1])])
        plain = torch.cat([weight * (1 + back), h.new_ones(1)])
        clean = torch.diag(plain) + torch.diag(torch.cat([-(weight * back)[1:], h.new_zeros(1)]), -1)
        keep = torch.cat([noise[1:] / noise[:-1], h.new_zeros(1)])
        return (keep + RATE * self.keep).float(), (clean + RATE * torch.tril(self.clean)).float()

    def forward(self, predict: Predict, sample: torch.Tensor) -> torch.Tensor:
        """The image's latent [B, C, H, W] from noise.

        ``predict(step, timestep, sample)`` gives the guided prediction and the difference of the conditional and the null
        branch's, both [B, C, H, W].
        """
        timesteps, (keep, clean), terms = self.timesteps(), self.coefficients(), RATE * self.guidance
        _, signal, noise = (level.float() for level in self.levels(timesteps))
        seen, differences = [], []
        for i in range(self.steps):
            guided, difference = predict(i, timesteps[i].float(), sample)
            differences.append(self.process.slope(signal[i], noise[i]) * difference)
            added = sum(terms[i, k] * differences[k] for k in range(i + 1))
            seen.append(self.process.split(guided, sample, signal[i], noise[i])[0] + added)
            sample = keep[i] * sample + sum(clean[i, j] * seen[j] for j in range(i + 1))
        return sample

    def table(self) -> SolverTable:
        """As it is now."""
        with torch.no_grad():
            keep, clean = self.coefficients()
            steps = range(self.steps)
            return SolverTable(
                tuple(int(t) for t in self.timesteps()),
                tuple(keep.tolist()),
                tuple(tuple(clean[i, : i + 1].tolist()) for i in steps),
                tuple(tuple((RATE * self.guidance[i, : i + 1]).tolist()) for i in steps),
            )


def starting_as(name: str, pipeline: Pipeline, timesteps: Sequence[int]) -> LearnedSolver:
    """One for ``pipeline`` that starts as a named solver. Raises as :func:`harness.sampling.solvers.solver_table`."""
    own = pipeline.pipe.scheduler
    table = None if name == "dpm++" else solver_table(name, own, timesteps)  # a learned solver is DPM-Solver++ at first
    return LearnedSolver(Process.of(own), timesteps, pipeline.guidance.is_linear, table)


def rms_distance(ends: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Root mean squared distance [B] of each latent to its target: not squared, so that a few outliers do not dominate."""
    return (ends - targets).square().flatten(1).mean(dim=1).sqrt()


def final_latents(
    solver: LearnedSolver, pipeline: Pipeline, data: Trajectories, rows: torch.Tensor, clock: StepClock
) -> torch.Tensor:
    """Latents [B, C, H, W] that the solver reaches from the noise of trajectories ``rows`` (int64 [B]), with gradients."""
    return solver(denoiser(pipeline, data, rows, clock), data.states[rows, 0].to(pipeline.device))  # type: ignore[no-any-return]


def latent_error(ends: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean :func:`rms_distance`, scalar."""
    return rms_distance(ends, targets).mean()


def decodes_plainly(pipeline: Pipeline) -> bool:
    """Whether latents are a grid with one scaling factor: not where they are packed, or normalised channel by channel."""
    return len(pipeline.geometry.latent) == 3 and getattr(pipeline.pipe.vae.config, "scaling_factor", None) is not None


def image_error(pipeline: Pipeline) -> Error:
    """The error of the images that latents decode to, as fidelity is measured: root mean squares over values in 0..1.

    A decoder shows some errors of a latent more than others; this counts them as they are seen. Raises :class:`UsageError` where
    :func:`decodes_plainly` says no.
    """
    vae = pipeline.pipe.vae.requires_grad_(False)
    scale, moved = getattr(vae.config, "scaling_factor", None), getattr(vae.config, "shift_factor", None) or 0.0
    if scale is None or not decodes_plainly(pipeline):
        raise UsageError(
            expected="latents on a grid with one scaling factor, for training by decoded images",
            got=f"those of {type(pipeline.pipe).__name__}",
            remedy="train without image_steps",
        )

    def images(latents: torch.Tensor) -> torch.Tensor:
        with autocast(pipeline.precision, pipeline.device):
            decoded: torch.Tensor = vae.decode(latents.to(vae.dtype) / scale + moved).sample
        return (decoded.float() / 2 + 0.5).clamp(0, 1)

    return lambda ends, targets: rms_distance(images(ends), images(targets)).mean()


def converged_trajectories(pipeline: Pipeline, prompts: Sequence[str], seed: int, store: Path, batch: int = 64) -> Trajectories:
    """Noise and final latents of converged trajectories of ``seed``: what decoded images are compared with. Recorded once."""
    key = repr((prompts, seed, CONVERGED_GRID, *pipeline.guidance.scales))
    return recorded(store, key, pipeline, prompts, seed, CONVERGED_GRID, batch, keep=Trajectories.ends)


def denoiser(pipeline: Pipeline, data: Trajectories, rows: torch.Tensor, clock: StepClock) -> Predict:
    """A pipeline's transformer as :class:`LearnedSolver` calls it, on the conditioning of trajectories ``rows`` (int64 [B]).

    ``clock`` is told the step. Whatever is attached to the transformer takes part, with gradients.
    """

    guidance, guided = pipeline.guidance, bool(data.null)
    if guided and guidance.layout == "calls":
        return _denoiser_of_two_calls(pipeline, data, rows, clock)
    conditioning = map_tensors(data.guidance_batch(rows, guidance), lambda x: x.to(pipeline.device))

    def predict(step: int, t: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clock.step = step
        batch = torch.cat([sample, sample]) if guided else sample
        eps = pipeline.predict(batch, t.expand(len(batch)), conditioning)
        if not guided:
            return eps, torch.zeros_like(eps)
        conditional, without = guidance.split(eps)
        return guidance.combined(conditional, without), conditional - without

    return predict


def _denoiser_of_two_calls(pipeline: Pipeline, data: Trajectories, rows: torch.Tensor, clock: StepClock) -> Predict:
    """The conditional branch first, as the pipeline calls them."""
    guidance = pipeline.guidance
    told = [map_tensors(tree, lambda x: x.to(pipeline.device)) for tree in (data.rows(rows), data.null_rows(len(rows)))]

    def predict(step: int, t: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clock.step, outputs = step, []
        for clock.call, conditioning in enumerate(told):
            outputs.append(pipeline.predict(sample, t.expand(len(sample)), conditioning))
        conditional, null = outputs
        return guidance.combined(conditional, null), conditional - null

    return predict
