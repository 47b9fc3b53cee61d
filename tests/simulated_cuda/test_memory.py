"""A device with too little memory: at every stage it is said, and what can be done smaller is done smaller."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.config.spec import TimingSpec, load_spec
from harness.execution import fitting
from harness.results import REFERENCE, TimingSample
from harness.sampling.pipeline import Pipeline
from harness.storage.images import decode_image
from harness.storage.records import read_timings
from harness.timing import reference_workload
from harness.timing.reference_workload import Workload
from harness.timing.rounds import Rounds
from harness.training.states import read_state, write_state
from ilf_bench.experiment import execute, prepare
from tests.conftest import PROMPTS
from tests.harness.execution.test_runner import write_preset
from tests.methods import build
from tests.simulated_cuda.device import SimulatedCuda

HUNGRY = "taylorseer:interval=2:order=3:warmup=1"
Pairs = dict[str, tuple[Pipeline, Pipeline]]


@pytest.fixture(autouse=True)
def no_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference workload takes more memory than these models, and its products would take a CPU seconds."""
    sample = TimingSample(REFERENCE, 0, 1, 1.0, 0.0, 1.0, 0.0, 0)
    monkeypatch.setattr(Workload, "time_once", lambda self, number, batch: replace(sample, round=number, batch=batch))


def peak_of(gpu: Pipeline, batch: int) -> int:
    """Bytes beside the weights that a call takes."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gpu.generate((PROMPTS * batch)[:batch], 0, range(batch))
    return torch.cuda.max_memory_allocated() - before


def rounds(folder: Path, gpu: Pipeline, spec: TimingSpec) -> Rounds:
    methods: Any = {text: build(text, Path()) for text in ("full", "steps:2", "deepcache:interval=2")}
    return Rounds(folder, spec, gpu, PROMPTS, 0, methods)


def test_every_method_is_timed_at_the_batch_that_fits_the_full_run(device: SimulatedCuda, pairs: Pairs, tmp_path: Path) -> None:
    _, gpu = pairs["pixart"]
    spec = TimingSpec(rounds=2, warmup=1, batch=8, batches=(1,))
    timed = rounds(tmp_path, gpu, spec)
    with device.memory(int(1.7 * peak_of(gpu, 4))):
        assert timed.record(0) == []
    assert [(fault.stage, fault.batch) for fault in timed.faults] == [("time", 4)]
    assert "out of memory at 8 images" in timed.faults[0].reason
    again = rounds(tmp_path, gpu, spec)  # a resumed run, with memory enough
    assert again.record(1) == []
    for number in range(2):
        samples = read_timings(tmp_path / "timing" / f"{number:03d}.json")
        sizes = {sample.batch for sample in samples}
        assert sizes == {4, 1}, "half of the preset's, at which methods are compared, and the further one"
        assert len([s for s in samples if s.batch == 4 and s.method != "reference workload"]) == 3


def test_a_method_alone_that_does_not_fit_is_a_failure(device: SimulatedCuda, pairs: Pairs, tmp_path: Path) -> None:
    _, gpu = pairs["pixart"]
    methods: Any = {text: build(text, Path()) for text in ("full", HUNGRY)}
    timed = Rounds(tmp_path, TimingSpec(rounds=1, warmup=1, batch=4), gpu, PROMPTS, 0, methods)
    with device.memory(int(1.05 * peak_of(gpu, 4))):
        (failure,) = timed.record(0)
    assert failure.method == HUNGRY and "out of memory" in failure.reason and timed.faults == []


def test_states_come_back_on_the_host(device: SimulatedCuda, tmp_path: Path) -> None:
    """Saved by a process on the second GPU, read by one that has no memory left on it."""
    write_state(tmp_path / "x.pt", {"weights": torch.ones(4096, device="cuda:1")})
    with device.memory(0, 1), device.memory(0, 0):
        assert read_state(tmp_path / "x.pt")["weights"].device.type == "cpu"


@pytest.mark.parametrize("stage", ["denoise", "decode"])
def test_memory_that_runs_out_at_a_stage_makes_smaller_batches(
    device: SimulatedCuda, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """At the first step, or when everything has been denoised; nothing was predicted, so that it is found out on the way."""
    gc.collect()
    options = {"device": "cuda:1", "metrics": [], "methods": ["full"], "timing": {"rounds": 0, "batch": 2, "warmup": 0}}
    path = write_preset(tmp_path, folders["pixart"], **options)
    spec = load_spec(str(path))
    needed = fitting.predict(spec, PROMPTS, 4)
    monkeypatch.setattr(fitting, "rehearse", lambda *a: torch.empty(1, device="meta").item())
    whole = execute(prepare(str(path), {}), tmp_path / "whole", Console(quiet=True)).run.path
    gc.collect()
    assert needed.stages()["text"] < needed.stages()["denoise"] < needed.stages()["decode"]
    with device.memory(int(0.97 * needed.stages()[stage]), 1):
        done = execute(prepare(str(path), {}), tmp_path / "short", Console(quiet=True))
    assert done.failures == [] and {fault.batch for fault in done.run.faults} <= {2, 1}
    assert "out of memory at 4 images at a time" in done.run.faults[0].reason
    for image in sorted(whole.rglob("samples/*/*.png")):
        same = decode_image(done.run.path / image.relative_to(whole)).astype(int) - decode_image(image)
        assert abs(same).max() <= 1


def test_memory_that_runs_out_in_the_second_round_spoils_no_round(device: SimulatedCuda, pairs: Pairs, tmp_path: Path) -> None:
    """Another process takes it; when that has gone, the same command times the round that is missing."""
    _, gpu = pairs["pixart"]
    spec = TimingSpec(rounds=2, warmup=1, batch=4)
    timed = rounds(tmp_path, gpu, spec)
    assert timed.record(0) == []
    with device.memory(peak_of(gpu, 4) // 4):
        failures = timed.record(1)
    assert {failure.method for failure in failures} == {"full", "steps:2", "deepcache:interval=2"}
    assert all(failure.metric == "timing" and "out of memory" in failure.reason for failure in failures)
    assert not (tmp_path / "timing" / "001.json").exists(), "a round without a method is repeated"
    again = rounds(tmp_path, gpu, spec)
    assert again.record(1) == []
    assert len([s for s in read_timings(tmp_path / "timing" / "001.json") if s.method != REFERENCE]) == 3
    assert not list(tmp_path.rglob("scores/*/timing*.json"))


def test_what_other_processes_hold_is_not_free(device: SimulatedCuda) -> None:
    gc.collect()
    with device.memory(2**20, 1):
        free = fitting.room_on("cuda:1")
        held = torch.empty(2**18, dtype=torch.uint8, device="cuda:1")
        less = fitting.room_on("cuda:1")
    assert free is not None and less is not None and free.free - less.free == held.numel() and free.total == less.total


def test_the_reference_workload_has_a_part_that_the_device_bounds(device: SimulatedCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real one
    monkeypatch.setattr(reference_workload, "SIDE", 64)
    workload, products = Workload("cuda:1", "fp32"), []
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: products.append(a.shape) or torch.matmul(a, b))
    before = device.allocated(1)
    sample = workload.time_once(3, 8)
    assert (sample.round, sample.batch, sample.method) == (3, 8, REFERENCE)
    assert sample.latency_s == pytest.approx(sample.denoise_s + sample.decode_s) and min(sample.denoise_s, sample.decode_s) > 0
    assert products == [(64, 64)] * reference_workload.PRODUCTS and device.allocated(1) == before
