"""The teacher's own guided trajectories, recorded from the unchanged pipeline on a grid that contains every student grid."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness.execution.progress import tracked
from harness.sampling.guidance import conditional_half
from harness.sampling.patching import patched
from harness.sampling.pipeline import Pipeline
from harness.sampling.solvers import power_grid
from harness.training.processes import kept_together

WIDEST_GAP = 40  # timesteps between two steps of the teacher
PIECES = 32  # in which trajectories are recorded, at most: what is lost when a recording is killed is one of them


def union_grid(grids: Sequence[int], power: float = 1.0, widest_gap: int = WIDEST_GAP) -> tuple[int, ...]:
    """All timesteps of all student grids, refined until no teacher step is wider than ``widest_gap``.

    Below the lowest one they halve down to 1: where little noise is left, details of the image are still decided.
    """
    students = {t for n in grids for t in power_grid(n, power)}
    halves = {min(students) >> k for k in range(1, 10)} - {0}
    edges = sorted(students | halves | {-1}, reverse=True)
    fine: list[int] = []
    for high, low in itertools.pairwise(edges):
        pieces = -(-(high - low) // widest_gap)
        fine += [round(high - k * (high - low) / pieces) for k in range(pieces)]
    return tuple(fine)


@dataclass(frozen=True)
class Trajectories:
    """What n runs of the teacher went through.

    ``states`` float32 [n, K + 1, C, H, W] at ``timesteps`` (int64 [K + 1], the last is -1). ``conditioning`` and ``null``:
    the transformer's keyword arguments on the conditional branch (tensors [n, ...]) and on the null one (tensors [1, ...];
    empty without guidance). ``guidance``: the scale of each run, float32 [n]. ``seconds``: what recording them took.
    """

    timesteps: torch.Tensor
    states: torch.Tensor
    conditioning: dict[str, Any]
    null: dict[str, Any]
    guidance: torch.Tensor
    seconds: float

    def column(self, t: torch.Tensor) -> torch.Tensor:
        """Where each timestep [B] stands in the grid."""
        return (self.timesteps[None] == t[:, None]).int().argmax(dim=1)

    def ends(self) -> Trajectories:
        """Where they began and where they ended, without the way between."""
        return replace(self, timesteps=self.timesteps[[0, -1]], states=self.states[:, [0, -1]].clone())

    def rows(self, index: torch.Tensor) -> dict[str, Any]:
        """The conditioning of some trajectories."""
        return map_tensors(self.conditioning, lambda x: x[index])

    @property
    def branches(self) -> int:
        """Guidance branches: 2, or 1 without guidance."""
        return 2 if self.null else 1

    def guidance_batch(self, index: torch.Tensor, conditional_first: bool) -> dict[str, Any]:
        """The conditioning of trajectories (int64 [B]) on every branch, in the pipeline's order: tensors [branches * B, ...]."""
        conditioning = self.rows(index)
        if not self.null:
            return conditioning
        null = map_tensors(self.null, lambda x: x.expand(len(index), *x.shape[1:]))
        return concatenate([conditioning, null] if conditional_first else [null, conditioning])

    def to(self, device: str) -> Trajectories:
        """On another device."""
        conditioning, null = (map_tensors(tree, lambda x: x.to(device)) for tree in (self.conditioning, self.null))
        return replace(self, states=self.states.to(device), conditioning=conditioning, null=null)


