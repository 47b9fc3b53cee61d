"""The predicted cost of a training, against torch's own count of a real training step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cost.device_speed import measured_speed, published_peak
from harness.cost.flops import FLOPS_PER_MAC, Geometry
from harness.cost.training_cost import ASSUMED, TrainingPlan, predict_training, step_macs, whole_run_step_macs
from harness.models.random_weights import ARCHITECTURES, transformer_config
from harness.sampling.pipeline import Pipeline
from harness.training.attention import explicit_attention
from harness.training.trajectories import record, union_grid
from ilf.jumps import collect
from ilf.loop import InnerLoop
from ilf.objective import Objective
from ilf.schedule import Schedule
from ilf.train import IlfSettings, build_module, paper_form
from ilf.whole_run import WholeRuns
from tests.conftest import PROMPTS, open_pipeline

PLAN = TrainingPlan(looped=2, after=2, parameters=1000, steps=10, batch=4, trajectories=6, teacher_steps=40, branches=2)
GRIDS = (4,)


def one_step_macs(pipeline: Pipeline, settings: IlfSettings) -> float:
    """Counted multiply-accumulates of one loss and its gradient. Scales are moved off zero, so that gradients flow."""
    data = record(pipeline, PROMPTS[:2], 0, union_grid(settings.grids, settings.power, 250))
    module = build_module(pipeline, settings)
    torch.nn.init.constant_(module.scales, 0.1)
    pipeline.transformer.requires_grad_(False)
    jumps = collect(pipeline, module, Schedule.of(module.config), data, PROMPTS, 0, torch.arange(2))
    batch = jumps.take(torch.arange(settings.batch))
    loop = InnerLoop(pipeline.transformer, module)
    objective = Objective(pipeline, loop, data, settings.target)
    with explicit_attention(pipeline.transformer, module), loop.hooked(), FlopCounterMode(display=False) as counter:
        objective(batch, torch.Generator().manual_seed(0)).backward()
    return float(counter.get_total_flops() / FLOPS_PER_MAC)


@pytest.mark.parametrize("name", ["dit", "pixart"])
@pytest.mark.parametrize("target", ["jump2", "fad"])
def test_a_training_step_costs_what_was_predicted(folders: dict[str, Path], name: str, target: str) -> None:
    """Within a few per cent: the embeddings, and small conditioning layers inside tiny blocks, are left out."""
    pipeline = open_pipeline(folders[name])
    paper = replace(paper_form((2, 4), GRIDS, 4), batch=2)
    settings = paper if target == "fad" else replace(paper, target="jump2", branches="conditional")
    geometry = pipeline.plan().backbone.geometry
    predicted = settings.batch * step_macs(geometry, looped=3, after=2, stored=target == "jump2")
    assert one_step_macs(pipeline, settings) == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_a_whole_run_costs_what_was_predicted(folders: dict[str, Path], name: str) -> None:
    pipeline, settings = open_pipeline(folders[name]), IlfSettings(loop=(3, 4), grids=(4,), steps=4, power=1.5, context=False)
    data = record(pipeline, PROMPTS[:2], 0, union_grid((4,), 1.5, 250))
    runs = WholeRuns(pipeline, build_module(pipeline, settings), settings.grids)
    pipeline.transformer.requires_grad_(False)
    with explicit_attention(pipeline.transformer, runs.module), FlopCounterMode(display=False) as counter:
        runs.ends(4, data, torch.arange(2)).square().mean().backward()
    predicted = 2 * 4 * whole_run_step_macs(pipeline.plan().backbone.geometry, 2, 2)
    assert counter.get_total_flops() / FLOPS_PER_MAC == pytest.approx(predicted, rel=0.1)


def test_every_part_of_the_plan_counts() -> None:
    geometry = Geometry.of(transformer_config(ARCHITECTURES["pixart-alpha-512"]), 120)
    cost = predict_training(geometry, PLAN)
    assert cost.teacher_flops == 2 * 6 * 40 * 2 * geometry.forward_macs
    assert cost.training_flops == 2 * 10 * 4 * step_macs(geometry, 2, 2, stored=False)
    assert cost.disk_bytes == 6 * (41 * 4 * 64 * 64 * 4 + 120 * 4096 * 4) + 4 * 4 * 1000
    assert predict_training(geometry, replace(PLAN, steps=20)).training_flops == 2 * cost.training_flops
    fine = predict_training(geometry, replace(PLAN, fine=5, fine_steps=100))
    assert fine.teacher_flops - cost.teacher_flops == 2 * 5 * 100 * 2 * geometry.forward_macs
    assert fine.disk_bytes - cost.disk_bytes == 5 * (2 * 4 * 64 * 64 * 4 + 120 * 4096 * 4)
    assert cost.hours(ASSUMED) == pytest.approx((cost.teacher_flops + cost.training_flops) / 400e12 / 3600)
    assert "assumed 400 TFLOP/s" in cost.text(ASSUMED) and "GB of disk" in cost.text(ASSUMED)


def test_the_disk_is_what_a_recording_holds(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = open_pipeline(folders["pixart"])
    data = record(pipeline, PROMPTS[:4], 0, union_grid(GRIDS))
    torch.save({"states": data.states, "conditioning": data.conditioning}, tmp_path / "t.pt")
    plan = replace(PLAN, trajectories=4, teacher_steps=len(union_grid(GRIDS)), parameters=0)
    predicted = predict_training(pipeline.plan().backbone.geometry, plan).disk_bytes
    assert (tmp_path / "t.pt").stat().st_size == pytest.approx(predicted, rel=0.05, abs=8000)


def test_a_probe_measures_a_plausible_speed() -> None:
    small = replace(ARCHITECTURES["dit-xl-2-256"], heads=2, head_width=64, sample_size=16)
    speed = measured_speed(Geometry.of(transformer_config(small), 0), "cpu", torch.float32)
    assert 1e8 < speed.flops_per_s < 1e13 and "measured on cpu" in speed.source


def test_published_peaks_are_found_by_name() -> None:
    h200, a100 = published_peak("NVIDIA H200"), published_peak("NVIDIA A100-SXM4-80GB")
    assert h200 is not None and a100 is not None and h200.flops_per_s > a100.flops_per_s
    assert published_peak("AMD EPYC 9B14") is None
