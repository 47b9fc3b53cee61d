"""Every solver on every scheduler that a checkpoint may have: its process is kept to the number, or the solver is refused."""

from __future__ import annotations

import inspect
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from harness.config.spec import ExperimentSpec, build_spec
from harness.errors import NotMeasured, UsageError
from harness.models.loading import find_plan, load_pipeline
from harness.sampling.process import is_flow
from harness.sampling.schedulers.represent import replaced
from harness.sampling.solvers import FLOW_SOLVERS, SOLVERS, build_bespoke, build_solver
from tests.conftest import random_table

V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True}
CLIPPED = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}
BETAS = torch.linspace(0.0002, 0.03, 1000).tolist()
DPM, UNCLIPPED = DPMSolverMultistepScheduler, {"clip_sample": False}
KEEP_ZERO, KEEP_CLIPPED, ALL = {"ddim", "dpm++", "dpm++1", "unipc"}, {"ddim", "dpm++", "dpm++1", "unipc", "deis"}, set(SOLVERS)
KEEP_FLOW = {"ddim", "dpm++", "dpm++1", "unipc", "deis"}
CHECKPOINTS: dict[str, tuple[Any, set[str]]] = {  # a scheduler, and the solvers that can represent it
    "published": (DPM(), ALL),
    "v": (DDIMScheduler(**UNCLIPPED, **V), ALL),
    "sample": (DPM(prediction_type="sample"), ALL),
    "other betas": (DPM(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"), ALL),
    "cosine": (DPM(beta_schedule="squaredcos_cap_v2", **V), ALL),
    "sigmoid, which only DDPM knows": (DDPMScheduler(beta_schedule="sigmoid", beta_end=0.02, **UNCLIPPED), ALL),
    "laplace": (DDPMScheduler(beta_schedule="laplace", **UNCLIPPED, **V), ALL),
    "own betas": (DPM(trained_betas=BETAS), ALL),
    "fewer timesteps": (DPM(num_train_timesteps=500), ALL),
    "zero terminal SNR": (DDIMScheduler(**UNCLIPPED, **ZERO, **V), KEEP_ZERO),
    "zero terminal SNR of DPM": (DPM(**ZERO, **V), KEEP_ZERO),
    "zero terminal SNR, clean image": (UniPCMultistepScheduler(**ZERO, prediction_type="sample"), KEEP_ZERO),
    "zero terminal SNR, noise": (DDIMScheduler(**UNCLIPPED, **ZERO), set()),
    "betas without a last signal": (DPM(trained_betas=[*BETAS[:-1], 1.0], **V), set()),
    "thresholding": (DPM(**CLIPPED), KEEP_CLIPPED),
    "clipping": (DDIMScheduler(clip_sample=True, clip_sample_range=2.0), {"ddim"}),
    "clipping and zero terminal SNR": (DDIMScheduler(clip_sample=True, **ZERO, **V), {"ddim"}),
    "thresholding and zero terminal SNR": (DPM(**CLIPPED, **ZERO, **V), KEEP_ZERO),
    "flow matching": (FlowMatchEulerDiscreteScheduler(shift=3.0), KEEP_FLOW),
    "flow matching, shift by resolution": (FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), KEEP_FLOW),
    "flow sigmas": (DPM(use_flow_sigmas=True, prediction_type="flow_prediction"), KEEP_FLOW),
    "flow sigmas, noise": (UniPCMultistepScheduler(use_flow_sigmas=True), set()),
    "flow sigmas, thresholding": (DPM(use_flow_sigmas=True, prediction_type="flow_prediction", **CLIPPED), set()),
    "flow matching of fewer timesteps": (FlowMatchEulerDiscreteScheduler(num_train_timesteps=500), set()),
    "flow matching, stochastic": (FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), set()),
    "flow matching, latent consistency": (FlowMatchLCMScheduler(), set()),
    "flow prediction": (DPM(prediction_type="flow_prediction"), set()),
    "latent consistency": (LCMScheduler(), set()),
    "another class": (EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, **V), ALL),
    "PNDM": (PNDMScheduler(skip_prk_steps=True), ALL),
}
KEPT = [(n, s) for n, (own, able) in CHECKPOINTS.items() for s in SOLVERS if s in able and not is_flow(own.config)]
KEPT_FLOW = [(n, s) for n, (own, able) in CHECKPOINTS.items() for s in FLOW_SOLVERS if able and is_flow(own.config)]
REFUSED = [(n, s) for n, (_, able) in CHECKPOINTS.items() for s in SOLVERS if s not in able]


@pytest.mark.parametrize(("checkpoint", "solver"), KEPT)
def test_what_is_kept(checkpoint: str, solver: str) -> None:
    own = CHECKPOINTS[checkpoint][0]
    built = build_solver(solver, own)
    assert torch.allclose(built.alphas_cumprod, own.alphas_cumprod, atol=1e-6)
    for field in ("prediction_type", "rescale_betas_zero_snr", "thresholding", "clip_sample"):
        if own.config.get(field):
            assert built.config[field] == own.config[field], field
    for field in CLIPPED if own.config.get("thresholding") else ():
        assert built.config[field] == own.config[field], field
    if own.config.get("clip_sample"):
        assert built.config.clip_sample_range == own.config.clip_sample_range
    built.set_timesteps(5)
    x = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    for t in built.timesteps:
        x = built.step(0.1 * x, t, x).prev_sample
    assert torch.isfinite(x).all()


