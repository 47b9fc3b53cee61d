"""Diffusion ODE solvers by name, built from the pipeline's own noise schedule."""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler

from harness.errors import UsageError

# name -> (class, settings). Trailing spacing starts every grid at the last training step and ends on the clean image.
SOLVERS: dict[str, tuple[type, dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"timestep_spacing": "trailing", "set_alpha_to_one": True, "clip_sample": False}),
    "dpm++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "timestep_spacing": "trailing", "final_sigmas_type": "zero"},
    ),
    "dpm++1": (  # first order: DDIM, on timesteps that need not be evenly spaced
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 1, "timestep_spacing": "trailing", "final_sigmas_type": "zero"},
    ),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2, "timestep_spacing": "trailing", "final_sigmas_type": "zero"}),
    "deis": (DEISMultistepScheduler, {"solver_order": 2, "timestep_spacing": "trailing"}),
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
    kind, settings = SOLVERS[name]
    keep = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    return kind(**{k: own.config[k] for k in keep if k in own.config}, **settings)
