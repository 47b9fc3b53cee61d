"""The predicted cost of a training, against torch's own count of a real training step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.config.spec import load_spec
from harness.cost.device_speed import Speed, measured_speed, published_peak, training_speed
from harness.cost.flops import FLOPS_PER_MAC
from harness.models.loading import find_plan
from harness.models.random_weights import describe
from harness.sampling.pipeline import Pipeline
from harness.training.attention import explicit_attention
from harness.training.trajectories import record, union_grid
from ilf.end_to_end import EndToEnd
from ilf.loop import InnerLoop
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.train import build_module, train_module
from ilf.training_cost import TrainingCost, end_to_end_step_macs, mean_step_macs, predict_training, step_macs
from ilf.transitions import collect
from ilf_bench.stand_ins import training_offer
from tests.conftest import PROMPTS, open_pipeline
from tests.harness.cost.test_flops import ARCHITECTURES, shapes

GRIDS = (4,)
PAPER = IlfSettings.of({"form": "paper", "loop": (2, 4), "grids": GRIDS, "steps": 4, "runs": 256, "batch": 2})
SPEED = Speed(400e12, "400 TFLOP/s")


def one_step_macs(pipeline: Pipeline, settings: IlfSettings) -> float:
    """Counted multiply-accumulates of one loss and its gradient. Scales are moved off zero, so that gradients flow."""
    data = record(pipeline, PROMPTS[:2], 0, union_grid(settings.grids, settings.power, 250))
    module = build_module(pipeline, settings)
    torch.nn.init.constant_(module.scales, 0.1)
    pipeline.transformer.requires_grad_(False)
    transitions = collect(pipeline, module, 4, data, PROMPTS, 0, torch.arange(2))
    batch = transitions.take(torch.arange(settings.batch))
    loop = InnerLoop(pipeline.transformer, pipeline.family, module)
    objective = Objective(pipeline, loop, data, settings.target)
    with explicit_attention(pipeline.transformer, module), loop.hooked(), FlopCounterMode(display=False) as counter:
        objective(batch, torch.Generator().manual_seed(0)).backward()
    return float(counter.get_total_flops() / FLOPS_PER_MAC)


@pytest.mark.parametrize("name", ["dit", "pixart"])
@pytest.mark.parametrize("target", ["second-order", "fad"])
def test_a_training_step_costs_what_was_predicted(folders: dict[str, Path], name: str, target: str) -> None:
    """Within a few per cent: the embeddings, and small conditioning layers inside tiny blocks, are left out."""
    pipeline = open_pipeline(folders[name])
    settings = PAPER if target == "fad" else replace(PAPER, target="second-order", branches="conditional")
    geometry = pipeline.plan().backbone.geometry
    predicted = settings.batch * step_macs(geometry, looped=3, after=2, stored=target == "second-order")
    assert one_step_macs(pipeline, settings) == pytest.approx(predicted, rel=0.1)


@pytest.mark.parametrize("cheaper", ["", "partial, conditional", "partial, both", "carried"])
@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_end_to_end_training_costs_what_was_predicted(folders: dict[str, Path], name: str, cheaper: str) -> None:
    pipeline, settings = open_pipeline(folders[name]), IlfSettings(loop=(3, 4), grids=(4,), steps=4, power=1.5, context=False)
    if cheaper:
        branches = cheaper.removeprefix("partial, ")
        partial: dict[str, Any] = {"partial": True, "branches": branches, "feedback": "odd"}
        form = {"guidance_carried": "odd"} if cheaper == "carried" else partial
        settings = replace(settings, **form, optimiser_steps=0, end_to_end_steps=1)
    data = record(pipeline, PROMPTS[:2], 0, union_grid((4,), 1.5, 250))
    runs = EndToEnd(pipeline, build_module(pipeline, settings), settings.grids)
    pipeline.transformer.requires_grad_(False)
    with explicit_attention(pipeline.transformer, runs.module), FlopCounterMode(display=False) as counter:
        runs.ends(4, data, torch.arange(2)).square().mean().backward()
    predicted = 2 * 4 * mean_step_macs(pipeline.plan().backbone.geometry, settings, 2)
    assert counter.get_total_flops() / FLOPS_PER_MAC == pytest.approx(predicted, rel=0.1)


def test_every_part_of_the_settings_counts() -> None:
    geometry = shapes("pixart-alpha-512")
    settings = replace(PAPER, loop=(25, 26), optimiser_steps=10, batch=4, trajectories=6, rounds=3, runs=5, remembered=2)
    cost, recorded = predict_training(geometry, settings, 2, 1000), len(union_grid(GRIDS))
    hidden = 3 * geometry.tokens * geometry.width * 2  # bytes per transition
    assert cost.teacher_flops == 2 * 6 * recorded * 2 * geometry.forward_macs
    assert cost.training_flops == 2 * 10 * 4 * step_macs(geometry, 2, 2, stored=False)
    trajectories = 6 * ((recorded + 1) * 4 * 64 * 64 * 4 + 120 * 4096 * 4)
    assert cost.disk_bytes == trajectories + 2 * 5 * 4 * hidden + 4 * 4 * 1000
    assert predict_training(geometry, replace(settings, optimiser_steps=20), 2, 1000).training_flops == 2 * cost.training_flops
    images = predict_training(geometry, replace(settings, image_steps=7, image_targets=5), 2, 1000)
    assert images.teacher_flops - cost.teacher_flops == 2 * 5 * 100 * 2 * geometry.forward_macs
    assert images.disk_bytes - cost.disk_bytes == 5 * (2 * 4 * 64 * 64 * 4 + 120 * 4096 * 4)
    assert images.training_flops - cost.training_flops == 2 * 7 * 32 * 4 * end_to_end_step_macs(geometry, 2, 2)
    own = predict_training(geometry, replace(settings, target="second-order", branches="conditional"), 2, 1000)
    collected = 3 * 5 * 4 * (2 * geometry.forward_macs + 3 * geometry.block_macs)
    assert own.training_flops == 2 * (10 * 4 * step_macs(geometry, 2, 2, stored=True) + collected)
    assert own.disk_bytes - cost.disk_bytes == 5 * 4 * hidden, "all rounds are on disk"


def test_the_time_is_given_in_a_readable_unit() -> None:
    assert TrainingCost(100e12, 300e12, 2_000_000_000).text(SPEED) == "predicted: 1 s of device time at 400 TFLOP/s, 2 GB of disk"
    assert TrainingCost(0, 400e12 * 90, 10**7).text(SPEED).startswith("predicted: 1.5 min of device time")
    assert TrainingCost(0, 400e12 * 9000, 10**7).text(SPEED).startswith("predicted: 2.5 h of device time")
    assert TrainingCost(0, 400e12 * 3.6e6, 10**7).text(SPEED).startswith("predicted: 1,000 h of device time")


def test_the_disk_is_what_a_recording_holds(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = open_pipeline(folders["pixart"])
    data = record(pipeline, PROMPTS[:4], 0, union_grid(GRIDS))
    torch.save({"states": data.states, "conditioning": data.conditioning}, tmp_path / "t.pt")
    settings, geometry = replace(PAPER, trajectories=4, remembered=1, runs=1), pipeline.plan().backbone.geometry
    hidden = 4 * 3 * geometry.tokens * geometry.width * 2
    predicted = predict_training(geometry, settings, 2, 0).disk_bytes - hidden
    assert (tmp_path / "t.pt").stat().st_size == pytest.approx(predicted, rel=0.05, abs=8000)


def test_a_probe_measures_a_plausible_speed() -> None:
    size = {"num_attention_heads": 2, "attention_head_dim": 64, "sample_size": 16}
    family, model = describe(ARCHITECTURES["dit-xl-2-256"].having("transformer", **size))
    speed = measured_speed(family.geometry(model), "cpu", torch.float32)
    assert 1e8 < speed.flops_per_s < 1e13 and "measured on cpu" in speed.source


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_the_predicted_time_is_right_for_this_cpu(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    """Within a factor of some, on a model so small that most of the time is not arithmetic; an H100's speed is far from that."""
    pipeline = open_pipeline(folders[name])
    geometry = pipeline.plan().backbone.geometry
    settings = IlfSettings(grids=(4,), steps=4, trajectories=16, runs=16, batch=16, rounds=1, optimiser_steps=20)
    settings = settings.resolved(geometry.depth, geometry.tokens * geometry.width)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(16)]
    data = record(pipeline, prompts, 0, union_grid(settings.grids, settings.power))
    _, made = train_module(pipeline, data, prompts, settings, tmp_path / "work.pt")
    predicted = predict_training(geometry, settings, 2, 0).seconds(training_speed(geometry, "cpu", pipeline.precision))
    assert made.seconds / 20 < predicted < made.seconds * 5


def test_without_the_device_the_work_is_told_instead_of_the_time() -> None:
    """The driver of a cluster need not have the GPU that its workers have."""
    spec = load_spec("pixart-alpha-512", {"pipeline": "random:pixart-alpha-512", "device": "cuda"})
    offer = training_offer(find_plan(spec), spec, "pixart-alpha-512", here=False)
    assert "FLOP" in offer and "GB of disk" in offer and "device time" not in offer


def test_published_peaks_are_found_by_name() -> None:
    h200, a100 = published_peak("NVIDIA H200"), published_peak("NVIDIA A100-SXM4-80GB")
    assert h200 is not None and a100 is not None and h200.flops_per_s > a100.flops_per_s
    assert published_peak("AMD EPYC 9B14") is None
    assert published_peak("NVIDIA L40") is None and published_peak("NVIDIA A10G") is None, "neither an L4 nor an A10"
    pcie = published_peak("NVIDIA H100 PCIe")
    assert pcie is not None and pcie.flops_per_s == 756e12
