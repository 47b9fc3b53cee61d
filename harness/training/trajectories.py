"""The teacher's own guided trajectories, recorded from the unchanged pipeline on a grid that contains every student grid."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.cost.guidance import Guidance
from harness.execution.interrupts import end_if_asked
from harness.execution.progress import tracked
from harness.sampling.branches import Told, captions_filled
from harness.sampling.grids import whole_grid
from harness.sampling.patching import patched
from harness.sampling.rows import join_rows, map_tensors, repeated, select_rows
from harness.training.processes import kept_together

if TYPE_CHECKING:
    from harness.sampling.pipeline import Pipeline

WIDEST_GAP = 40  # timesteps between two steps of the teacher
PIECES = 32  # in which trajectories are recorded, at most: what is lost when a recording is killed is one of them
STAGE = "teacher trajectories"


def union_grid(
    grids: Sequence[int], power: float = 1.0, widest_gap: int = WIDEST_GAP, shift: float | None = None
) -> tuple[int, ...]:
    """All timesteps of all student grids, refined until no teacher step is wider than ``widest_gap``.

    Below the lowest one they halve down to 1: where little noise is left, details of the image are still decided.
    """
    students = {t for n in grids for t in whole_grid(n, power, shift)}
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

    ``states`` float32 [n, K + 1, C, H, W] at ``timesteps`` ([K + 1], the last is -1; int64, or float32 on a flow's own grid).
    ``conditioning`` and ``null``: the transformer's keyword arguments on the conditional branch (tensors [n, ...]) and on the
    null one (tensors [1, ...]; empty without guidance). ``guidance``: the scale of each run, float32 [n]. ``seconds``: what
    recording them took. ``common``: the arguments that have no row for each image, the same on both branches.
    """

    timesteps: torch.Tensor
    states: torch.Tensor
    conditioning: dict[str, Any]
    null: dict[str, Any]
    guidance: torch.Tensor
    seconds: float
    common: dict[str, Any] = field(default_factory=dict)

    def column(self, t: torch.Tensor) -> torch.Tensor:
        """Where each timestep [B] stands in the grid."""
        return (self.timesteps[None] == t[:, None]).int().argmax(dim=1)

    def ends(self) -> Trajectories:
        """Where they began and where they ended, without the way between."""
        return replace(self, timesteps=self.timesteps[[0, -1]], states=self.states[:, [0, -1]].clone())

    def rows(self, index: torch.Tensor) -> dict[str, Any]:
        """The conditioning of some trajectories (int64 [B])."""
        return {**select_rows(self.conditioning, len(self.states), index), **self.common}

    def null_rows(self, rows: int) -> dict[str, Any]:
        """The null branch's conditioning for ``rows`` rows."""
        return {**repeated(self.null, rows), **self.common}

    @property
    def branches(self) -> int:
        """Guidance branches: 2, or 1 without guidance."""
        return 2 if self.null else 1

    def guidance_batch(self, index: torch.Tensor, guidance: Guidance) -> dict[str, Any]:
        """The conditioning of trajectories (int64 [B]) on every branch, in the pipeline's order: tensors [branches * B, ...]."""
        if not self.null:
            return self.rows(index)
        conditional = select_rows(self.conditioning, len(self.states), index)
        return {**join_rows(list(guidance.ordered(conditional, repeated(self.null, len(index))))), **self.common}

    def to(self, device: str) -> Trajectories:
        """On another device."""
        trees = (map_tensors(tree, lambda x: x.to(device)) for tree in (self.conditioning, self.null, self.common))
        conditioning, null, common = trees
        return replace(self, states=self.states.to(device), conditioning=conditioning, null=null, common=common)


