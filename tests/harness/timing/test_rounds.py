"""Timing: what a sample holds, warm-up and batch sizes apart, compiled blocks, and the GPU's state through NVML's own names."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pynvml
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from harness.config.spec import load_spec
from harness.errors import UsageError
from harness.execution.environment import describe
from harness.results import A_A, REFERENCE, TimingSample
from harness.sampling import compiling
from harness.storage.records import read_json, read_run
from harness.timing.nvml import DeviceState, Monitor, Nvml
from harness.timing.rounds import time_once
from harness.timing.stages import StageTimer
from ilf.untrained import UntrainedIlf
from ilf_bench.cli import main
from tests.conftest import PROMPTS, open_pipeline
from tests.harness.execution.test_runner import write_preset
from tests.methods import build, save_random_module

OLD = {
    "method": "full",
    "round": 0,
    "batch": 2,
    "latency_s": 1.0,
    "text_s": 0.1,
    "denoise_s": 0.8,
    "decode_s": 0.1,
    "peak_memory_bytes": 5,
}


def test_records_of_before_are_read_as_they_were() -> None:
    sample = TimingSample(**OLD)  # type: ignore[arg-type]
    assert (sample.compile_s, sample.clock_mhz, sample.throttled) == (0.0, None, "")


def test_batch_sizes_and_warm_up_are_recorded_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    timing = {"rounds": 2, "batch": 2, "warmup": 1, "batches": [1, 3, 2]}
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "steps:2"], metrics=[], timing=timing)
    assert main(["run", str(preset), "--out", str(tmp_path / "runs")]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    three = ["full", "2 steps", A_A]
    methods = [sample for sample in run.timings if sample.method != REFERENCE]
    assert len(methods) == 2 * 3 and {sample.batch for sample in run.timings} == {2}
    others = [sample for sample in run.other_batches if sample.method != REFERENCE]
    assert sorted((s.batch, s.method) for s in others) == sorted((b, m) for b in (1, 3) for m in three for _ in (0, 1))
    assert sum(sample.method != REFERENCE for sample in run.warmups) == 3 * 3 and {sample.round for sample in run.warmups} == {-1}
    order = [row["method"] for row in read_json(folder / "timing" / "001.json") if row["method"] != REFERENCE]
    assert order[:3] == order[3:6] and set(order[:3]) == set(three)


def test_options_replace_parts_of_the_timing_section(folders: dict[str, Path], tmp_path: Path) -> None:
    from ilf_bench.options import timing_overrides

    preset = str(write_preset(tmp_path, folders["dit"]))
    chosen = load_spec(preset, {"timing": timing_overrides(None, None, "8,1")})
    assert (chosen.timing.all_batches, chosen.timing.rounds, chosen.timing.warmup) == ((8, 1), 2, 1)
    changed = load_spec(preset, {"timing": timing_overrides(5, 0, None)}).timing
    assert (changed.rounds, changed.warmup, changed.all_batches) == (5, 0, (2,))
    assert timing_overrides(None, None, None) is None
    for wrong in ("", "8;1", "-1"):
        with pytest.raises(UsageError, match="batch sizes"):
            timing_overrides(None, None, wrong)
    with pytest.raises(UsageError, match="batch"):
        load_spec(preset, {"timing": timing_overrides(None, None, "0")})


def test_every_setting_is_in_the_digest() -> None:
    identity = load_spec("tiny-text").identity()
    assert identity["compile"] is False and identity["timing"] == {"rounds": 8, "batch": 32, "warmup": 1, "batches": []}
    assert load_spec("tiny-text", {"compile": True}).digest() != load_spec("tiny-text").digest()


def test_a_failure_at_one_batch_size_leaves_the_others(folders: dict[str, Path], tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        """
from contextlib import contextmanager
from dataclasses import dataclass

from harness.sampling.patching import patched

@dataclass(frozen=True)
class Small:
    label = "small"
    def plan(self, plan):
        return plan
    @contextmanager
    def attach(self, pipeline):
        generate = pipeline.generate
        def limited(prompts, seed, indices):
            if len(prompts) > 4:
                raise RuntimeError("out of memory")
            return generate(prompts, seed, indices)
        with patched(pipeline, "generate", limited):
            yield

