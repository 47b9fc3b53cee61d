"""The memory that a training step is predicted to need is what it then allocates on the device."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.training_memory import predict_step, with_published_encoder
from harness.config.spec import load_spec
from harness.models.loading import load_pipeline
from harness.training.fit import TrainSettings
from harness.training.trajectories import record, union_grid
from ilf.objective import Objective
from ilf.settings import IlfSettings
from ilf.train import train_module
from tests.conftest import PROMPTS
from tests.harness.execution.test_runner import write_preset
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import SimulatedCuda

TOLERANCE = 0.15  # of a step on these tiny tensors
TRAINING = {"grids": [3], "steps": 3, "batch": 64, "runs": 4, "rounds": 1, "trajectories": 4, "optimiser_steps": 2}


@pytest.mark.parametrize("name", MODELS)
def test_a_step_allocates_what_is_predicted(
    device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gc.collect()
    path = write_preset(tmp_path, folders[name], device="cuda:1", metrics=[], methods=["full"], training=TRAINING)
    spec = load_spec(str(path))
    predicted = predict_step(spec, PROMPTS[0])
    assert device.allocated(1) == 0
    gpu = load_pipeline(spec)
    settings = IlfSettings.of(spec.training, spec.task).resolved(gpu.geometry.depth, gpu.geometry.state_values)
    data = record(gpu, PROMPTS[:4], 0, union_grid((3,), settings.power, 250), 4)
    began: list[int] = []
    call = Objective.__call__

    def begun(self: Objective, *arguments: Any) -> torch.Tensor:
        torch.cuda.reset_peak_memory_stats(1)
        began.append(device.allocated(1))
        return call(self, *arguments)

    monkeypatch.setattr(Objective, "__call__", begun)
    train_module(gpu, data, PROMPTS[:4], settings, tmp_path / "ilf.pt", TrainSettings(1, 1e-3, warmup=1, checkpoint_every=1))
    weights = sum(predicted.weights.values())
    step = torch.cuda.max_memory_allocated(1) - began[0]
    assert began[0] > weights and step == pytest.approx(predicted.step, rel=TOLERANCE)
    assert predicted.peak > weights + predicted.step


def test_the_whole_encoder_is_added_where_there_is_one() -> None:
    from benchmarks.training_memory import TrainingMemory

    assert with_published_encoder(TrainingMemory({"transformer": 5}, 1, 2), 2) == 8
    assert with_published_encoder(TrainingMemory({"transformer": 5, "text_encoder": 7}, 1, 2), 2) == 8 + int(2 * 4.76e9)