def map_tensors(tree: dict[str, Any], function: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    """``function`` of every tensor, inside dicts too."""

    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            return map_tensors(value, function)
        return function(value) if isinstance(value, torch.Tensor) else value

    return {key: apply(value) for key, value in tree.items()}


class Recorder:
    """Captures states from the scheduler and conditioning from the transformer during one pipeline call of ``rows`` images."""

    def __init__(self, pipeline: Pipeline, rows: int) -> None:
        self.pipeline, self.rows = pipeline, rows
        self.states: list[torch.Tensor] = []
        self.conditioning: dict[str, Any] = {}
        self.null: dict[str, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what happens inside the context."""
        scheduler, transformer = self.pipeline.pipe.scheduler, self.pipeline.transformer
        step, forward = scheduler.step, transformer.forward

        def recorded_step(output: Any, t: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = step(output, t, sample, *args, **kwargs)
            if not self.states:
                self.states.append(sample[: self.rows].float().cpu())
            self.states.append((result[0] if isinstance(result, tuple) else result.prev_sample)[: self.rows].float().cpu())
            return result

        def recorded_forward(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
            if not self.conditioning:
                self._remember(hidden_states.shape[0], kwargs)
            return forward(hidden_states, **kwargs)

        with patched(scheduler, "step", recorded_step), patched(transformer, "forward", recorded_forward):
            yield

    def _remember(self, rows: int, kwargs: dict[str, Any]) -> None:
        kept = {k: v for k, v in kwargs.items() if k not in ("timestep", "return_dict")}
        if rows != 2 * self.rows:
            self.conditioning = map_tensors(kept, _kept)
            return
        first = self.pipeline.conditional_first
        self.conditioning = map_tensors(conditional_half(kept, rows, first), _kept)
        self.null = map_tensors(conditional_half(kept, rows, not first), lambda x: _kept(x[:1]))


def _kept(value: torch.Tensor) -> torch.Tensor:
    return value.detach().clone().cpu()


def record(
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    timesteps: Sequence[int] | None = None,
    batch: int = 64,
    guidances: Sequence[float] = (),
    numbers: Sequence[int] | None = None,
) -> Trajectories:
    """Sample prompt i from noise (seed, i) and keep every state on the way.

    With second-order DPM-Solver++ on ``timesteps``; None: on the pipeline's own timesteps with its own solver. ``guidances``:
    scales that the batches take in turn (default: the pipeline's own). ``numbers``: of the batches to record (default: all).
    """
    states, conditions, scales = [], [], []
    started = time.perf_counter()
    with nullcontext() if timesteps is None else pipeline.sampling(timesteps=timesteps, solver="dpm++"):
        for number in tracked(numbers or range(batches(prompts, batch)), "teacher trajectories"):
            indices = range(number * batch, min((number + 1) * batch, len(prompts)))
            recorder = Recorder(pipeline, len(indices))
            scale = guidances[number % len(guidances)] if guidances else pipeline.guidance
            with patched(pipeline, "guidance", scale), recorder.recording():
                pipeline.generate([prompts[i] for i in indices], seed, indices)
            states.append(torch.stack(recorder.states, dim=1).clone())
            conditions.append(recorder.conditioning)
            scales += [scale] * len(indices)
        grid = torch.tensor([*(int(t) for t in pipeline.clock.timesteps), -1])
    return Trajectories(
        grid, torch.cat(states), concatenate(conditions), recorder.null, torch.tensor(scales), time.perf_counter() - started
    )


def batches(prompts: Sequence[str], batch: int) -> int:
    """How many batches hold all prompts."""
    return -(-len(prompts) // batch)


def recorded(
    store: Path,
    key: str,
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    timesteps: Sequence[int],
    batch: int = 64,
    keep: Callable[[Trajectories], Trajectories] = lambda data: data,
) -> Trajectories:
    """What ``keep`` leaves of :func:`record`, made once by all processes together and kept in ``store``."""
    count = batches(prompts, batch)
    pieces = min(PIECES, count)

    def make(piece: int) -> dict[str, Any]:
        numbers = range(piece * count // pieces, (piece + 1) * count // pieces)
        return vars(keep(record(pipeline, prompts, seed, timesteps, batch, numbers=numbers)))

    return Trajectories(**kept_together(store, key, pieces, make, lambda parts: vars(_joined(parts))))


def _joined(parts: Sequence[dict[str, Any]]) -> Trajectories:
    """Trajectories of one grid; their seconds are those of all."""
    found = [Trajectories(**part) for part in parts]
    return Trajectories(
        found[0].timesteps,
        torch.cat([part.states for part in found]),
        concatenate([part.conditioning for part in found]),
        found[0].null,
        torch.cat([part.guidance for part in found]),
        sum(part.seconds for part in found),
    )


def concatenate(trees: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Trees of equal shape as one; what is no tensor is the first's."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return concatenate(values)
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else values[0]

    return {key: join([tree[key] for tree in trees]) for key in trees[0]}