METHODS = {"small": Small}
"""
    )
    timing = {"rounds": 1, "batch": 2, "warmup": 0, "batches": [5]}
    preset = write_preset(tmp_path, folders["dit"], methods=["full", "small"], metrics=[], timing=timing)
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--plugin", str(plugin)]) == 4
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    assert {sample.method for sample in run.timings} == {"full", "small", A_A, REFERENCE}
    assert {sample.method for sample in run.other_batches} == {"full", A_A, REFERENCE}
    ((label, stage),) = run.scores
    assert (label, stage) == ("small", "timing_batch_5") and "out of memory" in run.scores[label, stage].reason  # type: ignore[union-attr]


def test_stages_add_up_and_follow_the_work(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow text encoder and a slow decoder are found in their own stages, and nowhere else."""
    pipeline = open_pipeline(folders["pixart"])
    encode, decode = pipeline.pipe.encode_prompt, pipeline.pipe.vae.decode

    def late(work: Any, seconds: float) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return work(*args, **kwargs)

        return call

    pipeline.generate(PROMPTS[:1], 0, [0])
    monkeypatch.setattr(pipeline.pipe, "encode_prompt", late(encode, 0.2), raising=False)
    monkeypatch.setattr(pipeline.pipe.vae, "decode", late(decode, 0.4), raising=False)
    timer = StageTimer("cpu")
    start = timer.now()
    with timer.timing(pipeline):
        pipeline.generate(PROMPTS[:1], 0, [0])
    total = timer.now() - start
    assert 0.2 <= timer.text_s < 0.4 <= timer.decode_s and timer.denoise_s > 0
    assert timer.text_s + timer.denoise_s + timer.decode_s + timer.copy_s == pytest.approx(total, rel=0.02)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Compilation by a backend that counts graphs and runs them as they are."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(compiling, "BACKEND", counter)
    yield counter
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_compiled_blocks_are_shared_and_whole(folders: dict[str, Path], counter: CompileCounter, name: str) -> None:
    """Six blocks share two graphs (the first block's input has other strides); attaching a method again compiles nothing."""
    eager = open_pipeline(folders[name]).generate(PROMPTS[:2], 0, [0, 1])
    pipeline = open_pipeline(folders[name], compile=True)
    with pipeline.counting():
        assert torch.equal(pipeline.generate(PROMPTS[:2], 0, [0, 1]), eager) and counter.frame_count == 0
    untrained, counts = UntrainedIlf(steps=2, feedback="all", form="ours"), []
    with pipeline.compiled():
        assert torch.equal(pipeline.generate(PROMPTS[:2], 0, [0, 1]), eager) and pipeline.arithmetic == "fp32, compiled"
        assert counter.frame_count == 2
        for _ in range(3):
            with untrained.attach(pipeline):
                pipeline.generate(PROMPTS[:2], 0, [0, 1])
            counts.append(counter.frame_count)
    assert counts == [4] * 3, "one for the last block on half of the batch, and one for the module's own block"
    assert all("forward" not in vars(block) for block in pipeline.blocks)


COMPILED = (
    "steps:3",
    "deepcache:interval=3:first=2:last=4",
    "ilf:steps=3:feedback=first-2:checkpoint={ilf}",
    "ilf-untrained:steps=3:feedback=all:form=ours",
)


@pytest.mark.parametrize("text", COMPILED)
def test_compilation_changes_no_method(folders: dict[str, Path], counter: CompileCounter, tmp_path: Path, text: str) -> None:
    pipeline = open_pipeline(folders["dit"], compile=True)
    method = build(text, save_random_module(pipeline, tmp_path / "module"))
    with method.attach(pipeline):
        eager = pipeline.generate(PROMPTS[:2], 0, [0, 1])
    with pipeline.compiled(), method.attach(pipeline):
        assert (pipeline.generate(PROMPTS[:2], 0, [0, 1]).int() - eager.int()).abs().max() <= 1
    assert counter.frame_count > 0


