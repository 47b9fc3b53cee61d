"""The teacher's own guided trajectories, recorded from the unchanged pipeline on a grid that contains every student grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track

from harness.patching import patched
from harness.pipeline import Pipeline
from harness.rows import conditional_half

TRAIN_TIMESTEPS = 1000


def trailing_grid(steps: int) -> list[int]:
    """The timesteps of ``steps`` trailing-spaced steps, high to low: 999 first; the last step lands on -1."""
    return [round(TRAIN_TIMESTEPS - i * TRAIN_TIMESTEPS / steps) - 1 for i in range(steps)]


def union_grid(grids: Sequence[int], widest_gap: int = 25) -> list[int]:
    """All timesteps of all student grids, refined until no teacher step is wider than ``widest_gap``."""
    edges = sorted({t for n in grids for t in trailing_grid(n)} | {-1}, reverse=True)
    fine: list[int] = []
    for high, low in itertools.pairwise(edges):
        pieces = -(-(high - low) // widest_gap)
        fine += [round(high - k * (high - low) / pieces) for k in range(pieces)]
    return fine


@dataclass(frozen=True)
class Trajectories:
    """``states`` float32 [n, K + 1, C, H, W] at ``timesteps`` (int64 [K + 1], the last is -1), and what conditioned them.

    ``conditioning`` holds the conditional half of the transformer's keyword arguments: tensors [n, ...].
    """

    timesteps: torch.Tensor
    states: torch.Tensor
    conditioning: dict[str, Any]

    def column(self, t: torch.Tensor) -> torch.Tensor:
        """Where each timestep [B] stands in the grid."""
        return (self.timesteps[None] == t[:, None]).int().argmax(dim=1)

    def rows(self, index: torch.Tensor) -> dict[str, Any]:
        """The conditioning of some trajectories."""
        return _map(self.conditioning, lambda x: x[index])


def _map(tree: dict[str, Any], function: Any) -> dict[str, Any]:
    def apply(value: Any) -> Any:
        if isinstance(value, dict):
            return _map(value, function)
        return function(value) if isinstance(value, torch.Tensor) else value

    return {key: apply(value) for key, value in tree.items()}


class _Recorder:
    """Captures states from the scheduler and conditioning from the transformer during one pipeline call."""

    def __init__(self, pipeline: Pipeline, grid: Sequence[int], rows: int) -> None:
        self.pipeline, self.grid, self.rows = pipeline, list(grid), rows
        self.states: list[torch.Tensor] = []
        self.conditioning: dict[str, Any] = {}

    @contextmanager
    def recording(self) -> Iterator[None]:
        scheduler, transformer = self.pipeline.pipe.scheduler, self.pipeline.transformer
        set_timesteps, step, forward = scheduler.set_timesteps, scheduler.step, transformer.forward

        def on_grid(*args: Any, device: Any = None, **kwargs: Any) -> None:
            set_timesteps(timesteps=self.grid, device=device)

        def recorded_step(output: Any, t: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = step(output, t, sample, *args, **kwargs)
            if not self.states:
                self.states.append(sample[: self.rows].float())
            self.states.append((result[0] if isinstance(result, tuple) else result.prev_sample)[: self.rows].float())
            return result

        def recorded_forward(hidden_states: torch.Tensor, **kwargs: Any) -> Any:
            if not self.conditioning:
                kept = {k: v for k, v in kwargs.items() if k not in ("timestep", "return_dict")}
                doubled = hidden_states.shape[0] == 2 * self.rows
                self.conditioning = (
                    conditional_half(kept, hidden_states.shape[0], self.pipeline.conditional_first) if doubled else kept
                )
            return forward(hidden_states, **kwargs)

        with (
            patched(scheduler, "set_timesteps", on_grid),
            patched(scheduler, "step", recorded_step),
            patched(transformer, "forward", recorded_forward),
        ):
            yield


def record(
    pipeline: Pipeline, prompts: Sequence[str], seed: int, grids: Sequence[int], widest_gap: int = 25, batch: int = 64
) -> Trajectories:
    """Sample prompt i from noise (seed, i) with converged second-order DPM-Solver++ and keep every state on the way."""
    grid = union_grid(grids, widest_gap)
    states, conditions = [], []
    with pipeline.sampling(steps=len(grid), solver="dpm++"):
        for start in track(range(0, len(prompts), batch), description="teacher trajectories"):
            chunk = prompts[start : start + batch]
            recorder = _Recorder(pipeline, grid, len(chunk))
            with recorder.recording():
                pipeline.generate(chunk, seed, range(start, start + len(chunk)))
            states.append(torch.stack(recorder.states, dim=1).clone())
            conditions.append(_map(recorder.conditioning, torch.clone))
    return Trajectories(torch.tensor([*grid, -1]), torch.cat(states), _concatenate(conditions))


def _concatenate(trees: list[dict[str, Any]]) -> dict[str, Any]:
    def join(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return _concatenate(values)
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else values[0]

    return {key: join([tree[key] for tree in trees]) for key in trees[0]}
