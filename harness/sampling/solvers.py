"""Diffusion ODE solvers by name, built from the pipeline's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from harness.config.solvers import OWN, check_solver
from harness.errors import UsageError
from harness.sampling.schedulers.base import OwnScheduler
from harness.sampling.schedulers.bdia import BDIAScheduler
from harness.sampling.schedulers.bespoke import BespokeScheduler
from harness.sampling.schedulers.evodiff import EVODiffScheduler
from harness.sampling.schedulers.ghvb import GHVBScheduler
from harness.sampling.schedulers.represent import represented
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
_FREE = (DPMSolverMultistepScheduler, OwnScheduler)  # these take any timesteps


def build_solver(name: str, own: Any) -> Any:
    """A fresh scheduler with the noise levels, prediction type and clipping of ``own``, the checkpoint's scheduler.

    Raises :class:`harness.errors.NotMeasured` where the solver cannot have them.
    """
    if check_solver(name) == OWN:
        return type(own).from_config(own.config)
    kind = SOLVERS[name]
    return represented(name, kind.scheduler, kind.settings, own)


def build_bespoke(table: SolverTable, own: Any) -> BespokeScheduler:
    """A learned solver with the noise levels and prediction type of ``own``; raises as :func:`build_solver`."""
    scheduler: BespokeScheduler = represented("bespoke", BespokeScheduler, {"table": table.content()}, own)
    return scheduler


def on_timesteps(scheduler: Any, timesteps: Sequence[int]) -> Any:
    """Make ``scheduler`` run on these timesteps, whatever step count it is asked for. Not every solver takes a free choice."""
    if not isinstance(scheduler, _FREE):
        free = ", ".join(name for name, kind in SOLVERS.items() if issubclass(kind.scheduler, _FREE))
        raise UsageError(
            expected=f"a solver that takes free timesteps: {free}", got=type(scheduler).__name__, remedy="solver:dpm++"
        )
    bound: Any = scheduler
    set_timesteps = bound.set_timesteps

    def chosen(*args: Any, device: Any = None, **kwargs: Any) -> None:
        set_timesteps(timesteps=list(timesteps), device=device)

    bound.set_timesteps = chosen
    return bound