class Recorder:
    """Captures states from the scheduler and conditioning from the transformer during one pipeline call of ``rows`` images."""

    def __init__(self, pipeline: Pipeline, rows: int) -> None:
        self.pipeline, self.rows = pipeline, rows
        self.states: list[torch.Tensor] = []
        self.told = Told(pipeline)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what happens inside the context."""
        scheduler = self.pipeline.pipe.scheduler
        step = scheduler.step

        def recorded_step(output: Any, t: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            result = step(output, t, sample, *args, **kwargs)
            if not self.states:
                self.states.append(sample[: self.rows].float().cpu())
            self.states.append((result[0] if isinstance(result, tuple) else result.prev_sample)[: self.rows].float().cpu())
            return result

        with patched(scheduler, "step", recorded_step), self.told.listening():
            yield

    @property
    def conditioning(self) -> dict[str, Any]:
        """What the conditional branch was told, on the CPU."""
        return map_tensors(self.told.branches[0], lambda x: x.cpu())

    @property
    def null(self) -> dict[str, Any]:
        """What one image's null branch was told, on the CPU; nothing without guidance."""
        if len(self.told.branches) < 2:
            return {}
        return map_tensors(select_rows(self.told.branches[1], self.rows, slice(0, 1)), lambda x: x.cpu())


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
    scales that the batches take in turn (default: the pipeline's own). ``numbers``: of the batches to record (default: all, with
    their progress shown).
    """
    states, conditions, scales = [], [], []
    started = time.perf_counter()
    with nullcontext() if timesteps is None else pipeline.sampling(timesteps=timesteps, solver="dpm++"):
        for number in numbers or tracked(range(batches(prompts, batch)), STAGE):
            end_if_asked()
            indices = range(number * batch, min((number + 1) * batch, len(prompts)))
            recorder = Recorder(pipeline, len(indices))
            scale = guidances[number % len(guidances)] if guidances else pipeline.guidance.scale
            chosen = pipeline.guidance.at(scale)
            with patched(pipeline, "guidance", chosen), recorder.recording(), captions_filled(pipeline):
                pipeline.generate([prompts[i] for i in indices], seed, indices)
            states.append(torch.stack(recorder.states, dim=1).clone())
            conditions.append(recorder.conditioning)
            scales += [scale] * len(indices)
        grid = _whole(torch.tensor([*pipeline.clock.timesteps, -1]))
    told, null = join_rows(conditions), join_rows([recorder.null])
    common = map_tensors(join_rows([recorder.told.common]), lambda x: x.cpu())
    return Trajectories(grid, torch.cat(states), told, null, torch.tensor(scales), time.perf_counter() - started, common)


def _whole(timesteps: torch.Tensor) -> torch.Tensor:
    """Timesteps as integers, where they all are."""
    whole = timesteps.long()
    return whole if bool((whole == timesteps).all()) else timesteps


def batches(prompts: Sequence[str], batch: int) -> int:
    """How many batches hold all prompts."""
    return -(-len(prompts) // batch)


def recorded(
    store: Path,
    key: str,
    pipeline: Pipeline,
    prompts: Sequence[str],
    seed: int,
    timesteps: Sequence[int] | None,
    batch: int = 64,
    keep: Callable[[Trajectories], Trajectories] = lambda data: data,
) -> Trajectories:
    """What ``keep`` leaves of :func:`record`, made once by all processes together and kept in ``store``."""
    count = batches(prompts, batch)
    edges = [piece * count // PIECES for piece in range(PIECES + 1)] if count > PIECES else range(count + 1)
    pieces = [range(*pair) for pair in itertools.pairwise(edges)]
    names = [f"{piece.start * batch}-to-{min(piece.stop * batch, len(prompts))}" for piece in pieces]

    def make(piece: int) -> dict[str, Any]:
        return vars(keep(record(pipeline, prompts, seed, timesteps, batch, numbers=pieces[piece])))

    return Trajectories(**kept_together(store, key, names, make, lambda parts: vars(_joined(parts)), stage=STAGE))


def own_trajectories(store: Path, pipeline: Pipeline, prompts: Sequence[str], seed: int, batch: int = 64) -> Trajectories:
    """On the pipeline's own timesteps and with its own solver, made once and kept in ``store``."""
    key = repr((list(prompts), seed, batch, pipeline.steps, pipeline.solver, *pipeline.guidance.scales))
    return recorded(store, key, pipeline, prompts, seed, None, batch)


def _joined(parts: Sequence[dict[str, Any]]) -> Trajectories:
    """Trajectories of one grid; their seconds are those of all."""
    found = [Trajectories(**part) for part in parts]
    return Trajectories(
        found[0].timesteps,
        torch.cat([part.states for part in found]),
        join_rows([part.conditioning for part in found]),
        found[0].null,
        torch.cat([part.guidance for part in found]),
        sum(part.seconds for part in found),
        found[0].common,
    )
