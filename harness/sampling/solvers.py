"""Diffusion ODE solvers by name, built from the pipeline's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from diffusers import DDIMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from harness.config.solvers import OWN, OWN_GRID, check_solver
from harness.errors import NotMeasured, UsageError
from harness.sampling.process import Process, is_flow
from harness.sampling.schedulers.base import OwnScheduler
from harness.sampling.schedulers.bdia import BDIAScheduler
from harness.sampling.schedulers.bespoke import BespokeScheduler
from harness.sampling.schedulers.evodiff import EVODiffScheduler
from harness.sampling.schedulers.flow import (
    FLOW_SETTINGS,
    FlowDEIS,
    FlowDPM,
    FlowEuler,
    FlowHeun,
    FlowUniPC,
    OnFlowGrid,
    Sigmas,
    on_flow_grid,
)
from harness.sampling.schedulers.ghvb import GHVBScheduler
from harness.sampling.schedulers.represent import check_flow, represented
from harness.sampling.schedulers.solver_table import SolverTable


@dataclass(frozen=True)
class SolverKind:
    """A scheduler class with its settings. ``order``: its error falls with this power of the step count; a test measures it.

    Each calls the model once per step, on a grid that starts at the last training step, and ends on the clean image.
    """

    scheduler: type
    order: int
    settings: Mapping[str, Any]


_TRAILING = {"timestep_spacing": "trailing"}
_TO_CLEAN = _TRAILING | {"final_sigmas_type": "zero"}
_DPM = {"algorithm_type": "dpmsolver++"} | _TO_CLEAN
SOLVERS: dict[str, SolverKind] = {
    "ddim": SolverKind(DDIMScheduler, 1, _TRAILING | {"set_alpha_to_one": True, "clip_sample": False}),
    "dpm++": SolverKind(DPMSolverMultistepScheduler, 2, _DPM | {"solver_order": 2}),
    # first order: DDIM, on timesteps that need not be evenly spaced
    "dpm++1": SolverKind(DPMSolverMultistepScheduler, 1, _DPM | {"solver_order": 1}),
    "unipc": SolverKind(UniPCMultistepScheduler, 3, _TO_CLEAN | {"solver_order": 2}),  # the corrector adds one order
    "deis": SolverKind(DEISMultistepScheduler, 2, _TRAILING | {"solver_order": 2}),
    "ghvb": SolverKind(GHVBScheduler, 2, {"beta": 0.8}),
    "bdia": SolverKind(BDIAScheduler, 1, {"gamma": 0.5}),
    "bdia-inv": SolverKind(BDIAScheduler, 2, {"gamma": 1.0}),  # exactly invertible, and unstable at few steps
    "evodiff": SolverKind(EVODiffScheduler, 1, {}),
}
FLOW_SOLVERS: dict[str, SolverKind] = {
    "euler": SolverKind(FlowEuler, 1, {}),
    "ddim": SolverKind(FlowEuler, 1, {}),  # the same on a straight process
    "heun": SolverKind(FlowHeun, 2, {}),
    "dpm++": SolverKind(FlowDPM, 2, FLOW_SETTINGS | _DPM | {"solver_order": 2}),
    "dpm++1": SolverKind(FlowDPM, 1, FLOW_SETTINGS | _DPM | {"solver_order": 1}),
    "unipc": SolverKind(FlowUniPC, 3, FLOW_SETTINGS | _TO_CLEAN | {"solver_order": 2}),
    "deis": SolverKind(FlowDEIS, 2, FLOW_SETTINGS | _TRAILING | {"solver_order": 2}),
}
_FREE = (DPMSolverMultistepScheduler, OwnScheduler, OnFlowGrid)  # these take any timesteps


def solver_kind(name: str, flow: bool) -> SolverKind:
    """A named solver for a model of this kind. Raises :class:`NotMeasured` where it is written for the other."""
    table = FLOW_SOLVERS if flow else SOLVERS
    if check_solver(name) not in table:
        kind = "flow matching" if flow else "a noise schedule of betas"
        raise NotMeasured(expected=f"a solver for {kind}: {', '.join(table)}", got=name, remedy="choose one of these")
    return table[name]


def build_solver(name: str, own: Any, sigmas: Sigmas = lambda steps: None) -> Any:
    """A fresh scheduler with the noise levels, prediction type and clipping of ``own``, the checkpoint's scheduler.

    ``sigmas``: what the pipeline of a flow-matching model passes to its scheduler, see
    :class:`harness.models.families.base.Family`. Raises :class:`harness.errors.NotMeasured` where the solver cannot have them.
    """
    if check_solver(name) == OWN:
        return type(own).from_config(own.config)
    if is_flow(own.config) and name in FLOW_SOLVERS:
        check_flow(name, own)
        kind = solver_kind(name, flow=True)
        return on_flow_grid(kind.scheduler(**kind.settings), own, sigmas, trailing=name not in OWN_GRID)
    kind = solver_kind(name, flow=False)
    return represented(name, kind.scheduler, kind.settings, own)


def build_bespoke(table: SolverTable, own: Any) -> BespokeScheduler:
    """A learned solver with the noise levels and prediction type of ``own``; raises as :func:`build_solver`."""
    scheduler: BespokeScheduler
    if is_flow(own.config):
        check_flow("bespoke", own)
        scheduler = BespokeScheduler(flow=True, table=table.content())
    else:
        scheduler = represented("bespoke", BespokeScheduler, {"table": table.content()}, own)
    return scheduler


def solver_table(name: str, own: Any, timesteps: Sequence[int]) -> SolverTable:
    """A named solver on chosen timesteps as the coefficients that it amounts to: what a learned solver can start as.

    It must be linear in its sample and in all clean images predicted so far, as multistep solvers are. Raises as
    :func:`build_solver` and :func:`on_timesteps`.
    """
    scheduler, process, count = on_timesteps(build_solver(name, own), timesteps), Process.of(own), len(timesteps)
    scheduler.set_timesteps(count)
    units = torch.eye(1 + count, dtype=torch.float64)  # the noise, and the clean image of each step: coordinates of the samples
    keep, clean, sample = [], [], units[:1]
    for i, t in enumerate(scheduler.timesteps):
        signal, noise = process.level(timesteps[i])
        output = (units[i + 1 : i + 2] - process.split(0 * sample, sample, signal, noise)[0]) / process.slope(signal, noise)
        moved = scheduler.step(output, t, sample).prev_sample
        share = float(moved[0, 0] / sample[0, 0])
        keep.append(share)
        clean.append(tuple((moved - share * sample)[0, 1 : i + 2].tolist()))
        sample = moved
    return SolverTable(tuple(timesteps), tuple(keep), tuple(clean), tuple((0.0,) * len(row) for row in clean))


def on_timesteps(scheduler: Any, timesteps: Sequence[int]) -> Any:
    """Make ``scheduler`` run on these timesteps, whatever step count it is asked for. Not every solver takes a free choice."""
    if not isinstance(scheduler, _FREE) or isinstance(scheduler, FlowHeun):
        table = FLOW_SOLVERS if is_flow(scheduler.config) else SOLVERS
        free = ", ".join(n for n, kind in table.items() if issubclass(kind.scheduler, _FREE) and kind.scheduler is not FlowHeun)
        raise UsageError(
            expected=f"a solver that takes free timesteps: {free}", got=type(scheduler).__name__, remedy="solver:dpm++"
        )
    bound: Any = scheduler
    set_timesteps = bound.set_timesteps

    @wraps(set_timesteps)  # a pipeline looks at the signature before it passes sigmas
    def chosen(*args: Any, device: Any = None, **kwargs: Any) -> None:
        set_timesteps(timesteps=list(timesteps), device=device)

    bound.set_timesteps = chosen
    return bound
