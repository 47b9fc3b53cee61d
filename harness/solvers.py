"""Diffusion ODE solvers by name, built from the pipeline's own noise schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import DDIMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from harness.errors import UsageError
from harness.schedulers.bdia import BDIAScheduler
from harness.schedulers.evodiff import EVODiffScheduler
from harness.schedulers.ghvb import GHVBScheduler


@dataclass(frozen=True)
class SolverKind:
    """A scheduler class with its settings. ``order``: its error falls with this power of the step count; a test measures it.

    Each calls the model once a step, on a grid that starts at the last training step, and ends on the clean image.
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
    "bdia": SolverKind(BDIAScheduler, 2, {"gamma": 1.0}),
    "evodiff": SolverKind(EVODiffScheduler, 1, {}),
}
OWN = "checkpoint"  # keep the scheduler that the checkpoint was saved with


def check_solver(name: str) -> str:
    """The name itself, or a :class:`UsageError` that lists the known ones."""
    if name != OWN and name not in SOLVERS:
        raise UsageError(expected=f"a solver out of {OWN}, {', '.join(SOLVERS)}", got=repr(name), remedy="pick one of these")
    return name


def build_solver(name: str, own: Any) -> Any:
    """A fresh scheduler with the betas and prediction type of ``own``, the checkpoint's scheduler."""
    if check_solver(name) == OWN:
        return type(own).from_config(own.config)
    kind = SOLVERS[name]
    keep = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    return kind.scheduler(**{k: own.config[k] for k in keep if k in own.config}, **kind.settings)
