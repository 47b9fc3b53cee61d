"""The second of two GPUs: nothing may fall back to the first one, which is torch's current device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.sampling.pipeline import Pipeline
from harness.timing.rounds import time_once
from harness.training.trajectories import record, union_grid
from ilf.train import train_module
from tests.conftest import PROMPTS, open_pipeline
from tests.methods import TEXTS, applies, build
from tests.simulated_cuda.conftest import MODELS
from tests.simulated_cuda.device import SimulatedCuda
from tests.simulated_cuda.sampling import EVERY, images
from tests.simulated_cuda.test_training import FORMS, PLAN

Pairs = dict[str, tuple[Pipeline, Pipeline]]


@pytest.fixture(scope="module", params=MODELS)
def second(request: pytest.FixtureRequest, folders: dict[str, Path], installed: SimulatedCuda) -> Iterator[Pipeline]:
    yield open_pipeline(folders[request.param], device="cuda:1")


@pytest.mark.parametrize("text", TEXTS)
def test_a_method_stays_on_its_device(device: SimulatedCuda, second: Pipeline, text: str) -> None:
    if not applies(text, second):
        pytest.skip("not for this model")
    method, before = build(text, Path()), device.allocated(0)
    torch.cuda.reset_peak_memory_stats(0)
    with method.attach(second):
        images(second, EVERY)
    assert torch.cuda.max_memory_allocated(0) == before and torch.cuda.current_device() == 0


def test_time_and_memory_are_those_of_the_device(second: Pipeline) -> None:
    sample = time_once(second, build("full", Path()), "full", PROMPTS[:2], 0, 0)
    weights = sum(p.numel() * p.element_size() for p in second.transformer.parameters())
    assert sample.peak_memory_bytes > weights and sample.latency_s >= sample.denoise_s > 0
    stages = [sample.denoise_bytes, sample.decode_bytes, *([] if sample.text_bytes is None else [sample.text_bytes])]
    assert all(stage is not None and weights < stage <= sample.peak_memory_bytes for stage in stages)
    assert sample.reserved_bytes is not None and sample.reserved_bytes >= max(stage for stage in stages if stage)
    assert sample.copy_s > 0


def test_training_stays_on_its_device(device: SimulatedCuda, second: Pipeline, tmp_path: Path) -> None:
    before = device.allocated(0)
    torch.cuda.reset_peak_memory_stats(0)
    data = record(second, PROMPTS[:4], 0, union_grid((3,), 1.0, 250), 4)
    module, made = train_module(second, data, PROMPTS[:4], FORMS["ours"], tmp_path / "x.pt", PLAN)
    assert torch.cuda.max_memory_allocated(0) == before and made.device == "cuda:1"
    assert next(module.parameters()).device == torch.device("cuda", 1)
