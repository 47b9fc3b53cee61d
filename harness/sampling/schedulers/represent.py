"""A solver samples the process that a checkpoint was trained for, or none: what of its scheduler is kept, what replaced.

The noise levels, what the model predicts and how its clean image is clipped belong to the checkpoint: a solver keeps them, or is
refused. The timesteps and the order belong to the solver, and :func:`replaced` says which of the checkpoint's it does not use.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import FlowMatchLCMScheduler, LCMScheduler

from harness.errors import NotMeasured
from harness.sampling.process import BETAS, TRAINED, is_flow

PREDICTIONS = ("epsilon", "sample", "v_prediction")
ZERO_SNR = "rescale_betas_zero_snr"
CLIPPING = {  # of the predicted clean image: the switch, and what else it reads
    "thresholding": ("dynamic_thresholding_ratio", "sample_max_value"),
    "clip_sample": ("clip_sample_range",),
}
CLOSE = 1e-6  # between the same alphas_cumprod in float32
NO_SIGNAL = 1e-12  # of alphas_cumprod: a cosine schedule ends on 2e-9
GRID = (  # which timesteps, and how the steps between them are made
    *("timestep_spacing", "steps_offset", "timestep_type", "set_alpha_to_one", "final_sigmas_type", "interpolation_type"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas", "sigma_min", "sigma_max"),
    *("lambda_min_clipped", "skip_prk_steps", "shift_terminal", "variance_type", "tau_func"),
)


def represented(name: str, kind: Any, settings: Mapping[str, Any], own: Any) -> Any:
    """A scheduler of class ``kind`` with the noise levels, prediction type and clipping of ``own``, a checkpoint's scheduler.

    Raises :class:`NotMeasured` where that class cannot have them.
    """
    config, takes = own.config, set(inspect.signature(kind.__init__).parameters)
    _check_kind(name, own)
    told = {field: config[field] for field in BETAS if field in config}
    if config.get(ZERO_SNR):
        if ZERO_SNR not in takes:
            raise _refused(name, own, f"{ZERO_SNR}, a last timestep without any signal")
        if told["prediction_type"] == "epsilon":
            raise _refused(
                name, own, f"{ZERO_SNR} with a model that predicts the noise, which says nothing where there is no signal"
            )
        told[ZERO_SNR] = True
    for switch, values in CLIPPING.items():
        if config.get(switch):
            if switch not in takes:
                raise _refused(name, own, f"{switch}, which bounds the predicted clean image")
            told |= {field: config[field] for field in (switch, *values) if field in config}
    return _with_levels(name, kind, {**settings, **told}, own)


def _check_kind(name: str, own: Any) -> None:
    """Flow matching, other predictions and distilled models are no process of betas."""
    predicts = own.config.get("prediction_type")
    if is_flow(own.config):
        raise _refused(name, own, "flow matching")
    if predicts not in PREDICTIONS:
        raise _refused(name, own, f"prediction_type {predicts}")
    if isinstance(own, LCMScheduler):
        raise _refused(name, own, "a model distilled for its own few stochastic steps")


def check_flow(name: str, own: Any) -> None:
    """Raise :class:`NotMeasured` where a flow-matching scheduler is none that steps along the straight process as it is."""
    config = own.config
    if isinstance(own, FlowMatchLCMScheduler) or config.get("stochastic_sampling"):
        raise _refused(name, own, "a model distilled for its own few stochastic steps")
    predicts = config.get("prediction_type", "flow_prediction")
    if predicts != "flow_prediction":
        raise _refused(name, own, f"flow matching and prediction_type {predicts}")
    for field, usual in (("thresholding", False), ("invert_sigmas", False), ("num_train_timesteps", TRAINED)):
        if config.get(field, usual) != usual:
            raise _refused(name, own, f"flow matching and {field} {config[field]}")


def _with_levels(name: str, kind: Any, settings: Mapping[str, Any], own: Any) -> Any:
    """With the schedule that the settings name, or, where this class makes other levels of it, with the very betas."""
    made = [settings]
    if getattr(own, "betas", None) is not None:
        made.append({**settings, "trained_betas": own.betas.tolist()})
    for attempt in made:
        try:
            scheduler = kind(**attempt)
        except NotImplementedError:  # diffusers: a schedule of betas that this class does not know
            continue
        if _same_levels(scheduler.alphas_cumprod, own.alphas_cumprod):
            break
    else:
        raise _refused(name, own, f"noise levels of beta_schedule {own.config.get('beta_schedule')}")
    if float(own.alphas_cumprod[-1]) < NO_SIGNAL and not settings.get(ZERO_SNR):
        raise _refused(name, own, "betas that leave no signal at the last timestep")
    return scheduler


def _same_levels(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape == theirs.shape and bool(torch.isfinite(ours).all()) and bool((ours - theirs).abs().max() < CLOSE)


def _refused(name: str, own: Any, what: str) -> NotMeasured:
    return NotMeasured(
        expected=f"a solver for the checkpoint's {type(own).__name__} with {what}",
        got=f"{name}, which cannot represent it",
        remedy="the solver 'checkpoint', which is that scheduler, or another one",
    )


def replaced(name: str, solver: Any, own: Any) -> str:
    """A sentence for the record: which settings of the checkpoint's scheduler the solver's own timesteps take the place of.

    Empty where there are none.
    """
    default = {field: one.default for field, one in inspect.signature(type(own).__init__).parameters.items()}
    unused = []
    for field in (field for field in GRID if field in own.config):
        theirs = own.config[field]
        ours = solver.config[field] if field in solver.config else default.get(field)
        if ours != theirs:
            unused.append(f"{field} {theirs}")
    if type(own) is type(solver) and not unused:
        return ""
    listed = f", without its {', '.join(unused)}" if unused else ""
    return f"{name} takes the place of the checkpoint's {type(own).__name__}{listed}"