@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_no_graph_break_in_the_whole_transformer(folders: dict[str, Path], name: str) -> None:
    transformer, calls = open_pipeline(folders[name]), []
    forward = transformer.transformer.forward

    def keep(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return forward(*args, **kwargs)

    transformer.transformer.forward = keep
    transformer.generate(PROMPTS[:1], 0, [0])
    torch._dynamo.reset()
    with torch.inference_mode():
        told = torch._dynamo.explain(forward)(*calls[0][0], **calls[0][1])
    assert told.graph_break_count == 0 and told.graph_count == 1, told.break_reasons


@pytest.mark.slow
def test_inductor_compiles_a_run(folders: dict[str, Path], tmp_path: Path) -> None:
    """Needs a C++ compiler. The seconds of compiling are in the warm-up, and not in the rounds."""
    preset = write_preset(
        tmp_path,
        folders["dit"],
        methods=["full", "ilf-untrained:steps=2:feedback=all:guidance_distilled=all"],
        metrics=[],
        samples=4,
    )
    assert main(["run", str(preset), "--out", str(tmp_path / "runs"), "--compile", "--batches", "3"]) == 0
    (folder,) = (tmp_path / "runs").glob("random-*")
    run = read_run(folder)
    assert run.spec["compile"] and run.environment["precision"] == "fp32, compiled"
    assert max(sample.compile_s for sample in run.warmups) > 0.05
    assert max(sample.compile_s for sample in run.timings) == 0


class FakeNvml:
    """A GPU behind the true function names of pynvml: a call of one that does not exist, or with wrong arguments, fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.module = create_autospec(pynvml)
        for name in dir(pynvml):
            if isinstance(getattr(pynvml, name), int) or name == "NVMLError":
                setattr(self.module, name, getattr(pynvml, name))
        self.reasons, self.violated, self.millijoules = 0, dict.fromkeys(range(16), 0), 7_000
        module = self.module
        module.nvmlDeviceGetHandleByUUID.return_value = "gpu"
        module.nvmlSystemGetDriverVersion.return_value = "580.1"
        module.nvmlDeviceGetEnforcedPowerLimit.return_value = 700_000
        module.nvmlDeviceGetMaxClockInfo.return_value = 1980
        module.nvmlDeviceGetComputeRunningProcesses.return_value = [SimpleNamespace(pid=1), SimpleNamespace(pid=2)]
        module.nvmlDeviceGetClockInfo.return_value = 1755
        module.nvmlDeviceGetTemperature.return_value = 61
        module.nvmlDeviceGetPowerUsage.return_value = 650_500
        module.nvmlDeviceGetTotalEnergyConsumption.side_effect = lambda gpu: self.millijoules
        module.nvmlDeviceGetCurrentClocksEventReasons.side_effect = lambda gpu: self.reasons
        module.nvmlDeviceGetViolationStatus.side_effect = lambda gpu, policy: SimpleNamespace(violationTime=self.violated[policy])
        monkeypatch.setitem(sys.modules, "pynvml", module)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-cd", total_memory=1))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")


def test_the_state_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(monkeypatch)
    nvml = Nvml("cuda:0")
    fake.module.nvmlDeviceGetHandleByUUID.assert_called_once_with("GPU-ab-cd")
    facts = nvml.facts()
    assert (facts.driver, facts.power_limit_w, facts.max_clock_mhz, facts.cotenants) == ("580.1", 700.0, 1980, 2)
    fake.reasons = pynvml.nvmlClocksEventReasonGpuIdle
    assert nvml.state(nvml.counters()) == DeviceState(1755, 61, 650.5, "", 0.0)
    fake.reasons |= pynvml.nvmlClocksEventReasonSwPowerCap
    assert nvml.state(nvml.counters()).throttled == "SwPowerCap"


def test_throttling_that_has_ended_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(monkeypatch)
    monitor = Monitor("cuda")
    monitor.begin()
    fake.violated[pynvml.NVML_PERF_POLICY_THERMAL] += 1_000_000
    assert monitor.end().throttled == "THERMAL policy"
    monitor.begin()
    assert monitor.end().throttled == ""
    monitor.begin()
    fake.violated[pynvml.NVML_PERF_POLICY_POWER] += 1_000
    time.sleep(0.01)
    assert monitor.end().throttled == "", "a microsecond of ten milliseconds holds nothing down"


def test_the_energy_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(monkeypatch)
    monitor = Monitor("cuda")
    monitor.begin()
    fake.millijoules += 2_500
    assert monitor.end().energy_j == 2.5


def test_a_marked_sample(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    fake, pipeline = FakeNvml(monkeypatch), open_pipeline(folders["dit"])
    fake.reasons = pynvml.nvmlClocksEventReasonHwThermalSlowdown
    sample = time_once(pipeline, build("full", Path()), "full", PROMPTS[:2], 0, 0, Monitor("cuda"))
    assert (sample.throttled, sample.clock_mhz, sample.power_w) == ("HwThermalSlowdown", 1755, 650.5)


def test_a_reading_that_the_gpu_has_not_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(monkeypatch)
    unsupported = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    names = ("PowerUsage", "ViolationStatus", "CurrentClocksEventReasons", "TotalEnergyConsumption")
    for name in names:
        getattr(fake.module, f"nvmlDeviceGet{name}").side_effect = unsupported
    nvml = Nvml("cuda")
    assert nvml.violations() == {} and nvml.state(nvml.counters()) == DeviceState(1755, 61, None, "")


def test_without_a_driver_or_the_package_times_are_taken_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Monitor("cpu").why_not == "" and Monitor("cpu").end() == DeviceState()
    fake = FakeNvml(monkeypatch)
    fake.module.nvmlInit.side_effect = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monitor = Monitor("cuda")
    monitor.begin()
    assert monitor.end() == DeviceState() and "nvidia-smi" in monitor.why_not
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "ilf-bench[gpu]" in Monitor("cuda").why_not


def test_the_record_of_a_gpu_names_driver_and_cotenants(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(monkeypatch)
    facts = describe("cuda:0", "bf16")
    assert (facts["driver"], facts["cotenants"], facts["power_limit_w"]) == ("580.1", 2, 700.0)
    fake.module.nvmlDeviceGetComputeRunningProcesses.return_value = []
    assert describe("cuda:0", "bf16")["machine_key"] == facts["machine_key"], "who else is there does not change the machine"
    fake.module.nvmlSystemGetDriverVersion.return_value = "590"
    assert describe("cuda:0", "bf16")["machine_key"] != facts["machine_key"]
    assert "driver" not in describe("cpu", "bf16")


def test_the_doctor_says_who_disturbs(monkeypatch: pytest.MonkeyPatch) -> None:
    from ilf_bench.doctor import check_nvml

    fake = FakeNvml(monkeypatch)
    fake.reasons = pynvml.nvmlClocksEventReasonSwThermalSlowdown
    found = check_nvml("cuda:0")
    assert found.state == "missing" and "SwThermalSlowdown" in found.found and "2 other processes" in found.found
    fake.reasons, fake.module.nvmlDeviceGetComputeRunningProcesses.return_value = 0, []
    assert check_nvml("cuda:0").state == "ok" and "1755 of 1980 MHz" in check_nvml("cuda:0").found
    fake.module.nvmlInit.side_effect = pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert check_nvml("cuda:0").state == "missing"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["dit", "pixart"])
def test_events_and_the_host_clock_agree_on_a_gpu(folders: dict[str, Path], name: str) -> None:
    """The stages come from CUDA events, the end-to-end time from the host: within 2% (or a millisecond) of each other."""
    pipeline = open_pipeline(folders[name], device="cuda", steps=20)
    method, monitor = build("full", Path()), Monitor("cuda")
    for number in range(3):
        sample = time_once(pipeline, method, "full", PROMPTS, 0, number, monitor)
    parts = sample.text_s + sample.denoise_s + sample.decode_s + sample.copy_s
    assert parts == pytest.approx(sample.latency_s, rel=0.02, abs=1e-3) and sample.peak_memory_bytes > 0
    assert sample.clock_mhz is None or sample.clock_mhz > 0


@pytest.mark.gpu
def test_compiled_blocks_give_the_eager_images_on_a_gpu(folders: dict[str, Path]) -> None:
    pipeline = open_pipeline(folders["dit"], device="cuda", compile=True)
    eager = pipeline.generate(PROMPTS, 0, range(5))
    with pipeline.compiled():
        assert (pipeline.generate(PROMPTS, 0, range(5)).int() - eager.int()).abs().max() <= 2