@pytest.mark.parametrize(("checkpoint", "solver"), KEPT_FLOW)
def test_a_flow_keeps_the_sigmas_of_the_checkpoint(checkpoint: str, solver: str) -> None:
    own = CHECKPOINTS[checkpoint][0]
    mu = {"mu": 0.7} if own.config.get("use_dynamic_shifting") else {}
    built, plain = build_solver(solver, own), type(own).from_config(own.config)
    takes = solver not in ("euler", "ddim") and "sigmas" in inspect.signature(plain.set_timesteps).parameters
    trailing = {"sigmas": [1.0, 0.8, 0.6, 0.4, 0.2]} if takes else {}  # before the checkpoint's shift: see test_flow_grid.py
    built.set_timesteps(5, **mu)
    plain.set_timesteps(5, **mu, **trailing)
    assert torch.allclose(built.sigmas, plain.sigmas, atol=2e-6) and built.sigmas[-1] == 0
    x = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    for t in built.timesteps:
        x = built.step(0.1 * x, t, x).prev_sample
    assert torch.isfinite(x).all()


@pytest.mark.parametrize(("checkpoint", "solver"), REFUSED)
def test_what_is_refused(checkpoint: str, solver: str) -> None:
    own = CHECKPOINTS[checkpoint][0]
    with pytest.raises(NotMeasured, match=f"{type(own).__name__} with .*cannot represent it.*solver 'checkpoint'"):
        build_solver(solver, own)
    assert type(build_solver("checkpoint", own)) is type(own) and build_solver("checkpoint", own).config == own.config


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_combination_is_kept_or_refused(solver: str) -> None:
    """No third way: over all combinations of process, prediction, last signal and clipping."""
    kept = 0
    betas = ({}, {"beta_schedule": "squaredcos_cap_v2"}, {"trained_betas": BETAS}, {"num_train_timesteps": 400})
    predictions = ("epsilon", "sample", "v_prediction", "flow_prediction")
    clipping = (UNCLIPPED, {"clip_sample": True, "clip_sample_range": 3.0}, CLIPPED | UNCLIPPED)
    for schedule, predicts, zero, clip in itertools.product(betas, predictions, ({}, ZERO), clipping):
        kind = DDIMScheduler if predicts != "flow_prediction" else DPM
        own = kind.from_config(DDIMScheduler(**schedule, **zero, **clip).config, prediction_type=predicts)
        try:
            built = build_solver(solver, own)
        except NotMeasured:
            continue
        kept += 1
        assert torch.allclose(built.alphas_cumprod, own.alphas_cumprod, atol=1e-6)
        switches = ("rescale_betas_zero_snr", "thresholding", "clip_sample")
        for field in ("prediction_type", *(switch for switch in switches if own.config.get(switch))):
            assert built.config.get(field) == own.config[field], field
    assert kept >= 12


def test_zero_terminal_snr_samples_as_the_checkpoints_own() -> None:
    """The named DDIM on the checkpoint's own spacing is the checkpoint's scheduler, number by number."""
    own = DDIMScheduler(timestep_spacing="trailing", **UNCLIPPED, **ZERO, **V)
    images = []
    for scheduler in (build_solver("ddim", own), build_solver("checkpoint", own)):
        scheduler.set_timesteps(8)
        x = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
        for t in scheduler.timesteps:
            x = scheduler.step(torch.sin(3 * x), t, x).prev_sample
        images.append(x)
    assert torch.equal(*images)
    plain = build_solver("ddim", DDIMScheduler(timestep_spacing="trailing", **UNCLIPPED, **V))
    assert not torch.allclose(plain.alphas_cumprod, own.alphas_cumprod, atol=1e-3)


@pytest.mark.parametrize(
    "own", [DDIMScheduler(**UNCLIPPED, **ZERO, **V), DPM(**CLIPPED), UniPCMultistepScheduler(use_flow_sigmas=True)]
)
def test_a_learned_solver_is_refused_alike(own: Any) -> None:
    with pytest.raises(NotMeasured, match="bespoke, which cannot represent it"):
        build_bespoke(random_table(3), own)
    assert build_bespoke(random_table(3), DPM(trained_betas=BETAS)).alphas_cumprod[0] == pytest.approx(1 - BETAS[0])


def test_what_is_replaced_is_said() -> None:
    own = EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True)
    said = replaced("dpm++", build_solver("dpm++", own), own)
    assert said == (
        "dpm++ takes the place of the checkpoint's EulerDiscreteScheduler, "
        "without its timestep_spacing leading, steps_offset 1, use_karras_sigmas True"
    )
    same = DDIMScheduler(timestep_spacing="trailing", **UNCLIPPED)
    assert replaced("ddim", build_solver("ddim", same), same) == ""


def spec(folder: Path, **changed: Any) -> ExperimentSpec:
    content = {"name": "x", "task": "text", "pipeline": str(folder), "prompts": "presets/speed-prompts.txt", "methods": ["full"]}
    fixed = {"metrics": [], "timing": {"rounds": 1, "batch": 1}, "device": "cpu", "precision": "fp32"}
    return build_spec(content | fixed | changed, "test")


def test_a_run_is_refused_before_weights_are_read_and_the_record_says_what_is_replaced(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["pixart"], tmp_path / "pixart"))
    assert any("timestep_spacing linspace" in note for note in load_pipeline(spec(folder)).notes)
    assert load_pipeline(spec(folder, solver="checkpoint")).notes == ()
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_flow_sigmas": True}))
    with pytest.raises(
        UsageError, match=r"with flow matching and prediction_type epsilon in .*scheduler; got dpm.*--set solver=checkpoint"
    ):
        find_plan(spec(folder))
    find_plan(spec(folder, solver="checkpoint"))
